"""Two-way multi-label loss (Kobayashi, CVPR 2023)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mlcv.distributed import gathered, global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import resolve_unknown
from mlcv.losses.base import check_knows_negatives
from mlcv.numerics import at_least_float32, full_precision


class TwoWayLoss(nn.Module):
    """Positives above negatives: of each class among the images of a batch, of each image among its classes.

    For a class (a column of the batch) and for an image (a row of it) with the entries z, labelled y:

        l = softplus(Tn log sum_negatives exp(z / Tn) + Tp log sum_positives exp(-z / Tp))
        loss = mean of l over classes with a positive + mean of l over images with a positive

    Without a negative l is 0. A soft target y is in both sums, weighed by 1 - y and y. The large temperature of the
    positives lets all of them count, where that of the negatives looks for the highest.

    It compares entries, and probabilities are no frequencies: see `mlcv calibrate`. The class part
    sees the images of a batch at once, so that the batch size matters; under DDP it is over all processes, by which two
    of them with half a batch give the gradients of one with the whole.

    Args:
        pos_temperature: Tp > 0; the paper's is 4.
        neg_temperature: Tn > 0; the paper's is 1.
        unknown: entries that nobody annotated are left out of all sums (`ignore`, as in the authors' code), or are
            negatives (`negative`).

    Shape:
        logits (B, C), raw scores of any float type; targets (B, C) in [0, 1], or -1 where unknown. Returns a scalar in
        float32 (float64 for float64 logits), 0 for an empty batch.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(
        self,
        pos_temperature: float = 4.0,
        neg_temperature: float = 1.0,
        unknown: Literal["ignore", "negative"] = "ignore",
    ) -> None:
        super().__init__()
        if not min(pos_temperature, neg_temperature) > 0:
            raise ConfigError(
                f"loss.pos_temperature and loss.neg_temperature are above 0, got {pos_temperature} and "
                f"{neg_temperature}"
            )
        if unknown not in ("ignore", "negative"):
            raise ConfigError(f"loss.unknown is ignore or negative, got {unknown!r}")
        self.pos_temperature, self.neg_temperature, self.unknown = pos_temperature, neg_temperature, unknown

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Refuses labels (N, C) without a known negative, if unknown entries are none; called before training."""
        if self.unknown == "ignore":
            check_knows_negatives(targets)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            filled, is_used = resolve_unknown(targets.to(logits.dtype), self.unknown)
            positive, negative = filled.log(), ((1 - filled) * is_used).log()  # -inf where there is none
            classes, images = (self._way(logits, positive, negative, dim) for dim in (0, 1))
            return classes + images

    def _way(self, logits: Tensor, positive: Tensor, negative: Tensor, dim: int) -> Tensor:
        """Classes (dim 0) or images (1), from logarithms of the entries' weights."""
        above, has_negative = _log_sum_exp(logits / self.neg_temperature, negative, dim)
        below, has_positive = _log_sum_exp(-logits / self.pos_temperature, positive, dim)
        distance = self.neg_temperature * above + self.pos_temperature * below
        total = (softplus(distance) * has_negative * has_positive).sum()
        count = has_positive.to(total.dtype).sum()
        if dim:  # each process has images of its own, and all classes
            total, count = global_sum(torch.stack([total, count])).unbind()
        return total / count.detach().clamp(min=1)


def _log_sum_exp(values: Tensor, log_weights: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Of the columns (dim 0), over all processes, or of the rows (1), and where any weight is above 0; else it is 0.

    Shape:
        two tensors (B, C); returns two tensors (C,) or (B,).
    """
    values = torch.where(log_weights.isinf(), -torch.inf, values + log_weights)
    local = values.logsumexp(dim)
    top = local.detach() if dim else gathered(local.detach()[None]).amax(dim=0)
    is_any = top > -torch.inf
    sums = (local - torch.where(is_any, top, 0)).exp()
    sums = sums if dim else global_sum(sums)
    return torch.where(is_any, top, 0) + torch.where(is_any, sums, 1).log(), is_any
