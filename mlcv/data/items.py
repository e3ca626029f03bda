"""What images are before they are decoded: files, arrays in memory, or a user's own, behind one protocol."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mlcv.data.images import MinSide, Pixels, find_unreadable, read_image
from mlcv.data.paths import end_of
from mlcv.errors import ConfigError, DataError
from mlcv.fingerprints import fingerprint_of

_CODE = "utf-8", "surrogatepass"  # whatever a Python string holds, such as bytes of a name that is no UTF-8


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


class Files(Sequence[str]):
    """Images in files, by their paths; and these paths, which loader processes share.

    They lie in one block of memory: each reading of a Python string writes to its count of references, and with it a
    forked process gets a copy of the page of memory that it is on.

    Args:
        paths: M paths, of any characters that the system allows.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self._set([str(path).encode(*_CODE) for path in paths])

    def _set(self, names: list[bytes]) -> None:
        self._ends: NDArray[np.int64] = np.cumsum([0, *map(len, names)], dtype=np.int64)
        self._names = b"".join(names)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        place = range(len(self))[index]
        return self._names[self._ends[place] : self._ends[place + 1]].decode(*_CODE)

    def __iter__(self) -> Iterator[str]:
        ends = self._ends.tolist()
        return (self._names[start:end].decode(*_CODE) for start, end in pairwise(ends))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Files) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def read(self, index: int, min_side: MinSide, grey: bool, max_megapixels: float) -> Pixels:
        return read_image(self[index], min_side, grey, max_megapixels)  # a Path interns its parts

    def name(self, index: int) -> str:
        return str(self[index])

    def keys(self) -> list[Any]:
        """The file itself, whatever paths and links lead there."""
        return [_file(path) for path in self]

    def select(self, rows: NDArray[np.intp]) -> "Files":
        chosen = copy(self)
        starts, ends = self._ends[:-1][rows].tolist(), self._ends[1:][rows].tolist()
        chosen._set([self._names[start:end] for start, end in zip(starts, ends, strict=True)])
        return chosen

    def fingerprint(self) -> str:
        """Wherever their folder lies."""
        return fingerprint_of([end_of(path) for path in self])

    def unreadable(self, min_side: int, threads: int, max_megapixels: float) -> Mapping[int, DataError]:
        return find_unreadable(self, min_side, threads, max_megapixels)


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
