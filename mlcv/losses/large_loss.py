"""Large-loss modification (Kim et al., CVPR 2022, arXiv 2206.03740): labels that cost much are doubted."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import logsigmoid

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import known
from mlcv.losses.memory import MemoryLoss, MemoryOn
from mlcv.losses.selection import check_epochs, is_observed, largest_of_batch
from mlcv.numerics import at_least_float32, full_precision

_RATES = {"reject": 0.002, "correct": 0.002, "permanent": 0.001}


class LargeLoss(MemoryLoss):
    """Cross-entropy that takes unobserved entries as negatives, but for those of a batch that cost most.

    A network fits true negatives before it memorises the positives among them that nobody noted. From the second epoch
    on, of the unobserved entries of each batch the k that cost most are, by `mode`:

        reject      (LL-R)   left out
        correct     (LL-Ct)  taken as positives, in this step
        permanent   (LL-Cp)  taken as positives, from now on

    In the paper k is a share of *all* B C entries of a batch: rate times the number of finished epochs, or in each step
    rate where changes are permanent. What matters is the share at the end, which is about rate (epochs - 1). So better
    give `missing`, the share of the unobserved entries that you expect to be positives: then k is a share of the
    unobserved entries, and rises by equal steps until it is `missing` in the last epoch. (Permanent changes sum up to
    it.) With one positive known of an image's 2.2 among ten classes it is (2.2 - 1) / 9 = 0.13. Too small a share costs
    more than one and a half times the right one.

    k is rounded to the nearest number. The authors' code rounds up, which changes an entry of every batch: 2.5 % in
    place of 0.2 % for two images and twenty classes. Exactly k entries change; in theirs ties add some. Evaluation
    changes none.

    Args:
        mode: `reject`, `correct` or `permanent`.
        rate: share of entries, in [0, 1]; None for the paper's, 0.002, 0.002 and 0.001.
        missing: share of unobserved entries in the last epoch, in [0, 1], in place of `rate`.
        trust_negatives: known zeros are observed, and keep their label; if False they are unobserved like unknown
            entries: for labels of which positives are missing.
        memory_on: of the permanent changes, see `Memory`; a byte an entry.

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`, but unknown entries count as negatives; index (B,), which
        only `permanent` needs. A scalar, summed over classes and averaged over images. Under DDP the k are those of
        the batch of all processes.
    """

    def __init__(
        self,
        mode: Literal["reject", "correct", "permanent"] = "reject",
        rate: float | None = None,
        missing: float | None = None,
        trust_negatives: bool = True,
        memory_on: MemoryOn = "device",
    ) -> None:
        if mode not in _RATES:
            raise ConfigError(f"loss.mode is reject, correct or permanent, got {mode!r}")
        if rate is not None and missing is not None:
            raise ConfigError("loss.rate and loss.missing are two ways to say how much is changed: give one")
        for name, share in (("rate", rate), ("missing", missing)):
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"loss.{name} is a share, in [0, 1], got {share}")
        super().__init__(memory_on, **({"flipped": torch.bool} if mode == "permanent" else {}))
        self.mode, self.rate, self.missing, self.trust_negatives = mode, rate, missing, trust_negatives
        self.epochs: int | None = None
        self.acts = False
        # Of the entries, to be changed in a step; a tensor, since a compiled loss is compiled anew for each number.
        self.share: Tensor
        self.register_buffer("share", torch.zeros(()), persistent=False)

    def plan_epochs(self, epochs: int | None) -> None:
        """Tells the loss how many epochs training has; called by the method before the first."""
        self.epochs = None if self.missing is None else check_epochs(epochs, "missing")

    def start_epoch(self, epoch: int) -> None:
        """Tells the loss the number of finished epochs; called by the method at each epoch's start."""
        if self.missing is None:
            step = _RATES[self.mode] if self.rate is None else self.rate
        else:
            step = self.missing / max(check_epochs(self.epochs, "missing") - 1, 1)
        self.acts = epoch > 0
        self.share.fill_(step if self.mode == "permanent" else step * epoch)

    def forward(self, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            unobserved = ~is_observed(targets, self.trust_negatives)
            targets = targets.to(logits.dtype).masked_fill(~known(targets), 0.0)
            losses = cross_entropy(logits, targets, reduction="none")
            if self.training and self.acts:
                losses = self._changed(logits, losses, unobserved, index)
            return losses.sum() / max(len(logits), 1)

    def _changed(self, logits: Tensor, losses: Tensor, unobserved: Tensor, index: Tensor | None) -> Tensor:
        sizes = unobserved.sum(), unobserved.new_full((), unobserved.numel(), dtype=torch.long)
        counts = global_sum(torch.stack(sizes))
        k = (self.share * counts[1 if self.missing is None else 0] + 0.5).floor()
        if self.mode != "permanent":
            chosen = largest_of_batch(losses, unobserved, k)
            return losses.masked_fill(chosen, 0.0) if self.mode == "reject" else _as_present(chosen, logits, losses)
        if index is None:
            raise ConfigError("loss.mode permanent remembers entries, so training must call it with the images' index")
        flipped = self.memory.read("flipped", index, unobserved)
        flipped = flipped | largest_of_batch(losses, unobserved & ~flipped, k)
        self.memory.write("flipped", index, flipped)
        return _as_present(flipped, logits, losses)


def _as_present(chosen: Tensor, logits: Tensor, losses: Tensor) -> Tensor:
    return torch.where(chosen, -logsigmoid(logits), losses)
