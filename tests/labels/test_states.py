import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError, DataError
from mlcv.labels import check_states, count_states, evaluable, known, mix_targets, resolve_unknown

T = torch.tensor([[1.0, -1.0, 0.0, 0.3], [-1.0, -1.0, 1.0, 0.0]])


def test_known_is_what_is_not_negative():
    assert known(T).tolist() == [[True, False, True, True], [False, False, True, True]]


def test_a_class_is_evaluable_with_a_known_positive_and_a_known_negative():
    targets = torch.tensor([[1, 1, 0, -1], [0, -1, 0, -1]])
    assert evaluable(targets).tolist() == [True, False, False, False]
    assert evaluable(targets[:0]).tolist() == [False] * 4


def test_a_mix_is_known_where_both_are():
    mixed = mix_targets(T, T.flip(0), 0.25)
    expected = [[-1, -1, 0.75, 0.25 * 0.3], [-1, -1, 0.25, 0.75 * 0.3]]
    torch.testing.assert_close(mixed, torch.tensor(expected))


@pytest.mark.parametrize(
    ("unknown", "value", "weight"),
    [("ignore", 0, 0), ("negative", 0, 1), ("weak_negative", 0, 1 / 3), ("smoothed", 0.2, 1)],
)
def test_unknown_entries_are_resolved_as_asked(unknown, value, weight):
    filled, weights = resolve_unknown(T, unknown, 0.2)
    expected = T.clone()
    expected[T == -1] = value
    torch.testing.assert_close(filled, expected)
    torch.testing.assert_close(weights, torch.where(T == -1, torch.tensor(float(weight)), torch.tensor(1.0)))


def test_another_word_for_unknown_is_refused_with_the_right_ones():
    with pytest.raises(ConfigError, match="ignore, negative, weak_negative, smoothed"):
        resolve_unknown(T, "drop")


def test_a_label_outside_the_codes_is_named_with_row_and_class():
    states = np.zeros((3, 2), np.int8)
    states[2, 1] = 7
    with pytest.raises(DataError, match=r"my file: sample 2, class 'dog' holds 7"):
        check_states(states, ("cat", "dog"), "my file")
    with pytest.raises(DataError, match=r"expected \(M, 3\)"):
        check_states(states, ("a", "b", "c"), "my file")
    with pytest.raises(DataError, match="int8"):
        check_states(states.astype(float), ("cat", "dog"), "my file")


def test_counts_cover_every_entry(numpy_rng):
    states = numpy_rng.integers(-2, 2, (50, 7)).astype(np.int8)
    counts = count_states(states)
    assert sum(counts.values()) == states.size
    assert counts["uncertain"] == (states == -2).sum()
