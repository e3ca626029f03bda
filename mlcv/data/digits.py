"""DigitScenes: multi-label images composed of real handwritten digits, with nothing to download."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.images import Pixels
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.transforms import Augment
from mlcv.errors import ConfigError
from mlcv.labels.states import NEGATIVE, POSITIVE

_SOURCE_PARTS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
_TRIES = 30


@dataclass(frozen=True)
class Scene:
    """How one scene is composed.

    Args:
        max_digits: 1 to this many digits in a scene.
        digit_size: smallest and largest side of a digit, as parts of the canvas.
        clutter: short strokes in the background.
        noise: standard deviation of the pixel noise, in grey levels (0 to 255).
        turn: each digit is turned by at most this many degrees, either way.
        invert: dark digits on a light ground.
    """

    max_digits: int = 4
    digit_size: tuple[float, float] = (0.25, 0.45)
    clutter: int = 4
    noise: float = 12.0
    turn: float = 0.0
    invert: bool = False

    def __post_init__(self) -> None:
        low, high = self.digit_size
        if self.max_digits < 1 or not 0 < low <= high <= 1:
            raise ConfigError(f"scene: max_digits >= 1 and 0 < digit_size <= 1 (rising) are needed, got {self}")


class DigitScenesDataModule(MultiLabelDataModule):
    """Scenes of 1 to 4 digits from scikit-learn's 1,797 real handwritten ones; a label is a digit that occurs.

    The source digits are divided between the splits (70, 10 and 20 %), so no handwriting is in two of them.

    Args:
        num_train: training scenes.
        num_val: validation scenes.
        num_test: test scenes.
        scene: how a scene is composed.
        augment: none by default, since each scene is new.
        image_size: side of the canvas in pixels, at least 16.
        num_workers: scenes are in memory, so no worker is needed.
        kwargs: see `MultiLabelDataModule`.
    """

    class_names = tuple(str(digit) for digit in range(10))
    is_apart = True

    def __init__(
        self,
        num_train: int = 4000,
        num_val: int = 500,
        num_test: int = 1000,
        scene: Scene = Scene(),  # frozen
        augment: Augment = Augment(min_scale=1.0, flip=False, strength=0.0, cutout=0.0),  # noqa: B008
        image_size: int = 64,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(augment=augment, image_size=image_size, num_workers=num_workers, **kwargs)
        if image_size < 16:
            raise ConfigError(f"data.image_size is at least 16 for digits to be legible, got {image_size}")
        self.scene = scene
        self.sizes: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}

    def read_split(self, split: Split) -> LabeledImages:
        return compose_scenes(split, self.sizes[split], self.scene, self.image_size, self.seed)


def compose_scenes(split: Split, count: int, scene: Scene, size: int, seed: int) -> LabeledImages:
    """Composes scenes from one split's share of the source digits; the same arguments give the same pixels.

    Args:
        split: whose source digits to use.
        count: number of scenes M.
        scene: how each is composed.
        size: side of the canvas in pixels.
        seed: of everything random.

    Returns:
        Images uint8 (M, size, size, 3) with three equal channels, states (M, 10), and the digits' boxes.
    """
    digits, classes = _source_digits(split, seed)
    random = np.random.default_rng([seed, list(_SOURCE_PARTS).index(split)])
    canvases = np.empty((count, size, size), np.uint8)
    states = np.full((count, 10), NEGATIVE, np.int8)
    boxes = []
    for canvas, row in zip(canvases, states, strict=True):
        placed = _compose(canvas, digits, classes, scene, random)
        row[placed[:, 0].astype(np.intp)] = POSITIVE
        boxes.append(placed)
    if scene.invert:
        canvases = 255 - canvases
    grain = random.standard_normal((min(count, 256), size, size), np.float32) * scene.noise
    for start in range(0, count, len(grain)):
        part = canvases[start : start + len(grain)]
        # Shifting one field of noise is many times cheaper than drawing it anew, and no scene gets the same one.
        shift = random.integers(size, size=2)
        noisy = part + np.roll(grain[: len(part)], shift, axis=(1, 2))
        part[:] = noisy.clip(0, 255)
    return LabeledImages(np.repeat(canvases[..., None], 3, axis=-1), states, boxes)


def _turned(stroke: Pixels, degrees: float) -> Pixels:
    centre = (stroke.shape[1] - 1) / 2, (stroke.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    return cv2.warpAffine(stroke, matrix, stroke.shape[::-1])  # type: ignore[return-value]  # OpenCV's stubs say Mat


def _source_digits(split: Split, seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # noqa: PLC0415  # half a second that no other data set needs

    source = load_digits()
    order = np.random.default_rng(seed).permutation(len(source.images))
    low, high = (round(part * len(order)) for part in _SOURCE_PARTS[split])
    mine = order[low:high]
    return (source.images[mine] * (255 / 16)).astype(np.uint8), source.target[mine]


def _compose(
    canvas: Pixels, digits: Pixels, classes: NDArray[np.int64], scene: Scene, random: np.random.Generator
) -> NDArray[np.float32]:
    """Draws one scene into `canvas`; returns the digits' (K, 5): class, x, y, width, height, as parts of the canvas."""
    size = len(canvas)
    canvas[:] = random.integers(10, 60)
    for x0, y0, angle, length, grey in random.random((scene.clutter, 5)) * (size, size, 6.3, 0.15, 90):
        x1, y1 = x0 + size * length * np.cos(angle), y0 + size * length * np.sin(angle)
        cv2.line(canvas, (int(x0), int(y0)), (int(x1), int(y1)), 40 + int(grey), 1, cv2.LINE_AA)
    placed: list[tuple[int, int, int, int]] = []
    low, high = scene.digit_size
    wanted = int(random.integers(1, scene.max_digits + 1))
    for _ in range(_TRIES):
        side = max(int(size * random.uniform(low, high)), 8)
        x, y = (int(v) for v in random.integers(size - side + 1, size=2))
        if any(x < u + s and u < x + side and y < v + s and v < y + side for u, v, s, _ in placed):
            continue
        which = int(random.integers(len(digits)))
        stroke = cv2.resize(digits[which], (side, side), interpolation=cv2.INTER_CUBIC)
        region = canvas[y : y + side, x : x + side]
        if scene.turn:
            stroke = _turned(stroke, random.uniform(-scene.turn, scene.turn))
        np.maximum(region, (stroke * random.uniform(0.6, 1.0)).astype(np.uint8), out=region)
        placed.append((x, y, side, int(classes[which])))
        if len(placed) == wanted:
            break
    boxes = np.array([(c, x, y, side, side) for x, y, side, c in placed], np.float32).reshape(-1, 5)
    boxes[:, 1:] /= size
    return boxes
