"""Paths of images as tables write them, as one name for each file."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from mlcv.errors import DataError
from mlcv.tables import Table, is_file, printable

P = TypeVar("P")

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


class Places(Generic[P]):
    """Where images are, by their names as they are and as they are shown, and files also by the ends of their paths.

    Args:
        names: of each image, with its place; one may have several.
        paths: of each image in a file its path as it is shown, with its place.
    """

    def __init__(self, names: Iterable[tuple[str, P]], paths: Sequence[tuple[str, P]]) -> None:
        self._by_name: dict[str, list[P]] = {}
        for name, place in names:
            self._by_name.setdefault(name, []).append(place)
        self._paths = paths
        self._by_end = cache(self._ends)

    def find(self, image: str) -> list[P]:
        """All places that an image may be at, by the best of these; none if there is no such image."""
        found = self._by_name.get(image) or self._by_name.get(printable(image), [])
        for end in map(end_of, (image, printable(image), image.replace("\\", "/"))):
            found = found or self._by_end(end.count("/") + 1).get(end, [])
        return found

    def _ends(self, parts: int) -> dict[str, list[P]]:
        found: dict[str, list[P]] = {}
        for path, place in self._paths:
            found.setdefault(end_of(path, parts), []).append(place)
        return found


def image_paths(
    root: Path, table: Table, column: str, rows: Iterable[int] | None = None, suffix: str = ""
) -> Iterator[str]:
    """The paths of the images that a table's cells name; see `paths_of`.

    Args:
        root: folder that the paths start from.
        table: with a column of paths.
        column: its header.
        rows: of these images; all if None.
        suffix: of the files' names, after each cell.
    """
    cells = table.column(column)
    if rows is None:
        return paths_of(root, table, enumerate(cells), suffix)
    return paths_of(root, table, ((row, cells[row]) for row in rows), suffix)


def paths_of(root: Path, table: Table, cells: Iterable[tuple[int, str]], suffix: str = "") -> Iterator[str]:
    """The paths that cells name.

    Blanks around them are left out, and backslashes divide folders, unless there is a file of that very name.

    Args:
        root: folder that the paths start from.
        table: whose cells they are, for errors.
        cells: with their rows.
        suffix: of the files' names, after each cell.

    Raises:
        DataError: for a blank cell, a URL, or a path with a drive.
    """
    folder = canonical(f"{root}/x").removesuffix("x")
    for row, cell in cells:
        if "\\" in cell or ":" in cell or cell != cell.strip() or not cell or cell[0] == "/":
            cell = _understood(folder, table, row, cell, suffix)
            yield canonical(f"{cell}{suffix}" if cell[0] == "/" else f"{folder}{cell}{suffix}")
        else:
            yield canonical(f"{folder}{cell}{suffix}")


def _understood(folder: str, table: Table, row: int, cell: str, suffix: str) -> str:
    """A cell of which that is not plain, without blanks around it and with slashes."""
    if not cell.strip():
        raise DataError(f"{table.where(row)}: names no image; give its path, or leave the row out")
    if "://" in cell and _URL.match(cell.strip()):
        raise DataError(f"{table.where(row)}: {cell.strip()!r} is a URL; download the images, and name their files")
    if ("\\" in cell or cell != cell.strip()) and not is_file(f"{folder}{cell}{suffix}"):
        cell = cell.strip()
        if _DRIVE.match(cell):
            raise DataError(
                f"{table.where(row)}: {cell!r} is a path of another computer; name the files from data.image_root "
                "on, as in images/1.jpg"
            )
        cell = cell.replace("\\", "/")
    return cell
