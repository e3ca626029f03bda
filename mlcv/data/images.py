"""From a file to an array: the one decoder. Too large or truncated files are errors here, not crashes or grey bands."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.ImageFile import ImageFile

from mlcv.data.at_once import mapped
from mlcv.data.headers import KINDS, Header, read_image_header, unlimited
from mlcv.errors import DataError
from mlcv.tables import printable, read_regular

Pixels = NDArray[np.uint8]
MinSide = int | Callable[[int, int], int] | None
"""A shorter side in pixels that is enough, or what says it for a height and width; None for all of the image."""

MAX_MEGAPIXELS = 100.0
"""Larger images are refused unless asked for: above radiographs and most cameras, 0.6 to 1.7 GiB while decoded."""

_BYTES_A_PIXEL = 16  # four channels of 32 bits
_REMEDY = "replace the file, or set data.on_error to skip"

# A JPEG decoder can skip half, three quarters or seven eighths of the inverse transform.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_REDUCED_GREY = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}  # fmt: skip
_DEPTHS = (8, 10, 12, 14, 16)


def read_image(
    path: Path | str, min_side: MinSide = None, grey: bool = False, max_megapixels: float = MAX_MEGAPIXELS
) -> Pixels:
    """Reads an image as RGB; grey images get three equal channels, EXIF rotation is applied.

    16 bits become 8, the upper ones of the 10, 12, 14 or 16 that are used, since a radiograph of 12 would be black.
    Numbers with a fraction go from 0 (black) to 1, or, if one is above 1, are levels of up to 16 bits. Transparency is
    ignored, as most loaders of the field do: a pixel has the colour that is stored. Of several frames or pages the
    first is taken; DICOM files must have one.

    The size that the header states is checked before anything is decoded, also where a part of it would do. Truncation
    is found in every format. Other damage inside a JPEG, which has no check sums, is mostly not: the decoders hide it.

    Args:
        path: a JPEG, PNG, BMP, GIF, WebP, TIFF, JPEG 2000, PBM, PGM, PPM or PFM, or a DICOM (with the extra `dicom`).
        min_side: a shorter side in pixels that is enough; a larger JPEG is then decoded at 1/2, 1/4 or 1/8 of
            its size, never below this. A function is asked once, and of a JPEG alone, with its upright height and
            width, as its header has them. None decodes in full.
        grey: keep one channel, of which nothing is lost where images are grey; half the work for those.
        max_megapixels: millions of pixels above which an image is refused.

    Returns:
        uint8 (H, W, 3), or (H, W, 1) if grey.

    Raises:
        DataError: if the file is missing, no regular file, empty, truncated, too large or no image.
    """
    return read_image_and_header(path, min_side, grey, max_megapixels)[0]


def read_image_and_header(
    path: Path | str, min_side: MinSide, grey: bool, max_megapixels: float
) -> tuple[Pixels, Header | None]:
    """As `read_image`, with what the file says of itself; None of a DICOM."""
    data = read_regular(path, largest=2**24 + int(max_megapixels * 1e6 * _BYTES_A_PIXEL))
    try:
        return _decode(data, path, min_side, grey, max_megapixels)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes of a decoder, want of memory included
        why = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise DataError(f"{printable(path)}: not an image that can be decoded ({why}); {_REMEDY}") from error


def check_size(width: int, height: int, path: Path | str, max_megapixels: float) -> None:
    """Refuses what would take more memory than is meant for an image.

    Raises:
        DataError: if there are more pixels than that, or none.
    """
    if width <= 0 or height <= 0:
        raise DataError(f"{printable(path)}: an image of {width} x {height} pixels; {_REMEDY}")
    if width * height / 1e6 > max_megapixels:
        raise DataError(
            f"{printable(path)}: {width} x {height} pixels are more than the {max_megapixels:g} megapixels that an "
            "image may have; if it is meant, raise data.max_megapixels"
        )


def find_unreadable(
    paths: Sequence[Path | str], min_side: int | None = None, workers: int = 4, max_megapixels: float = MAX_MEGAPIXELS
) -> dict[int, DataError]:
    """Decodes every file once, in parallel, with a progress bar; returns the position and error of each bad one."""

    def problem(path: Path | str) -> DataError | None:
        try:
            read_image(path, min_side, max_megapixels=max_megapixels)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(workers) as pool:
        problems = list(mapped(pool, problem, paths, "checking images"))
    return {position: error for position, error in enumerate(problems) if error is not None}


def _decode(
    data: bytes, path: Path | str, min_side: MinSide, grey: bool, max_megapixels: float
) -> tuple[Pixels, Header | None]:
    if data[128:132] == b"DICM":  # after a preamble
        from mlcv.data.dicom import read_dicom  # noqa: PLC0415  # few need it

        return read_dicom(data, path, max_megapixels)[..., : 1 if grey else 3], None
    if not data:
        raise DataError(f"{printable(path)}: the file is empty; {_REMEDY}")
    header = read_image_header(data)
    if header is None:
        raise DataError(f"{printable(path)}: not an image of a kind that is decoded, {KINDS}; {_REMEDY}")
    if not header.is_whole:
        raise DataError(f"{printable(path)}: truncated (no end of image); {_REMEDY}")
    check_size(header.width, header.height, path, max_megapixels)
    check_size(*header.tile, path, max_megapixels)
    if header.image is not None:
        image = _eight_bits(_by_pillow(header.image, grey), path)
    else:
        whole, reduced = (cv2.IMREAD_GRAYSCALE, _REDUCED_GREY) if grey else (cv2.IMREAD_COLOR, _REDUCED)
        factor = _factor(header, min_side) if header.is_jpeg else 1
        found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), reduced.get(factor, whole | cv2.IMREAD_ANYDEPTH))
        if found is None:
            raise DataError(f"{printable(path)}: not an image that can be decoded, or truncated; {_REMEDY}")
        found = 255 - _eight_bits(found, path) if header.is_negative else _eight_bits(found, path)
        image = found if grey else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
    if image.ndim == 2:
        image = image[..., None] if grey else np.repeat(image[..., None], 3, axis=2)
    return image, header


def _factor(header: Header, min_side: MinSide) -> int:
    """By which a JPEG may be smaller."""
    if callable(min_side):
        sides = header.height, header.width
        min_side = min_side(*(sides[::-1] if header.is_turned else sides))
    return next((f for f in _REDUCED if min(header.width, header.height) // f >= (min_side or math.inf)), 1)


def _by_pillow(image: ImageFile, grey: bool) -> NDArray[Any]:
    """Pixels of a format that Pillow reads at least as well: 8 bits, or more of one channel."""
    with unlimited:
        image.load()
    ImageOps.exif_transpose(image, in_place=True)
    mode = "L" if grey else "RGB"
    is_ready = image.mode in (mode, "F") or image.mode.startswith("I")
    return np.array(image if is_ready else image.convert(mode))


def _eight_bits(image: NDArray[Any], path: Path | str) -> Pixels:
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if not 0 <= low <= high < 2**16:
        raise DataError(
            f"{printable(path)}: its pixels lie between {low:g} and {high:g}, so what is black and white in it must be "
            "guessed; store it in 8 or 16 bits"
        )
    if image.dtype.kind == "f" and high <= 1:
        return (image * 255).round().astype(np.uint8)
    used = next(bits for bits in _DEPTHS if int(high) < 2**bits)
    levels = image.astype(np.uint16, copy=False)
    return np.right_shift(levels, used - 8, out=levels).astype(np.uint8)
