"""Focal loss (Lin et al., ICCV 2017, arXiv 1708.02002)."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs
from mlcv.losses.base import ElementwiseLoss
from mlcv.numerics import log_sigmoids, power


class FocalLoss(ElementwiseLoss):
    """Cross-entropy that forgets what is already right (eqs. 4-5, without the paper's balance `alpha`).

    Args:
        gamma: focusing exponent, >= 0; 0 is cross-entropy.
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`. A soft target shares its weight between both sides.
    """

    def __init__(self, gamma: float = 2.0, unknown: UnknownAs = "ignore", smoothing: float = 0.1) -> None:
        super().__init__(unknown, smoothing)
        if gamma < 0:
            raise ConfigError(f"gamma is at least 0, got {gamma}")
        self.gamma = gamma

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p, log_not_p = logsigmoid(logits), logsigmoid(-logits)
        positive = targets * (self.gamma * log_not_p).exp() * log_p
        negative = (1 - targets) * (self.gamma * log_p).exp() * log_not_p
        return -(positive + negative)

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_p, log_not_p = log_sigmoids(logits)
        p, not_p = logits.sigmoid(), (-logits).sigmoid()
        positive, negative = power(not_p, self.gamma).mul_(targets), power(p, self.gamma).mul_(1 - targets)
        slopes = positive * (self.gamma * p).mul_(log_p).sub_(not_p)
        slopes.addcmul_(negative, (self.gamma * not_p).mul_(log_not_p).sub_(p), value=-1)
        return positive.mul_(log_p).addcmul_(negative, log_not_p).neg_(), slopes
