"""Scalings that undo what was done to probabilities, calibration error as its definition, thresholds as asked."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from mlcv.errors import ConfigError
from mlcv.posthoc.calibration import calibration_error, fit_scaling
from mlcv.posthoc.thresholds import choose_class_thresholds, top_k


@pytest.fixture
def data(numpy_rng):
    """Right probabilities of 3 classes, labels drawn from them, and a sixth of the entries unknown."""
    right = torch.from_numpy(numpy_rng.beta(0.7, 1.2, (20_000, 3)))
    targets = (torch.from_numpy(numpy_rng.random((20_000, 3))) < right).long()
    targets[torch.from_numpy(numpy_rng.random((20_000, 3))) < 1 / 6] = -1
    return right, targets


def test_a_temperature_is_undone(data):
    right, targets = data
    wrong = (right.logit() * torch.tensor([3.0, 1.0, 0.4])).sigmoid()
    scaling = fit_scaling(wrong, targets, "temperature")
    torch.testing.assert_close(scaling.slope, torch.tensor([1 / 3, 1, 2.5]).double(), rtol=0.12, atol=0)
    assert (scaling.offset == 0).all()
    before, after = calibration_error(wrong, targets), calibration_error(scaling(wrong), targets)
    assert (after < 0.03).all()
    assert before[0] > 0.08


def test_slope_and_offset_are_undone_and_the_order_kept(data):
    right, targets = data
    wrong = ((right.logit() - 1) * 2).sigmoid()
    scaling = fit_scaling(wrong, targets, "platt")
    torch.testing.assert_close(scaling.slope, torch.full((3,), 0.5).double(), rtol=0.12, atol=0)
    torch.testing.assert_close(scaling.offset, torch.ones(3).double(), rtol=0.15, atol=0)
    in_order = scaling(wrong).gather(0, wrong.argsort(dim=0))
    assert (in_order.diff(dim=0) >= 0).all()


def test_classes_that_cannot_be_judged_and_no_method_change_nothing(data):
    right, targets = data
    targets[:, 0] = 0
    for method in ("none", "temperature", "platt"):
        torch.testing.assert_close(fit_scaling(right, targets, method)(right)[:, 0], right[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fit_scaling(right, targets, "none")(right), right, rtol=1e-6, atol=1e-6)


def test_separable_classes_and_certain_probabilities_stay_finite():
    probs = torch.tensor([[0.0], [0.1], [0.9], [1.0]])
    targets = torch.tensor([[0], [0], [1], [1]])
    for method in ("temperature", "platt"):
        calibrated = fit_scaling(probs, targets, method)(probs)
        assert calibrated.isfinite().all()
        assert (calibrated[:2] < 0.5).all()
        assert (calibrated[2:] > 0.5).all()


def test_calibration_error_is_its_definition(data):
    right, targets = data
    errors = calibration_error(right**2, targets, bins=7)
    for c in range(3):
        rows = targets[:, c] >= 0
        pairs = sorted(zip((right[rows, c] ** 2).tolist(), targets[rows, c].tolist(), strict=True))
        total = 0.0
        for part in np.array_split(np.array(pairs), 7):
            total += len(part) / len(pairs) * abs(part[:, 0].mean() - part[:, 1].mean())
        assert errors[c].item() == pytest.approx(total, abs=1e-9)
    assert calibration_error(right, torch.full_like(targets, -1)).isnan().all()


def test_thresholds_reach_what_they_are_chosen_for(data):
    probs, targets = data
    probs = (probs * 50).round() / 50  # ties
    for goal, level in (("f1", 0.9), ("precision", 0.8), ("recall", 0.9)):
        thresholds = choose_class_thresholds(probs, targets, goal, level)
        for c in range(3):
            rows = targets[:, c] >= 0
            truth, scores = targets[rows, c].numpy(), probs[rows, c].numpy()

            def at(t, metric, truth=truth, scores=scores):
                return metric(truth, scores >= t, zero_division=0)

            candidates = np.unique(scores)
            if goal == "f1":
                best = max(at(t, f1_score) for t in candidates)
                assert at(thresholds[c].item(), f1_score) == pytest.approx(best)
            elif goal == "precision":
                assert thresholds[c].item() == min(t for t in candidates if at(t, precision_score) >= level)
            else:
                assert thresholds[c].item() == max(t for t in candidates if at(t, recall_score) >= level)


def test_a_precision_out_of_reach_predicts_nothing_and_unjudged_classes_get_a_half():
    probs = torch.tensor([[0.9, 0.4], [0.8, 0.6]])
    targets = torch.tensor([[0, 1], [1, 1]])
    thresholds = choose_class_thresholds(probs, targets, "precision", 0.9)
    assert thresholds[0] > 1
    assert thresholds[1] == 0.5
    with pytest.raises(ConfigError, match=r"the level of recall lies in \(0, 1\]"):
        choose_class_thresholds(probs, targets, "recall", 0)


def test_the_likeliest_classes_are_chosen():
    probs = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    assert top_k(probs, 2).tolist() == [[False, True, True], [True, True, False]]
    assert top_k(probs, 9).all()
