"""Losses for classes of unequal frequency, each by statistics of the training labels."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import logsigmoid

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs, count_known, is_positive, log_odds
from mlcv.losses.base import ElementwiseLoss, add_buffer_of_labels
from mlcv.numerics import log_sigmoids


class ClassStatisticsLoss(ElementwiseLoss):
    """Base of losses that know something of each class from all training labels; a subclass writes `count`.

    It is a buffer, so that a checkpoint brings it. A network that was never trained has it not, and is evaluated as if
    all classes were alike.

    Args:
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.
    """

    neutral: ClassVar[tuple[float, ...]]
    """What `count` gives for a class where all are alike."""

    def __init__(self, unknown: UnknownAs = "ignore", smoothing: float = 0.1) -> None:
        super().__init__(unknown, smoothing)
        self.of_classes: Tensor
        add_buffer_of_labels(self, "of_classes", torch.empty(len(self.neutral), 0))

    def count(self, targets: Tensor) -> Tensor:
        """Statistics of each class, (number of them, C) from labels (M, C); finite, whatever is missing."""
        raise TypeError(f"{type(self).__name__} must define count")

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Counts all training labels; a method shows them before training.

        Args:
            targets: (M, C), see `mlcv.labels`.
            class_names: C names.
        """
        super().on_labels(targets, class_names)
        self.of_classes = self.count(targets).to(self.of_classes)

    def statistics(self, logits: Tensor) -> Tensor:
        """What was counted, in the logits' type and on their device."""
        if self.of_classes.shape[1]:
            return self.of_classes.to(logits)
        if self.training:
            raise ConfigError(
                f"{type(self).__name__} needs the training labels, and the training data have no `targets` to show: "
                "call on_labels(targets, class_names) of the loss before training"
            )
        return logits.new_tensor(self.neutral)[:, None].expand(-1, logits.shape[1])


class LogitAdjustedLoss(ClassStatisticsLoss):
    """Cross-entropy of logits that are moved by each class's log-odds (Menon et al., ICLR 2021, arXiv 2007.07314).

    For each class on its own, with pi_c the part of positives among its known training labels:

        loss = BCE(z + tau log(pi / (1 - pi)), y)

    So z tells what an image says beyond its class's frequency: decisions at z = 0 are the balanced ones, and
    z + tau log(pi / (1 - pi)), which `undo` gives wherever probabilities are asked for, has the labels' frequencies.
    On a linear head with tau = 1 it is `BCELoss` begun with `model.prior_bias`, step by step. Of each class alone the
    order of images is that of z either way. pi is (positives + 0.5) / (known + 2); where no class has a known
    negative, of all images.

    Args:
        tau: >= 0; the paper's is 1, and 0 gives `BCELoss`.
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`.
    """

    neutral = (0.0,)

    def __init__(self, tau: float = 1.0, unknown: UnknownAs = "ignore", smoothing: float = 0.1) -> None:
        super().__init__(unknown, smoothing)
        if not tau >= 0:
            raise ConfigError(f"loss.tau is at least 0, got {tau}")
        self.tau = tau

    def count(self, targets: Tensor) -> Tensor:
        return log_odds(targets)[None]

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self.undo(logits), targets, reduction="none")

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        moved = self.undo(logits)
        return cross_entropy(moved, targets, reduction="none"), moved.sigmoid().sub_(targets)

    def undo(self, logits: Tensor) -> Tensor:
        """Logits of the labels' own frequencies, from those that the network gives; shapes (B, C)."""
        return logits + self.tau * self.statistics(logits)[0]


class ClassBalancedLoss(ClassStatisticsLoss):
    """Cross-entropy weighed by each class's effective number of positives (Cui et al., CVPR 2019, arXiv 1901.05555).

        w_c = (1 - beta) / (1 - beta^n_c), divided by its mean over classes;  loss = sum_c w_c BCE_c

    n_c is the number of known positives, at least 1. Positives and negatives of a class have the same weight: between
    classes of one network it moves what is learnt, for a class by itself it is a learning rate. So no optimum moves,
    and probabilities stay the labels' frequencies; `BCELoss(pos_weight="auto")` balances within a class.

    Args:
        beta: in [0, 1): 0 weighs all classes alike, near 1 by 1 / n_c; the paper takes 0.9 to 0.9999.
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`.
    """

    neutral = (1.0,)

    def __init__(self, beta: float = 0.999, unknown: UnknownAs = "ignore", smoothing: float = 0.1) -> None:
        super().__init__(unknown, smoothing)
        if not 0 <= beta < 1:
            raise ConfigError(f"loss.beta lies in [0, 1), got {beta}")
        self.beta = beta

    def count(self, targets: Tensor) -> Tensor:
        positive, _ = count_known(targets)
        weights = (1 - self.beta) / (1 - self.beta ** positive.clamp(min=1))
        return (weights / weights.mean())[None]

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.statistics(logits)[0] * cross_entropy(logits, targets, reduction="none")

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.elementwise(logits, targets), logits.sigmoid().sub_(targets).mul_(self.statistics(logits)[0])


