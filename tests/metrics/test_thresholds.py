import pytest
import torch

from mlcv.metrics import choose_thresholds, f1_curves, multilabel_scores, tuned_f1
from mlcv.metrics.thresholds import THRESHOLDS


@pytest.mark.parametrize(("images", "classes"), [(40, 5), (7, 1)])
def test_curves_are_the_scores_at_each_threshold(images, classes, rng):
    probs = torch.rand(images, classes, generator=rng).mul(100).round() / 100  # many lie on a threshold
    targets = torch.randint(-1, 2, (images, classes), generator=rng)
    targets[:2] = torch.tensor([[1], [0]])
    curves = f1_curves(probs, targets)
    for place in range(0, 99, 7):
        scores = multilabel_scores(probs, targets, threshold=float(THRESHOLDS[place])).summary
        for name in ("CF1", "OF1"):
            assert curves[name][place].item() == pytest.approx(scores[name], abs=1e-6)


def test_chooses_the_best_and_of_several_the_one_nearest_to_one_half():
    probs = torch.tensor([[0.1], [0.22], [0.9]])
    assert choose_thresholds(probs, torch.tensor([[0], [0], [1]])) == {"CF1": 0.5, "OF1": 0.5}
    assert choose_thresholds(probs, torch.tensor([[0], [1], [1]])) == {"CF1": 0.21, "OF1": 0.21}


def test_tuned_scores_use_thresholds_of_other_data(rng):
    probs, targets = torch.rand(50, 4, generator=rng), torch.randint(0, 2, (50, 4), generator=rng)
    tuned = tuned_f1(probs, targets, {"CF1": 0.3, "OF1": 0.62})
    assert tuned["CF1_tuned"] == pytest.approx(multilabel_scores(probs, targets, threshold=0.3).summary["CF1"])
    assert tuned["OF1_tuned"] == pytest.approx(multilabel_scores(probs, targets, threshold=0.62).summary["OF1"])


def test_unlabeled_data_choose_nothing_for_classes():
    assert "CF1" not in choose_thresholds(torch.rand(3, 2), torch.full((3, 2), -1))
    assert tuned_f1(torch.rand(3, 2), torch.ones(3, 2), {}) == {}
