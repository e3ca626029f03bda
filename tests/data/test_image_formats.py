"""One picture in every format and depth gives one array; what is cut, too large or no file of pixels is refused."""

import io
import os
import signal
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from mlcv.data.headers import read_image_header
from mlcv.data.images import read_image
from mlcv.errors import DataError

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}
"""How a viewer turns what is stored, by the EXIF tag."""


def pillow(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opencv(array, suffix, *options):
    done, data = cv2.imencode(suffix, array if array.ndim == 2 else array[..., ::-1], list(options))
    assert done
    return data.tobytes()


def netpbm(array, largest):
    kind = "P6" if array.ndim == 3 else "P5"
    body = array.astype(">u2" if largest > 255 else "u1").tobytes()
    return f"{kind}\n# a remark\n{array.shape[1]} {array.shape[0]}\n{largest}\n".encode() + body


def tiff_of(width, height, more=None, body=bytes(100)):
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: 100, **(more or {})}
    fields[273] = 14 + 12 * len(fields)  # where the body starts
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + body


def pfm(array):
    return f"Pf\n{array.shape[1]} {array.shape[0]}\n-1.0\n".encode() + array[::-1].astype("<f4").tobytes()


LOSSLESS = {
    "png": lambda image: pillow(image, "PNG"),
    "bmp": lambda image: pillow(image, "BMP"),
    "webp": lambda image: pillow(image, "WEBP", lossless=True),
    "tiff": lambda image: pillow(image, "TIFF"),
    "tiff lzw": lambda image: pillow(image, "TIFF", compression="tiff_lzw"),
    "tiff deflate": lambda image: pillow(image, "TIFF", compression="tiff_adobe_deflate"),
    "jpeg 2000": lambda image: pillow(image, "JPEG2000"),
    "ppm": lambda image: pillow(image, "PPM"),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_the_pixels(read, pixels, kind):
    assert (read(LOSSLESS[kind](Image.fromarray(pixels))) == pixels).all()
    grey = pixels[..., 0].copy()
    data = LOSSLESS[kind](Image.fromarray(grey))
    assert (read(data) == grey[..., None]).all()
    assert (read(data, grey=True) == grey[..., None]).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_what_pillow_gives(read, pixels, kind):
    data = pillow(Image.fromarray(pixels), kind, quality=90)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert abs(read(data) - expected).mean() < 1.5
    assert (
        abs(
            read(data, grey=True)[..., 0]
            - np.array(Image.fromarray(expected.astype(np.uint8)).convert("L")).astype(int)
        ).mean()
        < 1.5
    )


DEEP = {
    "png": lambda a: opencv(a, ".png"),
    "tiff": lambda a: opencv(a, ".tif"),
    "tiff plain": lambda a: opencv(a, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "jpeg 2000": lambda a: opencv(a, ".jp2", cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000),
    "pnm": lambda a: netpbm(a, 65535),
    "pnm of its own depth": lambda a: netpbm(a, int(2 ** np.ceil(np.log2(int(a.max()) + 1))) - 1),
}


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", DEEP)
def test_the_upper_eight_of_the_bits_that_are_used_come_from_every_format(read, numpy_rng, kind, channels, bits):
    values = numpy_rng.integers(0, 2**bits, (64, 70, 3)[: 2 + (channels == 3)]).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    expected = values >> (bits - 8)
    data = DEEP[kind](values)
    assert (read(data) == expected.reshape(64, 70, channels)).all()
    if channels == 1:
        assert (read(data, grey=True)[..., 0] == expected).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_films_whose_zero_is_white_are_shown_as_they_are_meant(read, numpy_rng, bits):
    values = numpy_rng.integers(0, 256, (16, 16)).astype(np.uint16) * (1 if bits == 8 else 16)
    values[0, 0] = 255 if bits == 8 else 4095
    body = values.astype(f"<u{bits // 8}").tobytes()
    for photometric in (0, 1):
        data = tiff_of(16, 16, {258: bits, 262: photometric, 279: len(body)}, body)
        expected = values if bits == 8 else values >> 4
        assert (read(data)[..., 0] == (expected if photometric else 255 - expected)).all()


def test_numbers_with_a_fraction_are_parts_of_white_or_levels(read, numpy_rng):
    grey = numpy_rng.integers(0, 256, (20, 30)).astype(np.uint8)
    for write in (lambda a: pillow(Image.fromarray(a.astype(np.float32)), "TIFF"), pfm):
        assert (read(write(grey / 255))[..., 0] == grey).all()
        film = grey.astype(np.uint16) * 16 + 7
        film[0, 0] = 4095
        assert (read(write(film))[..., 0] == film >> 4).all()
        for strange in (-0.5, np.nan, np.inf, 1e9):
            values = grey / 255
            values[3, 4] = strange
            with pytest.raises(DataError, match="picture: its pixels lie between .*store it in 8 or 16 bits"):
                read(write(values))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_is_black_or_white(read, pixels, kind):
    image = Image.fromarray(pixels[..., 0] > 127)
    assert (read(pillow(image, kind)) == np.where(pixels[..., :1] > 127, 255, 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_are_looked_up(read, pixels, kind):
    image = Image.fromarray(pixels).quantize(32)
    assert (read(pillow(image, kind)) == np.array(image.convert("RGB"))).all()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_transparency_is_ignored(read, pixels, numpy_rng, kind, options):
    alpha = numpy_rng.integers(0, 256, pixels.shape[:2], dtype=np.uint8)
    alpha[:10] = 0
    image = Image.fromarray(np.dstack([pixels, alpha]))
    assert (read(pillow(image, kind, **options)) == pixels).all()
    assert (np.array(image.convert("RGB")) == pixels).all()  # as a loader by Pillow does
    if kind != "WEBP":
        half = Image.fromarray(np.dstack([pixels[..., 0], alpha]), "LA")
        assert (read(pillow(half, kind)) == pixels[..., :1]).all()
    clear = Image.fromarray(pixels).quantize(32)
    if kind == "PNG":
        assert (read(pillow(clear, kind, transparency=3)) == np.array(clear.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_colours(read, pixels, kind):
    inks = Image.fromarray(pixels).convert("CMYK")
    data = pillow(inks, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    assert abs(read(data).astype(int) - np.array(inks.convert("RGB"))).mean() < 2.5


@pytest.mark.parametrize("place", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_rotation_in_exif_is_applied_in_every_format_that_has_it(read, pixels, kind, place):
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = place
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    expected = TURNED[place](pixels).astype(int)
    found = read(pillow(image, kind, exif=exif, **options))
    assert found.shape == expected.shape
    assert abs(found - expected).mean() < 4
    if kind == "JPEG":
        assert read(pillow(image, kind, exif=exif, **options), min_side=25).shape[:2] == (
            expected.shape[0] // 2,
            expected.shape[1] // 2,
        )


def test_the_first_of_several_frames_is_taken(read, pixels):
    first, second = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    for kind, options in (("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        assert (read(pillow(first, kind, save_all=True, append_images=[second], **options)) == pixels).all()
    first, second = first.quantize(32), second.quantize(32)
    assert (read(pillow(first, "GIF", save_all=True, append_images=[second])) == np.array(first.convert("RGB"))).all()


def all_formats(pixels):
    image = Image.fromarray(pixels)
    film = pixels[..., 0].astype(np.uint16) * 256
    return {
        **{kind: write(image) for kind, write in LOSSLESS.items()},
        "jpeg": pillow(image, "JPEG"),
        "progressive jpeg": pillow(image, "JPEG", progressive=True),
        "jpeg with restarts": pillow(image, "JPEG", restart_marker_blocks=2),
        "gif": pillow(image.quantize(64), "GIF"),
        "lossy webp": pillow(image, "WEBP"),
        "pgm": netpbm(pixels[..., 0], 255),
        "deep tiff": opencv(film, ".tif"),
        "deep pgm": netpbm(film, 65535),
        "deep jpeg 2000": opencv(film, ".jp2"),
        "deep png": opencv(film, ".png"),
        "pfm": pfm(film),
    }


KINDS = list(all_formats(np.zeros((64, 64, 3), np.uint8)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_is_refused_in_every_format(read, pixels, numpy_rng, kind):
    data = all_formats(pixels)[kind]
    for keep in (0.97, 0.5, 0.1, *numpy_rng.uniform(0, 0.97, 20)):
        with pytest.raises(DataError, match="picture: "):
            read(data[: int(len(data) * keep)])


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_after_the_end_are_no_fault_in_any_format(read, pixels, numpy_rng, kind):
    data = all_formats(pixels)[kind]
    whole = read(data)
    for tail in (b"\0" * 3000, numpy_rng.bytes(5000), b"\xff\xda", data[: len(data) // 2]):
        assert (read(data + tail) == whole).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_has_the_size_of_the_picture(numpy_rng, kind):
    for _ in range(5):
        height, width = numpy_rng.integers(64, 200, 2)
        header = read_image_header(all_formats(np.zeros((height, width, 3), np.uint8))[kind])
        assert (header.width, header.height, header.is_whole) == (width, height, True)


def test_a_thumbnail_that_is_whole_hides_no_truncation(read, pixels):
    data, thumbnail = (pillow(Image.fromarray(image), "JPEG") for image in (pixels, pixels[:16, :16]))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert read(data[:2] + segment + data[2:]).shape == pixels.shape
    with pytest.raises(DataError, match=r"truncated \(no end of image\)"):
        read(data[:2] + segment + data[2:-40])


@pytest.mark.parametrize(
    "error",
    [
        cv2.error("bad\n  flag"), MemoryError(), OverflowError("too large"), ValueError("wrong"), SyntaxError("broken"),
        struct.error("short"), RecursionError(), SystemError("null"), KeyError("x"), EOFError(), ZeroDivisionError(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_whatever_a_decoder_raises_is_an_error_that_names_the_file(read, pixels, monkeypatch, error, kind):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("cv2.imdecode", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DataError) as caught:
        read(LOSSLESS[kind](Image.fromarray(pixels)))
    assert f"picture: not an image that can be decoded ({type(error).__name__}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_in_a_header_is_an_error_whatever_the_format(read, pixels, numpy_rng):
    """Headers are read by several libraries, each of which has errors of its own."""
    said = []
    for whole in all_formats(pixels).values():
        for _ in range(40):
            data = bytearray(whole)
            for place in numpy_rng.integers(0, min(len(data), 200), size=numpy_rng.integers(1, 6)):
                data[place] = numpy_rng.integers(256)
            try:
                image = read(bytes(data))
            except DataError as error:
                said.append(str(error))
            else:
                assert image.dtype == np.uint8
                assert image.ndim == 3
    assert len(said) > 100
    assert all("picture: " in sentence for sentence in said)


@pytest.mark.parametrize(
    "content", [b"<html><body>404</body></html>", b"\x7fELF", b"%PDF-1.4", b"8BPS\0\x01", b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_no_picture_of_a_known_kind_is_refused(read, content):
    with pytest.raises(DataError, match="picture: not an image of a kind that is decoded, JPEG, PNG"):
        read(content + bytes(1000))


def test_a_pipe_with_a_picture_s_name_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    signal.alarm(20)
    with pytest.raises(DataError, match="a.png: a named pipe, not a regular file"):
        read_image(tmp_path / "a.png")
    signal.alarm(0)


def test_names_that_are_no_utf8_are_read_and_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    try:
        Image.new("RGB", (8, 8)).save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_image(path).shape == (8, 8, 3)
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert r"\xff\xfe.png: the file is empty" in str(caught.value)
    assert str(caught.value).encode()
