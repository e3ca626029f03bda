"""Selective loss of partial annotations, P-ASL (Ben-Baruch et al., CVPR 2022, arXiv 2110.10955)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import known
from mlcv.losses.base import add_buffer_of_labels
from mlcv.losses.selection import largest_of_batch
from mlcv.numerics import at_least_float32, full_precision


class SelectiveLoss(nn.Module):
    """Asymmetric focal loss that takes unannotated entries as negatives, but for those that may well be positives.

        annotated y   -y (1 - p)^gamma_pos log p - (1 - y) p^gamma_neg log(1 - p)
        unannotated   -p^gamma_unknown log(1 - p), or nothing, if the class is likely or the entry is

    without gradient through the powers. A class is likely whose prior is above `threshold`. An entry is likely if among
    all unannotated ones of the batch, those of likely classes too, it is one of the topk B with the largest p; under
    DDP that is the batch of all processes.

    The authors' priors are each class's mean p by a network that was trained before, on annotated entries alone. Here,
    without `priors`, they are the mean p over the epoch before, in which the network was trained by this loss; in the
    first epoch unannotated entries cost nothing.

    The paper's topk of 5 belongs to 80 classes; for 20 take 1. Where only positives are known, classes above the
    threshold have no negative at all, and are lost; means of p would all rise above it, so there `priors` are needed.

    Args:
        gamma_pos: focusing exponent of positives, >= 0.
        gamma_neg: of annotated negatives, >= 0; 1 or 3 in the paper.
        gamma_unknown: of unannotated entries, >= 0; 2 by default, 4 for COCO in the authors' code.
        topk: likely entries an image, >= 0; may be a fraction.
        threshold: prior above which a class's unannotated entries are left out; 0.05, for COCO 0.5.
        priors: of the C classes in [0, 1], in the order of the data.

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`, but unknown entries take part from the second epoch on, or
        from the first with `priors`. A scalar, summed over classes and averaged over images.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(
        self,
        gamma_pos: float = 0.0,
        gamma_neg: float = 1.0,
        gamma_unknown: float = 2.0,
        topk: float = 5,
        threshold: float = 0.05,
        priors: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if min(gamma_pos, gamma_neg, gamma_unknown) < 0:
            raise ConfigError(
                "loss.gamma_pos, loss.gamma_neg and loss.gamma_unknown are exponents, >= 0; got "
                f"{gamma_pos}, {gamma_neg} and {gamma_unknown}"
            )
        if topk < 0:
            raise ConfigError(f"loss.topk is a number of entries, >= 0, got {topk}")
        if priors is not None and not all(0 <= prior <= 1 for prior in priors):
            raise ConfigError(f"loss.priors are probabilities, got {priors}")
        self.gamma_pos, self.gamma_neg, self.gamma_unknown = gamma_pos, gamma_neg, gamma_unknown
        self.topk, self.threshold, self.priors = topk, threshold, priors
        # (C,) each: in use, and of this epoch so far; of the latter the images besides. They have their size once the
        # labels or a checkpoint are there.
        self.class_priors: Tensor
        self.sums: Tensor
        self.images: Tensor
        is_learnt = priors is None
        add_buffer_of_labels(self, "class_priors", torch.tensor(priors or []), persistent=is_learnt)
        add_buffer_of_labels(self, "sums", torch.empty(0), persistent=is_learnt)
        self.register_buffer("images", torch.zeros(()), persistent=is_learnt)

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Makes room for each class's mean; a method shows all training labels (N, C) before training."""
        if self.priors is None:
            if not known(targets).all() and not (known(targets) & (targets < 1)).any():
                raise ConfigError(
                    "loss: no negative of any class is known, so SelectiveLoss would learn in its first epoch that all "
                    "is present. Give the share of positives of each class as loss.priors, or take a loss for "
                    "positives alone, such as ROLELoss"
                )
            self.class_priors = self.class_priors.new_full((len(class_names),), torch.inf)
            self.sums = self.sums.new_zeros(len(class_names))
            self.images.zero_()
        elif len(self.priors) != len(class_names):
            raise ConfigError(f"loss.priors has {len(self.priors)} numbers for {len(class_names)} classes")

    def start_epoch(self, epoch: int) -> None:
        """Takes the means of the epoch before as priors; called by the method at each epoch's start."""
        if self.priors is not None:
            return
        if not len(self.sums):
            raise ConfigError(
                "loss.priors are not given, and the training data have no `targets` to tell how many classes there "
                "are: give them, or call on_labels(targets, class_names) of the loss before training"
            )
        if self.images > 0:
            self.class_priors.copy_(self.sums / self.images)
            self.sums.zero_()
            self.images.zero_()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            p, not_p = logits.detach().sigmoid(), (-logits.detach()).sigmoid()
            annotated = known(targets)
            y = targets.to(logits.dtype).masked_fill(~annotated, 0.0)
            gamma = torch.where(annotated, self.gamma_neg, self.gamma_unknown)
            positive = y * not_p**self.gamma_pos * logsigmoid(logits)
            negative = (1 - y) * p**gamma * logsigmoid(-logits)
            losses = -(positive + negative) * (annotated | self._counts(p, ~annotated))
            if self.training and len(self.sums):
                self.sums += global_sum(p.sum(dim=0)).to(self.sums)
                self.images += global_sum(self.images.new_full((), len(p)))
            return losses.sum() / max(len(logits), 1)

    def _counts(self, p: Tensor, unannotated: Tensor) -> Tensor:
        """Which unannotated entries are neither of a likely class nor likely themselves; bool (B, C)."""
        if not len(self.class_priors):
            return torch.zeros_like(unannotated)
        images = p.new_full((), len(p))
        count = (self.topk * (global_sum(images) if self.training else images)).floor()
        likely = largest_of_batch(p, unannotated, count, together=self.training)
        return unannotated & (self.class_priors <= self.threshold) & ~likely
