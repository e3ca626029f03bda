"""Augmentation and preprocessing with albumentations; the only file that knows that library."""

import math
import os
import random
from dataclasses import dataclass
from typing import Any, Literal

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
_FILL = 127
"""What is seen where there is no image."""
_BITS = 4  # of places between pixels, for OpenCV's outlines


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


class TrainingTransform(Transform):
    """Random crop or resize, flip, colour and geometry in the manner of RandAugment, coarse dropout.

    What is drawn for a seed is known before an image is decoded, see `draw`, which may then be done at a size that is
    enough for the crop.

    Args:
        size: side of the square output in pixels.
        augment: what to vary.
        statistics: of the backbone; its interpolation is used.
    """

    def __init__(self, size: int, augment: Augment, statistics: ImageStatistics) -> None:
        super().__init__([], int(np.ceil(size / np.sqrt(augment.min_scale))))
        self.size, self.augment, self.interpolation = size, augment, interpolation_flag(statistics)
        self.centre = size / int(size / statistics.crop_fraction) if augment.resize == "crop" else None
        self.cropping = A.RandomResizedCrop((size, size), scale=(augment.min_scale, 1.0), ratio=(0.75, 4 / 3))
        self.colours, self.shapes = _colours(augment.strength), _shapes(augment.strength)
        holes, side = (1, 3), (0.1, 0.3)
        self.holes = A.CoarseDropout(holes, side, side, fill=_FILL, p=augment.cutout)

    def __call__(self, image: Pixels, seed: tuple[int, ...]) -> Pixels:
        return self.draw(seed)(image)

    def draw(self, seed: tuple[int, ...]) -> "Draw":
        """What is done to an image."""
        return Draw(self, seed)

    def window(self, height: int, width: int, other: random.Random) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is seen of an image of this size."""
        if self.augment.min_scale < 1:
            self.cropping.set_random_state(self.cropping.random_generator, other)
            drawn: dict[str, tuple[int, int, int, int]]
            drawn = self.cropping.get_params_dependent_on_data({"shape": (height, width)}, {})
            return drawn["crop_coords"]
        if self.centre is None:
            return 0, 0, width, height
        side = max(round(self.centre * min(height, width)), 1)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def resize(self, image: Pixels) -> Pixels:
        """To the output's size; as an evaluation does, by means of areas, if no crop is random."""
        is_averaged = self.augment.min_scale == 1 and max(image.shape[:2]) > self.size
        how = cv2.INTER_AREA if is_averaged else self.interpolation
        return _as_pixels(cv2.resize(image, (self.size, self.size), interpolation=how))