class DistributionBalancedLoss(ClassStatisticsLoss):
    """Distribution-balanced loss (Wu et al., ECCV 2020, arXiv 2007.09654), focal as in the authors' experiments.

    Of N images with n_c known positives of class c; an image's positives are P:

        r = (1 / n_c) / sum_{j in P} (1 / n_j), 0 without positives;   w = alpha + sigmoid(beta (r - mu))
        z' = z - (kappa / lam) log(N / n_c - 1)
        positive: 2 w (1 - p)^gamma (-log p),               p = sigmoid(z')
        negative: 2 (w / lam) q^gamma (-log(1 - q)),        q = sigmoid(lam z')

    r makes up for class-aware sampling (see `data.sampling`), which shows an image once for each of its positives; z'
    and lam let negatives be. N is the number of images of which the class is known, and n_c is kept within
    [0.5, N - 0.5]. An image without positives, which the paper's sampling never shows, has the least w; a soft target
    is no positive of its image, and shares its cost between both sides. Probabilities are no frequencies: see `mlcv
    calibrate`.

    Args:
        alpha: least weight, >= 0.
        beta: slope of the weight, > 0.
        mu: r of the middle weight; the authors' is 0.2 for COCO-LT, 0.3 for VOC-LT.
        lam: slope of negatives, > 0; the authors' is 2 for COCO-LT, 5 for VOC-LT.
        kappa: of the shift, >= 0.
        gamma: focusing exponent, >= 0.
        unknown: see `ElementwiseLoss`.
        smoothing: see `ElementwiseLoss`.

    Shape:
        see `ElementwiseLoss`.
    """

    neutral = (1.0, 2.0)

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        lam: float = 2.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
        unknown: UnknownAs = "ignore",
        smoothing: float = 0.1,
    ) -> None:
        super().__init__(unknown, smoothing)
        if min(alpha, kappa, gamma) < 0 or not min(beta, lam) > 0:
            raise ConfigError(
                "loss.alpha, loss.kappa and loss.gamma are at least 0, loss.beta and loss.lam above it; got "
                f"{alpha}, {kappa}, {gamma}, {beta} and {lam}"
            )
        self.alpha, self.beta, self.mu, self.lam, self.kappa, self.gamma = alpha, beta, mu, lam, kappa, gamma

    def count(self, targets: Tensor) -> Tensor:
        positive, negative = count_known(targets)
        images = (positive + negative).clamp(min=1)
        return torch.stack([torch.minimum(positive.clamp(min=0.5), images - 0.5), images])

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        z, positive, negative = self._parts(logits, targets)
        q = self.lam * z
        focus, negative_focus = (self.gamma * logsigmoid(-z)).exp(), (self.gamma * logsigmoid(q)).exp()
        return -(positive * focus * logsigmoid(z) + negative / self.lam * negative_focus * logsigmoid(-q))

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        z, positive, negative = self._parts(logits, targets)
        (log_p, log_not_p), (log_q, log_not_q) = log_sigmoids(z), log_sigmoids(self.lam * z)
        positive, negative = positive * (self.gamma * log_not_p).exp_(), negative * (self.gamma * log_q).exp_()
        losses = -(positive * log_p + negative / self.lam * log_not_q)
        slopes = positive * (self.gamma * log_p.exp() * log_p - log_not_p.exp())
        return losses, slopes - negative * (self.gamma * log_not_q.exp() * log_not_q - log_q.exp())

    def _parts(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is called z' above, and the weights of an entry as positive, and as negative times lam; (B, C) each."""
        positives, images = self.statistics(logits)
        weights = 2 * self._weights(targets, positives)
        return (
            logits - self.kappa / self.lam * (images / positives - 1).log(),
            weights * targets,
            weights * (1 - targets),
        )

    def _weights(self, targets: Tensor, positives: Tensor) -> Tensor:
        """What is called w above, (B, C)."""
        shown = (is_positive(targets) / positives).sum(dim=1, keepdim=True)
        r = torch.where(shown > 0, 1 / positives / shown, 0)
        return self.alpha + (self.beta * (r - self.mu)).sigmoid()
