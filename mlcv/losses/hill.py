"""Hill and SPLC: losses for missing labels (Zhang et al., arXiv 2112.07368)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs, known
from mlcv.losses.base import ElementwiseLoss
from mlcv.numerics import log_sigmoids, power


class HillLoss(ElementwiseLoss):
    """Negatives pull less the more the network believes in them, since they may be missed positives (section 3.1).

    Negatives cost (lamb - p) p^2, whose slope falls to nothing near p = 1; positives the focal margin loss.

    Args:
        lamb: height of the hill, >= 1; 1.5 in the paper.
        margin: subtracted from a positive's logit, >= 0.
        gamma: focusing exponent of positives, >= 0.
        unknown: see `ElementwiseLoss`; the paper's setting, where missing labels are negatives, is `negative`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`. A soft target shares its weight between both sides.
    """

    def __init__(
        self,
        lamb: float = 1.5,
        margin: float = 1.0,
        gamma: float = 2.0,
        unknown: UnknownAs = "ignore",
        smoothing: float = 0.1,
    ) -> None:
        super().__init__(unknown, smoothing)
        if lamb < 1 or margin < 0 or gamma < 0:
            raise ConfigError(f"lamb >= 1, margin >= 0 and gamma >= 0 are needed, got {lamb}, {margin} and {gamma}")
        self.lamb, self.margin, self.gamma = lamb, margin, gamma

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        p = logits.sigmoid()
        negative = (self.lamb - p) * p**2
        return targets * _focal_positive(logits - self.margin, self.gamma) + (1 - targets) * negative

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        positive, rise = _focal_positive_slope(logits - self.margin, self.gamma)
        p, absent = logits.sigmoid(), 1 - targets
        square = p.square()
        slopes = (p - square).mul_((2 * self.lamb * p).sub_(square, alpha=3)).mul_(absent).addcmul_(targets, rise)
        return (self.lamb - p).mul_(square).mul_(absent).addcmul_(targets, positive), slopes


class SPLCLoss(ElementwiseLoss):
    """Self-paced loss correction: from the second epoch on, confident missing labels count as positives (section 3.2).

    Every entry that is not a known negative may be corrected: an unknown one counts as negative until the network
    gives it more than `threshold`, then as positive. Known negatives are never corrected. (The paper knows no other
    zeros than missing ones; `protocol.positives_only` makes that setting.)

    Args:
        threshold: probability above which a missing label counts as present, in (0, 1).
        margin: subtracted from the logit of an annotated positive, >= 0.
        gamma: focusing exponent, >= 0.
        warmup_epochs: epochs without correction.

    Shape:
        see `ElementwiseLoss`, but unknown entries do count. `start_epoch` tells the loss where training stands.
    """

    def __init__(self, threshold: float = 0.6, margin: float = 1.0, gamma: float = 2.0, warmup_epochs: int = 1) -> None:
        super().__init__(unknown="negative")
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold is a probability, got {threshold}")
        self.threshold, self.margin, self.gamma, self.warmup_epochs = threshold, margin, gamma, warmup_epochs
        self.corrects = warmup_epochs <= 0
        """Whether the warm-up is over; a switch, since a compiled loss is compiled anew for each number of epochs."""

    def start_epoch(self, epoch: int) -> None:
        """Tells the loss the number of finished epochs; called by the method at each epoch's start."""
        self.corrects = epoch >= self.warmup_epochs

    def resolve(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        return targets, torch.ones_like(targets)  # which are unknown is to be seen

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        present = targets.clamp(min=0)
        positive = present * _focal_positive(logits - self.margin, self.gamma)
        # A corrected entry keeps its own logit: only annotators' positives must clear the margin.
        return positive + (1 - present) * _focal_positive(self._sign(logits, targets) * logits, self.gamma)

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        sign, present = self._sign(logits, targets), targets.clamp(min=0)
        positive, rise = _focal_positive_slope(logits - self.margin, self.gamma)
        negative, fall = _focal_positive_slope(logits * sign, self.gamma)
        absent = 1 - present
        slopes = rise.mul_(present).addcmul_(absent, fall.mul_(sign))
        return positive.mul_(present).addcmul_(absent, negative), slopes

    def _sign(self, logits: Tensor, targets: Tensor) -> Tensor | int:
        """1 where a missing label is corrected, -1 elsewhere."""
        if not self.corrects:
            return -1
        corrected = ~known(targets) & (logits.detach().sigmoid() > self.threshold)
        return corrected.to(logits.dtype).mul_(2).sub_(1)


def _focal_positive_slope(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`_focal_positive` and its derivative."""
    log_p, _ = log_sigmoids(logits)
    p, not_p = logits.sigmoid(), (-logits).sigmoid()
    focus = power(not_p, gamma)
    return -focus * log_p, p.mul_(gamma).mul_(log_p).sub_(not_p).mul_(focus)


def _focal_positive(logits: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p, stable for logits of any size."""
    return -(gamma * logsigmoid(-logits)).exp() * logsigmoid(logits)
