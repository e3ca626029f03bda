"""Cells that list the classes of an image by name: `A|B`, or a list as Python and JSON write it."""

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, States
from mlcv.tables import Codes, Spelled, Table, is_empty

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*(?:{_TEXT}(?:\s*,\s*{_TEXT})*)?\s*,?\s*\]")
_DELIMITERS = (";", ",", "|", "\t")


@dataclass(frozen=True)
class LabelLists:
    """How the cells of a column name the classes that are present.

    Args:
        table: one row an image.
        column: header of the column.
        delimiter: between names.
        no_finding: the word, in any case, that means that none is present; None for no such word.
        classes: the classes that there are; None for those that occur.
        codes: what an empty cell means, and which words mean that nobody said.
    """

    table: Table
    column: str
    delimiter: str
    no_finding: str | None
    classes: Sequence[str] | None
    codes: Codes

    def names(self) -> dict[str, str]:
        """All classes that occur, and the place of the first row that names each.

        Raises:
            DataError: naming the row of a cell that is no list of names.
        """
        found: dict[str, int] = {}
        for place in self._in_order():
            for name in self._meanings[place] or ():
                found.setdefault(name, place)
        if self.classes is None:
            self._check_delimiter()
        return {name: self._where(place) for name, place in found.items()}

    def states(self, classes: Sequence[str], of_cells: bool = False) -> States:
        """Label states (M, C): what a cell does not name is absent; or those of the distinct cells.

        Raises:
            DataError: naming the row of a cell that names another class.
        """
        column_of = {name: column for column, name in enumerate(classes)}
        blank = UNKNOWN if self.codes.blank == "unknown" else NEGATIVE
        states: States = np.full((len(self._meanings), len(classes)), NEGATIVE, np.int8)
        for place in self._in_order():
            names = self._meanings[place]
            if names is None:
                states[place] = blank if is_empty(self._spelled.cells[place]) else UNKNOWN
                continue
            columns = [column_of.get(name, -1) for name in names]
            if -1 in columns:
                strange = names[columns.index(-1)]
                raise DataError(
                    f"{self._where(place)}: unknown class {strange!r} in column {self.column!r}; the classes are "
                    f"{', '.join(classes)} (data.classes)"
                )
            for column in columns:
                states[place, column] = POSITIVE
        of_rows: States = states if of_cells else states[self._spelled.codes]
        return of_rows

    def columns(self, classes: Sequence[str]) -> NDArray[np.intp]:
        """The one class of each row (M,), -1 where it names none.

        Raises:
            DataError: naming the row of a cell that names another class, or several.
        """
        of_cells = self.states(classes, of_cells=True) == POSITIVE
        several = np.flatnonzero(of_cells.sum(axis=1) > 1)
        if len(several):
            place = int(several[0])
            raise DataError(
                f"{self._where(place)}: column {self.column!r} holds {self._spelled.cells[place]!r}, and a row "
                "for each label names one class"
            )
        columns: NDArray[np.intp] = np.where(of_cells.any(axis=1), of_cells.argmax(axis=1), -1)[self._spelled.codes]
        return columns

    @cached_property
    def _spelled(self) -> Spelled:
        return self.table.spelled(self.column)

    def _in_order(self) -> list[int]:
        """Places of the distinct cells, the one that comes first in the table first."""
        places: list[int] = np.argsort(self._spelled.first).tolist()
        return places

    def _where(self, place: int) -> str:
        return self.table.where(int(self._spelled.first[place]))

    @cached_property
    def _meanings(self) -> list[tuple[str, ...] | None]:
        """Names in each distinct cell; None where nobody said."""
        known, cells = frozenset(self.classes or ()), self._spelled.cells
        meanings: list[tuple[str, ...] | None] = [None] * len(cells)
        for place in self._in_order():
            meanings[place] = self._meaning(cells[place].strip(), known, place)
        return meanings

    @cached_property
    def _is_nothing(self) -> Callable[[str], bool]:
        """Whether a name is none: blank, or the word for no finding."""
        nothing = {"", _folded(self.no_finding or "")}
        return cache(lambda name: _folded(name) in nothing)

    @cached_property
    def _unsaid(self) -> frozenset[str]:
        return frozenset(self.codes.words("unknown"))

    def _meaning(self, text: str, known: frozenset[str], place: int) -> tuple[str, ...] | None:
        parts = [part.strip() for part in text.split(self.delimiter)]
        if known.issuperset(parts):
            return tuple(parts)
        if not text:
            return None
        if len(parts) == 1 and self._is_nothing(text):
            return ()
        if text.lower() == "none":
            raise DataError(
                f"{self._where(place)}: column {self.column!r} holds {text!r}, which may mean that no class is "
                f"present, or that nobody said; give --data.no_finding {text} for the first, or leave the cell blank"
            )
        if is_empty(text) or text.lower() in self._unsaid:
            return None
        if text.startswith("[") and text.endswith("]"):
            if not _LIST.fullmatch(text):
                raise DataError(
                    f"{self._where(place)}: column {self.column!r} holds {text!r}, no list that can be read; write "
                    "names as A|B, or as ['A', 'B']"
                )
            parts = [part.strip() for part in ast.literal_eval(text)]
            if parts and not any(parts):
                raise DataError(
                    f"{self._where(place)}: column {self.column!r} holds {text!r}, a list of nothing but blanks; write "
                    "[] if no class is present, or leave the cell blank if nobody said"
                )
        return tuple(name for name in parts if not self._is_nothing(name))

    def _check_delimiter(self) -> None:
        """Refuses cells that another sign seems to divide: whole lists would become classes."""
        cells = self._spelled.cells
        lists = [cell for cell in cells if not cell.strip().startswith("[")]
        if any(self.delimiter in cell for cell in lists):
            return
        for sign in _DELIMITERS:
            parts = [part.strip() for cell in lists for part in cell.split(sign) if sign in cell]
            whole = {cell.strip() for cell in lists if sign not in cell}
            if len(set(parts)) < len(parts) or set(parts) & whole:
                place = next(place for place in self._in_order() if sign in cells[place])
                raise DataError(
                    f"{self._where(place)}: column {self.column!r} holds {cells[place]!r}, and no cell holds "
                    f"{self.delimiter!r}; if {sign!r} divides the names, give --data.delimiter {sign!r}, or else name "
                    "the classes in data.classes"
                )


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
