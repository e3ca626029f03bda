"""What the columns of a table seem to be: images, labels, splits, groups."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlcv.data.class_folders import IMAGE, LABELS, SPLIT, FolderTable
from mlcv.data.headers import SUFFIXES
from mlcv.data.long_layout import SeveralRows, box_columns, several_rows
from mlcv.data.several_rows import Long
from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE
from mlcv.tables import Codes, Table, exists, is_empty, is_file, printable

SAMPLE = 200
"""Rows that are looked at for files."""
MOST_FOLDERS = 500

_SPLITS = {"train", "val", "valid", "validation", "test"}
_GROUPS = re.compile(r"patient|subject|person|case|group|video|scene|session|slide|study|site", re.IGNORECASE)
_PEOPLE = re.compile(r"patient|subject|person", re.IGNORECASE)
_OF_PEOPLE = re.compile(
    r"(patient|subject|person)('?s)?[ _]*(age|sex|gender|birth|race|ethnic|weight|height|size|position|orientation)",
    re.IGNORECASE,
)
_LABELS = re.compile(r"label|tag|class|categor|finding|diagnos|genre|attribute|keyword|species", re.IGNORECASE)
_SPLIT_HEADS = re.compile(r"(is_?)?(split|subset|fold|partition|phase|train|val|valid|test)(ing|_?set)?", re.IGNORECASE)
_ID_HEADS = re.compile(r"(.*[ _])?(id|index|nr|no|number)", re.IGNORECASE)
_DELIMITERS = "|;,"
_SOFT = re.compile(r"0?\.\d+|(\d+)\s*/\s*[1-9]\d*")
_SOFT_CODES = re.compile(r"[01](\.0+)?|[01]?\.\d+|\d+\s*/\s*[1-9]\d*")
_CODES = {*Codes().table(), "-1", "-1.0", "1.0", "0.0"}
_NO_FRACTION = re.compile(r"(?<=\d)\.0*$")  # 1.00 is 1


@dataclass(frozen=True)
class Layout:
    """What each column of a table is.

    Args:
        rows: of the table.
        image_column: with paths of images.
        image_root: folder that they start from; the table's own if None.
        found: of the images that were looked for, how many there are, and how many were looked for.
        label_columns: with a class's labels each; empty if `labels_column` holds names.
        labels_column: with the names of an image's classes.
        delimiter: between these.
        split_column: with train, val and test.
        group_column: with what must not be in two splits.
        uncertain: cells that mean maybe.
        negative: cells that mean absent, beside the usual ones.
        blank: what blank cells of label columns mean.
        left_out: columns that are none of these, and why.
        image_suffix: what follows each cell of the image column in the file's name.
        several: how rows belong together where an image has several; None where it has one.
    """

    rows: int
    image_column: str
    image_root: Path | None
    found: tuple[int, int]
    label_columns: tuple[str, ...] = ()
    labels_column: str | None = None
    delimiter: str = "|"
    split_column: str | None = None
    group_column: str | None = None
    uncertain: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    blank: str = "unknown"
    left_out: dict[str, str] = field(default_factory=dict)
    image_suffix: str = ""
    several: SeveralRows | None = None

    @property
    def long(self) -> Long | None:
        """What the columns mean of a table with a row for each label."""
        return None if self.several is None else self.several.long

    def arguments(self, path: str) -> dict[str, Any]:
        """Of `CSVDataModule`, for the table of that path; what is its default is left out."""
        codes: dict[str, Any] = {}
        if self.uncertain:
            codes["uncertain"] = [*Codes().words("uncertain"), *self.uncertain]
        if self.negative:
            codes["negative"] = [*Codes().words("negative"), *self.negative]
        if self.blank != "unknown":
            codes["blank"] = self.blank
        given = {
            "path": path,
            "image_root": str(self.image_root) if self.image_root is not None else None,
            "image_column": self.image_column,
            "label_columns": list(self.label_columns) or None,
            "labels_column": self.labels_column,
            "image_suffix": self.image_suffix or None,
            "long": None if self.long is None else _given(self.long),
            "duplicates": None if self.several is None else self.several.duplicates,
            "delimiter": self.delimiter if self.labels_column and self.delimiter != "|" else None,
            "split_column": self.split_column,
            "group_column": self.group_column,
            "codes": codes or None,
        }
        return {name: value for name, value in given.items() if value is not None}


def layout_of_folders(table: FolderTable) -> Layout:
    """That of a folder with a folder for each class."""
    split = SPLIT if SPLIT in table.names else None
    found = len(table), len(table)
    return Layout(len(table), IMAGE, None, found, labels_column=LABELS, split_column=split)


def look_at(table: Table, image_root: Path | None = None) -> Layout:
    """What the columns of a table are, by their names and cells.

    Args:
        table: with a header.
        image_root: folder that the images' paths start from; looked for if None.

    Raises:
        DataError: saying what was seen, and what is needed, if it has no images, no labels, or two columns that could
            be either.
    """
    if not len(table):
        raise DataError(f"{printable(table.path)}: the table has no rows below its header")
    image_column, suffix, root, found = _images(table, image_root)
    roles = {name: _role(name, table.spelled(name).counts()) for name in table.names if name != image_column}
    roles |= dict.fromkeys(box_columns(table.names), "of a box: no labels")
    with_role = {role: [name for name in roles if roles[name] == role] for role in ("split", "group", "codes", "names")}
    left_out = {name: why for name, why in roles.items() if why not in with_role}
    splits, groups, by_code, by_name = with_role.values()
    groups.sort(key=lambda name: not _PEOPLE.search(name))  # a patient's studies belong together, too
    left_out |= dict.fromkeys(splits[1:], "another column says it")
    left_out |= dict.fromkeys(groups[1:], f"{groups[0]} is what is kept together" if groups else "")
    lists = {name for name in by_name if _LABELS.search(name) and _are_lists(table.spelled(name).cells)}
    by_name.sort(key=lambda name: (name not in lists, not _LABELS.search(name)))
    if lists:  # as PadChest has them, beside columns of 0 and 1 that describe the file
        left_out |= dict.fromkeys(by_code, "the labels are taken from elsewhere")
        by_code = []
    several = several_rows(table, image_column, by_name, by_code)
    if not by_code and by_name and not _LABELS.search(by_name[0]):
        _refuse_words(table, by_name)
    if not by_code and not by_name:
        raise DataError(_no_labels(table, image_column, left_out))
    labels: dict[str, Any] = {"label_columns": tuple(by_code), **_meanings(table, by_code)}
    taken = []
    if several is not None and several.long is not None:
        labels, taken = _meanings(table, by_code), several.long.columns
        left_out |= dict.fromkeys(by_code, "the labels are taken from elsewhere")
    elif not by_code:
        labels, taken = {"labels_column": by_name[0], "delimiter": _delimiter(table.column(by_name[0]))}, by_name[:1]
    left_out |= dict.fromkeys(by_name, "names; the labels are taken from elsewhere")
    for name in taken:
        left_out.pop(name, None)
    return Layout(
        len(table), image_column, root, found, **labels, split_column=splits[0] if splits else None,
        group_column=groups[0] if groups else None, left_out=left_out, image_suffix=suffix, several=several,
    )  # fmt: skip


def _refuse_words(table: Table, names: Sequence[str]) -> None:
    """Columns that share two to four words are labels in words that nobody knows, not names of classes."""
    words = {name: {cell.strip() for cell in table.spelled(name).cells if not is_empty(cell)} for name in names}
    for own in words.values():
        alike = [name for name in names if words[name] <= own]
        if 2 <= len(own) <= 4 and len(alike) > 1:
            raise DataError(
                f"{printable(table.path)}: columns {', '.join(alike[:4])} all hold {', '.join(sorted(own))}, no words "
                "that are known: write 1 and 0, or a config (mlcv configs copy csv/bce) with data.codes.positive and "
                "data.codes.negative"
            )


def _role(name: str, cells: dict[str, int]) -> str:
    """What a column is: split, group, codes or names; or why it is none of these."""
    counts = Counter[str]()
    for cell, count in cells.items():
        counts[cell.strip()] += count
    filled = {cell: count for cell, count in counts.items() if not is_empty(cell)}
    if not filled:
        return "empty"
    if len(filled) > 1 and {cell.lower() for cell in filled} <= _SPLITS:
        return "split"
    are_codes = _are_codes(filled)
    other = _no_role(name, filled, are_codes)
    if other:
        return other
    if _GROUPS.search(name) and ((not are_codes and len(filled) > 3) or "patient" in name.lower()):
        return "group"
    if _ID_HEADS.fullmatch(name):
        return "numbers rows"
    if are_codes:
        return "codes"
    if len(filled) == 1:
        return f"holds {_some(filled)} alone: write 1 where a class is present"
    strange = [cell for cell in filled if not _are_codes([cell])]
    if sum(filled[cell] for cell in strange) < 0.2 * sum(filled.values()):
        return f"1 and 0, but for cells such as {strange[0]!r}: no code that is known"
    return "names" if _are_names(name, filled) else f"{_some(filled)}: no labels"


def _no_role(name: str, filled: dict[str, int], are_codes: bool) -> str:
    """Why a column is none of these, by its name or because its cells are soft labels alone; else nothing."""
    if _SPLIT_HEADS.fullmatch(name):
        return f"a split by its name, but its cells are {_some(filled)}, and train, val and test are read"
    if _OF_PEOPLE.match(name):
        return "says what people are like, not who"
    if not are_codes and all(map(_SOFT_CODES.fullmatch, filled)):
        return f"{_some(filled)}: no labels, but soft ones if label_columns names it"
    return ""


def _images(table: Table, given: Path | None) -> tuple[str, str, Path | None, tuple[int, int]]:
    """The column with most paths of images, what ends them, where they are, and how many of some are there."""
    rows = np.unique(np.linspace(0, len(table) - 1, SAMPLE).astype(int))
    columns = {name: table.column(name) for name in table.names}
    cells = {name: [column[row].strip().replace("\\", "/") for row in rows] for name, column in columns.items()}
    named = {
        name: sum(Path(cell).suffix.lower() in SUFFIXES for cell in column if cell) for name, column in cells.items()
    }
    column, suffix = max(named, key=lambda name: named[name]), ""
    if 2 * named[column] < len(rows):
        folder = given or table.path.parent
        there = {name: sum(bool(cell) and is_file(folder / cell) for cell in some) for name, some in cells.items()}
        column = max(there, key=lambda name: there[name])  # files without an ending
        if 2 * there[column] < len(rows):
            column, suffix = _without_ending(cells, given or table.path.parent) or ("", "")
        if not column:
            raise DataError(
                f"{printable(table.path)}: no column names images; its columns are {_columns(table)}. A column "
                "of paths is needed, such as images/1.jpg, from the table's folder on (or from --image_root)"
            )
    paths = [cell + suffix for cell in cells[column] if cell]
    best, count = None, -1
    for folder in [given] if given is not None else _folders(table.path.parent, Path(paths[0])):
        there_are = sum(is_file(folder / path) for path in paths)
        if there_are > count:
            best, count = folder, there_are
        if count == len(paths):
            break
    if count <= 0:
        places = printable(given or table.path.parent)
        raise DataError(
            f"{table.where(int(rows[0]))}: column {column!r} names {paths[0]!r}, and there is no such file in {places} "
            f"{'' if given else 'or the folders in it '}(of {len(paths)} that were looked for, none is there); give "
            "the folder that the paths start from: --image_root FOLDER"
        )
    return column, suffix, None if best == table.path.parent else best, (count, len(paths))


def _without_ending(cells: dict[str, list[str]], start: Path) -> tuple[str, str] | None:
    """The column that names files but for their ending, and the ending."""
    for name, column in cells.items():
        first = next((cell for cell in column if cell), "")
        if not first or len(first) > 200 or first.count(" ") > 3:
            continue
        for suffix in sorted(SUFFIXES):
            if any(is_file(folder / f"{first}{suffix}") for folder in _folders(start, Path(f"{first}{suffix}"))):
                return name, suffix
    return None


def _folders(start: Path, first: Path) -> Iterator[Path]:
    """Where images may be: the table's folder, the working folder, and the folders in these, to the second level."""
    yield start
    yield Path()
    seen = 0
    level: Iterable[Path] = [start]
    for _ in range(2):
        inside = [child for folder in level for child in sorted(_children(folder))]
        for child in inside:
            if exists(child / first):
                yield child
            seen += 1
            if seen > MOST_FOLDERS:
                return
        level = inside


