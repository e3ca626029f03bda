"""Any table of images: a row an image, its labels in columns or in one cell, or a row for each of its labels."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.class_folders import IMAGE, LABELS, SPLIT, FolderTable, read_class_folders
from mlcv.data.headers import SUFFIXES
from mlcv.data.label_lists import LabelLists
from mlcv.data.long_layout import BOXES
from mlcv.data.paths import image_paths
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.several_rows import Duplicates, Long, Owners, find_owners, long_labels, merge
from mlcv.data.splits import deal, deal_evenly, group_keys, order_as_texts, told_apart
from mlcv.errors import AbsentError, ConfigError, DataError, check_choice
from mlcv.tables import (
    Codes,
    Labels,
    Table,
    check_class_names,
    column_labels,
    is_file,
    is_folder,
    minus_one,
    printable,
    read_table,
)

logger = logging.getLogger(__name__)

SOURCE = "source"
"""Header of the column that says which data set an image is from, see `mlcv merge`."""
_SPLITS: tuple[Split, ...] = ("train", "val", "test")

# Headers of tables with several rows an image, without case and underscores.
_ANNOTATIONS = {"labelname", "label", "class", "classname", "classid", "category", "categoryid", "confidence"}


@dataclass(frozen=True)
class _Read:
    """What a table says of its N images; those of `owners`, or a row is an image."""

    labels: Labels
    owners: Owners | None

    @property
    def rows(self) -> NDArray[np.intp]:
        """The first row of each image (N,)."""
        return np.arange(len(self.labels.states)) if self.owners is None else self.owners.first


class CSVDataModule(MultiLabelDataModule):
    """Images and labels from the user's own table (or tables): CSV, Parquet, JSON lines, Excel, or a folder a class.

    Labels stand in one column a class (`label_columns`), as names in one cell (`labels_column`; NIH's `A|B|C`, or
    PadChest's `['A', 'B']`), or in a row each (`long`). The
    splits are files of their own (`val_path`, `test_path`), a column (`split_column`, with the values train, val and
    test), or drawn (`fractions`), by patient if `group_column` says who that is.

    Args:
        path: the table, or the folder with a folder for each class; of all splits, or of the training split.
        image_root: folder that the image column's paths start from; the table's own if None.
        image_column: header of the column with the image's path; the first if None.
        label_columns: headers of the label columns, which are the class names; if None (and no `labels_column`), every
            column that is not named by another argument.
        labels_column: header of the one column with names of the classes that are present; those not named are absent.
        classes: class names in order, for `labels_column`; if None, all that occur in the table, sorted.
        delimiter: between names in `labels_column`.
        no_finding: the word in `labels_column` that means that none is present; it is no class.
        codes: what the cells of label columns mean.
        separator: between cells; if None, the comma, semicolon, tab or bar that gives all lines one number of cells.
        val_path: table of the validation split.
        test_path: table of the test split.
        split_column: header of the column that names the split.
        fractions: parts of the images (or groups) that train, validate and test, if neither files nor a column say so.
        group_column: header of the column whose equal values (a patient's images) must stay together.
        image_suffix: what follows each cell of the image column in the file's name, such as `.png`.
        long: for a table with a row for each label of an image, or each box: what its columns mean.
        duplicates: what several rows of an image mean that each give all its labels, also by other paths or links, and
            several annotators of `long`: `raise` refuses them; see `mlcv.data.several_rows.merge` for the others.
        kwargs: see `MultiLabelDataModule`.
    """

    def __init__(  # noqa: PLR0913  # a table can be laid out in many ways
        self,
        path: str,
        image_root: str | None = None,
        image_column: str | None = None,
        label_columns: list[str] | None = None,
        labels_column: str | None = None,
        classes: list[str] | None = None,
        delimiter: str = "|",
        no_finding: str | None = "No Finding",
        codes: Codes = Codes(),  # noqa: B008  # frozen
        separator: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        split_column: str | None = None,
        fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
        group_column: str | None = None,
        image_suffix: str = "",
        long: Long | None = None,
        duplicates: Duplicates = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(given is not None for given in (labels_column, label_columns, long)) > 1:
            raise ConfigError("data.label_columns, data.labels_column and data.long exclude each other: choose one")
        if long is not None and long.machine == "soft" and None in (long.source_column, long.confidence_column):
            raise ConfigError(
                "data.long.machine soft keeps the confidence of rows that a machine has made: name their columns in "
                "data.long.source_column and data.long.confidence_column"
            )
        check_choice("data.duplicates", duplicates, get_args(Duplicates))
        if split_column is not None and (val_path or test_path):
            raise ConfigError("data.split_column and data.val_path / data.test_path exclude each other: choose one")
        if separator is not None and len(separator) != 1:
            raise ConfigError(f"data.separator is one character, got {separator!r}")
        self.paths: dict[Split, Path | None] = {"train": Path(path)}
        if val_path or test_path:
            self.paths |= {"val": Path(val_path or test_path or ""), "test": Path(test_path or val_path or "")}
        start = Path(path) if is_folder(path) else Path(path).parent
        self.image_root = Path(image_root) if image_root is not None else start
        self.image_suffix, self.long, self.duplicates = image_suffix, long, duplicates
        self.delimiter, self.no_finding, self.codes, self.fractions = delimiter, no_finding, codes, fractions
        self.group = self.group_column = group_column
        self.kept_columns: list[str] = []
        self.separator, self.classes = separator, classes or None
        self._tables: dict[Path, Table] = {}
        self._reads: dict[Path, _Read] = {}
        self._lists_of: dict[Path, LabelLists] = {}
        header = self._header(self._table(Path(path)))
        if is_folder(path):
            image_column = image_column or IMAGE
            labels_column = labels_column or LABELS
            split_column = split_column or (SPLIT if SPLIT in header and len(self.paths) == 1 else None)
        self.draws_splits = split_column is None and len(self.paths) == 1
        self._check_drawn()
        self.labels_column, self.split_column = labels_column, split_column
        self.image_column = image_column or header[0]
        special = {self.image_column, split_column, group_column}
        self.label_columns = label_columns or [column for column in header if column not in special]
        wanted = [self.image_column, split_column, group_column, labels_column]
        wanted += long.columns if long else [] if labels_column else self.label_columns
        for column in wanted:
            if column is not None and column not in header:
                raise ConfigError(f"{path}: no column {column!r}; its columns are {', '.join(header)}")
        self.class_names = self._class_names(path, classes)
        if not (long or labels_column):
            self._understand_minus_one()

    def read_split(self, split: Split) -> LabeledImages:
        table = self._table(self.paths.get(split) or self.paths["train"])
        read = self._read_table(table)
        chosen = self._images(table, read, split)
        if not len(chosen):
            by = "" if self.split_column is None else f" by column {self.split_column!r}"
            raise AbsentError(f"{printable(table.path)}: no row is in the {split} split{by}")
        rows = read.rows[chosen]
        if read.owners is None:
            images = list(image_paths(self.image_root, table, self.image_column, rows.tolist(), self.image_suffix))
        else:
            images = [read.owners.paths[image] for image in chosen]
        missing = next((n for n, path in enumerate(images) if not is_file(path)), None)
        if missing is not None and self.on_error == "raise":
            raise DataError(
                f"{table.where(rows[missing])}: no image {printable(images[missing])}; data.image_root is the folder "
                f"that column {self.image_column!r} starts from, and data.image_suffix may end a name (or set "
                "data.on_error to skip)"
            )
        about = {name: self._cells(table, read, name)[chosen] for name in self._kept(table)}
        is_all = len(chosen) == len(read.rows)  # then in their order, and a copy may take much room
        states = read.labels.states if is_all else read.labels.states[chosen]
        soft = None if read.labels.soft is None else read.labels.soft if is_all else read.labels.soft[chosen]
        lines = None if isinstance(table, FolderTable) else table.lines(rows)
        return LabeledImages(images, states, None, about, printable(table.path), lines, soft)

    def _kept(self, table: Table) -> list[str]:
        """Columns that `LabeledImages.about` has: group, `source`, as `mlcv merge` writes it, and `kept_columns`."""
        labels = self.label_columns if not (self.labels_column or self.long) else [self.labels_column]
        has_source = SOURCE in table.names and SOURCE not in labels
        further = [name for name in self.kept_columns if name in table.names]
        return list(dict.fromkeys([*filter(None, [self.group_column]), *([SOURCE] if has_source else []), *further]))

    def _check_drawn(self) -> None:
        if min(self.fractions) < 0 or not 0.999 < sum(self.fractions) < 1.001:
            raise ConfigError(f"data.fractions are three parts of 1, got {list(self.fractions)}")
        if self.val_fraction and self.draws_splits:
            raise ConfigError(
                "data.val_fraction takes its part of a training split that is given, and here all splits are drawn: "
                "give data.fractions instead, such as [0.6, 0.2, 0.2]"
            )

    def _read_table(self, table: Table) -> _Read:
        if table.path not in self._reads:
            self._check_rows(table)
            self._reads[table.path] = self._understood(table)
        return self._reads[table.path]

    def _understood(self, table: Table) -> _Read:
        """Labels of the images, however the table says them."""
        owners = None
        if self.long is not None or self.duplicates != "raise":
            place = self.image_root, table, self.image_column, self.image_suffix
            owners = find_owners(*place, by_file=self.duplicates != "raise")
        if self.long is not None and owners is not None:
            columns = self._lists(table).columns(self.class_names)
            labels = long_labels(table, owners, self.long, self.codes, self.class_names, columns, self.duplicates)
        elif self.labels_column:
            labels = Labels(self._lists(table).states(self.class_names))
        else:
            labels = column_labels(table, self.label_columns, self.codes, "data.codes")
        if owners is not None and self.long is None:
            if len(owners.first) < len(table):
                logger.info(
                    "%s: %d rows are of %d images; data.duplicates is %s",
                    printable(table.path), len(table), len(owners.first), self.duplicates,
                )  # fmt: skip
            labels = merge(labels, owners, self.duplicates, self.class_names, table.where)
        if labels.soft is not None and not np.isnan(labels.soft).all():
            logger.info(
                "%s: %d labels lie between absent and present; as soft labels they train, and judge nobody "
                "(data.codes.fractions: majority, unknown or raise)",
                printable(table.path), np.count_nonzero(~np.isnan(labels.soft)),
            )  # fmt: skip
        return _Read(labels, owners)

    def _understand_minus_one(self) -> None:
        """By the training split's table: the others may not be on this machine."""
        codes = minus_one(self._table(self.paths["train"]), self.label_columns, self.codes)
        if codes != self.codes:
            meaning = (
                "absent, as there is no other word for it"
                if codes.table()["-1"] == 0
                else "uncertain, beside 1, 0 and blank"
            )
            logger.info("-1 is taken for %s; data.codes can say otherwise", meaning)
        self.codes = codes

    def _cells(self, table: Table, read: _Read, column: str) -> NDArray[np.str_]:
        """What a column says of each image."""
        return table.spelled(column).array() if read.owners is None else read.owners.cells(table, column)

    def _table(self, path: Path | None) -> Table:
        if path is None:
            raise ConfigError("data.path is needed")
        if path not in self._tables:
            self._tables[path] = read_class_folders(path) if is_folder(path) else read_table(path, self.separator)
        return self._tables[path]

    def _header(self, table: Table) -> tuple[str, ...]:
        """Names of the columns; the first line may be an image's."""
        header = table.names
        if isinstance(table, FolderTable):
            return header
        if not header:
            raise DataError(f"{printable(table.path)}: the file is empty; the first row names the columns")
        codes = self.codes.table()
        is_image = Path(header[0]).suffix.lower() in SUFFIXES or is_file(self.image_root / header[0])
        if is_image or all(name.strip().lower() in codes or name.isdecimal() for name in header):
            raise DataError(
                f"{table.where(-1)}: {', '.join(header[:4])} are cells, not names of columns; add a first line of "
                "names, such as image,cat,dog"
            )
        return header

    def _class_names(self, path: str, classes: list[str] | None) -> tuple[str, ...]:
        self._check_rows(self._table(Path(path)))
        places: dict[str, str] = {}
        if self.labels_column is None and self.long is None:
            names, source = tuple(self.label_columns), f"{path} (data.label_columns)"
        elif classes:
            names, source = tuple(classes), "data.classes"
        else:
            for table in dict.fromkeys(self.paths.values()):
                places = {**self._lists(self._table(table)).names(), **places}
            names, source = tuple(sorted(places)), f"{path}, column {self._names_column!r}"
        if not names:
            raise ConfigError(f"{path}: there is no label column beside {self.image_column!r}")
        check_class_names(names, source, places)
        return names

    def _check_rows(self, table: Table) -> None:
        """Refuses tables of boxes or annotations, which have several rows an image, unless something says so."""
        if self.long is not None or self.duplicates != "raise":
            return
        names = {name.lower().replace("_", "") for name in table.names}
        labels = set() if self.labels_column else {name.lower().replace("_", "") for name in self.label_columns}
        first: dict[str, int] = {}
        cells = table.column(self.image_column)
        again = None
        if len(set(cells)) < len(cells):
            again = next(row for row, cell in enumerate(cells) if first.setdefault(cell, row) != row)
        is_of_boxes = any(box <= (labels if again is None else names) for box in BOXES)
        is_of_annotations = again is not None and (self.labels_column is not None or bool(names & _ANNOTATIONS))
        if is_of_boxes or is_of_annotations:
            where = table.where(0 if again is None else again)
            twice = f" ({cells[again]} is in {table.where(first[cells[again]])}, too)" if again is not None else ""
            raise DataError(
                f"{where}: a table with a row for each {'box' if is_of_boxes else 'annotation'}{twice}, and one row an "
                "image is needed: name the column of the classes in data.long.label_column, and say what a class "
                "without a row is in data.long.absent; or, if each row has all of its image, choose data.duplicates"
            )

    @property
    def _names_column(self) -> str:
        return self.long.label_column if self.long is not None else str(self.labels_column)

    def _lists(self, table: Table) -> LabelLists:
        if table.path not in self._lists_of:
            delimiter = self.delimiter if self.long is None else "\0"
            given = table, self._names_column, delimiter, self.no_finding, self.classes, self.codes
            self._lists_of[table.path] = LabelLists(*given)
        return self._lists_of[table.path]

    def _images(self, table: Table, read: _Read, split: Split) -> NDArray[np.intp]:
        """Which images are in a split."""
        count = len(read.rows)
        if len(self.paths) > 1:
            return np.arange(count)
        if self.split_column is not None:
            return self._images_by_column(table, read, split)
        if self.group_column:
            keys = told_apart(group_keys(self._cells(table, read, self.group_column).tolist()))
            groups = np.unique(np.array(keys, np.str_), return_inverse=True)[1]
        else:
            groups = order_as_texts(count)
        if self.stratify:
            parts = deal_evenly(groups, read.labels.states, self.fractions, self.seed)
        else:
            parts = deal(groups, self.fractions, self.seed)
        return np.flatnonzero(parts == _SPLITS.index(split))

    def _images_by_column(self, table: Table, read: _Read, split: Split) -> NDArray[np.intp]:
        given = np.char.lower(np.char.strip(self._cells(table, read, str(self.split_column))))
        wrong = np.flatnonzero(~np.isin(given, [*_SPLITS, "valid", "validation"]))
        if len(wrong):
            raise DataError(
                f"{table.where(read.rows[wrong[0]])}: column {self.split_column!r} holds {str(given[wrong[0]])!r}; "
                "a split is train, val or test"
            )
        cells = np.where(np.isin(given, ["valid", "validation"]), "val", given)
        # A table with two splits is common; the other two names then mean the same one.
        other = {"val": "test", "test": "val", "train": "train"}[split]
        images = np.flatnonzero(cells == split)
        return images if len(images) else np.flatnonzero(cells == other)
