"""Metrics of the order of classes within an image, over known entries, ties counted against the prediction.

torchmetrics has these three, but breaks ties by position and cannot leave single entries out; scikit-learn, which
these equal, cannot do the latter either.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcv.labels.states import known
from mlcv.metrics.order import AtPositives, by_images
from mlcv.numerics import at_least_float32


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
    judged = known(targets).any(dim=1)
    if not judged.any():
        return dict.fromkeys(("ranking_loss", "coverage_error", "LRAP"), torch.tensor(torch.nan, dtype=torch.float64))
    scores, targets = at_least_float32(scores[judged].detach().cpu()), targets[judged].cpu()
    parts = [_of_images(AtPositives.of(s.numpy(), t.numpy())) for s, t in by_images(scores, targets)]
    means = torch.from_numpy(np.concatenate(parts, axis=1)).mean(dim=1)
    return dict(zip(("ranking_loss", "coverage_error", "LRAP"), means, strict=True))


def _of_images(found: AtPositives) -> NDArray[np.float64]:
    """The three for each of M images: (3, M)."""
    loss = found.sums(found.negatives) / found.pairs()
    coverage = np.zeros_like(loss)
    np.maximum.at(coverage, found.row, found.positives + found.negatives)
    trivial = (found.positives_of_rows == 0) | (found.negatives_of_rows == 0)
    return np.stack([loss, coverage, np.where(trivial, 1.0, found.average_precision())])
