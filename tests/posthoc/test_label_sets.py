"""Conformal sets of few images and just at the bound: their search by brute force, and what ties decide."""

import itertools
import math

import pytest
import torch

from mlcv.posthoc.conformal import Powerset, _subsets, control_missed
from tests.posthoc.test_conformal import simulated


def test_sets_that_cost_no_more_than_can_be_spent_are_found_once_ties_and_all(numpy_rng):
    for spare in (-1, 0, *range(1, 9)):
        costs = sorted(numpy_rng.integers(0 if spare == 3 else 1, 4, 6).tolist())
        found = list(map(tuple, _subsets(costs, spare)))
        subsets = [s for size in range(7) for s in itertools.combinations(range(6), size)]
        assert sorted(found) == sorted(s for s in subsets if sum(costs[i] for i in s) <= spare)
        assert len(found) == len(set(found))


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_an_image_that_is_as_strange_as_the_bound_is_held(numpy_rng, power):
    probs, targets = simulated(numpy_rng, 40, 4)
    for epsilon in (0.05, 0.3):
        conformal = Powerset.calibrate(probs, targets, epsilon, power)
        assert (conformal.power, conformal.epsilon) == (power, epsilon)
        strange = sorted(((targets - probs).abs() ** power).sum(dim=1).tolist(), reverse=True)
        assert conformal.bound == pytest.approx(strange[math.floor(epsilon * 41) - 1])
        held = conformal.holds(probs, targets)
        assert held.sum() == 40 - math.floor(epsilon * 41) + 1  # no two are alike
        for row, found in enumerate(conformal.sets(probs)):
            assert (found.long() == targets[row]).all(dim=1).any() == held[row]
            assert found.dtype == torch.bool


def test_no_more_label_sets_are_made_than_asked_for(numpy_rng):
    probs, targets = simulated(numpy_rng, 60, 5)
    conformal = Powerset.calibrate(probs[:40], targets[:40], 0.1)
    every = conformal.sets(probs[40:])
    assert max(map(len, every)) > 3
    for limit in (1, 2, 3, 100):
        for found, all_of_them in zip(conformal.sets(probs[40:], limit), every, strict=True):
            assert torch.equal(found, all_of_them[:limit])
    flips = [(row[0] != found).sum() for row, found in zip(every, (probs[40:] > 0.5), strict=True) if len(row)]
    assert sum(flips) == 0  # the least strange set is the first


def test_an_image_with_an_empty_prediction_has_all_classes_and_none():
    strict = Powerset(0.1, 1.0, 0.1)
    every, some = strict.certain(torch.tensor([[0.5, 0.5], [0.99, 0.01]]))
    assert every.tolist() == [[True, True], [True, False]]
    assert some.tolist() == [[False, False], [True, False]]
    found = strict.sets(torch.tensor([[0.5, 0.5], [0.99, 0.01]]))
    assert [one.tolist() for one in found] == [[], [[True, False]]]


def test_a_flip_that_costs_just_what_is_left_is_made():
    """Numbers that floats hold exactly: the likeliest set costs 1/4, and the other one 3/4."""
    probs = torch.tensor([[0.75, 1.0]])
    for bound, every, some in ((0.25, [True, True], [True, True]), (0.75, [False, True], [True, True])):
        found = Powerset(bound, 1.0, 0.1)
        assert [part.tolist() for part in found.certain(probs)] == [[every], [some]]
        assert len(found.sets(probs)[0]) == (1 if bound == 0.25 else 2)


def test_an_open_label_at_one_half_is_no_yes():
    """Either way is as strange, and the set that is told has the class neither way surely."""
    sets = Powerset(0.6, 1.0, 0.1)
    every, some = sets.certain(torch.tensor([[0.5, 0.95]]))
    assert (every.tolist(), some.tolist()) == ([[False, True]], [[True, True]])
    assert sets.sets(torch.tensor([[0.5, 0.95]]), 1)[0].tolist() == [[False, True]]


def test_of_few_images_the_lowest_scores_decide(numpy_rng):
    for count in range(1, 30):
        for risk in (0.05, 0.2, 0.5, 0.7):
            probs, targets = simulated(numpy_rng, count, 3, prior=0.5)
            entries = []
            for p, t in zip(probs.tolist(), targets.tolist(), strict=True):
                entries += [(score, 1 / sum(t)) for score, label in zip(p, t, strict=True) if label]
            expected = 0.0 if entries or risk * (count + 1) < 1 else 1.0
            for score, _ in sorted(entries):
                missed = sum(share for other, share in entries if other < score)
                if missed <= risk * (count + 1) - 1 + 1e-9:
                    expected = score
            assert control_missed(probs, targets, risk).threshold == pytest.approx(expected)


def test_what_just_uses_up_the_risk_is_allowed():
    """One image at a half: (0 + 1) / 2. Nine images of a label each at three tenths: (2 + 1) / 10."""
    assert control_missed(torch.tensor([[0.25, 0.75]]), torch.tensor([[1, 1]]), 0.5).threshold == 0.25
    scores = torch.linspace(0.1, 0.9, 9).double()[:, None]
    assert control_missed(scores, torch.ones(9, 1).long(), 0.3).threshold == scores[2]


def test_where_nothing_is_there_nothing_is_missed_by_sets_of_nothing(numpy_rng):
    probs, targets = simulated(numpy_rng, 40, 3)
    assert control_missed(probs, torch.zeros_like(targets), 0.1).threshold == 1
