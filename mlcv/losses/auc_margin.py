"""AUC-margin loss (Yuan et al., ICCV 2021, arXiv 2012.03173), in closed form."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import resolve_unknown
from mlcv.losses.base import add_buffer_of_labels, check_knows_negatives
from mlcv.numerics import at_least_float32, full_precision


class AUCMarginLoss(nn.Module):
    """Positives of a class above its negatives by a margin, in the mean over pairs.

    The paper's min-max problem has for each class and s = sigmoid(z) the solution

        a = mean of s over positives, b = over negatives
        loss = Var+(s) + Var-(s) + max(0, margin + b - a)^2

    and the loss is the sum of that over classes (the authors' is the mean). While margin > a - b, which with a margin
    of 1 is always so, it equals the mean of (margin - (s+ - s-))^2 over all pairs of a positive and a negative. So
    nothing but the network is learnt: neither a and b nor the authors' alpha, and any optimizer will do.

    Means are over the batch, under DDP over all processes. Of a side that a batch lacks, the class's running mean over
    former batches stands in, without gradient; until there is one the class costs nothing. A soft target y is on both
    sides, weighed by y and 1 - y.

    It ranks: its probabilities are no frequencies, see `mlcv calibrate`. An entry whose s is near 0 or 1 has next to no
    gradient, be it right or wrong, so that it serves best a network that has learnt something: the authors begin with
    cross-entropy.

    Args:
        margin: > 0; the paper's is 1.
        momentum: part of the old in a running mean, in [0, 1).
        unknown: entries that nobody annotated are on neither side (`ignore`), or are negatives (`negative`).

    Shape:
        logits (B, C), raw scores of any float type; targets (B, C) in [0, 1], or -1 where unknown. Returns a scalar in
        float32 (float64 for float64 logits), 0 for an empty batch.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(
        self, margin: float = 1.0, momentum: float = 0.9, unknown: Literal["ignore", "negative"] = "ignore"
    ) -> None:
        super().__init__()
        if not (margin > 0 and 0 <= momentum < 1):
            raise ConfigError(f"loss.margin > 0 and loss.momentum in [0, 1) are needed, got {margin} and {momentum}")
        if unknown not in ("ignore", "negative"):
            raise ConfigError(f"loss.unknown is ignore or negative, got {unknown!r}")
        self.margin, self.momentum, self.unknown = margin, momentum, unknown
        self.means: Tensor  # (2, C), of negatives and positives; -1 where there was none yet
        add_buffer_of_labels(self, "means", torch.empty(2, 0))

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Makes room for all classes; a method calls it before training.

        Args:
            targets: (N, C), see `mlcv.labels`.
            class_names: C names.
        """
        if self.unknown == "ignore":
            check_knows_negatives(targets)
        self.means = self.means.new_full((2, targets.shape[1]), -1.0)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            s = at_least_float32(logits).sigmoid()
            filled, is_used = resolve_unknown(targets.to(s.dtype), self.unknown)
            sides = torch.stack([(1 - filled) * is_used, filled * is_used])  # (2, B, C)
            counts, sums = global_sum(torch.stack([sides.sum(dim=1), (sides * s).sum(dim=1)])).unbind()
            is_there, counts = counts > 0, torch.where(counts > 0, counts, 1)
            means = torch.where(is_there, sums / counts, self._remembered(s))
            variances = global_sum((sides * (s - means[:, None]) ** 2).sum(dim=1)) / counts
            loss = variances.sum(dim=0) + (self.margin + means[0] - means[1]).clamp(min=0) ** 2
            if self.training:
                self._remember(means.detach())
            return torch.where((means >= 0).all(dim=0) & is_there.any(dim=0), loss, 0).sum()

    def _remembered(self, like: Tensor) -> Tensor:
        if self.means.shape[1] != like.shape[1]:  # no labels were shown
            if not self.training:
                return like.new_full((2, like.shape[1]), -1.0)
            self.means = self.means.new_full((2, like.shape[1]), -1.0)
        return self.means.to(like)

    def _remember(self, means: Tensor) -> None:
        """From means that are the old ones where a side is absent."""
        old = self.means.to(means)
        # Not in place: a compiled step looks at the old ones again in its backward pass.
        moved = torch.where(old < 0, means, self.momentum * old + (1 - self.momentum) * means)
        self.means = moved.to(self.means)
