"""DICOM files as a viewer shows them, and clear errors for those that cannot be shown."""

import sys

import cv2
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
    with pytest.raises(DataError, match=r"a DICOM file of 2 frame\(s\) with 1 value\(s\) a pixel; one grey frame"):
        read_image(write_dicom(tmp_path / "b.dcm", np.stack([RAMP, RAMP])))
    path.write_bytes(data)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r'pip install "mlcv\[dicom\]"'):
        read_image(path)


def test_sizes_are_checked_before_pixels_are_decoded(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    monkeypatch.setattr("pydicom.dataset.Dataset.pixel_array", property(lambda self: pytest.fail("it was decoded")))
    plain = path.read_bytes()
    rows, columns = (plain.index(tag) + 8 for tag in (b"\x28\0\x10\0US", b"\x28\0\x11\0US"))
    for size in ((60000, 60000), (0, 4), (3, 0)):
        data = bytearray(plain)
        data[rows : rows + 2], data[columns : columns + 2] = (side.to_bytes(2, "little") for side in size)
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"a.dcm: .*{size[1]} x {size[0]} pixels"):
            read_image(path)


def test_a_compressed_frame_s_own_size_counts_too(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    stream = bytearray(cv2.imencode(".jp2", np.zeros((64, 64), np.uint16))[1].tobytes())
    stream = stream[stream.index(b"\xff\x4f\xff\x51") :]
    stream[8:16] = (60000).to_bytes(4, "big") * 2
    file = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", RAMP))
    file.file_meta.TransferSyntaxUID = JPEG2000Lossless
    file.PixelData = encapsulate([bytes(stream)])
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    file.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="a.dcm: 60000 x 60000 pixels are more than the 100 megapixels"):
        read_image(tmp_path / "a.dcm")


def test_a_deflated_file_is_read_unless_it_swells_beyond_an_image(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = write_dicom(tmp_path / "a.dcm", RAMP)
    plain = read_image(path)
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file.save_as(path)
    assert (read_image(path) == plain).all()
    file.add_new(0x00091010, "OB", bytes(30_000_000))
    file.save_as(path)
    assert path.stat().st_size < 100_000
    swollen = path.read_bytes()
    assert swollen[132:136] == b"\x02\0\0\0"
    without_length = swollen[:132] + swollen[144:]
    note = b"\x02\0\x02\x01OB\0\0" + (2000).to_bytes(4, "little") + bytes(2000)
    for content in (swollen, without_length, without_length[:132] + note + without_length[132:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a.dcm: a DICOM file of more than 20,777,216 bytes once inflated"):
            read_image(path, max_megapixels=1)
