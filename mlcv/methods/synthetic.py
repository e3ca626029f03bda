"""Small synthetic training sets of HeLlO (Yu et al., ICCV 2025, arXiv 2408.08201): a teacher's crops, then pixels.

Crops are chosen as in RDED (Sun et al., CVPR 2024, arXiv 2312.03526), for labels of any number an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, interpolate, mse_loss

from mlcv.errors import ConfigError
from mlcv.labels.states import UNKNOWN, is_positive, resolve_unknown
from mlcv.losses.soft_labels import soft_label_loss
from mlcv.methods.teacher import OnlineTeacher

Objective = Callable[[Tensor], Tensor]
"""What is to become small: images (B, 3, H, W) in [0, 1] to a scalar, a mean over images."""


@dataclass(frozen=True)
class Chosen:
    """Crops of a data set: of which image (S,), which crop (S,), for which class (S,), and what it shows (S, C)."""

    images: Tensor
    crops: Tensor
    classes: Tensor
    targets: Tensor


def crop_targets(probs: Tensor, targets: Tensor) -> Tensor:
    """What is known of crops. What the image lacks, its crops lack; what it has is there if the teacher sees it.

    Shape:
        probs of the teacher (M, K, C) for K crops of each image, targets of the images (M, C); returns (M, K, C), where
        a label that the teacher does not see in the crop (below 0.5) is unknown.
    """
    of_image = targets[:, None].expand_as(probs)
    return torch.where(is_positive(of_image) & (probs < 0.5), UNKNOWN, of_image)


def choose_crops(probs: Tensor, targets: Tensor, per_class: int) -> Chosen:
    """For each class the crops that show it and cost the teacher least, at most one an image, rare classes first.

    The cost is the mean cross-entropy of what is known of the crop, so that a crop with half an object is dear.

    Args:
        probs: of the teacher (M, K, C), for K crops of each image.
        targets: of the images (M, C), -1 where unknown.
        per_class: crops wanted of each class; fewer where no image is left.

    Raises:
        ConfigError: if the teacher sees no label in any crop.
    """
    labels = crop_targets(probs, targets)
    filled, weight = (part.view_as(labels) for part in resolve_unknown(labels.flatten(0, 1), "ignore"))
    entropy = binary_cross_entropy(probs.clamp(1e-6, 1 - 1e-6), filled, reduction="none")
    cost = (entropy * weight).sum(dim=2) / weight.sum(dim=2).clamp_min(1)  # (M, K)
    shows = is_positive(labels)
    if not shows.any():
        raise ConfigError("the teacher sees none of the labels in any crop; train it longer, or take larger crops")
    is_free = torch.ones(len(targets), dtype=torch.bool)
    images, crops, classes = [], [], []
    for c in shows.any(dim=1).sum(dim=0).argsort().tolist():
        best, which = cost.masked_fill(~shows[:, :, c], torch.inf).min(dim=1)  # (M,)
        best[~is_free] = torch.inf
        taken = best.argsort(stable=True)[:per_class]
        taken = taken[best[taken].isfinite()]
        is_free[taken] = False
        images.append(taken)
        crops.append(which[taken])
        classes.append(torch.full_like(taken, c))
    chosen, crop = torch.cat(images), torch.cat(crops)
    return Chosen(chosen, crop, torch.cat(classes), labels[chosen, crop])


def teacher_gap(projector: OnlineTeacher, teacher: OnlineTeacher) -> Objective:
    """How far the projector's soft labels are from the teacher's: KL(teacher, projector), see `soft_label_loss`."""
    return lambda image: soft_label_loss(projector.logits(image), teacher.logits(image))


def lost_information(encode: Callable[[Tensor], Tensor], factor: int = 2) -> Objective:
    """The paper's objective: how much an encoder's features move when the image is made small and large again.

    Args:
        encode: images in [0, 1] to features (B, D).
        factor: by which height and width are divided, >= 2.
    """

    def objective(image: Tensor) -> Tensor:
        side = image.shape[-2:]
        smaller = interpolate(image, [max(s // factor, 1) for s in side], mode="bilinear", antialias=True)
        return mse_loss(encode(image), encode(interpolate(smaller, side, mode="bilinear")))

    return objective


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down and across: (B, 3, H, W) to a scalar."""
    return image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()


def update_pixels(
    image: Tensor, objective: Objective, steps: int, lr: float = 0.01, tv_weight: float = 0.1, most: float = 0.1
) -> Tensor:
    """Images whose objective is smaller, by Adam on their pixels; the networks are left as they are.

    Args:
        image: (B, 3, H, W) in [0, 1].
        objective: see `teacher_gap` and `lost_information`.
        steps: of Adam.
        lr: learning rate, in pixel values of [0, 1].
        tv_weight: of `total_variation`, against noise that only a network sees.
        most: no pixel moves farther than this.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ConfigError: for numbers out of range.
    """
    if steps < 1 or lr <= 0 or tv_weight < 0 or not 0 < most <= 1:
        raise ConfigError("pixels: steps >= 1, lr > 0, tv_weight >= 0 and 0 < most <= 1 are needed")
    low, high = (image - most).clamp_min(0), (image + most).clamp_max(1)
    moving = image.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([moving], lr=lr)
    for _ in range(steps):
        # A sum over images, so that none depends on how many others are in the batch.
        loss = len(image) * (objective(moving) + tv_weight * total_variation(moving))
        (moving.grad,) = torch.autograd.grad(loss, moving)
        optimizer.step()
        with torch.no_grad():
            moving.copy_(moving.clamp(low, high))
    return moving.detach()
