"""From a file to an array: the one decoder. Truncated files are errors here, not grey bands in training."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from mlcv.errors import DataError

Pixels = NDArray[np.uint8]

# A JPEG decoder can skip half, three quarters or seven eighths of the inverse transform.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_REDUCED_GREY = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}  # fmt: skip
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_DEPTHS = (8, 10, 12, 14, 16)
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


def read_image(path: Path, min_side: int | None = None, grey: bool = False) -> Pixels:
    """Reads an image as RGB; grey images get three equal channels, EXIF rotation is applied.

    16 bits become 8, the upper ones of the 10, 12, 14 or 16 that are used, since a radiograph of 12 would be black.

    Args:
        path: a JPEG, PNG, DICOM (with the extra `dicom`), or anything else that OpenCV reads.
        min_side: a shorter side in pixels that is enough; a larger JPEG is then decoded at 1/2, 1/4 or 1/8 of
            its size, never below this. None decodes in full.
        grey: keep one channel, of which nothing is lost where images are grey; half the work for those.

    Returns:
        uint8 (H, W, 3), or (H, W, 1) if grey.

    Raises:
        DataError: if the file is missing, empty, truncated or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if data[128:132] == b"DICM":  # after a preamble
        from mlcv.data.dicom import read_dicom  # noqa: PLC0415  # few need it

        return read_dicom(data, path)[..., : 1 if grey else 3]
    problem = _truncation(data)
    if problem:
        raise DataError(f"{path}: {problem}; replace the file, or set data.on_error to skip")
    whole, reduced = (cv2.IMREAD_GRAYSCALE, _REDUCED_GREY) if grey else (cv2.IMREAD_COLOR, _REDUCED)
    flag = reduced.get(_reduction(data, min_side), whole)
    if data.startswith(_PNG_START) and data[24:25] == b"\x10":  # bits of each channel
        flag = whole | cv2.IMREAD_ANYDEPTH
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        raise DataError(f"{path}: not an image that can be decoded; replace the file, or set data.on_error to skip")
    if image.dtype == np.uint16:
        used = next(bits for bits in _DEPTHS if int(image.max()) < 2**bits)
        image = np.right_shift(image, used - 8).astype(np.uint8)
    if grey:
        return image[..., None]  # type: ignore[return-value]  # OpenCV's stubs say Mat
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]  # OpenCV's stubs say Mat


def find_unreadable(paths: Sequence[Path], min_side: int | None = None, workers: int = 4) -> dict[int, DataError]:
    """Decodes every file once, in parallel, with a progress bar; returns the position and error of each bad one."""

    def problem(path: Path) -> DataError | None:
        try:
            read_image(path, min_side)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(workers) as pool:
        problems = list(track(pool.map(problem, paths), description="checking images", total=len(paths)))
    return {position: error for position, error in enumerate(problems) if error is not None}


def _truncation(data: bytes) -> str | None:
    """OpenCV returns the readable part of a truncated file without a word, so the end is looked for first.

    Inside JPEG scan data the end marker cannot occur, and a thumbnail's own end comes before the last scan starts.
    """
    if not data:
        return "the file is empty"
    if data.startswith(_JPEG_START) and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):
        return "truncated JPEG (no end of image)"
    if data.startswith(_PNG_START) and _PNG_END not in data[-1024:]:
        return "truncated PNG (no end of image)"
    return None


def _reduction(data: bytes, min_side: int | None) -> int:
    if min_side is None or not data.startswith(_JPEG_START):
        return 1
    try:
        with Image.open(io.BytesIO(data)) as header:
            side = min(header.size)
    except (UnidentifiedImageError, OSError):
        return 1
    return next((factor for factor in _REDUCED if side // factor >= min_side), 1)


Decoder = Callable[[Path, int | None], Pixels]
