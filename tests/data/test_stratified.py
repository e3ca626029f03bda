import itertools

import numpy as np
import pytest

from mlcv.data.splits import deal
from mlcv.data.stratified import stratified_parts

FRACTIONS = (0.7, 0.1, 0.2)


def made(seed, images=900, labels=8):
    """Images of groups of 1 to 12, and labels from frequent to a handful, that are alike within a group."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), rng.integers(1, 13, images))[:images]
    mean = np.geomspace(0.4, 0.01, labels)
    likely = rng.beta(mean * 2, (1 - mean) * 2, (groups.max() + 1, labels))[groups]
    return rng.permutation(groups), rng.random((images, labels)) < likely


def gap(parts, marks, count=3):
    rates = np.stack([marks[parts == part].mean(axis=0) for part in range(count)])
    return float((rates.max(axis=0) - rates.min(axis=0))[marks.sum(axis=0) >= 50].max())


def test_groups_stay_whole_and_parts_have_their_sizes(seed):
    groups, marks = made(seed)
    parts = stratified_parts(groups, marks, FRACTIONS, seed)
    assert all(len(set(parts[groups == group])) == 1 for group in range(groups.max() + 1))
    assert np.bincount(parts, minlength=3) / len(parts) == pytest.approx(FRACTIONS, abs=0.01)
    assert (parts == stratified_parts(groups, marks, FRACTIONS, seed)).all()
    assert (parts != stratified_parts(groups, marks, FRACTIONS, seed + 1)).any()


def test_labels_are_as_frequent_in_all_parts_and_missing_in_none(seed):
    ours, plain = [], []
    for turn in range(5):
        groups, marks = made(seed + turn)
        parts = stratified_parts(groups, marks, FRACTIONS, turn)
        ours.append(gap(parts, marks))
        plain.append(gap(deal(groups, FRACTIONS, turn), marks))
        for label in marks.T:
            if len(set(groups[label])) >= 3:
                assert set(parts[label]) == {0, 1, 2}
    assert np.mean(ours) < 0.15 * np.mean(plain)


def test_few_groups_are_dealt_about_as_well_as_can_be(seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(8), rng.integers(1, 6, 8)))
    marks = rng.random((len(groups), 3)) < 0.5

    def cost(of_groups):
        parts = np.asarray(of_groups)[groups]
        total = 0.0
        for part in (0, 1):
            for label in [*marks.T, np.ones(len(groups), bool)]:
                target = 0.5 * label.sum()
                total += (label[parts == part].sum() - target) ** 2 / max(target, 1)
        return total

    best = min(cost(of_groups) for of_groups in itertools.product((0, 1), repeat=8))
    found = stratified_parts(groups, marks, (0.5, 0.5), seed)
    assert cost([found[groups == group][0] for group in range(8)]) <= best + 1.0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_images_are_dealt_too(count):
    parts = stratified_parts(np.arange(count), np.ones((count, 2), bool), (0.5, 0.5), 0)
    assert len(set(parts)) == len(parts) == count


def test_labels_that_nobody_has_and_one_group_of_all():
    marks = np.zeros((6, 3), bool)
    assert set(stratified_parts(np.zeros(6, int), marks, FRACTIONS, 0)) == {0}
    assert sorted(np.bincount(stratified_parts(np.arange(6), marks, (0.5, 0.5), 0))) == [3, 3]