class Draw:
    """What a seed makes of an image: a window on it, perhaps mirrored, what its pixels go through, and holes.

    Shear, turn and shift are one matrix with crop, resize and mirror, so that all pixels are interpolated once.

    Args:
        transform: what is drawn from.
        seed: of all that is drawn.
    """

    def __init__(self, transform: TrainingTransform, seed: tuple[int, ...]) -> None:
        self.transform = transform
        self.generator = np.random.default_rng(seed)
        # albumentations draws from both kinds of generator; the window has its own, for it takes as many as it needs.
        self.window_seed, other = self.generator.integers(2**63, size=2).tolist()
        self.other = random.Random(other)  # noqa: S311  # no secret
        self.is_mirrored = transform.augment.flip and self.generator.random() < 0.5
        self.colours: list[Step] = []
        self.matrix: NDArray[np.float64] | None = None
        """From the output's pixels to its pixels (3, 3); None if they stay where they are."""
        self._size: tuple[int, int] | None = None
        kinds = [*transform.colours, *transform.shapes]
        chosen = sorted(self.generator.choice(len(kinds), 2, replace=False)) if transform.augment.strength else []
        for kind in chosen:
            kinds[kind].set_random_state(self.generator, self.other)
            if kind < len(transform.colours):
                self.colours.append(kinds[kind])
            else:
                shape = {"shape": (transform.size, transform.size)}
                matrix = kinds[kind].get_params_dependent_on_data(shape, {})["matrix"]
                self.matrix = matrix if self.matrix is None else matrix @ self.matrix

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is seen of an image of this size."""
        return self.transform.window(height, width, random.Random(self.window_seed))  # noqa: S311

    def min_side(self, height: int, width: int) -> int:
        """The shorter side at which an image of this size is decoded large enough, and the window drawn for this size.

        Args:
            height: of the image, upright.
            width: likewise.
        """
        self._size = height, width
        left, top, right, bottom = self.window(height, width)
        return math.ceil(min(height, width) * self.transform.size / min(right - left, bottom - top))

    def __call__(self, image: Pixels) -> Pixels:
        """The output.

        Args:
            image: at any size, such as that which `min_side` was asked for, or a part of it.
        """
        seen = self._seen(image)
        if self.matrix is not None or self.transform.augment.min_scale < 1:
            seen = _halved(seen, self.transform.size)
        if self.matrix is None:
            out = self.transform.resize(seen)
            out = _as_pixels(cv2.flip(out, 1)) if self.is_mirrored else out
            outside = None
        else:
            out, outside = self._warped(seen, self.matrix)
        for step in [*self.colours, self.transform.holes]:
            if step is self.transform.holes and outside is not None:
                cv2.fillPoly(out, outside, (_FILL,) * 3, shift=_BITS)
            step.set_random_state(self.generator, self.other)
            out = step(image=out)["image"]
        return out

    def _seen(self, image: Pixels) -> Pixels:
        """The window, drawn for the size that was asked for if the image is a smaller one of it."""
        height, width = image.shape[:2]
        whole_height, whole_width = self._size or (height, width)
        if abs(whole_height * width - whole_width * height) > max(whole_height, whole_width):  # not by rounding alone
            whole_height, whole_width = height, width
        left, top, right, bottom = self.window(whole_height, whole_width)
        left, right = (min(round(x * width / whole_width), width) for x in (left, right))
        top, bottom = (min(round(y * height / whole_height), height) for y in (top, bottom))
        left, top = min(left, width - 1), min(top, height - 1)
        return image[top : max(bottom, top + 1), left : max(right, left + 1)]

    def _warped(self, seen: Pixels, matrix: NDArray[np.float64]) -> tuple[Pixels, list[NDArray[np.int32]]]:
        """The window in its new place, with its border beyond it; and the outlines between which that lies."""
        size = self.transform.size
        height, width = seen.shape[:2]
        x, y = size / width, size / height  # places are those of the middle of pixels
        matrix = matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        if self.is_mirrored:
            matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
        out = cv2.warpAffine(seen, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # fillPoly fills the outline itself, too, which is therefore one pixel further outside.
        left, top, right, bottom = -0.5 - 1 / x, -0.5 - 1 / y, width - 0.5 + 1 / x, height - 0.5 + 1 / y
        corners = matrix @ np.array([[left, right, right, left], [top, top, bottom, bottom], [1, 1, 1, 1]])
        frame = np.array([[-9, -9], [size + 9, -9], [size + 9, size + 9], [-9, size + 9]])
        outlines = [(outline * 2**_BITS).round().astype(np.int32) for outline in (frame, corners[:2].T)]
        return _as_pixels(out), outlines


def training_transform(size: int, augment: Augment, statistics: ImageStatistics) -> TrainingTransform:
    """How training images reach the network, see `TrainingTransform`."""
    return TrainingTransform(size, augment, statistics)


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


def _colours(strength: float) -> list[Step]:
    """One step of each kind; ranges grow linearly with the strength and reach RandAugment's usual ones at 1."""
    jitter = 0.8 * strength
    return [
        A.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=0.0, p=1),
        A.RandomGamma((int(100 - 60 * strength), int(100 + 100 * strength)), p=1),
        A.Posterize(num_bits=(max(8 - round(4 * strength), 1), 8), p=1),
        A.Sharpen(alpha=(0, strength), p=1),
        A.Equalize(p=strength / 2),
    ]


def _shapes(strength: float) -> list[A.Affine]:
    """Likewise; of these the matrices are taken."""
    shear, turn, shift = 17.0 * strength, 30.0 * strength, 0.3 * strength
    return [
        A.Affine(shear=(-shear, shear), p=1),
        A.Affine(rotate=(-turn, turn), p=1),
        A.Affine(translate_percent=(-shift, shift), p=1),
    ]


def _halved(image: Pixels, size: int) -> Pixels:
    """The image at 1/2, 1/4, ... while that is no smaller than the output: interpolation would leave pixels out."""
    while min(image.shape[:2]) >= 2 * size:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * height, : 2 * width]
        image = _as_pixels(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    return image


def _as_pixels(image: NDArray[Any]) -> Pixels:
    """OpenCV leaves a single channel out."""
    return image[..., None] if image.ndim == 2 else image
