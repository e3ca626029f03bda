"""One look at each image, decoded at a part of its size: what it is like, and by what a copy of it is found again."""

import hashlib
import logging
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcv.data.at_once import mapped
from mlcv.data.images import Pixels, read_image_and_header
from mlcv.data.items import Files, Items
from mlcv.errors import ConfigError, DataError
from mlcv.files import whole_file

logger = logging.getLogger(__name__)

SIDE = 64
"""Shorter side in pixels at which images are looked at; JPEGs are decoded at no more than twice that."""
_HASHED, THUMB = 32, 16
"""Sides of the grey images that are hashed, and kept."""
_VERSION = 1
"""Of what a look stores."""

LOOK = np.dtype([
    ("good", "?"), ("width", "u4"), ("height", "u4"), ("bits", "u1"), ("turn", "u1"), ("size", "u8"), ("grey", "?"),
    ("mean", "f4"), ("low", "f4"), ("high", "f4"), ("sharp", "f4"), ("border", "f4"),
    ("hash", "u8"), ("mirror", "u8"), ("thumb", "u1", (THUMB, THUMB)),
])  # fmt: skip
"""Of an image: whether it can be read; pixels of its sides, upright; bits a channel; EXIF's orientation; bytes of its
file, 0 if there is none; whether it has no colour; mean, 5th and 95th percentile of its grey levels, 0 to 255; see
`sharpness` and `border`; perceptual hashes of it and of its mirror image; grey levels."""

_FLAT, _EVEN = 2.0, 8
"""Standard deviation of grey levels below which there is nothing to compare; range of a border's levels."""
DARK, BRIGHT, BLURRED, WIDE_BORDER, LONG, SMALL = 50, 200, 0.2, 0.1, 3, 64
"""Of a dark image 95 % of the levels are below the first, of a bright one above the second; a blurred one is less sharp
than the third; a border is one from that part of a side on; a side is long from so many times the other on; a small
image has fewer pixels than a square of that side."""


def look(pixels: Pixels) -> Any:
    """What can be seen in an image: a scalar of `LOOK`, without what its file alone says.

    Args:
        pixels: uint8 (H, W, 3 or 1), best of a shorter side of `SIDE` to twice that.
    """
    found = np.zeros((), LOOK)
    found["good"], found["bits"], found["turn"] = True, 8, 1
    found["height"], found["width"] = pixels.shape[:2]
    grey = to_grey(pixels)
    found["grey"] = pixels.shape[2] == 1 or int(cv2.absdiff(pixels, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)).max()) <= 4
    darker = np.bincount(grey.ravel(), minlength=256).cumsum()  # a percentile of numpy's takes half of the whole time
    found["low"], found["high"] = np.searchsorted(darker, (0.05 * grey.size, 0.95 * grey.size))
    found["mean"] = cv2.mean(grey)[0]
    found["sharp"], found["border"] = sharpness(grey), border(grey)
    small = np.asarray(cv2.resize(grey, (_HASHED, _HASHED), interpolation=cv2.INTER_AREA), np.uint8)
    found["hash"], found["mirror"] = perceptual_hashes(small)
    found["thumb"] = cv2.resize(small, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return found[()]


def to_grey(pixels: Pixels) -> Pixels:
    """Grey levels uint8 (H, W)."""
    if pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels[..., 0])
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), np.uint8)


def sharpness(grey: Pixels) -> float:
    """Standard deviation of the Laplacian over that of grey levels, at a shorter side of `SIDE` pixels.

    So a blur of less than a pixel there, a hundredth of the picture, is not seen.
    """
    scale = SIDE / min(grey.shape)
    if scale < 1:
        size = [max(1, round(scale * length)) for length in grey.shape[::-1]]
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
    edges, deviation = (float(cv2.meanStdDev(one)[1][0, 0]) for one in (cv2.Laplacian(grey, cv2.CV_32F), grey))
    return edges / deviation if deviation >= _FLAT else 0.0


def border(grey: Pixels) -> float:
    """The part of width or height, whichever is more, that even rows or columns at the edges take; 0 if all is even."""
    parts: list[float] = []
    for axis in (0, 1):
        uneven = np.flatnonzero(grey.max(axis=axis) - grey.min(axis=axis) > _EVEN)
        if not len(uneven):
            return 0.0
        parts.append(1 - (int(uneven[-1]) - int(uneven[0]) + 1) / grey.shape[1 - axis])
    return max(parts)


def perceptual_hashes(small: Pixels) -> tuple[int, int]:
    """The pHash of a grey image (32, 32) and of its mirror image, 64 bits each.

    Which of the 8 x 8 lowest frequencies of the cosine transform, without the constant ones, exceed their median. A
    mirror changes the sign of every other column.
    """
    low = cv2.dct(small.astype(np.float32))[1:9, 1:9]
    signs = np.where(np.arange(1, 9) % 2, -1.0, 1.0)
    # The median of 64 numbers lies between the 32nd and the 33rd, so that the upper half exceeds it.
    bits = [
        np.packbits(values >= np.partition(values, 32, axis=None)[32]).view(np.uint64)[0]
        for values in (low, low * signs)
    ]
    return int(bits[0]), int(bits[1])


