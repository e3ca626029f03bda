"""Corrected labels, over those of any data set: the file that the page of `mlcv audit` saves, `data.corrections`.

A row is what a person decided about an image and a class. Columns:

- `image`: its name as files of predictions have it, or the end of its path;
- `class`;
- `given`: the label that the person saw: 1, 0, blank where unknown, `uncertain`;
- `label`: what it is to be, likewise;
- `decision`: `wrong`, and `label` takes the place of `given`; `right` or `unsure`, which change nothing, so that
  `label` is `given`. What should become unknown is `wrong` with a blank label;
- `who` and `when`, which are for people;
- `split` (train, val or test), if there is one: of images without files, which are named alike in all splits. Rows of a
  split that cannot be read on this machine are passed over.
"""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.data.items import Files
from mlcv.data.paths import Places
from mlcv.data.samples import LabeledImages, Split
from mlcv.errors import ConfigError, DataError, UserError
from mlcv.files import unshielded
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, check_states
from mlcv.tables import Codes, Table, column_states, is_file, printable, read_regular, read_table

COLUMNS = ("image", "class", "given", "label", "decision", "who", "when")
DECISIONS = ("wrong", "right", "unsure")
STATE_CELLS = {POSITIVE: "1", NEGATIVE: "0", UNKNOWN: "", UNCERTAIN: "uncertain"}
"""How `given` and `label` are written."""

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_CODES = Codes(uncertain=("uncertain",))


@dataclass(frozen=True)
class Corrections:
    """What a file changes, entry by entry.

    Args:
        path: of the file.
        fingerprint: 12 hexadecimal digits of its content.
        decisions: rows in it.
        passed_over: of these, those of splits that are not here.
        changes: of each split that could be read, rows, columns and new states, K each.
    """

    path: Path
    fingerprint: str
    decisions: int
    passed_over: int
    changes: dict[Split, tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int8]]]

    def apply(self, split: Split, labeled: LabeledImages) -> LabeledImages:
        """The split with its corrected labels; the argument is left alone."""
        rows, columns, labels = self.changes[split]
        states = labeled.states.copy()
        states[rows, columns] = labels
        soft = labeled.soft
        if soft is not None:
            soft = soft.copy()
            soft[rows, columns] = np.nan
        return replace(labeled, images=labeled.items, states=states, soft=soft)

    def facts(self, split: Split) -> dict[str, int | str]:
        """The file, and how many entries of a split it changes, for results and checkpoints."""
        return {"corrections": self.fingerprint, "corrected": len(self.changes[split][0])}

    def __str__(self) -> str:
        counts = ", ".join(f"{len(rows)} of {split}" for split, (rows, _, _) in self.changes.items())
        absent = f", {self.passed_over} of them of splits that are not here" if self.passed_over else ""
        file = f"corrections {printable(self.path)} ({self.fingerprint})"
        return f"{file}: rows {self.decisions}{absent}; changed labels: {counts}"


def read_corrections(path: Path, read: Callable[[Split], LabeledImages], class_names: Sequence[str]) -> Corrections:
    """What a file of corrections changes in a data set.

    Args:
        path: of the file.
        read: a split as its annotators left it; a UserError if it is not there.
        class_names: C names.

    Raises:
        ConfigError: if there is no file.
        DataError: naming the row, for a file that cannot be read as meant; an image, class, label or decision that does
            not exist; a label that is not what the person saw; and two rows that contradict each other.
    """
    if not is_file(path):
        raise ConfigError(
            f"data.corrections: there is no file {printable(path)}; the page of `mlcv audit` saves one. Without "
            "corrections, leave the option out"
        )
    splits = _readable(read, class_names)
    table = read_table(path)
    absent = [name for name in COLUMNS[:5] if name not in table.names]
    if absent:
        raise DataError(
            f"{printable(path)}: no column {absent[0]!r}; corrections have {', '.join(COLUMNS)}, and this file has "
            f"{', '.join(table.names) or 'none'}"
        )
    found: dict[Split, dict[tuple[int, int], tuple[int, int]]] = {split: {} for split in splits}
    names, passed_over = _Names(splits), 0
    for number, (image, column, given, label, where) in enumerate(_rows(table, class_names)):
        if where not in ("", *splits):
            passed_over += 1
            continue
        for at, row in names.find(image, where, table.where(number)):
            now = int(splits[at].states[row, column])
            if now != given:
                raise DataError(_changed(table.where(number), image, class_names[column], given, label, now))
            label_before, first = found[at].setdefault((row, column), (label, number))
            if label_before != label:
                raise DataError(
                    f"{table.where(number)}: {image!r}, class {class_names[column]!r} is to be {_cell(label)}, and "
                    f"{_cell(label_before)} in {table.where(first)}; decide which, and leave the other row out"
                )
    changes = {split: _changes(splits[split], entries) for split, entries in found.items()}
    digest = hashlib.sha256(read_regular(path)).hexdigest()[:12]
    return Corrections(path, digest, len(table), passed_over, changes)


