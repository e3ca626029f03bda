"""What images are before they are decoded: files, arrays in memory, or a user's own, behind one protocol."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mlcv.data.images import Pixels, find_unreadable, read_image
from mlcv.errors import ConfigError, DataError
from mlcv.fingerprints import fingerprint_of


@runtime_checkable
class Items(Protocol):
    """M images. One's own (shards of an archive, a data base) may stand for `LabeledImages.images`."""

    def __len__(self) -> int:
        """M."""

    def read(self, index: int, min_side: int | None, grey: bool, max_megapixels: float) -> Pixels:
        """Pixels of an image, see `mlcv.data.images.read_image`; a DataError if there are none."""

    def name(self, index: int) -> str:
        """How to find it again; for people, so that two may be alike."""

    def keys(self) -> list[Any]:
        """What makes each image itself, however it is named: equal for one image alone."""

    def select(self, rows: NDArray[np.intp]) -> Any:
        """The images at these positions, as `LabeledImages.images` takes them."""

    def fingerprint(self) -> str:
        """Of which images there are, in which order; see `mlcv.fingerprints`."""

    def unreadable(self, min_side: int, threads: int, max_megapixels: float) -> Mapping[int, DataError]:
        """What is wrong with each image that cannot be read, by its position."""


@dataclass(frozen=True)
class Files:
    """Images in files, by their paths."""

    paths: Sequence[Path | str]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, min_side: int | None, grey: bool, max_megapixels: float) -> Pixels:
        return read_image(Path(self.paths[index]), min_side, grey, max_megapixels)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def keys(self) -> list[Any]:
        """The file itself, whatever paths and links lead there."""
        return [_file(str(path)) for path in self.paths]

    def select(self, rows: NDArray[np.intp]) -> list[Path | str]:
        return [self.paths[row] for row in rows]

    def fingerprint(self) -> str:
        """Wherever their folder lies."""
        return fingerprint_of(["/".join(str(path).split("/")[-3:]) for path in self.paths])

    def unreadable(self, min_side: int, threads: int, max_megapixels: float) -> Mapping[int, DataError]:
        return find_unreadable(self.paths, min_side, threads, max_megapixels)


@dataclass(frozen=True)
class Arrays:
    """Images in memory, uint8 (M, H, W, 3)."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int, min_side: int | None, grey: bool, max_megapixels: float) -> Pixels:
        pixels: Pixels = self.pixels[index]
        return pixels

    def name(self, index: int) -> str:
        return f"image {index}"

    def keys(self) -> list[Any]:
        return [hashlib.sha256(image.tobytes()).digest() for image in self.pixels]

    def select(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        return self.pixels[rows]

    def fingerprint(self) -> str:
        return fingerprint_of(hashlib.sha256(self.pixels.tobytes()).hexdigest())

    def unreadable(self, min_side: int, threads: int, max_megapixels: float) -> Mapping[int, DataError]:
        return {}


def items_of(images: Items | Sequence[Path | str] | NDArray[np.uint8]) -> Items:
    """Paths or arrays as items; what is so already as it is.

    Raises:
        ConfigError: for an object that lacks a part of what items are.
    """
    if isinstance(images, np.ndarray):
        return Arrays(images)
    if isinstance(images, Items):
        return images
    if not isinstance(images, Sequence):
        lacks = sorted(name for name in vars(Items) if callable(vars(Items)[name]) and not hasattr(images, name))
        raise ConfigError(
            f"{type(images).__name__} stands for images and lacks {', '.join(lacks)}; see mlcv.data.items"
        )
    return Files(images)


def _file(path: str) -> Any:
    try:
        about = os.stat(path)  # noqa: PTH116  # many paths, and a Path takes ten times as long
    except (OSError, ValueError):
        return path
    return about.st_dev, about.st_ino