def _children(folder: Path) -> list[Path]:
    try:
        return [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError:
        return []


def _are_codes(cells: Iterable[str]) -> bool:
    """Whether all are codes, or besides some soft labels: counts such as 3/5, and probabilities."""
    strange = [cell for cell in cells if cell.lower() not in _CODES]
    return all(_NO_FRACTION.sub("", cell) in _CODES for cell in strange) or (
        len(strange) < len(list(cells)) and all(map(_SOFT.fullmatch, strange))
    )


def _are_names(header: str, cells: dict[str, int]) -> bool:
    """Whether cells name classes: lists, or words that come again and again."""
    if all(re.fullmatch(r"[-+.,\d\s:e]*", cell) for cell in cells):  # numbers and times
        return False
    parts, delimiter = Counter[str](), _delimiter(cells)
    for cell, count in cells.items():
        parts.update(dict.fromkeys(_parts(cell, delimiter), count))
    often = sum(parts.values()) / len(parts)
    return often >= (1.5 if _LABELS.search(header) else 4) and len(parts) <= 20_000


def _are_lists(cells: Iterable[str]) -> bool:
    """Whether all cells that are not blank are lists, such as ['a', 'b']."""
    filled = [cell.strip() for cell in cells if not is_empty(cell)]
    return bool(filled) and all(cell[0] == "[" and cell[-1] == "]" for cell in filled)


def _parts(cell: str, delimiter: str) -> set[str]:
    return {part.strip() for part in cell.strip("[] ").split("," if cell.startswith("[") else delimiter)}


def _delimiter(cells: Iterable[str]) -> str:
    """The sign that stands in most cells; else a blank, where the same few words make many cells; else a bar."""
    lists = {cell.strip() for cell in cells if not cell.startswith("[")}
    counts = {sign: sum(sign in cell for cell in lists) for sign in _DELIMITERS}
    if any(counts.values()):
        return max(counts, key=lambda sign: counts[sign])
    divided = [cell for cell in lists if " " in cell]
    words = {word for cell in divided for word in cell.split()}
    return " " if divided and 2 * len(words) <= len(divided) else "|"


def _given(long: Long) -> dict[str, Any]:
    """What of it is not as it is by default."""
    own = Long("")
    return {name: value for name, value in vars(long).items() if value != getattr(own, name)} | {"absent": long.absent}


def _meanings(table: Table, columns: Sequence[str]) -> dict[str, Any]:
    """What -1 and blank cells say, by what else there is."""
    known = Codes().table()
    cells = {_NO_FRACTION.sub("", cell.strip().lower()) for name in columns for cell in table.spelled(name).cells}
    states = {known.get(cell) for cell in cells if not is_empty(cell)}
    minus = ("-1",) if "-1" in cells else ()
    if minus and NEGATIVE not in states:
        return {"negative": minus}  # as PASCAL VOC's lists have it
    if NEGATIVE not in states and POSITIVE in states and any(is_empty(cell) for cell in cells):
        return {"blank": "negative", "uncertain": minus}
    return {"uncertain": minus}


def _no_labels(table: Table, image_column: str, left_out: dict[str, str]) -> str:
    seen = "; ".join(f"{name} ({why})" for name, why in list(left_out.items())[:6])
    return (
        f"{printable(table.path)}: no column holds labels beside the images in {image_column!r}; seen: "
        f"{seen or 'no other'}. Needed is a column for each class with 1, 0 or blank, or one column with names, such "
        "as cat|dog; soft labels, and cells in other words, need a config with label_columns or codes "
        "(docs/data-formats.md)"
    )


def _columns(table: Table) -> str:
    return ", ".join(f"{name} ({_some(dict.fromkeys(table.column(name)[:50]))})" for name in table.names[:6])


def _some(cells: Iterable[str]) -> str:
    few = [cell if len(cell) <= 20 else f"{cell[:17]}..." for cell in list(cells)[:2]]
    return ", ".join(few) + ", ..."
