"""Paths of images as tables write them, as one name for each file."""

import re
from pathlib import Path, PurePosixPath

from mlcv.errors import DataError
from mlcv.tables import is_file

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)


def canonical(path: str) -> str:
    """The path without `./`, doubled and last slashes, so that a file has one name; `..` stays, behind links."""
    if "//" in path or "/./" in path or path.startswith("./") or path.endswith(("/", "/.")):
        return str(PurePosixPath(re.sub("^/+", "/", path)))
    return path


def image_path(root: Path, cell: str, where: str) -> str:
    """The path of the image that a table's cell names.

    Blanks around it are left out, and backslashes divide folders, unless there is a file of that very name.

    Args:
        root: folder that the paths start from.
        cell: of the table.
        where: its file and line, for the error.

    Raises:
        DataError: for a blank cell, a URL, or a path with a drive.
    """
    if not cell.strip():
        raise DataError(f"{where}: names no image; give its path, or leave the row out")
    if _URL.match(cell.strip()):
        raise DataError(f"{where}: {cell.strip()!r} is a URL; download the images, and name their files")
    if ("\\" in cell or cell != cell.strip()) and not is_file(f"{root}/{cell}"):
        cell = cell.strip()
        if _DRIVE.match(cell):
            raise DataError(
                f"{where}: {cell!r} is a path of another computer; name the files from data.image_root on, as in "
                "images/1.jpg"
            )
        cell = cell.replace("\\", "/")
    return canonical(cell if cell.startswith("/") else f"{root}/{cell}")
