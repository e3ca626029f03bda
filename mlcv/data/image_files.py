"""Images without labels, for predictions: folders, files, or a table that names them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.headers import SUFFIXES
from mlcv.data.items import Files
from mlcv.data.paths import canonical, image_paths
from mlcv.data.samples import LabeledImages, OnError, Split
from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import UNKNOWN
from mlcv.tables import NAME_COLUMNS, Table, check_class_names, exists, find_name_column, is_folder, printable


class ImageFilesDataModule(MultiLabelDataModule):
    """Images to predict; `mlcv predict --ckpt_path X --data.path FOLDER` builds it with what the checkpoint expects.

    Args:
        path: a folder (searched through its subfolders), an image, a .csv or .csv.gz file whose only column, or one
            called `image`, `path` or the like, names images relative to it; or a list of these.
        classes: names of the classes that the model knows.
        grey: decode one channel, where the model was trained on grey images.
        on_error: `skip` unreadable images, which are listed at the end, or `raise`.
        kwargs: see `MultiLabelDataModule`.

    Raises:
        DataError: for a path that does not exist, or if there is no image.
    """

    is_apart = True

    def __init__(
        self,
        path: str | list[str],
        classes: Sequence[str],
        grey: bool = False,
        on_error: OnError = "skip",
        **kwargs: Any,
    ) -> None:
        super().__init__(on_error=on_error, **kwargs)
        self.grey = grey
        self.class_names = tuple(classes)
        check_class_names(self.class_names, "data.classes")
        self.done: frozenset[str] = frozenset()
        self.paths = list(dict.fromkeys(found for one in _listed(path) for found in find_images(Path(one))))
        if not self.paths:
            some = ", ".join(sorted(SUFFIXES))
            listed = ", ".join(map(printable, _listed(path)))
            raise DataError(f"data.path: no image under {listed}; looked for {some}")

    def read_split(self, split: Split) -> LabeledImages:
        if split != "test":
            raise ConfigError("images without labels can be predicted only: mlcv predict, without --split")
        left = [path for path in self.paths if path not in self.done] or self.paths[-1:]  # the last one again, if none
        return LabeledImages(left, np.full((len(left), self.num_classes), UNKNOWN, np.int8))

    def image_files(self) -> Files:
        return Files(self.paths)

    def predicted_images(self) -> str:
        """Of all, whatever a stopped run has left."""
        return Files(self.paths).fingerprint()


def find_images(path: Path) -> Iterator[str]:
    """Paths of the images that a path stands for, sorted.

    They are as the system gives them: a name that is no UTF-8 can be opened, and printed by `mlcv.tables.printable`.

    Raises:
        DataError: if there is no such file or folder.
    """
    if is_folder(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (
                canonical(f"{folder}/{name}") for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES
            )
    elif path.name.endswith((".csv", ".csv.gz")):
        table = Table(path)
        yield from image_paths(path.parent, table, _image_column(table))
    elif exists(path):
        yield canonical(str(path))
    else:
        raise DataError(
            f"data.path: there is no {printable(path)}; give a folder, an image, or a CSV file that names images"
        )


def _image_column(table: Table) -> str:
    """A header that says so, or the only one, unless it is the first image of a file that has none."""
    found = find_name_column(table.names)
    if found is None and len(table.names) == 1 and Path(table.names[0]).suffix.lower() not in SUFFIXES:
        found = table.names[0]
    if found is None:
        raise DataError(
            f"data.path: {printable(table.path)}: which column names the images? None of {', '.join(table.names)} is "
            f"called {', '.join(NAME_COLUMNS)}; give it such a header in the first line"
        )
    return found


def _listed(path: str | list[str]) -> list[str]:
    return [path] if isinstance(path, str) else path