def flat(looks: NDArray[Any]) -> NDArray[np.bool_]:
    """Which images have nothing in them by which they could be compared."""
    even: NDArray[np.bool_] = looks["thumb"].reshape(len(looks), THUMB**2).std(axis=1) < _FLAT
    return even


def look_at_all(
    items: Items, max_megapixels: float, threads: int, cache: Path | None = None
) -> tuple[NDArray[Any], dict[int, DataError]]:
    """Looks at each image once, with a progress bar.

    Args:
        items: M images.
        max_megapixels: see `read_image`.
        threads: that decode at the same time.
        cache: file of earlier looks, by path, size and time of change of the images' files; it is written again.

    Returns:
        (M,) of `LOOK`, and what is wrong with each that cannot be read.
    """
    keys = np.array(list(map(_key, items)), "S16") if isinstance(items, Files) else None
    looks, errors = np.zeros(len(items), LOOK), {}
    left = np.arange(len(items))
    if keys is not None and cache is not None:
        places, found = _stored(cache, keys)
        looks[places], left = found, np.setdiff1d(left, places)

    def one(index: int) -> Any:
        try:
            return _look_at(items, index, max_megapixels)
        except DataError as error:
            return error

    if len(left):
        cv2.setNumThreads(1)  # images are what is done at the same time
        with ThreadPoolExecutor(threads) as pool:
            rows = left.tolist()
            for row, result in zip(rows, mapped(pool, one, rows, "looking at images"), strict=True):
                if isinstance(result, DataError):
                    errors[row] = result
                else:
                    looks[row] = result
        if keys is not None and cache is not None:
            _store(cache, keys[looks["good"]], looks[looks["good"]])
    return looks, errors


def _look_at(items: Items, index: int, max_megapixels: float) -> Any:
    if not isinstance(items, Files):
        return look(items.read(index, SIDE, False, max_megapixels))
    path = items[index]
    pixels, header = read_image_and_header(path, SIDE, False, max_megapixels)
    found = look(pixels)
    found["size"] = os.stat(path).st_size  # noqa: PTH116  # as in `Files.keys`
    if header is not None:
        sides = header.width, header.height
        found["width"], found["height"] = sides[::-1] if header.is_turned else sides
        found["bits"], found["turn"] = min(header.bits, 255), header.orientation
    return found


def _key(path: str) -> bytes:
    try:
        about = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return b""
    text = f"{os.path.abspath(path)}|{about.st_size}|{about.st_mtime_ns}|{_VERSION}"  # noqa: PTH100
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest().encode()


def _stored(cache: Path, keys: NDArray[np.bytes_]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Positions of images that were looked at before, and their looks; none if the file is damaged or of old."""
    nothing = np.zeros(0, np.intp), np.zeros(0, LOOK)
    try:
        with np.load(cache) as stored:
            known, looks = stored["keys"], stored["looks"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return nothing
    if looks.dtype != LOOK or known.dtype != keys.dtype or len(looks) != len(known) or not len(known):
        return nothing
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
    there = np.flatnonzero((known[order[place]] == keys) & (keys != b""))
    return there, looks[order[place[there]]]


def _is_ours(cache: Path) -> bool:
    """Whether a file holds looks, and not somebody's other arrays."""
    try:
        with np.load(cache) as stored:
            return set(stored.files) == {"keys", "looks"}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile):
        return False


def _store(cache: Path, keys: NDArray[np.bytes_], looks: NDArray[Any]) -> None:
    try:
        with whole_file(cache, "wb", keep=not _is_ours(cache)) as file:
            np.savez(file, keys=keys, looks=looks)
    except ConfigError as error:
        logger.warning("%s cannot be written (%s): the next sheet looks at all images again", cache, error)


def kinds_of_looks(looks: NDArray[Any]) -> dict[str, list[int]]:
    """Positions of images that are unlike others, by what they are."""
    good, is_flat = looks["good"], flat(looks)
    pixels = looks["width"].astype(np.int64) * looks["height"]
    kinds = {
        "one colour": is_flat,
        "dark": (looks["high"] < DARK) & ~is_flat,
        "bright": (looks["low"] > BRIGHT) & ~is_flat,
        "blurred": (looks["sharp"] < BLURRED) & ~is_flat,
        "with a border": looks["border"] > WIDE_BORDER,
        "turned by EXIF": looks["turn"] > 1,
        "of more than 8 bits": looks["bits"] > 8,
        "long": np.maximum(looks["width"], looks["height"]) > LONG * np.minimum(looks["width"], looks["height"]),
        "small": pixels < SMALL**2,
        "grey": looks["grey"],
    }
    return {kind: np.flatnonzero(mask & good).tolist() for kind, mask in kinds.items()}
