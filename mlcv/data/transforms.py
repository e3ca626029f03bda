"""Augmentation and preprocessing with albumentations; the only file that knows that library."""

import os
import random
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcv.data.images import Pixels
from mlcv.errors import ConfigError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version
import albumentations as A  # the environment variable must come first; the library's own short name

Step = A.BasicTransform | A.BaseCompose

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


@dataclass(frozen=True)
class ImageStatistics:
    """What a backbone expects of its input; the command line takes it from the backbone's own data config.

    Args:
        mean: of each channel, for pixels in [0, 1].
        std: of each channel, likewise.
        interpolation: nearest, bilinear, bicubic or lanczos.
        crop_fraction: side of the evaluation's centre crop as a part of the resized image (for `resize: crop`).
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_fraction: float = 1.0


@dataclass(frozen=True)
class Augment:
    """How training images are varied, and how all images reach the network's size.

    Args:
        resize: `squash` ignores the aspect ratio (the custom of multi-label papers: no object is cut off);
            `crop` keeps it, with a centre crop in evaluation. In training, both crop at random if `min_scale` < 1.
        min_scale: smallest area of a random crop as a part of the image, in (0, 1]; 1 does not crop.
        flip: mirror half of the images. Not for digits, nor for chests.
        strength: of random colour and geometry, 0 (none) to 1.
        cutout: probability of grey rectangles (coarse dropout), in [0, 1].
    """

    resize: Literal["squash", "crop"] = "squash"
    min_scale: float = 0.5
    flip: bool = True
    strength: float = 0.5
    cutout: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= 1:
            raise ConfigError(f"augment.min_scale lies in (0, 1], got {self.min_scale}")
        for name in ("strength", "cutout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name} lies in [0, 1], got {getattr(self, name)}")


class Transform:
    """A pipeline from an image of any size to one of the network's size, uint8 to uint8.

    Random numbers come from a seed given with each call, so that a sample's augmentation depends on nothing else:
    not on the worker that made it, nor on where a resumed run started.

    Args:
        steps: albumentations transforms, in order.
        min_side: shorter side in pixels below which an input would lose detail; decoders may stop there.
        is_fixed: whether nothing in it is random, so that `locate` can follow it.
        centre: part of the shorter side that a centre crop keeps; None if the image is squashed instead.
    """

    def __init__(self, steps: list[Step], min_side: int, is_fixed: bool = False, centre: float | None = None) -> None:
        self.pipeline = A.Compose(steps)
        self.min_side, self.is_fixed, self.centre = min_side, is_fixed, centre

    def __call__(self, image: Pixels, seed: tuple[int, ...]) -> Pixels:
        if not self.pipeline.transforms:
            return image
        generator = np.random.default_rng(seed)
        # albumentations draws from both kinds of generator.
        other = random.Random(int(generator.integers(2**63)))  # noqa: S311  # no secret
        self.pipeline.set_random_state(generator, other)
        return self.pipeline(image=image)["image"]  # type: ignore[no-any-return]

    def locate(self, boxes: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Where boxes of an image lie in the output.

        Args:
            boxes: (K, 5), class, x, y, width, height as parts of the image's width and height.
            shape: of the image, its height and width first.

        Returns:
            The same as parts of the output, cut at its border; a box outside has no width or height.
        """
        if self.centre is None:
            return boxes
        height, width = shape[:2]
        side = self.centre * min(height, width)
        sides = np.array([width, height], np.float32) / side
        low = (boxes[:, 1:3] - 0.5) * sides + 0.5
        high = low + boxes[:, 3:5] * sides
        low, high = low.clip(0, 1), high.clip(0, 1)
        return np.concatenate([boxes[:, :1], low, high - low], axis=1).astype(np.float32)


def training_transform(size: int, augment: Augment, statistics: ImageStatistics) -> Transform:
    """Random crop or resize, flip, colour and geometry in the manner of RandAugment, coarse dropout.

    Args:
        size: side of the square output in pixels.
        augment: what to vary.
        statistics: of the backbone; its interpolation is used.
    """
    interpolation = interpolation_flag(statistics)
    steps: list[Step] = []
    if augment.min_scale < 1:
        ratio = (0.75, 4 / 3)
        scale = (augment.min_scale, 1.0)
        steps.append(A.RandomResizedCrop((size, size), scale=scale, ratio=ratio, interpolation=interpolation))
    else:
        steps += _fit(size, augment, statistics)
    if augment.flip:
        steps.append(A.HorizontalFlip())
    if augment.strength:
        steps.append(A.SomeOf(_colour_and_geometry(augment.strength), n=2, replace=False, p=1))
    if augment.cutout:
        holes, side = (1, 3), (0.1, 0.3)
        steps.append(A.CoarseDropout(holes, side, side, fill=127, p=augment.cutout))
    return Transform(steps, int(np.ceil(size / np.sqrt(augment.min_scale))))


def evaluation_transform(size: int, augment: Augment, statistics: ImageStatistics) -> Transform:
    """The deterministic resize (and centre crop) of validation, test and prediction.

    Args:
        size: side of the square output in pixels.
        augment: its `resize` decides between squashing and cropping.
        statistics: of the backbone; its interpolation and crop fraction are used.
    """
    larger = int(size / statistics.crop_fraction)
    centre = size / larger if augment.resize == "crop" else None
    return Transform(_fit(size, augment, statistics), larger, is_fixed=True, centre=centre)


def interpolation_flag(statistics: ImageStatistics) -> int:
    """OpenCV's code for the interpolation's name.

    Raises:
        ConfigError: for a name that does not exist.
    """
    if statistics.interpolation not in _INTERPOLATION:
        raise ConfigError(f"interpolation is one of {', '.join(_INTERPOLATION)}; got {statistics.interpolation!r}")
    return _INTERPOLATION[statistics.interpolation]


def _fit(size: int, augment: Augment, statistics: ImageStatistics) -> list[Step]:
    interpolation = interpolation_flag(statistics)
    if augment.resize == "squash":
        return [A.Resize(size, size, interpolation=interpolation, area_for_downscale="image")]
    larger = int(size / statistics.crop_fraction)
    resize = A.SmallestMaxSize(larger, interpolation=interpolation, area_for_downscale="image")
    return [resize, A.CenterCrop(size, size)]


def _colour_and_geometry(strength: float) -> list[Step]:
    """One step of each kind; ranges grow linearly with the strength and reach RandAugment's usual ones at 1."""
    shear, turn, shift = 17.0 * strength, 30.0 * strength, 0.3 * strength
    jitter = 0.8 * strength
    return [
        A.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=0.0, p=1),
        A.RandomGamma((int(100 - 60 * strength), int(100 + 100 * strength)), p=1),
        A.Posterize(num_bits=(max(8 - round(4 * strength), 1), 8), p=1),
        A.Sharpen(alpha=(0, strength), p=1),
        A.Equalize(p=strength / 2),
        A.Affine(shear=(-shear, shear), fill=127, p=1),
        A.Affine(rotate=(-turn, turn), fill=127, p=1),
        A.Affine(translate_percent=(-shift, shift), fill=127, p=1),
    ]
