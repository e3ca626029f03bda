"""CheXpert: chest radiographs with labels that say "maybe" (Irvin et al., AAAI 2019, arXiv 1901.07031)."""

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlcv.collector import without_collector
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.paths import canonical
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.transforms import Augment
from mlcv.errors import AbsentError, ConfigError, DataError
from mlcv.tables import Codes, Table, column_states, is_empty, is_file, is_folder, printable

OBSERVATIONS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""The 14 labels, in the order of the released tables."""

TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five by which the paper and the competition judge, in the paper's order."""

# Patient and study. The word comes first, for a search that begins with one is the fastest.
_PLACE = re.compile(r"patient(?<![^/]patient)\d+/study\d+(?=/|$)")
_BATCHES = "CheXpert-v1.0 batch *"
_IMAGES = {".jpg", ".jpeg", ".png"}
_ABOUT = {"Sex": "sex", "Age": "age", "Frontal/Lateral": "view", "AP/PA": "projection"}


class CheXpertDataModule(MultiLabelDataModule):
    """CheXpert in its official layout, v1.0 or v1.0-small, with `train.csv` and `valid.csv`, plain or gzipped.

    Paths in the tables count from the split's folder on, whatever stands before. Where the archive was unpacked in
    batches (`CheXpert-v1.0 batch 2 (train 1)/patient00001/`), patients are looked for in these.

    What is known of an image besides its labels (patient, study, sex, age, view, projection) is in
    `LabeledImages.about`; `mlcv evaluate --by` takes it from the table. Nothing is mirrored: the heart has a side.

    Args:
        root: folder with the tables and the folders train/ and valid/.
        observations: `all` 14, the five `tasks`, or a list of names.
        views: `all`, or `frontal` or `lateral` ones only, in every split.
        blank: what an observation is that a report does not mention: `negative`, as in the paper, or `unknown`.
        train_table: file of the training split, from `root`.
        val_table: file of the validation split.
        test_table: file of the test split, an image a row (`Path`) or a study a row (`Study`, whose images are all in
            its folder); the validation split if None.
        val_fraction: part of the training patients that validates instead, in [0, 1).
        image_size: side of the input in pixels.
        augment: small turns, shifts and changes of brightness.
        kwargs: see `MultiLabelDataModule`.
    """

    group = "patient"
    grey = True

    def __init__(
        self,
        root: str,
        observations: Literal["all", "tasks"] | list[str] = "all",
        views: Literal["all", "frontal", "lateral"] = "all",
        blank: Literal["negative", "unknown"] = "negative",
        train_table: str = "train.csv",
        val_table: str = "valid.csv",
        test_table: str | None = None,
        image_size: int = 320,
        augment: Augment = Augment(min_scale=0.9, flip=False, strength=0.2, cutout=0.0),  # noqa: B008  # frozen
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, augment=augment, **kwargs)
        self.root, self.views = Path(root), views
        self.codes = Codes(uncertain=("-1",), blank=blank)
        self.tables: dict[Split, str] = {"train": train_table, "val": val_table, "test": test_table or val_table}
        named = {"all": OBSERVATIONS, "tasks": TASKS}
        self.class_names = named[observations] if isinstance(observations, str) else tuple(observations)
        strange = [name for name in self.class_names if name not in OBSERVATIONS]
        if strange or not self.class_names:
            raise ConfigError(f"data.observations: {strange or 'none'}; CheXpert's are {', '.join(OBSERVATIONS)}")

    @without_collector()
    def read_split(self, split: Split) -> LabeledImages:
        table = Table(self._path(self.tables[split]))
        if not len(table):
            raise DataError(f"{table.path}: there is no row below the header; unpack the archive again")
        states = column_states(table, self.class_names, self.codes)
        if "Path" in table.names:
            paths, rows = list(table.column("Path")), np.arange(len(table))
        else:
            paths, rows = self._images_of_studies(table)
        images, about = self._understand(table, paths, rows)
        for header, name in _ABOUT.items():
            about[name] = np.full(len(rows), "")
            if header in table.names:
                spelled = table.spelled(header)
                about[name] = np.array(["" if is_empty(cell) else cell for cell in spelled.cells])[spelled.codes[rows]]
        lines = table.lines(rows)
        labeled = LabeledImages(images, states[rows], about=about, file=printable(table.path), lines=lines)
        if self.views == "all":
            return labeled
        return labeled.select(np.flatnonzero([f"_{self.views}." in path for path in paths]))

    def _path(self, name: str) -> Path:
        for path in (self.root / name, self.root / f"{name}.gz"):
            if is_file(path):
                return path
        raise AbsentError(
            f"CheXpert: no {name} (or {name}.gz) under {self.root}. Point data.root at the folder CheXpert-v1.0 or "
            "CheXpert-v1.0-small of the archive (https://stanfordmlgroup.github.io/competitions/chexpert)"
        )

    def _places(self, table: Table, paths: list[str], rows: Any) -> tuple[list[str], list[str], list[str]]:
        """File (or folder of a study), patient and study of each path."""
        batches = sorted(folder for folder in self.root.glob(_BATCHES) if is_folder(folder))
        in_batch = {name: f"{folder}/" for folder in batches for name in os.listdir(folder)}  # noqa: PTH208  # strings
        folders: dict[str, str] = {}
        images, patients, studies = [], [], []
        for n, path in enumerate(paths):
            match = _PLACE.search(path)
            if match is None:
                raise DataError(
                    f"{table.where(rows[n])}: {path!r} is no path of CheXpert's, such as "
                    "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
                )
            start, study = match.start(), match[0]
            before = path[:start]
            if before not in folders:  # the split, and what the archive, or the user, has called its folder
                split = before[:-1].rpartition("/")[2]
                folders[before] = f"{self.root}/{split}/" if split else f"{self.root}/"
            patient = study.partition("/")[0]
            images.append(canonical(in_batch.get(patient, folders[before]) + path[start:]))
            patients.append(patient)
            studies.append(study)
        return images, patients, studies

    def _images_of_studies(self, table: Table) -> tuple[list[str], NDArray[np.intp]]:
        paths: list[str] = []
        rows: list[int] = []
        studies = list(table.column("Study"))
        folders = [Path(place) for place in self._places(table, studies, range(len(studies)))[0]]
        for row, (study, folder) in enumerate(zip(studies, folders, strict=True)):
            views = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in _IMAGES)
            if not views:
                raise DataError(f"{table.where(row)}: no image of the study in {folder}; unpack the archive there")
            paths += [f"{study.rstrip('/')}/{view}" for view in views]
            rows += [row] * len(views)
        return paths, np.array(rows, dtype=np.intp)

    def _understand(self, table: Table, paths: list[str], rows: Any) -> tuple[list[str], dict[str, NDArray[np.str_]]]:
        """Each image's file, patient and study; every row must name one of its own, before anything is trained."""
        images, patients, studies = self._places(table, paths, rows)
        if len(set(images)) < len(images):
            first: dict[str, int] = {}
            again = next(n for n, image in enumerate(images) if first.setdefault(image, n) != n)
            before = first[images[again]]
            raise DataError(
                f"{table.where(rows[again])}: {paths[again]} is in {table.where(rows[before])} already, as "
                f"{paths[before]}; drop one of the two"
            )
        if self.on_error == "raise":
            missing = next((n for n, image in enumerate(images) if not is_file(image)), None)
            if missing is not None:
                raise DataError(
                    f"{table.where(rows[missing])}: no image {images[missing]}; paths start from data.root, "
                    f"{self.root} (data.on_error skip leaves such rows out)"
                )
        return images, {"patient": np.array(patients), "study": np.array(studies)}
