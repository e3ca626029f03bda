"""Images that `mlcv prepare` has made small once, and where a DataModule finds them: `data.prepared`."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mlcv.data.images import MAX_MEGAPIXELS, MinSide, Pixels, find_unreadable, read_image
from mlcv.data.items import Files
from mlcv.errors import ConfigError, DataError
from mlcv.files import read_json
from mlcv.tables import is_file, printable

MANIFEST = "prepared.json"
"""What is said of all files in such a folder: the settings, and which images could not be read."""


@dataclass(frozen=True)
class Prepared:
    """A folder in which each image lies under its own absolute path.

    Args:
        folder: that was given to `mlcv prepare`.
        side: shorter one of its images in pixels; those that were smaller are as they were.
        form: `auto`, `jpeg` or `png`, see `mlcv.commands.prepare`.
        unreadable: absolute paths of images that could not be prepared, and why.
    """

    folder: str
    side: int
    form: str
    unreadable: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> "Prepared | None":
        """What lies there; None if nothing does.

        Raises:
            ConfigError: for a manifest that is none.
        """
        path = folder / MANIFEST
        if not is_file(path):
            return None
        said = read_json(path, "manifest of `mlcv prepare`")
        is_one = isinstance(said, dict) and isinstance(said.get("side"), int) and isinstance(said.get("form"), str)
        bad = said.get("unreadable") if is_one else None
        if not isinstance(bad, dict) or not all(isinstance(why, str) for why in bad.values()):
            raise ConfigError(f"{path} is no manifest of `mlcv prepare`; remove the folder, and prepare it again")
        return cls(str(folder.absolute()), said["side"], said["form"], bad)

    def manifest(self) -> dict[str, Any]:
        """What `open` reads."""
        return {"side": self.side, "form": self.form, "unreadable": dict(self.unreadable)}

    def place(self, path: str) -> str:
        """Where an image is read: its prepared file, or itself if it could not be prepared, for the error."""
        absolute = os.path.abspath(path)  # noqa: PTH100  # a string, and links stay
        drive, rest = os.path.splitdrive(absolute)
        return path if absolute in self.unreadable else f"{self.folder}/{drive[:1]}{rest}"

    def is_current(self, path: str) -> bool:
        """Whether an image is there and no older than its source, if that is on this machine."""
        try:
            there = os.stat(self.place(path))  # noqa: PTH116  # many paths
        except (OSError, ValueError):
            return os.path.abspath(path) in self.unreadable  # noqa: PTH100
        try:
            return there.st_mtime_ns >= os.stat(path).st_mtime_ns  # noqa: PTH116
        except OSError:
            return True


class PreparedFiles(Files):
    """Images that are named by their own paths, and read from where they are prepared.

    Args:
        paths: of the images.
        prepared: where they lie.
    """

    def __init__(self, paths: Iterable[Path | str], prepared: Prepared) -> None:
        super().__init__(paths)
        self.prepared = prepared

    def read(self, index: int, min_side: MinSide, grey: bool, max_megapixels: float) -> Pixels:
        return read_image(self.prepared.place(self[index]), min_side, grey, max_megapixels)

    def unreadable(self, min_side: int, threads: int, max_megapixels: float) -> Mapping[int, DataError]:
        return find_unreadable([self.prepared.place(path) for path in self], min_side, threads, max_megapixels)


def prepared_files(items: Any, folder: Path, min_side: int) -> PreparedFiles:
    """Images as `data.prepared` has them.

    Args:
        items: of a split.
        folder: of `mlcv prepare`.
        min_side: shorter side that training and evaluation need.

    Raises:
        UserError: if they are no files, or not all prepared, or too small.
    """
    if not isinstance(items, Files):
        raise ConfigError("data.prepared is for images in files, and these are none; leave it out")
    prepared = Prepared.open(folder)
    if prepared is None:
        raise ConfigError(
            f"data.prepared: {folder} has no {MANIFEST}; `mlcv prepare --out {folder}` makes it, and --data.prepared "
            "null reads the sources"
        )
    if prepared.side < min_side:
        raise ConfigError(
            f"data.prepared: images in {folder} have a shorter side of {prepared.side} pixels, and data.image_size "
            f"with data.augment needs {min_side}; prepare them with --side {min_side} in another folder"
        )
    absent = [path for path in items if not prepared.is_current(path)]
    if absent:
        raise DataError(
            f"data.prepared: {len(absent)} of {len(items)} images are not in {folder}, or are newer than there, such "
            f"as {printable(absent[0])}; give the command `mlcv prepare --out {folder}` again, with this config"
        )
    return PreparedFiles(items, prepared)


def small_image(path: str, side: int, form: str, max_megapixels: float = MAX_MEGAPIXELS) -> bytes | None:
    """An image of which the shorter side has at most so many pixels, as a file of 8 bits.

    Args:
        path: of the image.
        side: in pixels.
        form: `jpeg` (quality 95), `png`, or `auto`: JPEG for what is one, else PNG without loss.
        max_megapixels: see `read_image`.

    Returns:
        the content of the file; None for a JPEG that is no larger, which may stay as it is.

    Raises:
        DataError: if it cannot be read.
    """
    sizes: list[int] = []

    def enough(height: int, width: int) -> int:  # asked of a JPEG alone
        sizes.append(min(height, width))
        return side

    pixels = read_image(path, enough, max_megapixels=max_megapixels)
    if sizes and sizes[0] <= side and form != "png":
        return None
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    if scale < 1:
        size = max(round(width * scale), side), max(round(height * scale), side)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():  # grey, which decoders make three channels of again
        pixels = np.ascontiguousarray(pixels[..., 0])
    is_jpeg = form == "jpeg" or (form == "auto" and bool(sizes))
    colours = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    _, data = cv2.imencode(".jpg" if is_jpeg else ".png", colours, [cv2.IMWRITE_JPEG_QUALITY, 95] if is_jpeg else [])
    return data.tobytes()
