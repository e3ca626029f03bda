"""Facts on labels equal what one gets by counting entry by entry."""

import math
from collections import Counter

import numpy as np
import pytest

from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN
from mlcv.sheets.labels import label_facts, rows_of_rare_sets, together


@pytest.fixture(params=[1, 3, 9, 70])
def states(request, numpy_rng):
    return numpy_rng.choice(np.array([1, 0, -1, -2], np.int8), (60, request.param), p=[0.3, 0.4, 0.2, 0.1])


def names_of(states):
    return [f"c{n}" for n in range(states.shape[1])]


def test_counts_and_rates_are_those_of_each_column(states):
    facts = label_facts(states, names_of(states))
    for c, one in enumerate(facts.classes):
        column = states[:, c].tolist()
        counts = [column.count(value) for value in (POSITIVE, NEGATIVE, UNKNOWN, UNCERTAIN)]
        assert [one.positive, one.negative, one.unknown, one.uncertain] == counts
        assert one.rate == pytest.approx(counts[0] / (counts[0] + counts[1]))
        assert 0 <= one.low < one.rate < one.high <= 1
        assert one.is_judged


def test_sizes_and_combinations_are_those_of_each_row(states):
    names = names_of(states)
    facts = label_facts(states, names, most=1000)
    sets = [tuple(names[c] for c in np.flatnonzero(row == 1)) for row in states]
    assert dict(facts.combinations) == Counter(sets)
    assert [count for _, count in facts.combinations] == sorted(Counter(sets).values(), reverse=True)
    assert (facts.sets, facts.single) == (len(set(sets)), list(Counter(sets).values()).count(1))
    assert facts.sizes == [sum(len(one) == n for one in sets) for n in range(max(map(len, sets)) + 1)]
    assert facts.positives_an_image == pytest.approx(sum(map(len, sets)) / 60)


def test_no_image_and_no_known_label_are_facts_too():
    empty = label_facts(np.zeros((0, 2), np.int8), ["a", "b"])
    assert (empty.images, empty.sizes, empty.combinations, empty.unjudged) == (0, [], [], ["a", "b"])
    assert math.isnan(empty.positives_an_image)
    nobody = label_facts(np.full((4, 2), UNKNOWN, np.int8), ["a", "b"])
    assert math.isnan(nobody.classes[0].rate)
    assert math.isnan(nobody.imbalance)
    assert nobody.combinations == [((), 4)]
    assert together(np.full((4, 2), UNKNOWN, np.int8)).both.sum() == 0


def test_soft_labels_are_counted():
    soft = np.array([[np.nan, 0.3], [np.nan, 0.6]], np.float32)
    assert [one.soft for one in label_facts(np.full((2, 2), UNCERTAIN, np.int8), "ab", soft).classes] == [0, 2]


def test_imbalance_is_of_classes_that_occur():
    states = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]], np.int8)
    assert label_facts(states, "abc").imbalance == 3
    assert label_facts(states, "abc").unjudged == ["a", "c"]


def test_lift_is_counted_among_images_of_which_both_are_known(states):
    found = together(states)
    for i in range(min(states.shape[1], 6)):
        for j in range(min(states.shape[1], 6)):
            seen = [row for row in states.tolist() if row[i] >= 0 and row[j] >= 0]
            both = sum(row[i] == row[j] == 1 for row in seen)
            one, other = (sum(row[c] == 1 for row in seen) for c in (i, j))
            assert found.both[i, j] == both
            if i == j:
                assert math.isnan(found.lift[i, j])
            else:
                assert found.lift[i, j] == pytest.approx(both * len(seen) / (one * other))


def test_blocks_of_images_are_summed(states, monkeypatch):
    whole = together(states)
    monkeypatch.setattr("mlcv.sheets.labels._BLOCK", 7)
    assert (together(states).both == whole.both).all()
    np.testing.assert_allclose(together(states).expected, whole.expected)


def test_classes_that_go_together_stand_together_and_those_that_never_occur_come_last():
    a, b = np.eye(2, dtype=np.int8)[np.arange(40) % 2].T
    states = np.stack([a, np.zeros(40, np.int8), b, a, b], axis=1)
    order = together(states).order.tolist()
    assert order[-1] == 1
    assert {frozenset(order[:2]), frozenset(order[2:4])} == {frozenset({0, 3}), frozenset({2, 4})}


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_have_an_order(classes):
    assert sorted(together(np.ones((3, classes), np.int8)).order.tolist()) == list(range(classes))


def test_rare_sets_are_one_image_each_of_two_labels_at_least():
    states = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]], np.int8)
    assert rows_of_rare_sets(states, 2).tolist() == [2, 4]
    assert rows_of_rare_sets(states, 9).tolist() == [2, 4, 0]
    assert rows_of_rare_sets(states[3:4], 9).tolist() == []
