"""A class's examples: the middles of its clusters, the absent ones nearest to them, the labels most in doubt."""

import numpy as np
import pytest

from mlcv.audits import instructions
from mlcv.audits.instructions import examples_of_class


def planted(numpy_rng, sizes=(30, 20, 10), absent=40, dim=12):
    """Clusters of present ones along the first axes, and absent ones along the last."""
    rows, states = [], []
    for axis, size in enumerate(sizes):
        cluster = numpy_rng.normal(0, 0.05, (size, dim))
        cluster[:, axis] += 1
        rows.append(cluster)
        states += [1] * size
    others = numpy_rng.normal(0, 0.05, (absent, dim))
    others[:, -1] += 1
    rows.append(others)
    return np.concatenate(rows), np.array(states + [0] * absent, np.int8)


def test_typical_are_the_middles_of_clusters_the_largest_first(numpy_rng):
    features, states = planted(numpy_rng)
    scale = numpy_rng.uniform(0.1, 10, (len(features), 1))  # only directions count
    shown = examples_of_class(features * scale, states, np.zeros(len(states)), count=3)
    assert [0 if row < 30 else 1 if row < 50 else 2 for row in shown.typical] == [0, 1, 2]
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    for row, members in zip(shown.typical, (range(30), range(30, 50), range(50, 60)), strict=True):
        middle = units[list(members)].mean(axis=0)
        assert row == min(members, key=lambda one: np.linalg.norm(units[one] - middle))


def test_confusing_are_the_absent_nearest_to_a_typical_one(numpy_rng):
    features, states = planted(numpy_rng)
    near = [65, 72, 80]
    for step, row in enumerate(near):
        features[row] = 0
        features[row, step], features[row, -1] = 1, 0.1 * (step + 1)
    shown = examples_of_class(features, states, np.zeros(len(states)), count=3)
    assert shown.confusing.tolist() == near
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    shown = examples_of_class(features, states, np.zeros(len(states)), count=7)
    cosines = (units @ units[shown.typical].T).max(axis=1)
    expected = sorted(np.flatnonzero(states == 0), key=lambda row: -cosines[row])[:7]
    assert shown.confusing.tolist() == expected


def test_labels_that_are_likely_wrong_are_doubtful_and_no_other_example(numpy_rng):
    features, states = planted(numpy_rng)
    wrong = np.full(len(states), 0.01)
    wrong[[0, 30, 61]] = 0.9, 0.6, 0.8
    features[61] = features[0]
    states[7], wrong[7] = -1, np.nan
    states[8], wrong[8] = -2, 0.99
    shown = examples_of_class(features, states, wrong, count=3)
    assert shown.doubtful.tolist() == [0, 61, 30]
    assert not {0, 30, 7, 8} & set(shown.typical)
    assert 61 not in shown.confusing
    assert {*states[shown.typical]} == {1}
    assert {*states[shown.confusing]} == {0}


def test_what_is_not_suspected_is_not_doubtful(numpy_rng):
    features, states = planted(numpy_rng)
    assert not len(examples_of_class(features, states, np.full(len(states), np.nan)).doubtful)


@pytest.mark.parametrize("states", [[-1, -1, -2], [0, 0, 0], [1, 1, 1], [1, 0, -1], []], ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e30])
def test_few_images_of_any_states_and_sizes_are_no_error(states, value):
    states = np.array(states, np.int8)
    shown = examples_of_class(np.full((len(states), 3), value), states, np.full(len(states), 0.1), count=4)
    assert shown.typical.tolist() == np.flatnonzero(states == 1).tolist()
    assert shown.confusing.tolist() == np.flatnonzero(states == 0).tolist()
    assert shown.doubtful.tolist() == np.flatnonzero(states >= 0).tolist()


def test_of_very_many_images_a_part_is_clustered_and_a_seed_decides(numpy_rng, monkeypatch):
    monkeypatch.setattr(instructions, "MOST", 6)
    features = numpy_rng.normal(size=(300, 8))
    states, wrong = np.ones(len(features), np.int8), np.zeros(len(features))
    drawn = np.random.default_rng(0).choice(300, 6, replace=False)
    assert set(examples_of_class(features, states, wrong).typical) <= set(drawn)
    shown = [examples_of_class(features, states, wrong, seed=seed).typical.tolist() for seed in (0, 0, 1)]
    assert shown[0] == shown[1] != shown[2]
    assert len(set(shown[0])) == 4