def _readable(read: Callable[[Split], LabeledImages], class_names: Sequence[str]) -> dict[Split, LabeledImages]:
    found: dict[Split, LabeledImages] = {}
    for split in _SPLITS:
        try:
            found[split] = read(split)
        except UserError:  # it may not be on this machine; what needs it says why
            if split == _SPLITS[-1] and not found:
                raise
            continue
        check_states(found[split].states, class_names, f"{split} split")
    return found


def _rows(table: Table, class_names: Sequence[str]) -> list[tuple[str, int, int, int, str]]:
    """Of each row the image, the class's column, given and new state, and the split or nothing."""
    images, classes = ([unshielded(cell) for cell in table.column(name)] for name in ("image", "class"))
    states = column_states(table, ["given", "label"], _CODES)
    decisions = [cell.strip().lower() for cell in table.column("decision")]
    splits = [cell.strip().lower() for cell in table.column("split")] if "split" in table.names else [""] * len(table)
    places = {name: column for column, name in enumerate(class_names)}
    for row, (given, label) in enumerate(states.tolist()):
        where, name, decision = table.where(row), classes[row], decisions[row]
        if name not in places:
            near = difflib.get_close_matches(name, class_names, n=1)
            some = ", ".join(class_names[:8]) + (", ..." if len(class_names) > 8 else "")
            raise DataError(f"{where}: no class {name!r}; " + (f"is it {near[0]!r}?" if near else f"there are {some}"))
        if decision not in DECISIONS:
            raise DataError(f"{where}: column 'decision' holds {decision!r}; it is {', '.join(DECISIONS)}")
        if splits[row] not in ("", *_SPLITS):
            raise DataError(f"{where}: column 'split' holds {splits[row]!r}; it is {', '.join(_SPLITS)}, or blank")
        if decision == "wrong" and label == given:
            raise DataError(f"{where}: the label is called wrong, and stays {_cell(given)}; give the right one")
        if decision != "wrong" and label != given:
            raise DataError(
                f"{where}: the decision is {decision!r}, which changes nothing, but the label is to be {_cell(label)} "
                f"and was {_cell(given)}; if that is meant, the decision is 'wrong'"
            )
    cells = zip(images, classes, states.tolist(), splits, strict=True)
    return [(image, places[name], given, label, split) for image, name, (given, label), split in cells]


class _Names:
    """Where the images of all splits are, by their names."""

    def __init__(self, splits: dict[Split, LabeledImages]) -> None:
        self.splits = splits
        self.keys = cache(lambda split: self.splits[split].items.keys())
        names: list[tuple[str, tuple[Split, int]]] = []
        paths: list[tuple[str, tuple[Split, int]]] = []
        for split, labeled in splits.items():
            items = labeled.items
            for row, name in enumerate(items if isinstance(items, Files) else map(items.name, range(len(items)))):
                shown, place = printable(name), (split, row)
                names += [(one, place) for one in dict.fromkeys((name, shown))]
                paths += [(shown, place)] if isinstance(items, Files) else []
        self.places = Places(names, paths)

    def find(self, image: str, split: str, where: str) -> list[tuple[Split, int]]:
        """The places of an image; it may be in validation and test.

        Raises:
            DataError: if there is none, or several images are meant.
        """
        found = self.places.find(image)
        are_files = all(isinstance(self.splits[place].items, Files) for place, _ in found)
        if split and (not are_files or len({self._image(*one) for one in found}) > 1):
            found = [one for one in found if one[0] == split]
        if not found:
            what = f"the {split} split" if split else f"no split ({', '.join(self.splits)})"
            raise DataError(
                f"{where}: {image!r} is {'not in' if split else 'in'} {what}; images are named as in files of "
                f"predictions, such as {self._some()!r}"
            )
        if len({self._image(*one) for one in found}) > 1:
            alike = " or ".join(f"{printable(self.splits[place].name(row))} of {place}" for place, row in found[:3])
            how = "give more of its path" if are_files else "say which in a column 'split' (train, val or test)"
            raise DataError(f"{where}: which image is {image!r}, {alike}? {how[0].upper()}{how[1:]}")
        return found

    def _image(self, split: Split, row: int) -> Any:
        """What makes an image itself; of a file its path, and no look at the disk."""
        labeled = self.splits[split]
        return labeled.name(row) if isinstance(labeled.items, Files) else self.keys(split)[row]

    def _some(self) -> str:
        return next((printable(labeled.name(0)) for labeled in self.splits.values() if len(labeled)), "images/1.jpg")


def _changes(
    labeled: LabeledImages, entries: dict[tuple[int, int], tuple[int, int]]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int8]]:
    kept = [(*place, label) for place, (label, _) in entries.items() if labeled.states[place] != label]
    rows, columns, labels = zip(*kept, strict=True) if kept else ((), (), ())
    return np.array(rows, np.intp), np.array(columns, np.intp), np.array(labels, np.int8)


def _changed(where: str, image: str, name: str, given: int, label: int, now: int) -> str:
    remedy = "it is corrected already: leave the row out" if now == label else "look again, or leave the row out"
    return (
        f"{where}: {image!r}, class {name!r} was {_cell(given)} when somebody looked, and is {_cell(now)} now: labels "
        f"have changed since; {remedy}"
    )


def _cell(state: int) -> str:
    return STATE_CELLS[state] or "blank"
