"""One threshold for all classes, chosen on validation data, for CF1 and for OF1."""

import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE, known
from mlcv.metrics.scores import precision_recall

THRESHOLDS = torch.arange(1, 100, dtype=torch.float64) / 100
"""What is tried."""


def f1_curves(probs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """CF1 and OF1, as `multilabel_scores` defines them, at each of `THRESHOLDS`; unknown entries take no part.

    Shape:
        probs (M, C) in [0, 1], targets (M, C) in {0, 1, -1}; two tensors (99,), NaN where nothing is known.
    """
    probs, targets = probs.detach().cpu().double(), targets.detach().cpu()
    levels = torch.searchsorted(THRESHOLDS, probs.contiguous())  # thresholds that it exceeds
    positive = targets == POSITIVE
    tp, fp = _exceeding(levels, positive), _exceeding(levels, known(targets) & ~positive)  # (99, C)
    positives, negatives = (side.sum(dim=0) for side in (positive, known(targets) & ~positive))
    scores = precision_recall((tp, fp, positives - tp, negatives - fp))
    return {name: scores[name] for name in ("CF1", "OF1")}


def choose_thresholds(probs: Tensor, targets: Tensor) -> dict[str, float]:
    """The threshold with the highest CF1 and that with the highest OF1; of several, the one nearest to 0.5.

    Shape:
        as for `f1_curves`.
    """
    chosen = {}
    for name, curve in f1_curves(probs, targets).items():
        best = THRESHOLDS[curve == curve.nan_to_num(0).max()]
        if len(best):  # a split that nothing can be judged by chooses nothing
            chosen[name] = round(float(best[(best - 0.5).abs().argmin()]), 2)
    return chosen


def tuned_f1(probs: Tensor, targets: Tensor, thresholds: dict[str, float]) -> dict[str, float]:
    """`CF1_tuned` and `OF1_tuned`: each score at the threshold that was chosen for it on other data.

    Args:
        probs: as for `f1_curves`.
        targets: likewise.
        thresholds: of `choose_thresholds`.
    """
    curves = f1_curves(probs, targets)
    places = {name: int((THRESHOLDS - value).abs().argmin()) for name, value in thresholds.items()}
    return {f"{name}_tuned": float(curves[name][place]) for name, place in places.items()}


def _exceeding(levels: Tensor, entries: Tensor) -> Tensor:
    """How many of a class's marked entries exceed each threshold: (99, C)."""
    counts = torch.zeros(len(THRESHOLDS) + 1, levels.shape[1], dtype=torch.long, device=levels.device)
    counts.scatter_add_(0, levels, entries.long())
    return counts.flip(0).cumsum(0).flip(0)[1:]
