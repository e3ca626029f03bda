"""Areas equal scikit-learn's with weights; intervals cover what they promise, for groups too."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcv.metrics.bootstrap import Interval, bootstrap_areas, weighted_areas


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
    assert str(areas.interval(0, [1])) == "nan (nan, nan)"
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


def test_no_samples_give_nothing():
    areas = bootstrap_areas(torch.zeros(0, 2), torch.zeros(0, 2), resamples=3)
    assert areas.value.isnan().all()
