"""DICOM files as a viewer shows them, and clear errors for those that cannot be shown."""

import sys

import numpy as np
import pytest

from mlcv.data.images import read_image
from mlcv.errors import DataError


def write_dicom(path, values, photometric="MONOCHROME2", **tags):
    """A file of 12 bits in 16, without compression."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # computed radiography
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.PhotometricInterpretation = photometric
    file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit = 1, 16, 12, 11
    file.PixelRepresentation = 0
    file.Rows, file.Columns = values.shape[-2:]
    if values.ndim == 3:
        file.NumberOfFrames = len(values)
    file.PixelData = values.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    assert pydicom.dcmread(path).Rows == values.shape[-2]
    return path


RAMP = np.arange(12).reshape(3, 4) * 300 + 200


def test_the_range_of_an_image_becomes_eight_bits(tmp_path):
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP))
    assert image.shape == (3, 4, 3)
    assert image[..., 0].tolist() == (np.arange(12) * 255 / 11).round().reshape(3, 4).tolist()
    assert (image[..., :1] == image).all()


def test_inverted_films_are_turned_bones_white(tmp_path):
    plain = read_image(write_dicom(tmp_path / "a.dcm", RAMP))
    inverted = read_image(write_dicom(tmp_path / "b.dcm", RAMP, "MONOCHROME1"))
    assert np.abs(255 - plain.astype(int) - inverted).max() <= 1


def test_the_files_own_window_is_applied(tmp_path):
    image = read_image(write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=1000, WindowWidth=600))
    assert (image[..., 0][RAMP < 690] == 0).all()
    assert (image[..., 0][RAMP > 1310] == 255).all()
    assert 100 < image[0, 3, 0] < 230  # 1,100


def test_rescaling_does_not_change_what_is_shown(tmp_path):
    plain = read_image(write_dicom(tmp_path / "a.dcm", RAMP))
    rescaled = read_image(write_dicom(tmp_path / "b.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1024))
    assert (plain == rescaled).all()


def test_a_flat_image_is_black(tmp_path):
    assert (read_image(write_dicom(tmp_path / "a.dcm", np.full((3, 4), 7))) == 0).all()


def test_what_cannot_be_shown_is_named(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(DataError, match=r"a.dcm: a DICOM file without pixels that can be read"):
        read_image(path)
    with pytest.raises(DataError, match=r"of shape \(2, 3, 4\); one grey frame"):
        read_image(write_dicom(tmp_path / "b.dcm", np.stack([RAMP, RAMP])))
    path.write_bytes(data)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r'pip install "mlcv\[dicom\]"'):
        read_image(path)
