"""A folder of folders as a table: each folder on the way to an image names a class of it."""

import json
import os
from pathlib import Path

import numpy as np

from mlcv.data.headers import SUFFIXES
from mlcv.errors import DataError
from mlcv.tables import Table, printable
from mlcv.tables.columns import Listed

IMAGE, LABELS, SPLIT = "image", "classes", "split"
"""Headers of the table."""
SPLITS = {"train", "val", "valid", "validation", "test"}


def read_class_folders(folder: Path) -> Table:
    """A row an image with its path, its classes as a JSON list and, where all outer folders are splits, its split.

    `animal/dog/1.jpg` is an animal and a dog, and nothing else. Hidden files and what is no image by its name are left
    out. An image of several classes that is in the folder of each, by links, has several rows.

    Raises:
        DataError: if there is no image, or one is in no class's folder.
    """
    images = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        kept = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        images += [os.path.relpath(os.path.join(place, name), folder) for name in kept]  # noqa: PTH118  # many files
    images.sort()
    if not images:
        raise DataError(
            f"{printable(folder)}: a folder without images; a folder for each class, with its images, is needed"
        )
    parts = [list(Path(image).parts[:-1]) for image in images]
    columns = {IMAGE: [image.replace(os.sep, "/") for image in images]}
    if {own[0].lower() for own in parts if own} <= SPLITS and all(parts):
        columns[SPLIT] = [own[0] for own in parts]
        parts = [own[1:] for own in parts]
    outside = next((image for image, own in zip(images, parts, strict=True) if not own), None)
    if outside is not None:
        raise DataError(
            f"{printable(folder / outside)}: an image that is in no class's folder; move it into one, or away"
        )
    columns[LABELS] = [json.dumps(list(dict.fromkeys(own)), ensure_ascii=False) for own in parts]
    return FolderTable(folder, columns)


class FolderTable(Table):
    """A table of files, which have no lines.

    Args:
        path: the folder.
        columns: cells by header.
    """

    def __init__(self, path: Path, columns: dict[str, list[str]]) -> None:
        self._fill(path, list(columns), Listed(list(columns.values())), np.arange(len(columns[IMAGE]) + 1))

    def where(self, row: int) -> str:
        return printable(self.path / self.column(IMAGE)[row]) if row >= 0 else printable(self.path)
