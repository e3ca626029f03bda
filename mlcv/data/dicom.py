"""DICOM radiographs as 8-bit images, by pydicom (the extra `dicom`)."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.data.headers import read_image_header
from mlcv.data.images import check_size
from mlcv.errors import DataError
from mlcv.tables import printable

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Value representations with four bytes for the length."""
_BYTES_A_PIXEL = 4


def read_dicom(data: bytes, path: Path | str, max_megapixels: float) -> NDArray[np.uint8]:
    """Grey levels as a viewer shows them: rescaled, with the file's window if it has one, dark air and white bones.

    Without a window the range of the image is taken.

    Args:
        data: content of the file.
        path: of the file, for errors.
        max_megapixels: millions of pixels above which it is refused before it is decoded.

    Returns:
        uint8 (H, W, 3), three equal channels.

    Raises:
        DataError: without pydicom, or for a file that it cannot read, that is too large, or of several frames.
    """
    try:
        import pydicom  # noqa: PLC0415  # an extra
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f'{printable(path)} is a DICOM file, which needs pydicom: pip install "mlcv[dicom]"') from error
    try:
        _check_inflated(data, path, max_megapixels)
        file: Any = pydicom.dcmread(io.BytesIO(data))
        _check(file, path, max_megapixels)
        values = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file).astype(np.float32)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes of pydicom and its decoders
        raise DataError(
            f"{printable(path)}: a DICOM file without pixels that can be read ({error}); replace it"
        ) from error
    low, high = float(values.min()), float(values.max())
    grey = (values - low) * (255 / max(high - low, 1e-6))
    if file.get("PhotometricInterpretation") == "MONOCHROME1":  # small values are white
        grey = 255 - grey
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


def _check(file: Any, path: Path | str, max_megapixels: float) -> None:
    """Refuses what is too large, or no single grey frame, by what the file says of itself."""
    from pydicom.encaps import get_frame  # noqa: PLC0415  # an extra

    frames, samples = int(file.get("NumberOfFrames") or 1), int(file.get("SamplesPerPixel") or 1)
    if frames != 1 or samples != 1:
        raise DataError(
            f"{printable(path)}: a DICOM file of {frames} frame(s) with {samples} value(s) a pixel; one grey frame is "
            "needed"
        )
    check_size(int(file.Columns), int(file.Rows), path, max_megapixels)
    if file.file_meta.TransferSyntaxUID.is_encapsulated:
        inner = read_image_header(get_frame(file.PixelData, 0, number_of_frames=1))  # its decoder goes by its own size
        if inner is not None:
            check_size(inner.width, inner.height, path, max_megapixels)


def _syntax(data: bytes) -> tuple[bytes, int]:
    """UID of the transfer syntax, and where the data set starts: behind the elements of group 2."""
    place, syntax = 132, b""
    while data[place : place + 2] == b"\x02\x00":
        is_long = data[place + 4 : place + 6] in _LONG
        value = place + (12 if is_long else 8)
        length = int.from_bytes(data[place + 8 : value] if is_long else data[place + 6 : value], "little")
        if data[place + 2 : place + 4] == b"\x10\x00":
            syntax = data[value : value + length].rstrip(b"\0 ")
        place = value + length
    return syntax, place


def _check_inflated(data: bytes, path: Path | str, max_megapixels: float) -> None:
    """Refuses a deflated file that would swell to more than an image's size; pydicom inflates all of it at once."""
    syntax, start = _syntax(data)
    if syntax != _DEFLATED:
        return
    largest = 2**24 + int(max_megapixels * 1e6 * _BYTES_A_PIXEL)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[start:], largest)
    if inflater.unconsumed_tail:
        raise DataError(f"{printable(path)}: a DICOM file of more than {largest:,} bytes once inflated; replace it")
