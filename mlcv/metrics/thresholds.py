"""One threshold for all classes, chosen on validation data, for CF1 and for OF1."""

import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE, evaluable, known

THRESHOLDS = torch.arange(1, 100) / 100
"""What is tried."""


def f1_curves(probs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """CF1 and OF1, as `multilabel_scores` defines them, at each of `THRESHOLDS`; unknown entries take no part.

    Shape:
        probs (M, C) in [0, 1], targets (M, C) in {0, 1, -1}; returns two tensors (99,).
    """
    levels = torch.searchsorted(THRESHOLDS.to(probs.device), probs.float().contiguous())  # thresholds that it exceeds
    positive = targets == POSITIVE
    tp, chosen = _exceeding(levels, positive), _exceeding(levels, known(targets))  # (99, C)
    occurs, judged = positive.sum(dim=0), evaluable(targets)
    precision, recall = _ratio(tp, chosen), _ratio(tp, occurs.expand_as(tp))
    cf1 = _harmonic(precision[:, judged].mean(dim=1), recall[:, judged].mean(dim=1))
    overall = tp.sum(dim=1)
    of1 = _harmonic(_ratio(overall, chosen.sum(dim=1)), _ratio(overall, occurs.sum().expand_as(overall)))
    return {"CF1": cf1, "OF1": of1}


def choose_thresholds(probs: Tensor, targets: Tensor) -> dict[str, float]:
    """The threshold with the highest CF1 and that with the highest OF1; of several, the one nearest to 0.5.

    Shape:
        as for `f1_curves`.
    """
    chosen = {}
    for name, curve in f1_curves(probs, targets).items():
        best = THRESHOLDS[(curve == curve.nan_to_num(0).max()).cpu()]
        if len(best):  # a split in which no class can be judged chooses nothing
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
    counts = torch.zeros(len(THRESHOLDS) + 1, levels.shape[1], device=levels.device)
    counts.scatter_add_(0, levels, entries.to(counts.dtype))
    return counts.flip(0).cumsum(0).flip(0)[1:]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / whole)


def _harmonic(a: Tensor, b: Tensor) -> Tensor:
    return _ratio(2 * a * b, a + b)
