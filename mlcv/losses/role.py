"""Expected positives, and label estimates beside them (Cole et al., CVPR 2021, arXiv 2106.09708): EPR and ROLE."""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mlcv.distributed import gathered, global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import known
from mlcv.losses.memory import MemoryLoss, MemoryOn, expected_positives, uncompiled
from mlcv.losses.selection import is_observed
from mlcv.numerics import at_least_float32, full_precision

_OBSERVED = 0.995
"""Where the estimate of an observed positive begins."""
_SPREAD = math.log(0.6 / 0.4)
"""Other estimates begin between probabilities of 0.4 and 0.6."""
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_bce = partial(binary_cross_entropy_with_logits, reduction="none")


class EPRLoss(nn.Module):
    """Cross-entropy of observed labels, and as many positives an image as are expected.

        loss = sum_{observed} BCE(p, y) / B + (mean_i sum_c p_ic - k)^2 / C

    which is C times the authors' value, a mean over entries. They observe positives alone; known negatives are this
    project's addition. How large p becomes follows k; the ranking forgives a wrong k by half or twice.

    Args:
        expected_positives: k, the positives that an image has, > 0; `auto` estimates it from the training labels. Where
            these have no negative it can only count the positives that are known: then give the number.
        trust_negatives: known zeros are observed; if False they are unobserved like unknown entries: for labels of
            which positives are missing.

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`, but unknown entries take part in the mean; a scalar. Under
        DDP it is that of the batch of all processes.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(self, expected_positives: float | Literal["auto"] = "auto", trust_negatives: bool = True) -> None:
        super().__init__()
        if expected_positives != "auto" and not (
            isinstance(expected_positives, (int, float)) and 0 < expected_positives < math.inf
        ):
            raise ConfigError(f"loss.expected_positives is a number above 0, or auto; got {expected_positives!r}")
        self.expected_positives, self.trust_negatives = expected_positives, trust_negatives
        self._is_told = expected_positives != "auto"
        self.k: Tensor
        number = math.nan if expected_positives == "auto" else float(expected_positives)
        self.register_buffer("k", torch.tensor(number), persistent=not self._is_told)

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Estimates k, if that is asked for; a method shows all training labels (N, C) before training."""
        if self.expected_positives == "auto":
            self.k.fill_(expected_positives(targets))
            self._is_told = True

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            filled, observed = self.observed(logits, targets)
            losses = observed * _bce(logits, filled)
            loss, positives, images = self.means(losses, logits.sigmoid())
            return loss + self.excess(positives, images).square() / logits.shape[1]

    def observed(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Targets with zeros for unknown ones; and 1 for observed entries, else 0; of the type of the logits."""
        filled = targets.to(logits.dtype).masked_fill(~known(targets), 0.0)
        return filled, is_observed(targets, self.trust_negatives).to(logits.dtype)

    def means(self, *entries: Tensor) -> tuple[Tensor, ...]:
        """Of each (B, C) the sum over classes, averaged over the images of all processes; last, how many these are."""
        own = torch.stack([*(values.sum() for values in entries), entries[0].new_full((), len(entries[0]))])
        *sums, images = (global_sum(own) if self.training else own).unbind()
        return *(total / images.clamp(min=1) for total in sums), images

    def excess(self, positives: Tensor, images: Tensor) -> Tensor:
        """Of an image's positives over k; 0 without images, and without k in evaluation."""
        if self.training and not self._is_told:
            raise ConfigError(
                "loss.expected_positives auto needs the training labels, and the training data have no `targets` to "
                "show: give a number, or call on_labels(targets, class_names) of the loss before training"
            )
        k = torch.where(self.k.isnan() | (images == 0), positives.detach(), self.k.to(positives))
        return positives - k


class ROLELoss(MemoryLoss):
    """EPR, and an estimate of each label that learns from the network while the network learns from it.

    With a free number z and the estimate t = sigmoid(z) of each entry of the training labels,

        loss = (EPR(p, y) + BCE(p, t) + EPR(t, y) + BCE(t, p)) / 2

    where t is a constant for the first BCE, and p for the second. Sums and means as for `EPRLoss`. The estimates
    begin at random between 0.4 and 0.6, those of observed labels at 0.995 and 0.005. They have an Adam of their own,
    which moves all of them in each step, not only those of the batch: that is what makes them learn within a few
    epochs of one visit each.

    In the paper their learning rate is ten times the network's. For a linear head and a short training that is too
    slow; a hundred times worked, which 0.1 is for 0.001. It does not follow a schedule.

    Args:
        expected_positives: see `EPRLoss`.
        estimate_lr: learning rate of the estimates, > 0.
        trust_negatives: see `EPRLoss`.
        memory_on: see `Memory`; twelve bytes an entry.

    Shape:
        see `EPRLoss`; index (B,). Without indices, as in validation, it is `EPRLoss`.
    """

    def __init__(
        self,
        expected_positives: float | Literal["auto"] = "auto",
        estimate_lr: float = 0.1,
        trust_negatives: bool = True,
        memory_on: MemoryOn = "device",
    ) -> None:
        kinds = dict.fromkeys(("z", "first", "second"), torch.float32)  # moments underflow in half precision
        super().__init__(memory_on, **kinds, steps=(torch.int32, ()))
        if not 0 < estimate_lr < math.inf:
            raise ConfigError(f"loss.estimate_lr is a number above 0, got {estimate_lr}")
        self.expected_positives, self.trust_negatives = expected_positives, trust_negatives
        self.estimate_lr = estimate_lr
        self.epr = EPRLoss(expected_positives, trust_negatives)

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        super().on_labels(targets, class_names)
        self.epr.on_labels(targets, class_names)
        known_at = targets.double().clamp(1 - _OBSERVED, _OBSERVED).logit().float()
        # From a seed of its own, so that all processes have the same.
        unknown_at = torch.rand(targets.shape, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).mul(_SPREAD)
        observed = is_observed(targets, self.trust_negatives)
        self.memory["z"].copy_(torch.where(observed, known_at, unknown_at.to(known_at)))

    def forward(self, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        if index is None:
            loss: Tensor = self.epr(logits, targets)
            return loss
        with full_precision(logits):
            logits = at_least_float32(logits)
            filled, observed = self.epr.observed(logits, targets)
            z, p = self.memory.read("z", index, logits), logits.sigmoid()
            t = z.sigmoid()
            losses = observed * (_bce(logits, filled) + _bce(z, filled)) + _bce(logits, t) + _bce(z, p.detach())
            loss, of_network, of_estimates, images = self.epr.means(losses, p, t)
            excess = self.epr.excess(of_estimates, images)
            if self.training:
                slopes = observed * (t - filled) + t - p + 2 * excess / logits.shape[1] * t * (1 - t)
                self._move(index, slopes.detach() / (2 * images.clamp(min=1)))
            squares = self.epr.excess(of_network, images).square() + excess.square()
            return (loss + squares / logits.shape[1]) / 2

    @uncompiled
    @torch.no_grad()
    def _move(self, index: Tensor, slopes: Tensor) -> None:
        """A step of Adam for all estimates, by the derivatives for a batch's (B, C)."""
        z, first, second, steps = (self.memory[name] for name in ("z", "first", "second", "steps"))
        rows = z.new_zeros(len(z) + 1, z.shape[1])  # the last for images that could not be read
        rows.index_put_((gathered(index).to(z.device),), gathered(slopes).to(z), accumulate=True)
        steps += 1
        first.lerp_(rows[:-1], 1 - _BETA1)
        second.mul_(_BETA2).addcmul_(rows[:-1], rows[:-1], value=1 - _BETA2)
        deviation = (second / (1 - _BETA2 ** steps[:, None])).sqrt_().add_(_EPS)
        z.sub_(first / (1 - _BETA1 ** steps[:, None]) / deviation, alpha=self.estimate_lr)
