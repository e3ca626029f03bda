"""What element-wise losses share: precision, the meaning of unknown entries, the reduction."""

from typing import ClassVar

from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs, known, resolve_unknown
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

    knows_unknown: ClassVar[bool] = True

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


def may_see(loss: nn.Module, targets: Tensor) -> bool:
    """Whether a loss knows what -1 is, or there is none.

    A loss of this project has `knows_unknown`; so must one of somebody's own, as a sign that its author thought of it.
    """
    return getattr(loss, "knows_unknown", False) or bool(known(targets).all())


def check_may_see(loss: nn.Module, targets: Tensor) -> None:
    """Refuses a loss that would take -1 for a number; see `may_see`.

    Raises:
        ConfigError: naming the loss.
    """
    if not may_see(loss, targets):
        name = f"{type(loss).__module__}.{type(loss).__qualname__}"
        raise ConfigError(
            f"model.loss: {name} does not say that it knows unknown labels (-1), and there are some, which it would "
            "take for numbers. Take a loss of mlcv.losses (BCELoss is binary cross-entropy), or give one of your own "
            "that handles them the attribute knows_unknown = True"
        )


def image_mean(losses: Tensor) -> Tensor:
    """Sum over classes, mean over images; 0 for an empty batch.

    Shape:
        losses (B, C); returns a scalar.
    """
    return losses.sum() / max(len(losses), 1)
