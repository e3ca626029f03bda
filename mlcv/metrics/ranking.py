"""Metrics of the order of classes within an image, over known entries, ties counted against the prediction.

torchmetrics has these three, but breaks ties by position and cannot leave single entries out; scikit-learn, which
these equal, cannot do the latter either.
"""

import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE, known

_CHUNK = 2**24
"""Entries handled at once: keeps the sorted copies below about 200 MB."""


def ranking_metrics(scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Ranking loss, coverage error and label-ranking average precision (Tsoumakas et al., 2010), means over images.

    Args:
        scores: higher where a class is likelier; any scale that the classes share.
        targets: in {0, 1}, or -1 where unknown.

    Returns:
        `ranking_loss`: the part of (positive, negative) pairs in the wrong order, 0 for an image without such a pair;
        `coverage_error`: how many classes one must take to have all positives, 0 without positives; `LRAP`: mean over
        positives of the precision at their rank, 1 for an image of positives only or without any. An image without any
        known label is in no mean; without a single image all three are NaN.

    Shape:
        scores and targets (M, C); float64 scalars.
    """
    return ranking_metrics_of_ranks(dense_ranks(scores), targets)


def ranking_metrics_of_ranks(ranks: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """As `ranking_metrics`, of the places that `dense_ranks` gives the scores."""
    judged = known(targets).any(dim=1)
    ranks, targets = ranks[judged], targets[judged]
    rows = max(_CHUNK // max(ranks.shape[1], 1), 1)
    parts = [_per_image(r, t) for r, t in zip(torch.split(ranks, rows), torch.split(targets, rows), strict=True)]
    loss, coverage, precision = (torch.cat(column).mean() for column in zip(*parts, strict=True))
    return {"ranking_loss": loss, "coverage_error": coverage, "LRAP": precision}


def dense_ranks(scores: Tensor) -> Tensor:
    """The place of each number among all different ones, from 0 for the smallest: int64, equal ones alike.

    What goes by the order of scores may go by these: they are exact, and below none of them is room for what is out.
    """
    ranks: Tensor = torch.unique(scores, return_inverse=True)[1]
    return ranks


def _per_image(ranks: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    positive, negative = targets == POSITIVE, known(targets) & (targets != POSITIVE)
    positives_above = _at_least(ranks, positive)
    negatives_above = _at_least(ranks, negative)
    num_positive, num_negative = positive.sum(dim=1), negative.sum(dim=1)
    wrong = (negatives_above * positive).sum(dim=1)
    loss = wrong.double() / (num_positive * num_negative).clamp(min=1)
    rank = (positives_above + negatives_above) * positive
    precision = (positives_above.double() / rank.clamp(min=1) * positive).sum(dim=1) / num_positive.clamp(min=1)
    trivial = (num_positive == 0) | (num_negative == 0)
    return loss, rank.amax(dim=1).double(), torch.where(trivial, 1.0, precision)


def _at_least(ranks: Tensor, chosen: Tensor) -> Tensor:
    """For each entry, how many of the chosen entries of its row rank at least as high: (M, C)."""
    ordered = torch.where(chosen, ranks, -1).sort(dim=1).values
    return ranks.shape[1] - torch.searchsorted(ordered, ranks.contiguous(), right=False)
