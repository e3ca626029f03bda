"""Asymmetric loss (Ridnik et al., ICCV 2021, arXiv 2009.14119)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs
from mlcv.losses.base import ElementwiseLoss
from mlcv.numerics import log_sigmoids, power


class AsymmetricLoss(ElementwiseLoss):
    """Cross-entropy that forgets easy negatives faster than easy positives (eqs. 4-7).

    The probability of a negative is first shifted down by `margin`; what is already below it costs nothing. The
    focusing weights carry no gradient, as in the authors' training code, whose `gamma_pos` of 0 is the default here
    (their class says 1).

    Args:
        gamma_pos: focusing exponent of positives, >= 0.
        gamma_neg: focusing exponent of negatives, >= 0.
        margin: shift of a negative's probability, in [0, 1).
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`. A soft target shares its weight between both sides.
    """

    def __init__(
        self,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        margin: float = 0.05,
        unknown: UnknownAs = "ignore",
        smoothing: float = 0.1,
    ) -> None:
        super().__init__(unknown, smoothing)
        if not 0 <= margin < 1:
            raise ConfigError(f"margin is a probability below 1, got {margin}")
        if min(gamma_pos, gamma_neg) < 0:
            raise ConfigError(f"gamma_pos and gamma_neg are at least 0, got {gamma_pos} and {gamma_neg}")
        self.gamma_pos, self.gamma_neg, self.margin = gamma_pos, gamma_neg, margin

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        p = logits.sigmoid()
        p_shifted = (p - self.margin).clamp(min=0)
        # Without a margin the sum would round to log 0.
        shifted = ((-logits).sigmoid() + self.margin).clamp(max=1)
        log_not_p = shifted.log() if self.margin else logsigmoid(-logits)
        positive = targets * self._focus(1 - p, self.gamma_pos) * logsigmoid(logits)
        negative = (1 - targets) * self._focus(p_shifted, self.gamma_neg) * log_not_p
        return -(positive + negative)

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_p, log_not_p = log_sigmoids(logits)
        p, not_p = logits.sigmoid(), (-logits).sigmoid()
        p_shifted, shifted = (p - self.margin).clamp_(min=0), (not_p + self.margin).clamp_(max=1)
        # Without focusing, too, what is below the margin has no slope.
        focus = power(p_shifted, self.gamma_neg) if self.gamma_neg else p_shifted.sign_()
        negative = focus.mul_(1 - targets)
        positive = targets * power(not_p, self.gamma_pos) if self.gamma_pos else targets
        if self.margin:
            p, log_not_p = p.mul_(not_p).div_(shifted), shifted.log()
        slopes = p.mul_(negative).addcmul_(positive, not_p, value=-1)
        return negative.mul_(log_not_p).addcmul_(positive, log_p).neg_(), slopes

    @staticmethod
    @torch.no_grad()
    def _focus(distance: Tensor, gamma: float) -> Tensor:
        return distance.pow(gamma) if gamma else torch.ones_like(distance)
