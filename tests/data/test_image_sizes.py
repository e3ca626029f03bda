"""What a header claims: too many pixels or none are refused before anything is decoded, in every format."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mlcv.data.images import find_unreadable, read_image
from mlcv.errors import DataError
from tests.data.test_image_formats import all_formats, opencv, pillow, tiff_of


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width, height, body=b""):
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def patched(data, place, layout, *values):
    return data[:place] + struct.pack(layout, *values) + data[place + struct.calcsize(layout) :]


def claiming(width, height):
    """Small files of every format that claim this size, at most 65,535 a side."""
    small = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    jpeg, bmp, jp2 = (pillow(small, kind) for kind in ("JPEG", "BMP", "JPEG2000"))
    gif = pillow(small.quantize(4), "GIF")
    part = gif.index(b"\x2c\0\0\0\0") + 5
    frame, box, stream = jpeg.index(b"\xff\xc0") + 5, jp2.index(b"ihdr") + 4, jp2.index(b"\xff\x4f\xff\x51") + 8
    deep = patched(opencv(np.zeros((16, 16), np.uint16), ".png"), 16, ">II", width, height)
    sides = [(side - 1).to_bytes(4, "little", signed=True)[:3] for side in (width, height)]
    return {
        "png": png_of(width, height),
        "deep png": patched(deep, 29, ">I", zlib.crc32(deep[12:29])),
        "jpeg": patched(jpeg, frame, ">HH", height, width),
        "bmp": patched(bmp, 18, "<ii", width, height),
        "bmp from above": patched(bmp, 18, "<ii", width, -height),
        "gif": patched(patched(gif, 6, "<HH", width, height), part, "<HH", width, height),
        "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"".join(sides),
        "tiff": tiff_of(width, height),
        "deep tiff": tiff_of(width, height, {258: 16}),
        "jpeg 2000": patched(patched(jp2, box, ">II", height, width), stream, ">II", width, height),
        "jpeg 2000 in its stream only": patched(jp2, stream, ">II", width, height),
        "ppm": f"P6 {width} {height} 255\n".encode(),
        "deep ppm": f"P6 {width} {height} 65535\n".encode(),
        "pgm": f"P5 {width} {height} 255\n".encode(),
        "pfm": f"Pf {width} {height} -1.0\n".encode(),
    }


CLAIMS = list(claiming(16, 16))


@pytest.fixture
def nothing_decoded(monkeypatch):
    def fail(*_, **__):
        pytest.fail("pixels were decoded")

    monkeypatch.setattr("cv2.imdecode", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)


@pytest.mark.parametrize("kind", CLAIMS)
def test_more_pixels_than_allowed_are_refused_from_the_header_of_every_format(read, nothing_decoded, kind):
    for options in ({}, {"grey": True}, {"min_side": 32}):
        with pytest.raises(
            DataError, match=r"picture: .*60000 x 60000 pixels are more than the 100 megapixels|not an image"
        ):
            read(claiming(60000, 60000)[kind], **options)


@pytest.mark.parametrize("kind", CLAIMS)
@pytest.mark.parametrize("size", [(0, 0), (0, 16), (16, 0)])
def test_a_picture_without_pixels_is_refused_in_every_format(read, nothing_decoded, kind, size):
    with pytest.raises(DataError, match="picture: "):
        read(claiming(*size)[kind])


def test_a_tile_that_is_larger_than_its_picture_counts(read, nothing_decoded):
    with pytest.raises(DataError, match="60000 x 50000 pixels are more"):
        read(tiff_of(16, 16, {322: 60000, 323: 50000}))


def test_the_limit_is_exact_and_may_be_moved(read):
    data = pillow(Image.new("L", (1001, 1000)), "PNG")
    assert read(data).shape == (1000, 1001, 3)
    assert read(data, max_megapixels=1.001).shape == (1000, 1001, 3)
    with pytest.raises(
        DataError, match="1001 x 1000 pixels are more than the 1 megapixels .*raise data.max_megapixels"
    ):
        read(data, max_megapixels=1)
    large = pillow(Image.new("1", (20000, 10000)), "PNG")  # above what Pillow allows by itself
    assert read(large, grey=True, max_megapixels=200).shape == (10000, 20000, 1)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pillows_own_limit_is_not_ours_and_stays_as_it_was(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    paths = []
    for n, data in enumerate([*all_formats(pixels).values(), b"BM damaged", b"II*\0 damaged"] * 8):
        paths.append(tmp_path / f"{n}.png")
        paths[-1].write_bytes(data)
    assert len(find_unreadable(paths, workers=8)) == 16
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_file_that_is_larger_than_any_picture_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(DataError, match=r"a.png: 4,398,046,511,104 bytes, where at most"):
        read_image(tmp_path / "a.png")


def test_the_check_of_all_images_has_the_same_limit(tmp_path):
    Image.new("L", (2000, 1000)).save(tmp_path / "a.png")
    assert find_unreadable([tmp_path / "a.png"]) == {}
    assert "2000 x 1000" in str(find_unreadable([tmp_path / "a.png"], max_megapixels=1)[0])
