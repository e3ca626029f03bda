import numpy as np
import pytest

from mlcv.errors import ConfigError
from mlcv.labels import Protocol, fingerprint
from mlcv.labels.protocols import keep_known_fraction
from mlcv.labels.states import UNKNOWN


@pytest.fixture
def states(numpy_rng):
    return numpy_rng.choice(np.array([1, 0, -1, -2], np.int8), (4000, 6), p=[0.3, 0.6, 0.05, 0.05])


def test_the_default_changes_nothing(states):
    assert (Protocol().apply(states) == states).all()


def test_a_protocol_leaves_its_argument_alone_and_repeats_itself(states):
    before = states.copy()
    protocol = Protocol(flip_positives=0.2, known_fraction=0.5, positives_only=True, seed=3)
    first, second = protocol.apply(states), protocol.apply(states)
    assert (states == before).all()
    assert (first == second).all()
    assert (first != Protocol(0.2, 0.0, 0.5, False, True, seed=4).apply(states)).any()
    assert first.dtype == np.int8


def test_known_fraction_is_kept_on_average_and_nothing_else_changes(states):
    kept = Protocol(known_fraction=0.3).apply(states)
    changed = kept != states
    assert (kept[changed] == -1).all()
    assert abs((kept == 1).sum() / (states == 1).sum() - 0.3) < 0.04  # 5 standard deviations


def test_with_seed_0_the_mask_is_that_of_the_partial_label_literature():
    # The first draws of numpy's RandomState(0): 0.5488135, 0.71518937, 0.60276338, 0.54488318.
    row = np.ones((1, 4), np.int8)
    assert keep_known_fraction(row, 0.6, seed=0).tolist() == [[1, -1, -1, 1]]


def test_single_positive_keeps_one_positive_of_each_image_that_has_one(states):
    single = Protocol(single_positive=True).apply(states)
    has = (states == 1).any(axis=1)
    assert ((single == 1).sum(axis=1) == has).all()
    assert (states[single == 1] == 1).all()
    assert (single[single != 1] == -1).all()


def test_single_positives_are_drawn_uniformly():
    single = Protocol(single_positive=True, seed=1).apply(np.ones((6000, 3), np.int8))
    assert abs((single == 1).mean(axis=0) - 1 / 3).max() < 0.035


def test_positives_only_makes_negatives_unknown(states):
    worse = Protocol(positives_only=True).apply(states)
    assert (worse == np.where(states == 0, -1, states)).all()


def test_uniform_flips_change_both_sides_at_their_rate(states):
    flipped = Protocol(flip_positives=0.2, flip_negatives=0.1).apply(states)
    assert (flipped[states < 0] == states[states < 0]).all()
    assert abs((flipped[states == 1] == 0).mean() - 0.2) < 0.03
    assert abs((flipped[states == 0] == 1).mean() - 0.1) < 0.02


def test_class_dependent_flips_touch_their_class_only(states):
    flipped = Protocol(flip_positives=[0, 0, 1.0, 0, 0, 0]).apply(states)
    assert (flipped[:, 2] != 1).all()
    others = [0, 1, 3, 4, 5]
    assert (flipped[:, others] == states[:, others]).all()


def test_steps_compose_in_the_documented_order(states):
    every = Protocol(flip_positives=0.3, flip_negatives=0.1, known_fraction=0.5, single_positive=True, seed=9)
    one_by_one = Protocol(flip_positives=0.3, flip_negatives=0.1, seed=9).apply(states)
    one_by_one = Protocol(known_fraction=0.5, seed=9).apply(one_by_one)
    one_by_one = Protocol(single_positive=True, seed=9).apply(one_by_one)
    assert (every.apply(states) == one_by_one).all()


@pytest.mark.parametrize("options", [{"known_fraction": 0}, {"known_fraction": 1.5}, {"flip_positives": -0.1}])
def test_impossible_numbers_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Protocol(**options)


def test_a_list_of_rates_has_one_for_each_class(states):
    with pytest.raises(ConfigError, match="2 rates for 6 classes"):
        Protocol(flip_negatives=[0.1, 0.2]).apply(states)


def test_a_fingerprint_tells_matrices_and_shapes_apart(states):
    assert fingerprint(states) == fingerprint(states.copy())
    other = states.copy()
    other[0, 0] = 1 - other[0, 0]
    assert fingerprint(other) != fingerprint(states)
    assert fingerprint(states.reshape(-1, 3)) != fingerprint(states)


def test_an_empty_matrix_passes_through():
    empty = np.zeros((0, 4), np.int8)
    full = Protocol(0.1, 0.1, 0.5, True, True)
    assert full.apply(empty).shape == (0, 4)


def test_a_part_of_the_images_keeps_its_labels_whole(states):
    kept = Protocol(image_fraction=0.4, seed=2).apply(states)
    is_kept = (kept == states).all(axis=1)
    assert (kept[~is_kept] == UNKNOWN).all()
    assert is_kept.mean() == pytest.approx(0.4, abs=0.1)
    assert (Protocol(image_fraction=0.4, known_fraction=0.5).apply(states) != UNKNOWN).mean() < 0.3
    with pytest.raises(ConfigError, match="image_fraction lies in"):
        Protocol(image_fraction=0)
