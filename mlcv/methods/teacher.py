"""Where soft labels come from: a trained method that sees the same augmented image, or a file made once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mlcv.errors import ConfigError
from mlcv.files import read_array
from mlcv.methods.base import Batch
from mlcv.methods.checkpoints import load_method
from mlcv.models.backbones import pretrained_config
from mlcv.models.clip_projector import CLIPProjector
from mlcv.models.lora import merge_lora
from mlcv.models.open_clip_tower import PREFIX

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, for pixels in [0, 1]."""


class Teacher(Protocol):
    """Gives logits to learn from. It never learns, and is no part of a student's checkpoint."""

    def to(self, device: torch.device) -> None:
        """Moves to where images will be."""

    def check(self, num_images: int) -> None:
        """Raises a ConfigError if there are images of which it can say nothing."""

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, C) for a batch as the student gets it."""


class OnlineTeacher:
    """A trained network that looks at the same images, frozen; on a GPU in bfloat16.

    Args:
        net: image (B, 3, H, W) to logits (B, C).
        backbone: name of its backbone, which says what statistics it expects of its images; ImageNet's if it has none.
        side: of the images that it takes, in pixels; any if None.
        given: mean and standard deviation by which the images that it gets are normalised.
    """

    def __init__(self, net: nn.Module, backbone: str | None, side: int | None, given: Statistics) -> None:
        self.net, self.side = net.requires_grad_(False).eval(), side
        wanted: Statistics = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # as of a DataModule that no backbone asks
        if backbone is not None:
            config = pretrained_config(backbone)
            wanted = config.mean, config.std
        self.statistics = [torch.tensor(values).view(3, 1, 1) for values in (*given, *wanted)]
        self.is_alike = tuple(map(tuple, given)) == tuple(map(tuple, wanted))

    def to(self, device: torch.device) -> None:
        """Moves to where images will be."""
        self.net.to(device)
        self.statistics = [tensor.to(device) for tensor in self.statistics]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, C), float32."""
        return self.logits(batch["image"])

    def logits(self, image: Tensor) -> Tensor:
        """Logits (B, C), float32, through which gradients flow to the image."""
        if not self.is_alike:
            mean, std, their_mean, their_std = self.statistics
            image = (image * std + mean - their_mean) / their_std
        if self.side is not None and image.shape[-1] != self.side:
            image = interpolate(image, (self.side, self.side), mode="bilinear", antialias=True)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=image.is_cuda):
            logits: Tensor = self.net(image)
        return logits.float()

    def check(self, num_images: int) -> None:
        """It has something to say of any image."""


class StoredLabels:
    """Probabilities that were stored once for each training image, whatever its augmentation.

    Args:
        probs: (N, C) in [0, 1], by the image's place in the training split.
        source: where they came from, for the error.
    """

    def __init__(self, probs: Tensor, source: str) -> None:
        self.logits, self.source = probs.logit(eps=1e-6), source

    def to(self, device: torch.device) -> None:
        """They stay where they are."""

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, C), of probabilities at least 1e-6 away from 0 and 1."""
        return self.logits[batch["index"].cpu()].to(batch["image"].device)

    def check(self, num_images: int) -> None:
        """Raises a ConfigError unless there is a row for each training image."""
        if len(self.logits) != num_images:
            raise ConfigError(
                f"model.teacher: {self.source} has {len(self.logits)} rows, and there are {num_images} training "
                "images; make it again for these data (mlcv predict --split train --predictions FILE.npy)"
            )


def read_teacher(source: str, class_names: tuple[str, ...], student: str | None) -> Teacher:
    """A teacher by the kind of its file.

    Args:
        source: a checkpoint of `mlcv fit`, a projector's .safetensors file, or a .npy file (N, C) of probabilities, a
            row for each training image.
        class_names: C names of the student's classes, which must be the teacher's.
        student: name of the student's backbone, whose statistics its images have; ImageNet's if None.

    Raises:
        ConfigError: if there is no such file, or it is of other classes.
    """
    path = Path(source)
    if path.suffix == ".npy":
        return StoredLabels(_read_probs(path, len(class_names)), source)
    given: Statistics = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    if student is not None:
        config = pretrained_config(student)
        given = config.mean, config.std
    return read_online_teacher(path, class_names, given)


def read_online_teacher(path: Path, class_names: tuple[str, ...], given: Statistics) -> OnlineTeacher:
    """A teacher that looks at images, from a checkpoint or a projector's file; as `read_teacher`.

    Args:
        path: of the file.
        class_names: C names.
        given: mean and standard deviation by which the images that it will get are normalised.

    Raises:
        ConfigError: likewise.
    """
    net: Any
    if path.suffix == ".safetensors":
        net = CLIPProjector.from_file(path)
        merge_lora(net)
        theirs, name, side = net.about["class_names"], PREFIX + net.about["clip"], net.image_size
    else:
        net = load_method(path, "model.teacher")
        theirs, name = net.class_names, net.hparams.get("backbone")
        name = name if isinstance(name, str) else None  # of a method of the user's own
        is_fixed = name is not None and pretrained_config(name).fixed_input_size
        side = net.hparams.get("image_size") if is_fixed else None
    if tuple(theirs) != tuple(class_names):
        raise ConfigError(
            f"model.teacher: {path} knows the classes {', '.join(theirs[:3])}, ..., the data "
            f"{', '.join(class_names[:3])}, ...; take a teacher of the same data"
        )
    return OnlineTeacher(net, name, side, given)


def _read_probs(path: Path, num_classes: int) -> Tensor:
    if not path.is_file():
        raise ConfigError(f"model.teacher: no file {path}")
    probs = read_array(path, "model.teacher")
    if probs.ndim != 2 or probs.shape[1] != num_classes or not ((probs >= 0) & (probs <= 1)).all():
        raise ConfigError(
            f"model.teacher: {path} has shape {probs.shape}; probabilities (N, {num_classes}) in [0, 1] are needed"
        )
    return torch.from_numpy(probs)
