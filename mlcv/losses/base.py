"""What element-wise losses share: precision, the meaning of unknown entries, the reduction."""

from torch import Tensor, nn

from mlcv.labels.states import UnknownAs, resolve_unknown
from mlcv.numerics import at_least_float32, full_precision


class ElementwiseLoss(nn.Module):
    """A loss that is a sum over images and classes; a subclass writes `elementwise` alone.

    The sum over classes is averaged over images. Official code of this field differs here: ASL, Hill and SPLC sum
    over images too (a factor B), the single-positive family averages over classes as well (a factor 1 / C). Learning
    rates and weight decay move with it.

    Args:
        unknown: what an entry that nobody annotated counts as, see `mlcv.labels.resolve_unknown`; by default it
            changes neither the value nor any gradient.
        smoothing: probability of presence for `unknown="smoothed"`.

    Shape:
        logits (B, C), raw scores of any float type; targets (B, C) in [0, 1], or -1 where unknown. Returns a
        scalar in float32 (float64 for float64 logits), 0 for an empty batch.
    """

    def __init__(self, unknown: UnknownAs = "ignore", smoothing: float = 0.1) -> None:
        super().__init__()
        self.unknown, self.smoothing = unknown, smoothing

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each entry (B, C), from logits in full precision and targets in [0, 1] without unknowns."""
        raise TypeError(f"{type(self).__name__} must define elementwise")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            filled, weights = resolve_unknown(targets.to(logits.dtype), self.unknown, self.smoothing)
            return image_mean(self.elementwise(logits, filled) * weights)


def image_mean(losses: Tensor) -> Tensor:
    """Sum over classes, mean over images; 0 for an empty batch.

    Shape:
        losses (B, C); returns a scalar.
    """
    return losses.sum() / max(len(losses), 1)
