"""Areas equal scikit-learn's with weights; intervals cover what they promise, for groups too."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcv.metrics.bootstrap import Areas, Interval, bootstrap_areas, weighted_areas


def sample(generator, count=60, classes=3, ties=True):
    scores = generator.normal(size=(count, classes))
    scores = scores.round(1) if ties else scores
    targets = (scores + generator.normal(size=scores.shape) > 0.5).astype(float)
    targets[generator.random(scores.shape) < 0.2] = -1
    return torch.from_numpy(scores), torch.from_numpy(targets)


def test_weighted_areas_are_those_of_scikit_learn(numpy_rng):
    scores, targets = sample(numpy_rng)
    weights = torch.from_numpy(numpy_rng.integers(0, 4, (5, 60))).double()
    found = weighted_areas(scores, targets, weights)
    assert found.shape == (5, 2, 3)
    for r in range(5):
        for c in range(3):
            rows = (targets[:, c] >= 0) & (weights[r] > 0)
            arguments = targets[rows, c].numpy(), scores[rows, c].numpy()
            weight = weights[r, rows].numpy()
            assert found[r, 0, c].item() == pytest.approx(roc_auc_score(*arguments, sample_weight=weight), abs=1e-9)
            expected = average_precision_score(*arguments, sample_weight=weight)
            assert found[r, 1, c].item() == pytest.approx(expected, abs=1e-9)


def test_classes_and_resamples_that_cannot_be_judged_are_nan():
    scores = torch.rand(4, 3)
    targets = torch.tensor([[1, 1, -1], [0, 1, -1], [0, 1, -1], [0, 1, -1]])
    areas = bootstrap_areas(scores, targets, resamples=50)
    assert not areas.value[:, 0].isnan().any()
    assert areas.value[:, 1:].isnan().all()
    assert 5 < areas.resampled[:, 0, 0].isnan().sum() < 35  # (3/4)^4 of the resamples lack the positive
    assert str(areas.interval(0, [1])) == "-"
    assert torch.equal(areas.resampled[:, 0, 0].isnan(), areas.resampled[:, 1, 0].isnan())


def test_intervals_cover_the_truth_on_simulated_patients():
    """Scores of two normal distributions one deviation apart have an AUROC of 0.760; a patient has three images."""
    generator = np.random.default_rng(7)
    truth, covered, widths, naive = 0.7602, 0, [], []
    for trial in range(200):
        sick = np.repeat(generator.random(80) < 0.4, 3)
        own = np.repeat(generator.normal(size=80) * np.sqrt(0.8), 3)  # what a patient's images share
        scores = sick + own + generator.normal(size=240) * np.sqrt(0.2)
        arguments = torch.from_numpy(scores)[:, None], torch.from_numpy(sick.astype(int))[:, None]
        patients = [str(n // 3) for n in range(240)]
        interval = bootstrap_areas(*arguments, patients, resamples=200, seed=trial).interval(0, [0])
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
        alone = bootstrap_areas(*arguments, None, resamples=200, seed=trial).interval(0, [0])
        naive.append(alone.high - alone.low)
    assert 0.90 <= covered / 200 <= 0.99
    assert np.mean(naive) < 0.75 * np.mean(widths)  # images of one patient are no independent witnesses


def test_the_mean_over_classes_is_resampled_together(numpy_rng):
    scores, targets = sample(numpy_rng, ties=False)
    areas = bootstrap_areas(scores, targets, resamples=300, seed=1)
    both = areas.interval(1, [0, 2])
    assert both.value == pytest.approx(float(areas.value[1, [0, 2]].mean()))
    assert both.low < both.value < both.high
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 (0.250, 0.750)"


def test_an_interval_is_the_percentiles_moved_by_the_resamples_bias_over_the_classes_that_they_have():
    """Of four resamples one lacks the second class; their means are 0.6, 0.8, 0.9 and 0.5, 0.2 more than the value."""
    resampled = torch.tensor([[0.6, 0.6], [0.7, 0.9], [0.9, torch.nan], [0.4, 0.6]]).double()
    areas = Areas(torch.tensor([[0.4, 0.6], [0.4, 0.6]]).double(), resampled[:, None].expand(4, 2, 2))
    low, high = np.percentile([0.6, 0.8, 0.9, 0.5], (2.5, 97.5)) - 0.2
    found = areas.interval(1, [0, 1])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, high))  # 0.5 is the lowest there is
    assert low < 0.5


def test_one_group_and_no_resample_give_a_point_without_an_interval():
    scores, targets = torch.tensor([[0.1], [0.8], [0.7]]), torch.tensor([[0], [1], [0]])
    for areas in (bootstrap_areas(scores, targets, ["a"] * 3), bootstrap_areas(scores, targets, resamples=0)):
        assert str(areas.interval(1, [0])) == "1.000"


def population_average_precision(rate, distance):
    """Of scores of two normal distributions: the mean precision at the scores of positives, without end."""
    threshold = np.linspace(-8, 8 + distance, 20001)
    found, wrong = rate * norm.sf(threshold - distance), (1 - rate) * norm.sf(threshold)
    return np.trapezoid(found / (found + wrong) * norm.pdf(threshold - distance), threshold)


@pytest.mark.parametrize("trials", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_the_interval_of_the_mean_average_precision_covers_what_samples_of_its_size_give(trials):
    """20 classes of 3 to 30 positives in 1000 images, whose average precision is 0.04 higher than without end."""
    generator = np.random.default_rng(3)
    rates, distances = np.geomspace(0.003, 0.03, 20), generator.uniform(0.8, 2.5, 20)

    def draw():
        targets = generator.random((1000, 20)) < rates
        scores = generator.normal(size=(1000, 20)) + targets * distances
        return torch.from_numpy(scores), torch.from_numpy(targets.astype(int))

    expected = np.nanmean([bootstrap_areas(*draw(), resamples=0).value[1].numpy() for _ in range(400)], axis=0)
    without_end = [population_average_precision(*both) for both in zip(rates, distances, strict=True)]
    assert 0.03 < expected.mean() - np.mean(without_end) < 0.06
    covered, unmoved, sides = 0, 0, []
    for trial in range(trials):
        areas = bootstrap_areas(*draw(), resamples=200, seed=trial)
        judged = (~areas.value[1].isnan()).nonzero().flatten().tolist()
        truth, found = expected[judged].mean(), areas.interval(1, judged)
        assert found.low <= found.value <= found.high
        covered += found.low <= truth <= found.high
        sides.append((truth < found.low, truth > found.high))
        percentiles = np.nanpercentile(areas.resampled[:, 1, judged].nanmean(dim=1), (2.5, 97.5))
        unmoved += percentiles[0] <= truth <= percentiles[1]
    assert covered >= (0.8 if trials < 100 else 0.9) * trials
    if trials > 100:
        below, above = np.mean(sides, axis=0)
        assert max(below, above) < 0.07  # on both sides alike
        assert covered > unmoved + 0.02 * trials


def test_no_samples_give_nothing():
    areas = bootstrap_areas(torch.zeros(0, 2), torch.zeros(0, 2), resamples=3)
    assert areas.value.isnan().all()
