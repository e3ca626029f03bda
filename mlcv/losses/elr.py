"""Early-learning regularisation (Liu et al., NeurIPS 2020, arXiv 2007.00151), for each entry on its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs
from mlcv.losses.bce import BCELoss
from mlcv.losses.memory import MemoryLoss, MemoryOn
from mlcv.numerics import at_least_float32, full_precision

_CLAMP = 1e-4
"""Probabilities nearer to 0 or 1 have no gradient, as in the authors' code."""


class ELRLoss(MemoryLoss):
    """Cross-entropy, and a pull towards what the network has said of the same entry before (eqs. 5 and 9).

    Networks learn right labels before they memorise wrong ones. So of each entry a running mean t of the network's
    probabilities p is kept, and the paper's softmax over classes becomes one over absence and presence:

        t <- beta t + (1 - beta) p                    no gradient; t' = t / (1 - beta^visits)
        loss = BCE(p, y) + lam log(1 - (t' p + (1 - t')(1 - p)))
        one-sided: BCE(p, y) + lam log(1 - t' p)

    The authors start from t = 0 without the division, by which the first epochs pull less. The paper's lam (3 for ten
    classes of equal size, 7 for a hundred) holds rare positives where they are: from lam = 2 on, an entry with p = t =
    0.02 that is labelled present does not move any more. For multi-label data take lam <= 0.3 after a warm-up, or the
    one-sided form with lam = 1, which only ever pulls up.

    Args:
        lam: weight of the pull, >= 0; the paper's is 3.
        beta: of the running mean, in [0, 1); the paper's is 0.7.
        one_sided: pull towards presence only: for missing positives.
        warmup_epochs: epochs without the pull; the memory is fed from the first.
        unknown: of the cross-entropy, see `ElementwiseLoss`. The pull is on all entries, unknown ones too.
        smoothing: see `ElementwiseLoss`.
        memory_on: `device` or `cpu`, see `Memory`; two bytes an entry, four where beta is above 0.9.

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`, index (B,); a scalar, summed over classes and averaged over
        images.
    """

    def __init__(
        self,
        lam: float = 3.0,
        beta: float = 0.7,
        one_sided: bool = False,
        warmup_epochs: int = 0,
        unknown: UnknownAs = "ignore",
        smoothing: float = 0.1,
        memory_on: MemoryOn = "device",
    ) -> None:
        # A step of a slow memory is smaller than what float16 tells apart.
        super().__init__(memory_on, mean=torch.float16 if beta <= 0.9 else torch.float32, visits=(torch.int16, ()))
        if lam < 0 or not 0 <= beta < 1:
            raise ConfigError(f"loss.lam >= 0 and loss.beta in [0, 1) are needed, got {lam} and {beta}")
        self.lam, self.beta, self.one_sided, self.warmup_epochs = lam, beta, one_sided, warmup_epochs
        self.unknown, self.smoothing, self.cross_entropy = unknown, smoothing, BCELoss(unknown, smoothing)
        self.pulls = warmup_epochs <= 0

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        super().on_labels(targets, class_names)
        self.cross_entropy.on_labels(targets, class_names)

    def start_epoch(self, epoch: int) -> None:
        """Tells the loss the number of finished epochs; called by the method at each epoch's start."""
        self.pulls = epoch >= self.warmup_epochs

    def forward(self, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        loss: Tensor = self.cross_entropy(logits, targets)
        if index is None:
            return loss
        with full_precision(logits):
            p = at_least_float32(logits).sigmoid().clamp(_CLAMP, 1 - _CLAMP)
            t = self._remembered(p.detach(), index)
            if not self.pulls:
                return loss
            agreement = t * p if self.one_sided else t * p + (1 - t) * (1 - p)
            return loss + self.lam * (1 - agreement).log().sum() / max(len(logits), 1)

    @torch.no_grad()
    def _remembered(self, p: Tensor, index: Tensor) -> Tensor:
        """Of a batch's entries (B, C), after this visit: what is called t' above."""
        # t' itself is kept, as a mean that moves towards p: however it is rounded it is never beyond 0 and 1, as t and
        # 1 - beta^n are that are rounded apart.
        visits = self.memory.read("visits", index, p) + 1
        mean = self.memory.read("mean", index, p)
        mean = mean + (1 - self.beta) / (1 - self.beta ** visits[:, None]) * (p - mean)
        self.memory.write("mean", index, mean)
        self.memory.write("visits", index, visits.clamp(max=torch.iinfo(torch.int16).max))
        return mean.clamp(0, 1)
