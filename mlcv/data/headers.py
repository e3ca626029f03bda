"""What an image file says of itself, before anything of it is decoded: its size, whether it is whole, who decodes it.

JPEG and PNG, which most data sets are of, are walked through here, since only their own marks say where a file ends.
Pillow reads the headers of most others, each by the class of its kind: `Image.open` would try every format that Pillow
knows.
"""

import io
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

KINDS = "JPEG, PNG, BMP, GIF, WebP, TIFF, JPEG 2000, PBM, PGM, PPM, PFM and DICOM"

SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pfm",
    ".dcm",
}  # fmt: skip
"""Of the names of such files, in any case."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_OTHERS: tuple[tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile]], ...] = (
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"GIF8"), GifImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    (re.compile(rb"P[1-6f]\s"), PpmImageFile),
)

# A JPEG's next segment, or its end. In compressed data every 0xff is followed by zero or the number of a restart.
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and that of JPEG-LS
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1
_EXIF, _ON_ITS_SIDE = b"Exif\0\0", {5, 6, 7, 8}
MOST_SCANS = 100
"""Of a progressive JPEG, which has ten or so; each takes a pass over all pixels, however few bytes it has."""
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 339, 322, 323  # tags of TIFF


class _Unlimited:
    """While any thread is inside, Pillow has no limit of its own, which is the whole process's, not this project's."""

    def __init__(self) -> None:
        self._lock, self._inside, self._usual = Lock(), 0, Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._usual


unlimited = _Unlimited()


@dataclass(frozen=True)
class Header:
    """What is known of an image that has not been decoded.

    Args:
        width: in pixels, before any rotation.
        height: likewise.
        is_whole: False if the file breaks off; True also where only the decoder can tell.
        is_jpeg: whether it can be decoded at a part of its size.
        image: opened by Pillow, which then decodes it; OpenCV does if None.
        is_negative: whether 0 is white, which OpenCV passes over.
        tile: width and height of a part that is decoded at once, which may be larger than the image.
        exif: of a JPEG, with its name in front.
        bits: of a channel, as the file has them.
    """

    width: int
    height: int
    is_whole: bool = True
    is_jpeg: bool = False
    image: ImageFile | None = None
    is_negative: bool = False
    tile: tuple[int, int] = (1, 1)
    exif: bytes = b""
    bits: int = 8

    @property
    def orientation(self) -> int:
        """How EXIF says that a JPEG lies, 1 to 8; 1, which is upright, if it does not say or cannot be read."""
        found = Image.Exif()
        with suppress(Exception):  # whatever a damaged one makes of Pillow; decoders leave it out then
            found.load(self.exif)
            value = found.get(ExifTags.Base.Orientation, 1)
            return int(value) if value in range(1, 9) else 1
        return 1

    @property
    def is_turned(self) -> bool:
        """Whether EXIF says that a JPEG lies on its side."""
        return self.orientation in _ON_ITS_SIDE


def read_image_header(data: bytes) -> Header | None:
    """The header of an image file, None if it is none of `KINDS`; a damaged one raises any error.

    Args:
        data: content of the file.
    """
    if data.startswith(_JPEG):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    if data.startswith(_JPEG2000):
        return _jpeg2000(data)
    for start, make in _OTHERS:
        if start.match(data):
            with unlimited:
                image = make(io.BytesIO(data))
            tile = _tag(image, _TILE_WIDTH, 1), _tag(image, _TILE_LENGTH, 1)
            bits = 16 if _is_deep(image) else _tag(image, _BITS, 32 if image.mode == "F" else 8)
            if not _is_deep(image):
                return Header(*image.size, image=image, tile=tile, bits=bits)
            return Header(*image.size, is_negative=_tag(image, _PHOTOMETRIC) == 0, tile=tile, bits=bits)
    return None


def _jpeg(data: bytes) -> Header:
    """From segment to segment: thumbnails are inside of segments, and what follows the end is nobody's."""
    place, sizes = 2, [(0, 0)]
    is_whole, scans, exif = False, 0, b""
    while not is_whole and (mark := _SEGMENT.search(data, place)):
        place = mark.end()
        is_whole = data[place - 1] == _END
        scans += data[place - 1] == _SCAN
        if scans > MOST_SCANS:
            raise ValueError(f"more than {MOST_SCANS} scans")
        if data[place - 1] in _FRAMES and len(data) >= place + 7:
            height, width = struct.unpack_from(">HH", data, place + 3)
            sizes.append((width, height))
        length = int.from_bytes(data[place : place + 2], "big")
        if not exif and data[place - 1] == _APP1 and data.startswith(_EXIF, place + 2):
            exif = data[place + 2 : place + length]
        place += length
    return Header(*max(sizes, key=lambda size: size[0] * size[1]), is_whole=is_whole, is_jpeg=True, exif=exif)


def _png(data: bytes) -> Header:
    """From chunk to chunk, each of which says how long it is."""
    kind, width, height, bits = struct.unpack_from(">4sIIB", data, 12)
    if kind != b"IHDR":
        raise ValueError("no size in front")
    place = len(_PNG)
    while place + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
    return Header(width, height, is_whole=kind == b"IEND" and place <= len(data), bits=bits)


def _jpeg2000(data: bytes) -> Header:
    """From its code stream, by which it is decoded; the boxes around it may say anything."""
    sizes = [(0, 0)]
    for start in re.finditer(re.escape(_JPEG2000[1]), data):
        right, bottom, left, top = struct.unpack_from(">4I", data, start.start() + 8)
        sizes.append((right - left, bottom - top))
    return Header(*max(sizes, key=lambda size: size[0] * size[1]))


def _is_deep(image: ImageFile) -> bool:
    """Whether its channels have more bits than 8 of which Pillow may keep too few."""
    if isinstance(image, TiffImageFile):
        return 8 < _tag(image, _BITS) <= 16 and _tag(image, _SAMPLE_FORMAT, 1) == 1
    arguments = image.tile[0][3] if isinstance(image, PpmImageFile) else ()
    return image.mode == "RGB" and isinstance(arguments, tuple) and len(arguments) > 1 and int(arguments[1]) > 255


def _tag(image: ImageFile, number: int, usual: int = 1) -> int:
    """Largest value of a tag of a TIFF file."""
    value = image.tag_v2.get(number, usual) if isinstance(image, TiffImageFile) else usual
    return max(value) if isinstance(value, tuple) else int(value)
