"""Three-way cross-entropy for labels that say "maybe" (U-MultiClass: Irvin et al., AAAI 2019, arXiv 1901.07031)."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from mlcv.labels.states import is_uncertain, known
from mlcv.numerics import at_least_float32, full_precision


def three_way_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each class's softmax over absent, present and uncertain.

    Args:
        scores: raw, of absent, present and uncertain in this order, (B, C, 3).
        targets: (B, C) in [0, 1] (soft ones share their weight between absent and present), -1 where unknown, which
            costs nothing, -2 where uncertain.

    Returns:
        A scalar in float32 (float64 for float64 scores): the sum over classes, averaged over images; 0 for an empty
        batch.
    """
    with full_precision(scores):
        log_probs = log_softmax(at_least_float32(scores), dim=2)
        is_known, maybe = known(targets), is_uncertain(targets)
        present = torch.where(is_known, targets, 0.0)
        weights = torch.stack([torch.where(is_known, 1 - present, 0.0), present, maybe.to(present.dtype)], dim=2)
        return -(weights * log_probs).sum() / max(len(scores), 1)
