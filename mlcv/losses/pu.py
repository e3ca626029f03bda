"""PU-MLC's loss and its mixup regulariser (Yuan, Zhang, Huang, ICME 2024, arXiv 2306.16016)."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import is_positive
from mlcv.numerics import at_least_float32, full_precision


class PUTerms(NamedTuple):
    """Of each class, (C,): `loss`, and without gradient `temperature` in (0, 1] and `rebalance` factor in [0, 1]."""

    loss: Tensor
    temperature: Tensor
    rebalance: Tensor


class PUMLCLoss(nn.Module):
    """Variational positive-unlabeled loss with adaptive temperature and re-balance factor; negatives are never used.

    For each class, over the images x of the batch and its positives P:

        t = min(1, alpha * std_x z_x)                 temperature, no gradient
        s_x = sigmoid(z_x / t)
        u = mean_x s_x
        w = u^gamma                                   re-balance factor, no gradient
        loss = w log(u + eps) - mean_{x in P} log(s_x + eps)

    and the sum of that over classes. All images count as unlabeled, positives among them, since u estimates a mean over
    the marginal distribution. A class without positives in the batch has its first term only. The loss may be negative.

    This follows the authors' code; the paper's figure has neither alpha nor the bound at 1. Where all logits of a class
    are equal (a batch of one image) the code divides by 0; here the temperature is then 1. The code takes statistics on
    each process, this loss over all of them.

    Args:
        gamma: exponent of the re-balance factor, >= 0; 0.55 for COCO, 0.85 for VOC; 0 gives the plain variational loss.
        alpha: factor of the temperature, > 0; 1 for COCO, 2 for VOC.
        eps: keeps logarithms finite, > 0. A positive with s below it gets no gradient any more.
        sync: under DDP take means, deviations and counts over all processes, so that two of them with half a batch
            give the gradients of one with the whole; else over each one's own images.

    Shape:
        logits (B, C), raw scores of any float type; targets (B, C): 1 is positive, every other value (0, unknown -1,
        soft ones) unlabeled. Returns a scalar in float32 (float64 for float64 logits), 0 for an empty batch.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(self, gamma: float = 0.55, alpha: float = 1.0, eps: float = 1e-10, sync: bool = True) -> None:
        super().__init__()
        if gamma < 0 or alpha <= 0 or eps <= 0:
            raise ConfigError(f"gamma >= 0, alpha > 0 and eps > 0 are needed, got {gamma}, {alpha} and {eps}")
        self.gamma, self.alpha, self.eps, self.sync = gamma, alpha, eps, sync

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            return self.terms(logits, targets).loss.sum()

    def terms(self, logits: Tensor, targets: Tensor) -> PUTerms:
        """The loss of each class, with what it was computed from; arguments as for the call."""
        with full_precision(logits):
            logits = at_least_float32(logits)
            t = self._temperature(logits)
            s = (logits / t).sigmoid()
            positive = is_positive(targets).to(s.dtype)
            log_s = (s + self.eps).log()
            images, positives, sum_s, sum_log_s = self._sum(torch.ones_like(s), positive, s, positive * log_s)
            u = sum_s / images.clamp(min=1)
            w = u.detach() ** self.gamma
            loss = w * (u + self.eps).log() - sum_log_s / positives.clamp(min=1)
            return PUTerms(torch.where(images > 0, loss, 0), t, w)

    @torch.no_grad()
    def _temperature(self, logits: Tensor) -> Tensor:
        images, sums = self._sum(torch.ones_like(logits), logits)
        mean = sums / images
        (squares,) = self._sum((logits - mean) ** 2)
        std = (squares / images).sqrt()
        # Equal logits differ from their mean by rounding.
        constant = std <= 1e-6 * mean.abs()
        return (self.alpha * std).clamp(max=1).masked_fill(constant, 1.0)

    def _sum(self, *entries: Tensor) -> tuple[Tensor, ...]:
        """Each class's sum over the batch, (C,) for each (B, C)."""
        sums = torch.stack([values.sum(dim=0) for values in entries])
        return (global_sum(sums) if self.sync else sums).unbind()


class PUMixup(nn.Module):
    """Consistency under mixup: what the network says of a mixture should be the mixture of what it says.

    Halves of the batch are mixed, the first permuted; unlabeled entries have the network's own probability as target:

        q = 1 where positive, else sigmoid(z)
        x~ = l x1[perm] + (1 - l) x2,   q~ likewise,   l ~ Beta(mix_alpha, mix_alpha), once a batch
        loss = mean_x~ sum_c (log(q~ + eps) - log(sigmoid(f(x~)) + eps))^2

    The mixtures pass the network as any images do: where its batch statistics learn, they take part in them.
    Neither side has a temperature. As in the authors' code, gradients also flow through q. The code leaves the middle
    image of an odd batch out; here it is in both halves.

    Args:
        mix_alpha: of the Beta distribution, > 0.
        eps: keeps logarithms finite, > 0.
    """

    def __init__(self, mix_alpha: float = 0.3, eps: float = 1e-10) -> None:
        super().__init__()
        if mix_alpha <= 0 or eps <= 0:
            raise ConfigError(f"mix_alpha > 0 and eps > 0 are needed, got {mix_alpha} and {eps}")
        self.mix_alpha, self.eps = mix_alpha, eps

    def forward(self, model: Callable[[Tensor], Tensor], image: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """The regulariser for a batch.

        Args:
            model: from images to logits; called once, with half of a batch.
            image: (B, ...), what `logits` was computed from.
            logits: (B, C), with their gradient's history.
            targets: (B, C), as for `PUMLCLoss`.

        Returns:
            A scalar of at least float32; 0 for an empty batch.
        """
        half = (len(image) + 1) // 2
        weight = Beta(self.mix_alpha, self.mix_alpha, validate_args=False).sample()
        first = torch.randperm(half, device=image.device)
        mixed_image = weight * image[:half][first] + (1 - weight) * image[len(image) - half :]
        mixed_logits = model(mixed_image)
        with full_precision(logits):
            logits, mixed_logits = at_least_float32(logits), at_least_float32(mixed_logits)
            q = torch.where(is_positive(targets), 1.0, logits.sigmoid())
            mixed_q = weight * q[:half][first] + (1 - weight) * q[len(q) - half :]
            distance = (mixed_q + self.eps).log() - (mixed_logits.sigmoid() + self.eps).log()
            return (distance**2).sum() / max(half, 1)
