"""Entropy maximisation, and soft labels for what is surely absent (Zhou et al., ECCV 2022, arXiv 2203.16219)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

from mlcv.errors import ConfigError
from mlcv.labels.states import known
from mlcv.losses.memory import MemoryLoss, MemoryOn
from mlcv.losses.selection import check_epochs, is_observed, lowest_of_class
from mlcv.numerics import at_least_float32, full_precision

_NONE, _OBSERVED = -1, -2
"""In place of a soft label, and of a score that there is not yet."""


class EMLoss(MemoryLoss):
    """Cross-entropy of observed labels, and doubt about all others (EM), until some are surely absent (APL).

        observed                       BCE(p, y)
        unobserved                     -alpha H(p),  H the entropy of (p, 1 - p): it is maximised
        unobserved, with a soft label  beta BCE(p, t)

    After the warm-up, at each epoch's start, of each class the unobserved entries with the lowest scores get their
    score as soft label t, for good; each time equally many, until `negative_share` of a class's have one. A score is
    what the network said when the image last came by in training. The authors score the training images anew at the
    end of each epoch, without augmentation.

    Known negatives are observed, which is this project's addition. p stays near 0.5 where entropy pulls, so choose
    thresholds on validation data, and take no p for a probability.

    Args:
        alpha: weight of the entropy, >= 0; the paper's is 0.2 for VOC, 0.1 for COCO and NUS-WIDE, 0.01 for CUB.
        beta: weight of the soft labels, >= 0; likewise 0.02, 0.9, 0.2 and 0.4.
        warmup_epochs: before the first soft labels, >= 1; likewise 5, 5, 4 and 3.
        apl: whether there are soft labels; needs to know how many epochs training has.
        negative_share: of each class's unobserved entries, in [0, 1]; the paper's is 0.9.
        trust_negatives: known zeros are observed; if False they are unobserved like unknown entries: for labels of
            which positives are missing.
        memory_on: with `apl`, see `Memory`; four bytes an entry.

    Shape:
        logits and targets (B, C) as for `ElementwiseLoss`, but unknown entries take part; index (B,). A scalar, summed
        over classes and averaged over images, C times the authors'. Without indices there are no soft labels.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 0.9,
        warmup_epochs: int = 5,
        apl: bool = True,
        negative_share: float = 0.9,
        trust_negatives: bool = True,
        memory_on: MemoryOn = "device",
    ) -> None:
        super().__init__(memory_on, **(dict.fromkeys(("score", "soft"), torch.float16) if apl else {}))
        if alpha < 0 or beta < 0:
            raise ConfigError(f"loss.alpha and loss.beta are weights, >= 0; got {alpha} and {beta}")
        if warmup_epochs < 1 or not 0 <= negative_share <= 1:
            raise ConfigError(
                "loss.warmup_epochs >= 1 and loss.negative_share in [0, 1] are needed, "
                f"got {warmup_epochs} and {negative_share}"
            )
        self.alpha, self.beta, self.warmup_epochs, self.apl = alpha, beta, warmup_epochs, apl
        self.negative_share, self.trust_negatives = negative_share, trust_negatives
        self.epochs: int | None = None

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        super().on_labels(targets, class_names)
        if self.apl:
            self.memory["score"].fill_(_NONE)
            self.memory["soft"].fill_(_NONE).masked_fill_(is_observed(targets, self.trust_negatives), _OBSERVED)

    def plan_epochs(self, epochs: int | None) -> None:
        """Tells the loss how many epochs training has; called by the method before the first."""
        self.epochs = check_epochs(epochs, "negative_share") if self.apl else None

    def start_epoch(self, epoch: int) -> None:
        """Tells the loss the number of finished epochs; called by the method at each epoch's start."""
        if not self.apl or epoch < self.warmup_epochs:
            return
        times = max(check_epochs(self.epochs, "negative_share") - self.warmup_epochs, 1)
        scores, soft = self.memory["score"], self.memory["soft"]
        unobserved = (soft != _OBSERVED).sum(dim=0).cpu().double()
        counts = (self.negative_share * unobserved / times).long().to(soft.device)
        chosen = lowest_of_class(scores, (soft == _NONE) & (scores != _NONE), counts)
        soft.copy_(torch.where(chosen, scores, soft))

    def forward(self, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        with full_precision(logits):
            logits = at_least_float32(logits)
            observed = is_observed(targets, self.trust_negatives)
            filled = targets.to(logits.dtype).masked_fill(~known(targets), 0.0)
            entropy = softplus(logits) - logits * logits.sigmoid()
            unobserved = -self.alpha * entropy
            if self.apl and index is not None:
                soft = self.memory.read("soft", index, logits)
                unobserved = torch.where(
                    soft >= 0, self.beta * cross_entropy(logits, soft, reduction="none"), unobserved
                )
                if self.training:
                    self.memory.write("score", index, logits.sigmoid())
            losses = torch.where(observed, cross_entropy(logits, filled, reduction="none"), unobserved)
            return losses.sum() / max(len(logits), 1)
