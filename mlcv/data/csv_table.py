"""Any table of images: one row an image, its labels in columns or in one cell."""

from pathlib import Path
from typing import Any

import numpy as np

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.headers import SUFFIXES
from mlcv.data.label_lists import LabelLists
from mlcv.data.paths import image_paths
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.splits import deal, group_keys, told_apart
from mlcv.errors import ConfigError, DataError
from mlcv.tables import Codes, Table, check_class_names, column_states, is_file, printable, read_table

_SPLITS: tuple[Split, ...] = ("train", "val", "test")

# Headers of tables with several rows an image, without case and underscores.
_BOXES = ({"x", "y", "width", "height"}, {"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"})
_ANNOTATIONS = {"labelname", "label", "class", "classname", "classid", "category", "categoryid", "confidence"}


class CSVDataModule(MultiLabelDataModule):
    """Images and labels from the user's own CSV file (or files), plain or gzipped, with a header.

    Labels stand in one column a class (`label_columns`), or as names in one cell (`labels_column`; NIH's `A|B|C`, or
    PadChest's `['A', 'B']`). The
    splits are files of their own (`val_path`, `test_path`), a column (`split_column`, with the values train, val and
    test), or drawn (`fractions`), by patient if `group_column` says who that is.

    Args:
        path: the table; of all splits, or of the training split.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if labels_column is not None and label_columns is not None:
            raise ConfigError("data.label_columns and data.labels_column exclude each other: choose one")
        if split_column is not None and (val_path or test_path):
            raise ConfigError("data.split_column and data.val_path / data.test_path exclude each other: choose one")
        if min(fractions) < 0 or not 0.999 < sum(fractions) < 1.001:
            raise ConfigError(f"data.fractions are three parts of 1, got {list(fractions)}")
        self.paths: dict[Split, Path | None] = {"train": Path(path)}
        if val_path or test_path:
            self.paths |= {"val": Path(val_path or test_path or ""), "test": Path(test_path or val_path or "")}
        self.image_root = Path(image_root) if image_root is not None else Path(path).parent
        self.labels_column, self.delimiter, self.no_finding = labels_column, delimiter, no_finding
        self.codes, self.split_column, self.fractions = codes, split_column, fractions
        self.group = self.group_column = group_column
        if separator is not None and len(separator) != 1:
            raise ConfigError(f"data.separator is one character, got {separator!r}")
        if self.val_fraction and split_column is None and len(self.paths) == 1:
            raise ConfigError(
                "data.val_fraction takes its part of a training split that is given, and here all splits are drawn: "
                "give data.fractions instead, such as [0.6, 0.2, 0.2]"
            )
        self.separator, self.classes = separator, classes or None
        self._tables: dict[Path, Table] = {}
        header = self._header(self._table(Path(path)))
        self.image_column = image_column or header[0]
        special = {self.image_column, split_column, group_column}
        self.label_columns = label_columns or [column for column in header if column not in special]
        wanted = [self.image_column, split_column, group_column, labels_column]
        wanted += [] if labels_column else self.label_columns
        for column in wanted:
            if column is not None and column not in header:
                raise ConfigError(f"{path}: no column {column!r}; its columns are {', '.join(header)}")
        self.class_names = self._class_names(path, classes)

    def read_split(self, split: Split) -> LabeledImages:
        table = self._table(self.paths.get(split) or self.paths["train"])
        self._check_rows(table)
        rows = self._rows(table, split)
        if not len(rows):
            raise DataError(f"{printable(table.path)}: no row is in the {split} split")
        images = list(image_paths(self.image_root, table, self.image_column, rows.tolist()))
        missing = next((n for n, path in enumerate(images) if not is_file(path)), None)
        if missing is not None and self.on_error == "raise":
            raise DataError(
                f"{table.where(rows[missing])}: no image {printable(images[missing])}; data.image_root is the folder "
                f"that column {self.image_column!r} starts from (or set data.on_error to skip)"
            )
        if self.labels_column:
            states = self._lists(table).states(self.class_names)
        else:
            states = column_states(table, self.label_columns, self.codes, "data.codes")
        about = {name: table.spelled(name).array()[rows] for name in [self.group_column] if name is not None}
        return LabeledImages(images, states[rows], None, about, printable(table.path), table.lines(rows))

    def _table(self, path: Path | None) -> Table:
        if path is None:
            raise ConfigError("data.path is needed")
        if path not in self._tables:
            self._tables[path] = read_table(path, self.separator)
        return self._tables[path]

    def _header(self, table: Table) -> tuple[str, ...]:
        """Names of the columns; the first line may be an image's."""
        header = table.names
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
        if self.labels_column is None:
            names, source = tuple(self.label_columns), f"{path} (data.label_columns)"
        elif classes:
            names, source = tuple(classes), "data.classes"
        else:
            tables = [self._table(table) for table in dict.fromkeys(self.paths.values())]
            occur = {name for table in tables for name in self._lists(table).names()}
            names, source = tuple(sorted(occur)), f"{path}, column {self.labels_column!r}"
        if not names:
            raise ConfigError(f"{path}: there is no label column beside {self.image_column!r}")
        check_class_names(names, source)
        return names

    def _check_rows(self, table: Table) -> None:
        """Refuses tables of boxes or annotations, which have several rows an image."""
        names = {name.lower().replace("_", "") for name in table.names}
        labels = set() if self.labels_column else {name.lower().replace("_", "") for name in self.label_columns}
        first: dict[str, int] = {}
        cells = table.column(self.image_column)
        again = None
        if len(set(cells)) < len(cells):
            again = next(row for row, cell in enumerate(cells) if first.setdefault(cell, row) != row)
        is_of_boxes = any(box <= (labels if again is None else names) for box in _BOXES)
        is_of_annotations = again is not None and (self.labels_column is not None or bool(names & _ANNOTATIONS))
        if is_of_boxes or is_of_annotations:
            where = table.where(0 if again is None else again)
            twice = f" ({cells[again]} is in {table.where(first[cells[again]])}, too)" if again is not None else ""
            raise DataError(
                f"{where}: a table with a row for each {'box' if is_of_boxes else 'annotation'}{twice}, and one row an "
                "image is needed: make a column for each class, or join the names of an image's classes with "
                f"{self.delimiter} (data.labels_column)"
            )

    def _lists(self, table: Table) -> LabelLists:
        return LabelLists(table, str(self.labels_column), self.delimiter, self.no_finding, self.classes, self.codes)

    def _rows(self, table: Table, split: Split) -> Any:
        if len(self.paths) > 1:
            return np.arange(len(table))
        if self.split_column is not None:
            return self._rows_by_column(table, split)
        keys = [str(row) for row in range(len(table))]
        if self.group_column:
            keys = told_apart(group_keys(table.column(self.group_column)))
        groups = np.unique(np.array(keys, np.str_), return_inverse=True)[1]
        return np.flatnonzero(deal(groups, self.fractions, self.seed) == _SPLITS.index(split))

    def _rows_by_column(self, table: Table, split: Split) -> Any:
        spelled = table.spelled(str(self.split_column))
        cells = np.array([cell.strip().lower() for cell in spelled.cells], np.str_)[spelled.codes]
        wrong = np.flatnonzero(~np.isin(cells, [*_SPLITS, "valid", "validation"]))
        if len(wrong):
            raise DataError(
                f"{table.where(wrong[0])}: column {self.split_column!r} holds {str(cells[wrong[0]])!r}; "
                "a split is train, val or test"
            )
        cells[np.isin(cells, ["valid", "validation"])] = "val"
        # A table with two splits is common; the other two names then mean the same one.
        other = {"val": "test", "test": "val", "train": "train"}[split]
        rows = np.flatnonzero(cells == split)
        return rows if len(rows) else np.flatnonzero(cells == other)
