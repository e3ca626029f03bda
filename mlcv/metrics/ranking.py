"""Metrics of the order of classes within an image, over known entries, ties counted against the prediction.

torchmetrics has these three, but breaks ties by position and cannot leave single entries out; scikit-learn, which
these equal, cannot do the latter either.
"""

import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE, known

_CHUNK = 2**24
"""Entries handled at once: keeps the sorted copies below about 200 MB."""


def ranking_metrics(probs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Ranking loss, coverage error and label-ranking average precision (Tsoumakas et al., 2010), means over images.

    Args:
        probs: of each class.
        targets: in {0, 1}, or -1 where unknown.

    Returns:
        `ranking_loss`: the part of (positive, negative) pairs in the wrong order, 0 for an image without such a pair;
        `coverage_error`: how many classes one must take to have all positives, 0 without positives; `LRAP`: mean over
        positives of the precision at their rank, 1 for an image of positives only or without any.

    Shape:
        probs and targets (M, C); scalars.
    """
    rows = max(_CHUNK // max(probs.shape[1], 1), 1)
    parts = [_per_image(p, t) for p, t in zip(torch.split(probs, rows), torch.split(targets, rows), strict=True)]
    loss, coverage, precision = (torch.cat(column).mean() for column in zip(*parts, strict=True))
    return {"ranking_loss": loss, "coverage_error": coverage, "LRAP": precision}


def _per_image(probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    positive, negative = targets == POSITIVE, known(targets) & (targets != POSITIVE)
    positives_above = _at_least(probs, positive)
    negatives_above = _at_least(probs, negative)
    num_positive, num_negative = positive.sum(dim=1), negative.sum(dim=1)
    wrong = (negatives_above * positive).sum(dim=1)
    loss = wrong / (num_positive * num_negative).clamp(min=1)
    rank = (positives_above + negatives_above) * positive
    precision = (positives_above / rank.clamp(min=1) * positive).sum(dim=1) / num_positive.clamp(min=1)
    trivial = (num_positive == 0) | (num_negative == 0)
    return loss, rank.amax(dim=1).float(), torch.where(trivial, 1.0, precision)


def _at_least(probs: Tensor, chosen: Tensor) -> Tensor:
    """For each entry, how many of the chosen entries of its row score at least as much: (M, C)."""
    ordered = torch.where(chosen, probs, -torch.inf).sort(dim=1).values
    return probs.shape[1] - torch.searchsorted(ordered, probs.contiguous(), right=False)
