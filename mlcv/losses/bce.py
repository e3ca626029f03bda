"""Binary cross-entropy, plain and normalised by how much of an image is annotated."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from mlcv.errors import ConfigError
from mlcv.labels.states import known, resolve_unknown
from mlcv.losses.base import ElementwiseLoss, image_mean
from mlcv.numerics import at_least_float32, full_precision


class BCELoss(ElementwiseLoss):
    """Binary cross-entropy of each class.

    Its treatments of unknown entries are the usual baselines: `negative` is AN ("assume negative"), `weak_negative`
    WAN, `ignore` the loss over observed labels. `smoothed` differs from AN-LS of Cole et al. (CVPR 2021), which
    smooths the positives too.

    Args:
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`.
    """

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits, targets, reduction="none")


class PartialBCELoss(ElementwiseLoss):
    """Cross-entropy over known entries, weighed up where few are known (Durand et al., CVPR 2019, eqs. 1-2).

    An image with the fraction r of its classes known has the weight g(r) = a r^gamma + b, set by two anchors:
    g(1) = 1, and g(0.1) = `weight_at_tenth`. With all labels known it equals `BCELoss`; the paper divides by C besides.

    Args:
        weight_at_tenth: weight of an image with 10 % of its labels known, > 0; the paper's is 5.
        gamma: exponent, not 0; the paper's is 1.

    Shape:
        see `ElementwiseLoss`. Unknown entries cost nothing; an image without known entries costs nothing.
    """

    def __init__(self, weight_at_tenth: float = 5.0, gamma: float = 1.0) -> None:
        super().__init__()
        if weight_at_tenth <= 0 or gamma == 0:
            raise ConfigError(f"weight_at_tenth > 0 and gamma != 0 are needed, got {weight_at_tenth} and {gamma}")
        self.weight_at_tenth, self.gamma = weight_at_tenth, gamma
        self.a = (1 - weight_at_tenth) / (1 - 0.1**gamma)
        self.b = 1 - self.a

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            filled, weights = resolve_unknown(targets.to(logits.dtype), "ignore")
            fraction = known(targets).to(logits.dtype).mean(dim=1, keepdim=True)
            # An image with nothing known has no entry to weigh; the clamp keeps a negative gamma finite there.
            weight = self.a * fraction.clamp(min=1 / max(targets.shape[1], 1)) ** self.gamma + self.b
            return image_mean(weight * weights * cross_entropy(logits, filled, reduction="none"))
