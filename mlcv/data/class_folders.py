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
    out; links to folders are followed. An image of several classes that is in the folder of each, by links, has several
    rows.

    Raises:
        DataError: if there is no image, or one is in no class's folder, a link leads to a folder around it, or only
            some of the outer folders are splits.
    """
    images = []
    above = {str(folder): {os.path.realpath(folder)}}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        around = above.pop(place)
        for name in folders:
            path = os.path.join(place, name)  # noqa: PTH118
            real = os.path.realpath(path)
            if real in around:
                raise DataError(f"{printable(path)}: a link to a folder that it is in; take it away")
            above[path] = around | {real}
        kept = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        images += [os.path.relpath(os.path.join(place, name), folder) for name in kept]  # noqa: PTH118  # many files
    images.sort()
    if not images:
        raise DataError(
            f"{printable(folder)}: a folder without images; a folder for each class, with its images, is needed"
        )
    parts = [list(Path(image).parts[:-1]) for image in images]
    columns = {IMAGE: [image.replace(os.sep, "/") for image in images]}
    outer = dict.fromkeys(own[0] for own in parts if own)
    splits, others = ([name for name in outer if (name.lower() in SPLITS) is is_one] for is_one in (True, False))
    if others and len(splits) > 1 and "train" in map(str.lower, splits):  # one alone may be a class: a train
        raise DataError(
            f"{printable(folder)}: {', '.join(splits)} are splits, and {others[0]} beside them is none; move it into "
            "one, or away, or put all into one more folder if they are classes"
        )
    if splits and not others and all(parts):
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
