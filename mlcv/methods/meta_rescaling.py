"""Weights of labels that are learnt beside the network from its own noisy training set (STORM, arXiv 2412.12955)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import dropout, logsigmoid

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs, log_odds
from mlcv.losses.bce import BCELoss
from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.base import Batch
from mlcv.models.linear import LinearHead
from mlcv.numerics import at_least_float32, full_precision

_EVIDENCE = 7


class MetaRescaling(BackboneMethod):
    """Each entry's loss is weighed by a small network, which learns from what its weights would do to the rest.

    Self-taught on-the-fly meta loss rescaling (AAAI 2025), with the entries of several labels in place of images of
    one. A batch is dealt into halves S and M at random (of an odd one, an image is in both). With l the cross-entropy
    of an entry of given label y, Theta the linear head on pooled features f, and phi what some passes with dropout say
    of an entry:

        w = Omega(phi), divided by its mean over the batch, see `normalize`
        Theta' = Theta - a grad_Theta mean_S sum_c w l     the virtual step
        z'(f) = z(f) - a mean_S (f f_S + 1) w (p - y)      the same in closed form
        w', l' = Omega(phi'), l of M under Theta'
        loss = mean_{S and M} sum_c [w] l + mean_M sum_c w' l'

    The first term teaches the network, with no gradient through [w]; the second Omega alone, by w through Theta' and by
    w' (`direct`), with none through phi'. phi has mean and deviation over the passes of an entry's loss and of the
    probability of its label, the part of the passes that agree with it, the label, and the logarithm of its class's
    prior. The authors have an Omega for each class, with running means of all that, keep Theta' as the new Theta, and
    draw M from all training images; here there is one Omega, and the network learns by its own optimizer from both
    halves.

    Both terms are least where all of Omega(phi) is 0: so weights are divided by their mean, and `train/weight_positive`
    and `train/weight_negative` show what they were before. And the direct part, many times the larger, prefers what is
    easy: with `normalize="class"` positives of rare classes starve. In this project's trials on frozen features it was
    worse than `Classifier` with cross-entropy (VOC, one positive an image: 48 against 52 mAP); without the direct part
    it was as good, and no better. Under DDP batches are each process's own.

    Args:
        backbone: timm's model name, or `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        inner_lr: a > 0, in parts of the inverse mean square length of (f, 1), so that it is the same for all backbones.
        direct: whether Omega learns by w' too, as the paper has it.
        normalize: weights have mean 1 among a batch's entries of a class (`class`), or of a class and given value
            (`class_and_value`), or as they are (`none`).
        passes: with dropout, for phi, at least 2; the paper's is 3.
        dropout: of the features in these passes, in (0, 1).
        width: hidden numbers of Omega.
        unknown: what an entry that nobody annotated counts as, see `mlcv.labels.resolve_unknown`.
        kwargs: see `BackboneMethod`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    loss: BCELoss

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        inner_lr: float = 1.0,
        direct: bool = True,
        normalize: Literal["class", "class_and_value", "none"] = "class",
        passes: int = 3,
        dropout: float = 0.3,
        width: int = 16,
        unknown: UnknownAs = "ignore",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **kwargs)
        if inner_lr <= 0 or passes < 2 or not 0 < dropout < 1 or width < 1:
            raise ConfigError(
                "model.inner_lr > 0, model.passes >= 2, model.dropout in (0, 1) and model.width >= 1 are needed, got "
                f"{inner_lr}, {passes}, {dropout} and {width}"
            )
        if normalize not in ("class", "class_and_value", "none"):
            raise ConfigError(f"model.normalize is class, class_and_value or none, got {normalize!r}")
        self.inner_lr, self.direct, self.normalize = inner_lr, direct, normalize
        self.passes, self.dropout = passes, dropout
        self.head = LinearHead(self.backbone.pooled_features, num_classes)
        self.loss = BCELoss(unknown)
        self.rescaler = nn.Sequential(nn.Linear(_EVIDENCE, width), nn.ReLU(), nn.Linear(width, 1), nn.Sigmoid())
        self.log_prior: Tensor
        self.register_buffer("log_prior", torch.zeros(num_classes))
        self.train()  # the Trainer leaves each part in the mode that it finds

    def on_labels(self, targets: Tensor) -> None:
        super().on_labels(targets)
        self.log_prior.copy_(logsigmoid(log_odds(targets)))

    def objective(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        pooled = self.backbone.features(batch["image"], "pooled")
        logits = self.head(pooled)
        with full_precision(logits):
            logits, features = at_least_float32(logits), at_least_float32(pooled.detach())
            targets, is_used = self.loss.resolve(batch["target"].to(logits.dtype))
            losses = is_used * cross_entropy(logits, targets, reduction="none")
            dropped, said = self._look(features)
            raw = self.rescale(said, targets)
            weights = self._normalized(raw, targets, is_used)
            learnt = (weights.detach() * losses).sum() / max(len(losses), 1)

            order, half = torch.randperm(len(features), device=features.device), (len(features) + 1) // 2
            s, m = order[:half], order[len(order) - half :]
            whole, dropped = with_one(features), with_one(dropped)
            lr = self.inner_lr / whole.square().sum(dim=1).mean()
            slopes = (weights * is_used * (logits.detach().sigmoid() - targets))[s]
            after = virtual_logits(logits.detach()[m], whole[m], whole[s], slopes, lr)
            said_after = virtual_logits(said[:, m], dropped[:, m], whole[s], slopes.detach(), lr)
            later = self._normalized(self.rescale(said_after, targets[m]), targets[m], is_used[m])
            later = later if self.direct else later.detach()
            meta_losses = is_used[m] * cross_entropy(after, targets[m], reduction="none")
            meta = (later * meta_losses).sum() / max(len(m), 1)
            return learnt + meta, {"loss_learnt": learnt, "loss_meta": meta, **_means(raw, targets, is_used)}

    @torch.no_grad()
    def _look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features with dropout (passes, B, D), and the logits that they give (passes, B, C)."""
        dropped = dropout(features.expand(self.passes, -1, -1), self.dropout)
        return dropped, self.head(dropped)

    def rescale(self, said: Tensor, targets: Tensor) -> Tensor:
        """What is called Omega(phi) above: raw weights in (0, 1).

        Shape:
            logits of the passes (passes, B, C) and targets in [0, 1] (B, C); returns (B, C).
        """
        losses = cross_entropy(said, targets.expand_as(said), reduction="none")
        p = torch.where(targets >= 0.5, said, -said).sigmoid()  # of the given label
        over_passes = [(x.mean(dim=0), x.std(dim=0, correction=0)) for x in (losses, p)]
        (loss, loss_spread), (p_given, p_spread) = over_passes
        agreeing, prior = (p > 0.5).to(p).mean(dim=0), self.log_prior.to(p).expand_as(targets)
        phi = torch.stack([loss, loss_spread, p_given, p_spread, agreeing, targets, prior], dim=2)
        weights: Tensor = self.rescaler(phi).squeeze(2)
        return weights

    def _normalized(self, weights: Tensor, targets: Tensor, is_used: Tensor) -> Tensor:
        if self.normalize == "none":
            return weights
        kinds = [targets >= 0.5, targets < 0.5] if self.normalize == "class_and_value" else [targets >= 0]
        found = torch.zeros_like(weights)
        for kind in kinds:
            counted = kind * is_used
            mean = (weights * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1e-8)
            found = found + kind * weights / mean.clamp(min=1e-8)
        return found


def virtual_logits(logits: Tensor, features: Tensor, step_features: Tensor, slopes: Tensor, lr: Tensor) -> Tensor:
    """Logits of a linear head after a step of gradient descent on the mean loss of some images, in closed form.

    Its gradient flows to the slopes, and through them to what has weighed the losses.

    Args:
        logits: before the step (..., M, C), of `features`.
        features: (..., M, D).
        step_features: of the images that the step is by (S, D).
        slopes: of their losses by their logits (S, C).
        lr: length of the step.
    """
    return logits - lr / max(len(slopes), 1) * (features @ step_features.T) @ slopes


def with_one(features: Tensor) -> Tensor:
    """A 1 behind each image's features, for the bias."""
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _means(raw: Tensor, targets: Tensor, is_used: Tensor) -> dict[str, Tensor]:
    """Mean raw weights of a batch's positives and negatives; where there are none, 0."""
    sides = {"weight_positive": (targets >= 0.5) * is_used, "weight_negative": (targets < 0.5) * is_used}
    return {name: (raw.detach() * side).sum() / side.sum().clamp(min=1) for name, side in sides.items()}
