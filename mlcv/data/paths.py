"""Paths of images as tables write them, as one name for each file."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from mlcv.errors import DataError
from mlcv.tables import Table, is_file

PARTS = 3
"""Last parts of a path that tell images apart."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)


def canonical(path: str) -> str:
    """The path without `./`, doubled and last slashes, so that a file has one name; `..` stays, behind links."""
    if "//" in path or "/." in path or path[-1:] == "/" or path[:2] == "./":  # of many paths few need more
        return str(PurePosixPath(re.sub("^/+", "/", path)))
    return path


def end_of(path: str, parts: int = PARTS) -> str:
    """The last parts of a path, by which an image is found again wherever its folder lies."""
    return "/".join(path.split("/")[-parts:])


def image_paths(
    root: Path, table: Table, column: str, rows: Iterable[int] | None = None, suffix: str = ""
) -> Iterator[str]:
    """The paths of the images that a table's cells name; see `path_of`.

    Args:
        root: folder that the paths start from.
        table: with a column of paths.
        column: its header.
        rows: of these images; all if None.
        suffix: of the files' names, after each cell.
    """
    cells = table.column(column)
    for row in range(len(table)) if rows is None else rows:
        yield path_of(root, table, row, cells[row], suffix)


def path_of(root: Path, table: Table, row: int, cell: str, suffix: str = "") -> str:
    """The path that a cell names.

    Blanks around it are left out, and backslashes divide folders, unless there is a file of that very name.

    Args:
        root: folder that the path starts from.
        table: whose cell it is, for errors.
        row: of the cell.
        cell: its text.
        suffix: of the file's name, after the cell.

    Raises:
        DataError: for a blank cell, a URL, or a path with a drive.
    """
    if not cell.strip():
        raise DataError(f"{table.where(row)}: names no image; give its path, or leave the row out")
    if "://" in cell and _URL.match(cell.strip()):
        raise DataError(f"{table.where(row)}: {cell.strip()!r} is a URL; download the images, and name their files")
    if ("\\" in cell or cell != cell.strip()) and not is_file(f"{root}/{cell}{suffix}"):
        cell = cell.strip()
        if _DRIVE.match(cell):
            raise DataError(
                f"{table.where(row)}: {cell!r} is a path of another computer; name the files from data.image_root "
                "on, as in images/1.jpg"
            )
        cell = cell.replace("\\", "/")
    return canonical(f"{cell}{suffix}" if cell.startswith("/") else f"{root}/{cell}{suffix}")
