"""NIH ChestX-ray14: labels mined from reports (Wang et al., CVPR 2017, arXiv 1705.02315)."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlcv.collector import without_collector
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.transforms import Augment
from mlcv.errors import AbsentError, ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE
from mlcv.tables import Table, exists, is_folder, printable, read_lines

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The 14 findings, in the paper's order."""

_LISTS: dict[Split, str] = {"train": "train_val_list.txt", "val": "train_val_list.txt", "test": "test_list.txt"}
_ABOUT = {"Patient ID": "patient", "Patient Age": "age", "Patient Gender": "sex", "View Position": "projection"}


class NIHDataModule(MultiLabelDataModule):
    """ChestX-ray14 in its official layout: `Data_Entry_2017*.csv`, `train_val_list.txt`, `test_list.txt`, images.

    Images are in `images/`, or in the archives' own folders `images_001/images/` to `images_012/images/`. There is no
    official validation split: `val_fraction` of the patients of the first list validate.

    Args:
        root: folder with all of it.
        projections: `all`, or `PA` or `AP` images only, in every split.
        table: file of the labels from `root`; the one that is there if None.
        val_fraction: part of the training patients that validates, in (0, 1).
        image_size: side of the input in pixels.
        augment: small turns, shifts and changes of brightness, no mirror images.
        kwargs: see `MultiLabelDataModule`.
    """

    class_names = FINDINGS
    group = "patient"
    grey = True

    def __init__(
        self,
        root: str,
        projections: Literal["all", "PA", "AP"] = "all",
        table: str | None = None,
        val_fraction: float = 0.1,
        image_size: int = 224,
        augment: Augment = Augment(min_scale=0.9, flip=False, strength=0.2, cutout=0.0),  # noqa: B008  # frozen
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, augment=augment, val_fraction=val_fraction, **kwargs)
        if not val_fraction:
            raise ConfigError("data.val_fraction: ChestX-ray14 has no validation split, so a part must be held out")
        self.root, self.projections, self.table = Path(root), projections, table

    @without_collector()
    def read_split(self, split: Split) -> LabeledImages:
        table = Table(self._table())
        names = [name.strip() for name in table.column("Image Index")]
        place: dict[str, int] = {}
        again = next((row for row, name in enumerate(names) if place.setdefault(name, row) != row), None)
        if again is not None:
            raise DataError(
                f"{table.where(again)}: {names[again]} is in {table.where(place[names[again]])} already; drop one of "
                "the two"
            )
        listed = self._listed(split)
        strange = next((name for name in listed if name not in place), None)
        if strange is not None:
            raise DataError(f"{listed[strange]}: {strange} is not in {table.path}")
        rows = np.array([place[name] for name in listed], dtype=np.intp)
        if self.projections != "all":
            rows = rows[table.spelled("View Position").array()[rows] == self.projections]
        about = {name: table.spelled(header).array()[rows] for header, name in _ABOUT.items()}
        images = self._images([names[row] for row in rows], table, rows)
        states, file = read_findings(table)[rows], printable(table.path)
        return LabeledImages(images, states, about=about, file=file, lines=table.lines(rows))

    def _listed(self, split: Split) -> dict[str, str]:
        """Where each image of a split is listed, by name; an image is in one list, once."""
        where: dict[str, str] = {}
        for name in dict.fromkeys([_LISTS[split], *_LISTS.values()]):
            path = self.root / name
            if not exists(path) and name == _LISTS[split]:
                raise AbsentError(
                    f"NIH: no {path}; the official lists train_val_list.txt and test_list.txt belong there"
                )
            lines = read_lines(path) if exists(path) else []
            if not lines and name == _LISTS[split]:
                raise DataError(f"{path}: it lists no image; take the official one")
            for number, images in lines:
                for image in images:
                    if image in where:
                        raise DataError(f"{path}:{number}: {image} is in {where[image]} already; drop one of the two")
                    where[image] = f"{path}:{number}"
        return {image: line for image, line in where.items() if line.startswith(f"{self.root / _LISTS[split]}:")}

    def _table(self) -> Path:
        found = [self.root / self.table] if self.table else sorted(self.root.glob("Data_Entry_2017*.csv*"))
        if len(found) != 1:
            some = ", ".join(path.name for path in found) or "none"
            raise DataError(f"NIH: one Data_Entry_2017*.csv is needed under {self.root}, found {some}; give data.table")
        return found[0]

    def _images(self, names: list[str], table: Table, rows: Any) -> list[str]:
        folders = [self.root / "images", *sorted(self.root.glob("images_*/images"))]
        where = {name: f"{folder}/{name}" for folder in folders if is_folder(folder) for name in os.listdir(folder)}  # noqa: PTH208  # strings
        missing = next((n for n, name in enumerate(names) if name not in where), None)
        if missing is not None and self.on_error == "raise":
            raise DataError(
                f"{table.where(rows[missing])}: no image {names[missing]} in images/ or images_001/images/ ... under "
                f"{self.root}; unpack the archives there (data.on_error skip leaves such rows out)"
            )
        return [where.get(name, f"{self.root}/images/{name}") for name in names]


def read_findings(table: Table) -> Any:
    """Label states (M, 14) from names in one cell, `A|B|C`; what is not named is absent.

    Raises:
        DataError: naming the row of a finding that is none of the 14.
    """
    column = {name: number for number, name in enumerate(FINDINGS)}
    spelled = table.spelled("Finding Labels")
    states = np.full((len(spelled.cells), len(FINDINGS)), NEGATIVE, np.int8)
    for place in np.argsort(spelled.first):  # what comes first in the table is the first to be refused
        cell = spelled.cells[place]
        if cell.strip() == "No Finding":
            continue
        for name in map(str.strip, cell.split("|")):
            if name not in column:
                where = table.where(spelled.first[place])
                raise DataError(f"{where}: unknown finding {name!r}; the 14 are {', '.join(FINDINGS)}")
            states[place, column[name]] = POSITIVE
    return states[spelled.codes]
