import math

import numpy as np
import pytest

from mlcv.audits import balanced, what_next
from mlcv.errors import ConfigError


def entropy(counts):
    total = sum(counts)
    return -sum(n / total * math.log(n / total) for n in counts if n > 0)


def slow(labels, n):
    """Each step tries every image that has labels, and counts all labels anew."""
    chosen = []
    candidates = [i for i in range(len(labels)) if labels[i].any()]
    while candidates and len(chosen) < n:
        scores = [round(entropy(labels[[*chosen, i]].sum(0).tolist()), 9) for i in candidates]
        chosen.append(candidates.pop(int(np.argmax(scores))))
    return chosen


def bits(p):
    return 0.0 if p in (0, 1) else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def amount(counts):
    return sum(counts) * (1 + entropy(counts))


def test_has_the_check_values():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 1]])
    rows, spread = balanced(labels, 6)
    assert rows.tolist() == [4, 2, 0, 1, 3, 5]
    assert spread == pytest.approx([1.09861, 1.05492, 1.09861, 1.07899, 1.0822, 1.09861], abs=1e-5)


def test_equals_the_slow_form(numpy_rng):
    labels = (numpy_rng.random((80, 7)) < 0.25).astype(int)
    rows, spread = balanced(labels, 60)
    expected = slow(labels, 60)
    assert rows[: len(expected)].tolist() == expected
    for step in (1, 20, len(expected)):
        assert spread[step - 1] == pytest.approx(entropy(labels[expected[:step]].sum(0).tolist()))


def test_images_without_labels_come_last_as_they_stand():
    labels = np.array([[0, 0], [1, 0], [0, 0], [0, 1]])
    rows, spread = balanced(labels, 10)
    assert rows.tolist() == [1, 3, 0, 2]
    assert spread == pytest.approx([0, *[math.log(2)] * 3])
    assert balanced(np.zeros((3, 2)), 2)[0].tolist() == [0, 1]
    assert balanced(np.zeros((0, 2)), 2)[0].tolist() == []


def test_labels_are_spread_better_than_by_chance(numpy_rng):
    labels = (numpy_rng.random((2000, 10)) < np.geomspace(0.3, 0.01, 10)).astype(int)
    _, spread = balanced(labels, 100)
    chance = entropy(labels[numpy_rng.permutation(2000)[:100]].sum(0).tolist())
    assert spread[-1] > chance + 0.1
    assert spread[-1] > 0.95 * math.log(10)


def images_slowly(present, states, n):
    counts = [(states[:, c] == 1).sum() + 1.0 for c in range(states.shape[1])]
    worth = [
        [bits(p) if s < 0 else 0.0 for p, s in zip(*row, strict=True)] for row in zip(present, states, strict=True)
    ]
    left, chosen = [i for i, row in enumerate(worth) if any(row)], []
    while left and len(chosen) < n:
        gains = [round(amount([a + b for a, b in zip(counts, worth[i], strict=True)]), 9) for i in left]
        best = left.pop(int(np.argmax(gains)))
        counts = [a + b for a, b in zip(counts, worth[best], strict=True)]
        chosen.append(best)
    return chosen


def entries_slowly(present, states, n):
    counts = [(states[:, c] == 1).sum() + 1.0 for c in range(states.shape[1])]
    left = [
        (i, c) for c in range(states.shape[1]) for i in range(len(states)) if states[i, c] < 0 and 0 < present[i, c] < 1
    ]
    chosen = []
    while left and len(chosen) < n:
        gains = []
        for i, c in left:
            after = [*counts]
            after[c] += bits(present[i, c])
            gains.append(amount(after))
        best = left.pop(int(np.argmax(gains)))
        counts[best[1]] += bits(present[best])
        chosen.append(best)
    return chosen


@pytest.fixture
def case(numpy_rng):
    return numpy_rng.random((60, 5)) ** 2, numpy_rng.choice([1, 0, -1, -2], (60, 5), p=[0.1, 0.4, 0.4, 0.1]).astype(
        np.int8
    )


def test_by_images_equals_the_slow_form_and_asks_for_all_that_is_not_known(case):
    present, states = case
    rows, columns = what_next(present, states, 20)
    assert list(dict.fromkeys(rows.tolist())) == images_slowly(present, states, 20)
    for row in set(rows.tolist()):
        asked = columns[rows == row]
        assert sorted(asked) == np.flatnonzero(states[row] < 0).tolist()
        worth = [bits(p) for p in present[row, asked]]
        assert worth == sorted(worth, reverse=True)


def test_by_entries_equals_the_slow_form(case):
    present, states = case
    rows, columns = what_next(present, states, 40, "entries")
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == entries_slowly(present, states, 40)


def test_doubt_and_rare_classes_both_count():
    states = np.array([[1, 0]] * 50 + [[-1, -1]] * 3, np.int8)
    present = np.full((53, 2), 0.5)
    present[50], present[51], present[52] = [0.5, 0.01], [0.01, 0.5], [0.01, 0.01]
    rows, _ = what_next(present, states, 3)
    assert list(dict.fromkeys(rows.tolist())) == [51, 50, 52]  # doubtful of a rare class, of a common one, of nothing


def test_what_is_known_or_certain_is_never_asked():
    states = np.array([[1, 0], [-1, 0], [-1, -2]], np.int8)
    present = np.array([[0.5, 0.5], [1.0, 0.5], [0.0, 0.3]])
    rows, columns = what_next(present, states, 10)
    assert list(zip(rows, columns, strict=True)) == [(2, 1), (2, 0)]
    rows, columns = what_next(present, states, 10, "entries")
    assert list(zip(rows, columns, strict=True)) == [(2, 1)]
    nothing = what_next(present[:1], states[:1], 5)
    assert [some.tolist() for some in nothing] == [[], []]
    assert [some.tolist() for some in what_next(present[:1], states[:1], 5, "entries")] == [[], []]
    with pytest.raises(ConfigError, match="images, entries"):
        what_next(present, states, 1, "pages")


def test_one_class_is_asked_by_doubt():
    present = np.array([[0.1], [0.5], [0.8], [0.3]])
    states = np.full((4, 1), -1, np.int8)
    for unit in ("images", "entries"):
        assert what_next(present, states, 4, unit)[0].tolist() == [1, 3, 2, 0]
