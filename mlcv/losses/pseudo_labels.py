"""Labels of a network's own for unlabelled entries (Yang and Xu, NeurIPS 2020, arXiv 2006.07529)."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import count_known, known
from mlcv.losses.bce import BCELoss
from mlcv.losses.memory import MemoryLoss, MemoryOn
from mlcv.losses.selection import lowest_of_class
from mlcv.numerics import at_least_float32, full_precision

logger = logging.getLogger(__name__)

_NONE, _KNOWN = -1, -2
"""In place of a pseudo-label."""


class PseudoLabels(MemoryLoss):
    """Cross-entropy of known entries, and of unknown ones with labels that the network gives them.

    The paper trains on labelled images, labels others by what the network says is most likely, and trains anew on all
    of them. In this form for multiple labels, in one training, the entries that are unknown, also of images without
    any label, get one anew at each epoch's start after the warm-up: of each class those with the highest scores are
    present, as large a part of them as of the known entries, and the others absent. A score is what the network said
    when the image last came by in training; an image that has not come by yet has none, and so no label.

        loss = sum_known BCE(p, y) + weight sum_unknown BCE(p, pseudo-label)

    So rare classes stay as rare as they are, where a threshold would make them vanish. That holds if entries are
    unknown at random; where they are not, give `priors`. A class without known positives or negatives has no prior, and
    gets no labels.

    Args:
        weight: of entries with a pseudo-label, >= 0; the paper's is 1.
        warmup_epochs: epochs on known entries alone, >= 1; the paper's are a whole training. Labels of a network that
            has learnt little hold it back: a linear head that knew 15 % of the entries of a made-up data set came to
            74 mAP in 15 epochs without any, to 71 with them after ten, and to 53 after one.
        priors: share of positives of each of the C classes, in [0, 1], in the order of the data; of the known entries
            if None.
        memory_on: see `Memory`; three bytes an entry.

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`, but unknown entries take part after the warm-up; index (B,).
        A scalar, summed over classes and averaged over images. Without indices, as in validation, it is `BCELoss`.
    """

    def __init__(
        self,
        weight: float = 1.0,
        warmup_epochs: int = 5,
        priors: Sequence[float] | None = None,
        memory_on: MemoryOn = "device",
    ) -> None:
        super().__init__(memory_on, score=torch.float16, label=torch.int8)
        if weight < 0:
            raise ConfigError(f"loss.weight is >= 0, got {weight}")
        if warmup_epochs < 1:
            raise ConfigError(f"loss.warmup_epochs is >= 1, since scores are needed first; got {warmup_epochs}")
        if priors is not None and not all(0 <= prior <= 1 for prior in priors):
            raise ConfigError(f"loss.priors are shares, in [0, 1], got {priors}")
        self.weight, self.warmup_epochs, self.priors = weight, warmup_epochs, priors
        self.cross_entropy = BCELoss()
        self._shares = torch.empty(0)

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        super().on_labels(targets, class_names)
        self._shares = self._expected(targets, class_names)
        self.memory["score"].fill_(torch.nan)
        self.memory["label"].fill_(_NONE).masked_fill_(known(targets), _KNOWN)

    def _expected(self, targets: Tensor, class_names: Sequence[str]) -> Tensor:
        """The share of each class's entries that is present, (C,); NaN where nothing tells it."""
        if self.priors is not None:
            if len(self.priors) != len(class_names):
                raise ConfigError(f"loss.priors has {len(self.priors)} numbers for {len(class_names)} classes")
            return torch.tensor(self.priors, dtype=torch.float64)
        positive, negative = count_known(targets)
        if not negative.any():
            raise ConfigError(
                "loss: no negative of any class is known, so nothing tells how rare the classes are. Give PseudoLabels "
                "the share of positives of each as loss.priors, or take a loss for positives alone, such as ROLELoss"
            )
        tells = (positive > 0) & (negative > 0)
        if not tells.all():
            none = [name for name, told in zip(class_names, tells.tolist(), strict=True) if not told]
            logger.warning("no pseudo-labels for %s: no positive or no negative is known", ", ".join(none[:10]))
        return torch.where(tells, positive / (positive + negative), torch.nan)

    def plan_epochs(self, epochs: int | None) -> None:
        """Told how many epochs training has; called by the method before the first."""
        if epochs is not None and 0 <= epochs <= self.warmup_epochs:
            logger.warning("loss.warmup_epochs is %d, and there are no more: no pseudo-labels", self.warmup_epochs)

    def start_epoch(self, epoch: int) -> None:
        """Labels what is unknown, told the number of finished epochs; called by the method at each epoch's start."""
        if epoch < self.warmup_epochs:
            return
        scores, labels = self.memory["score"], self.memory["label"]
        eligible = (labels != _KNOWN) & ~scores.isnan() & ~self._shares.isnan().to(scores.device)
        counts = (eligible.sum(dim=0).cpu() * self._shares.nan_to_num() + 0.5).long().to(scores.device)
        labels.masked_fill_(eligible, 0).masked_fill_(lowest_of_class(-scores, eligible, counts), 1)

    def forward(self, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        loss: Tensor = self.cross_entropy(logits, targets)
        if index is None:
            return loss
        with full_precision(logits):
            logits = at_least_float32(logits)
            labels = self.memory.read("label", index, logits)
            if self.training:
                self.memory.write("score", index, logits)  # in half precision finer than p near 0 and 1
            of_pseudo_labels: Tensor = self.cross_entropy(logits, labels.clamp(min=_NONE))
            return loss + self.weight * of_pseudo_labels
