"""CSV files: tables in memory, and what the cells of label columns mean."""

import csv
import gc
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States

TRUTH = "truth:"
"""Before a class's name, the header of its labels in a file that holds predictions, too."""


@dataclass(frozen=True)
class Codes:
    """How a cell of a label column says what it says; numbers match as numbers, so `1`, `1.0` and `1.` are the same.

    Args:
        positive: cells that mean present.
        negative: cells that mean absent.
        uncertain: cells that mean maybe.
        unknown: cells that mean that nobody said, besides blank ones.
        blank: what an empty cell means.
    """

    positive: tuple[str, ...] = ("1",)
    negative: tuple[str, ...] = ("0",)
    uncertain: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    blank: Literal["unknown", "negative"] = "unknown"

    def table(self) -> dict[str, int]:
        """State of each spelling."""
        states = {"": UNKNOWN if self.blank == "unknown" else NEGATIVE}
        for spellings, state in (
            (self.unknown, UNKNOWN),
            (self.uncertain, UNCERTAIN),
            (self.negative, NEGATIVE),
            (self.positive, POSITIVE),
        ):
            for spelling in spellings:
                if states.setdefault(_normal(spelling), state) != state:
                    raise ConfigError(f"data.codes give {spelling!r} two meanings")
        return states


class Table:
    """A CSV file in memory, by columns.

    Args:
        path: plain or gzipped, with a header.

    Raises:
        DataError: if it is missing, damaged, not in UTF-8, names two columns alike, or has a row of another length
            than its header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as file, without_collector():
            rows = [row for row in csv.reader(file) if row]
        header = rows[0] if rows else []
        bad = next((number for number, row in enumerate(rows) if len(row) != len(header)), None)
        if bad is not None:
            raise DataError(
                f"{path}:{bad + 1}: {len(rows[bad])} cells under a header of {len(header)}; quote cells with commas"
            )
        again = next((name for place, name in enumerate(header) if name in header[:place]), None)
        if again is not None:
            raise DataError(f"{path}:1: two columns are called {again!r}; rename one of them")
        self._columns = dict(zip(header, zip(*rows[1:], strict=True), strict=True)) if len(rows) > 1 else {}
        self._length = len(rows) - 1

    def __len__(self) -> int:
        return max(self._length, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The headers, from left to right; none for a table without rows."""
        return tuple(self._columns)

    def column(self, name: str) -> Sequence[str]:
        """The cells under a header, from top to bottom.

        Raises:
            DataError: if there is no such header.
        """
        if self._length and name not in self._columns:
            raise DataError(f"{self.path}: no column {name!r}; its columns are {', '.join(self._columns)}")
        return self._columns.get(name, ())

    def where(self, row: int) -> str:
        """The file and line of a row, for errors; lines count from 1, the header's."""
        return f"{self.path}:{int(row) + 2}"


def column_states(table: Table, columns: Sequence[str], codes: Codes) -> States:
    """Label states (M, C) from a column a class.

    Raises:
        DataError: naming the row and column of a cell that `codes` do not know.
    """
    meaning = codes.table()
    states = np.empty((len(table), len(columns)), np.int8)
    for number, name in enumerate(columns):
        cells = table.column(name)
        # Few spellings stand in many cells: each is understood once.
        state_of = {cell: meaning.get(_normal(cell)) for cell in set(cells)}
        bad = {cell for cell, state in state_of.items() if state is None}
        if bad:
            row = next(row for row, cell in enumerate(cells) if cell in bad)
            allowed = ", ".join(repr(spelling) if spelling else "blank" for spelling in meaning)
            raise DataError(
                f"{table.where(row)}: column {name!r} holds {cells[row]!r}, expected one of {allowed}; "
                "data.codes says what cells mean, data.label_columns which columns are labels"
            )
        states[:, number] = np.array([state_of[cell] for cell in cells], np.int8)
    return states


def read_header(path: Path) -> list[str]:
    """The first row of a CSV file.

    Raises:
        DataError: if the file is missing or empty.
    """
    with _open(path) as file:
        header = next(csv.reader(file), None)
    if not header:
        raise DataError(f"{path}: the file is empty; the first row names the columns")
    return header


@contextmanager
def without_collector() -> Iterator[None]:
    """A growing list of lists makes the collector walk all of it again and again, which takes longer than reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    if not path.is_file():
        raise DataError(f"no table {path}; give the path of a CSV file with a header, plain or .gz")
    open_ = gzip.open if path.suffix == ".gz" else open
    try:
        with open_(path, "rt", newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: it is not in UTF-8 ({error.reason} at byte {error.start}); save it as such"
        ) from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from error


def _normal(cell: str) -> str:
    """`1`, `1.0` and ` 1 ` are one spelling."""
    text = cell.strip()
    try:
        number = float(text)
    except ValueError:
        return text.lower()
    return f"{number:g}"
