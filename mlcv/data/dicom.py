"""DICOM radiographs as 8-bit images, by pydicom (the extra `dicom`)."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.errors import DataError


def read_dicom(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Grey levels as a viewer shows them: rescaled, with the file's window if it has one, dark air and white bones.

    Without a window the range of the image is taken.

    Args:
        data: content of the file.
        path: of the file, for errors.

    Returns:
        uint8 (H, W, 3), three equal channels.

    Raises:
        DataError: without pydicom, or for a file that it cannot read, or of several frames.
    """
    try:
        import pydicom  # noqa: PLC0415  # an extra
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f'{path} is a DICOM file, which needs pydicom: pip install "mlcv[dicom]"') from error
    try:
        file: Any = pydicom.dcmread(io.BytesIO(data))
        values = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file).astype(np.float32)
    except Exception as error:  # whatever a damaged file makes of pydicom and its decoders
        raise DataError(f"{path}: a DICOM file without pixels that can be read ({error}); replace it") from error
    if values.ndim != 2:
        raise DataError(f"{path}: a DICOM file of shape {values.shape}; one grey frame is needed")
    low, high = float(values.min()), float(values.max())
    grey = (values - low) * (255 / max(high - low, 1e-6))
    if file.get("PhotometricInterpretation") == "MONOCHROME1":  # small values are white
        grey = 255 - grey
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
