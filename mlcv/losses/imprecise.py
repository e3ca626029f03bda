"""Imprecise labels (Chen et al., NeurIPS 2024, arXiv 2305.12715): what was noted, with learnt rates of error."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import known
from mlcv.losses.base import add_buffer_of_labels
from mlcv.numerics import at_least_float32, full_precision

MOST = 0.45
"""No rate becomes larger, so that both of a class are below 1 together, and a note says more than nothing."""


class ImpreciseLoss(nn.Module):
    """Cross-entropy of the labels that were noted, where p is the probability of the true one.

    With r = P(noted absent | present) and s = P(noted present | absent) of each class,

        q = p (1 - r) + (1 - p) s          that presence is noted
        loss = BCE(q, y)

    and after each step r and s are estimated again by the E-step's e, the probability that an entry is present given p
    and its note: r = sum e (1 - y) / sum e, s = sum (1 - e) y / sum (1 - e), over the batches so far, of which each
    next one lets the older count less. This is the paper's likelihood for K = 2 in each class. Its other term pulls
    another view of an image to e; for the same view that has the gradient of the likelihood (EM's identity), so that
    it would only double it. The paper learns its rates by gradient.

    p stays the probability of the true label, so there is nothing to `undo`. The data alone do not determine the rates:
    they come out larger the less a network has fitted, so do not read them as how many labels are wrong.

    Args:
        miss_rate: where r begins, and the mean of its prior, in [0, 0.45]. With 0 it stays 0: zeros are trusted.
        false_rate: likewise of s; with 0 positives are trusted.
        unknown: `latent` entries have no note, and cost nothing; `negative`, noted absent, as in lists of positives;
            `auto` is `negative` if the training labels have no known negative, else `latent`.
        strength: of the prior, in entries that are present (for r) or absent (for s), > 0.
        momentum: what the older batches still count for at each step, in [0, 1).

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`; a scalar, summed over classes and averaged over images.
        Under DDP the rates are estimated over all processes.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(
        self,
        miss_rate: float = 0.1,
        false_rate: float = 0.01,
        unknown: Literal["auto", "latent", "negative"] = "auto",
        strength: float = 10.0,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        for name, rate in (("miss_rate", miss_rate), ("false_rate", false_rate)):
            if not 0 <= rate <= MOST:
                raise ConfigError(f"loss.{name} is a rate, in [0, {MOST}], got {rate}")
        if unknown not in ("auto", "latent", "negative"):
            raise ConfigError(f"loss.unknown is auto, latent or negative, got {unknown!r}")
        if strength <= 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"loss.strength > 0 and loss.momentum in [0, 1) are needed, got {strength} and {momentum}"
            )
        self.miss_rate, self.false_rate, self.unknown = miss_rate, false_rate, unknown
        self.strength, self.momentum = strength, momentum
        self._is_learning = False
        # Expected numbers of each class's entries: missed, present, falsely noted, absent. (4, C) once labels or a
        # checkpoint are there.
        self.sums: Tensor
        self.unknown_is_negative: Tensor
        add_buffer_of_labels(self, "sums", torch.zeros(4, 1))
        self.register_buffer("unknown_is_negative", torch.tensor(unknown == "negative"), persistent=unknown == "auto")

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Makes room for the rates, which are not learnt before, and looks for negatives; called before training.

        Args:
            targets: (N, C), see `mlcv.labels`.
            class_names: C names.
        """
        self._is_learning = True
        self.sums = self.sums.new_zeros(4, len(class_names))
        if self.unknown == "auto":
            self.unknown_is_negative.fill_(not bool((known(targets) & (targets < 1)).any()))

    def rates(self) -> tuple[Tensor, Tensor]:
        """Of each class r and s as they are now, (C,) each."""
        missed, present, false, absent = self.sums
        r = (missed + self.strength * self.miss_rate) / (present + self.strength)
        s = (false + self.strength * self.false_rate) / (absent + self.strength)
        return r.clamp(max=MOST), s.clamp(max=MOST)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            r, s = (rate.to(logits) for rate in self.rates())
            y = targets.to(logits.dtype).masked_fill(~known(targets), 0.0)
            noted = (known(targets) | self.unknown_is_negative).to(logits.dtype)
            present, absent = logsigmoid(logits), logsigmoid(-logits)
            seen, missed = present + torch.log1p(-r), present + r.log()
            log_q, log_not_q = (
                torch.logaddexp(seen, absent + s.log()),
                torch.logaddexp(missed, absent + torch.log1p(-s)),
            )
            if self.training and self._is_learning:
                self._count(noted * y, (seen - log_q).exp(), noted * (1 - y), (missed - log_not_q).exp())
            return -(noted * (y * log_q + (1 - y) * log_not_q)).sum() / max(len(logits), 1)

    @torch.no_grad()
    def _count(self, positive: Tensor, e_positive: Tensor, negative: Tensor, e_negative: Tensor) -> None:
        """Adds a batch's notes (B, C) of either kind, with the probabilities that what they are of is present."""
        missed, false = negative * e_negative, positive * (1 - e_positive)
        present, absent = missed + positive * e_positive, false + negative * (1 - e_negative)
        batch = torch.stack([missed, present, false, absent]).sum(dim=1)
        # Not in place: a compiled step looks at the rates again in its backward pass, which are those before.
        self.sums = self.momentum * self.sums + global_sum(batch).to(self.sums)
