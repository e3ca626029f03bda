"""Binary cross-entropy, plain and normalised by how much of an image is annotated."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs, count_known, resolve_unknown
from mlcv.losses.base import ElementwiseLoss, add_buffer_of_labels

logger = logging.getLogger(__name__)

LEAST, MOST = 0.01, 100.0
"""Between which `pos_weight="auto"` keeps its weights."""


class BCELoss(ElementwiseLoss):
    """Binary cross-entropy of each class.

    Its treatments of unknown entries are the usual baselines: `negative` is AN ("assume negative"), `weak_negative`
    WAN, `ignore` the loss over observed labels. `smoothed` differs from AN-LS of Cole et al. (CVPR 2021), which
    smooths the positives too.

    A weight of positives balances rare classes: pos_weight y log(p) + (1 - y) log(1 - p). With `auto` each class has
    its own, known negatives over known positives among the training labels, as torch's page on `BCEWithLogitsLoss` has
    it, within [0.01, 100]. The bounds are this project's: one image of a class that one in ten thousand shows would
    else rule its batch. A class without known positives or negatives has weight 1. The weights are a buffer, so that a
    checkpoint brings them. At the optimum a weighted loss says odds that are pos_weight times too high, which `undo`
    takes back wherever probabilities are asked for.

    Args:
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.
        pos_weight: of the positives of all classes, > 0; or `auto`.

    Shape:
        see `ElementwiseLoss`.
    """

    def __init__(
        self, unknown: UnknownAs = "ignore", smoothing: float = 0.1, pos_weight: float | Literal["auto"] = 1.0
    ) -> None:
        super().__init__(unknown, smoothing)
        if pos_weight != "auto" and not (isinstance(pos_weight, (int, float)) and 0 < pos_weight < float("inf")):
            raise ConfigError(f"loss.pos_weight is a number above 0, or auto; got {pos_weight!r}")
        self.pos_weight = pos_weight
        self.class_weights: Tensor
        if pos_weight == "auto":
            add_buffer_of_labels(self, "class_weights", torch.empty(0))  # (C,) once labels or a checkpoint are there

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Weighs each class by all training labels, if that is asked for; a method shows them before training.

        Args:
            targets: (M, C), see `mlcv.labels`.
            class_names: C names, for the log.
        """
        super().on_labels(targets, class_names)
        if self.pos_weight == "auto":
            weights = balancing_weights(targets)
            self.class_weights = weights.to(self.class_weights)
            logger.info("loss.pos_weight auto: %s", _told(weights, class_names))

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits, targets, pos_weight=self._weights(logits), reduction="none")

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        weights, p = self._weights(logits), logits.sigmoid()
        if weights is None:
            return cross_entropy(logits, targets, reduction="none"), p.sub_(targets)
        positive = weights * targets
        slopes = p.mul_(1 - targets + positive).sub_(positive)
        return cross_entropy(logits, targets, pos_weight=weights, reduction="none"), slopes

    def undo(self, logits: Tensor) -> Tensor:
        """Logits of the labels' own frequencies, from those that the weighted loss has learnt; shapes (B, C)."""
        weights = self._weights(logits)
        return logits if weights is None else logits - weights.log()

    def _weights(self, logits: Tensor) -> Tensor | None:
        if self.pos_weight != "auto":
            return None if self.pos_weight == 1 else logits.new_tensor(self.pos_weight)
        if len(self.class_weights):
            return self.class_weights.to(logits)
        if self.training:
            raise ConfigError(
                "loss.pos_weight auto needs the training labels, and the training data have no `targets` to show: give "
                "a number, or call on_labels(targets, class_names) of the loss before training"
            )
        return None  # of a network that was never trained


def balancing_weights(targets: Tensor) -> Tensor:
    """Known negatives over known positives of each class, within [0.01, 100]; 1 where either is missing.

    Shape:
        targets (M, C), see `mlcv.labels`; returns float64 (C,).
    """
    positive, negative = count_known(targets)
    return torch.where((positive > 0) & (negative > 0), (negative / positive).clamp(LEAST, MOST), 1.0)


def _told(weights: Tensor, names: Sequence[str]) -> str:
    """Each class's weight, or of many classes the extremes."""
    each = [f"{name} {weight:.3g}" for name, weight in zip(names, weights.tolist(), strict=True)]
    if len(each) <= 20:
        return ", ".join(each)
    return f"from {each[int(weights.argmin())]} to {each[int(weights.argmax())]}, median {weights.median():.3g}"


class PartialBCELoss(BCELoss):
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

    def resolve(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        filled, is_known = resolve_unknown(targets, "ignore")
        # An image with nothing known has no entry to weigh; the clamp keeps a negative gamma finite there.
        fraction = is_known.mean(dim=1, keepdim=True).clamp(min=1 / max(targets.shape[1], 1))
        return filled, is_known * (self.a * fraction**self.gamma + self.b)
