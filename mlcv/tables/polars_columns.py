"""Columns that polars reads and writes, of plain tables and Parquet; imported where there is one: it takes 0.1 s."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mlcv.errors import DataError
from mlcv.tables.columns import Spelled, read_numbers, spell
from mlcv.tables.files import open_regular, printable

Kind = Literal["text", "words", "number"]
_TYPES = {"text": pl.String, "words": pl.Categorical, "number": pl.Float64}


class PolarsColumns:
    """The columns of a plain table: read at once as a sample of rows suggests, and again where more is asked for.

    Args:
        data: the table, see `mlcv.tables.plain`.
        rows: M, below the header.
        separator: between cells.
        sample: some of the rows.

    Raises:
        PolarsError: if a row has too many cells.
    """

    def __init__(self, data: bytes, rows: int, separator: str, sample: Sequence[Sequence[str]]) -> None:
        self._data, self._rows, self._separator = data, rows, separator
        self._kept: dict[tuple[int, Kind], pl.Series] = {}
        self._texts: dict[int, list[str]] = {}
        kinds = [_kind(cells) for cells in zip(*sample, strict=True)]
        self._width = len(kinds)
        try:
            self._read(dict(enumerate(kinds)))
        except pl.exceptions.PolarsError:  # perhaps of a column that goes on otherwise than it begins
            self._read({place: "text" if kind == "number" else kind for place, kind in enumerate(kinds)})

    def texts(self, place: int) -> Sequence[str]:
        if place not in self._texts and (place, "words") in self._kept:
            self._texts[place] = self.spelled(place).texts()
        elif place not in self._texts:
            self._texts[place] = self._column(place, "text").fill_null("").to_list()
            del self._kept[place, "text"]
        return self._texts[place]

    def spelled(self, place: int) -> Spelled:
        if place in self._texts and (place, "words") not in self._kept:
            return spell(self._texts[place])
        return _spelled(self._column(place, "words"))

    def numbers(self, place: int) -> NDArray[np.float64] | None:
        if (place, "words") in self._kept:
            spelled = self.spelled(place)
            values = read_numbers(spelled.cells)
            return None if values is None else values[spelled.codes]
        try:
            numbers = self._column(place, "number").rechunk(in_place=True)  # no copy is needed then
        except pl.exceptions.PolarsError:
            return read_numbers(self.texts(place))  # numbers for Python alone, or none
        return None if numbers.null_count() else numbers.to_numpy()

    def _column(self, place: int, kind: Kind) -> pl.Series:
        if (place, kind) not in self._kept:
            self._read({place: kind})
        return self._kept[place, kind]

    def _read(self, kinds: dict[int, Kind]) -> None:
        frame = pl.read_csv(
            self._data,
            has_header=False,
            skip_rows=1,
            separator=self._separator,
            quote_char=None,
            schema={str(place): _TYPES[kinds.get(place, "text")] for place in range(self._width)},
            columns=list(kinds),
        )
        if frame.height != self._rows:
            raise pl.exceptions.ShapeError(f"{frame.height} rows, and not {self._rows}")
        self._kept |= {(place, kind): frame[str(place)] for place, kind in kinds.items()}


class FrameColumns:
    """The columns of a table that has types of its own, as `csv` would have read them.

    Whole numbers keep their digits, true and false are words, lists are written as JSON writes them.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def texts(self, place: int) -> Sequence[str]:
        texts: list[str] = self._texts(place).to_list()
        return texts

    def spelled(self, place: int) -> Spelled:
        return _spelled(self._texts(place).cast(pl.Categorical))

    def numbers(self, place: int) -> NDArray[np.float64] | None:
        column = self._frame.to_series(place)
        if column.dtype.is_numeric() and not column.null_count():
            return column.cast(pl.Float64).to_numpy()
        return read_numbers(self.texts(place))

    def _texts(self, place: int) -> pl.Series:
        column = self._frame.to_series(place)
        if isinstance(column.dtype, (pl.List, pl.Array)):
            cells = ["" if cell is None else json.dumps(cell, ensure_ascii=False) for cell in column.to_list()]
            return pl.Series(cells, dtype=pl.String)
        return column.cast(pl.String).fill_null("")


def read_parquet(path: Path) -> tuple[list[str], FrameColumns, int]:
    """Header, columns and number of rows of a Parquet file.

    Raises:
        DataError: if it cannot be read, or a column holds no texts, numbers, words, times or lists of these.
    """
    try:
        with open_regular(path) as file:
            frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{printable(path)}: the table cannot be read ({error})") from error
    for name, kind in frame.schema.items():
        inner = kind.inner if isinstance(kind, (pl.List, pl.Array)) else kind
        if inner.is_nested() or inner in (pl.Binary, pl.Object):
            raise DataError(f"{printable(path)}: column {name!r} holds {kind}, no text or number; leave it out")
    return frame.columns, FrameColumns(frame), frame.height


def write_parquet(file: IO[bytes], about: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[str]]) -> None:
    """Writes texts and, of each class, a column of numbers, or of texts where its cells hold a word.

    Args:
        file: to write to.
        about: of each name the column's texts; a blank one is null.
        labels: of each class its cells, such as 1, 0, 0.4, `uncertain` or blank.
    """
    columns = [pl.Series(name, cells, pl.String).replace("", None) for name, cells in about.items()]
    for name, cells in labels.items():
        column = pl.Series(name, cells, pl.String).replace("", None)
        for kind in (pl.Int8, pl.Float32):
            typed = column.cast(kind, strict=False)
            if typed.null_count() == column.null_count():
                column = typed
                break
        columns.append(column)
    pl.DataFrame(columns).write_parquet(file)


def write_rows(file: IO[bytes], columns: Sequence[Spelled | NDArray[np.float64]]) -> None:
    """Writes rows of a CSV file: millions take a second.

    Args:
        file: to write to.
        columns: cells, in quotes where they need them; or numbers, of which four digits are written.
    """
    series = [
        pl.Series([cell or None for cell in column.cells], dtype=pl.String).gather(column.codes)
        if isinstance(column, Spelled)
        else pl.Series(column).round_sig_figs(4)
        for column in columns
    ]
    frame = pl.DataFrame({str(place): one for place, one in enumerate(series)})
    frame.write_csv(file, include_header=False, line_terminator="\r\n", quote_style="necessary")


def read_plain(data: bytes, rows: int, separator: str, sample: Sequence[Sequence[str]]) -> PolarsColumns | None:
    """`PolarsColumns`; None if a row has too many cells."""
    try:
        return PolarsColumns(data, rows, separator, sample)
    except pl.exceptions.PolarsError:
        return None


def _spelled(words: pl.Series) -> Spelled:
    """A column of categories by its distinct cells."""
    physical = words.to_physical()
    largest = physical.max()
    blank = largest + 1 if isinstance(largest, int) else 0
    codes = physical.fill_null(blank).to_numpy()
    some = np.full(blank + 1, -1)  # a row of each code
    some[codes] = np.arange(len(codes))
    present = np.flatnonzero(some >= 0)  # polars counts the words of all its columns together
    place_of = np.empty(blank + 1, np.int32)
    place_of[present] = np.arange(len(present), dtype=np.int32)
    cells = words.gather(some[present]).cast(pl.String).fill_null("").to_list()
    return Spelled(cells, place_of[codes])


def _kind(cells: Sequence[str]) -> Kind:
    if 2 * len(set(cells)) <= len(cells):
        return "words"
    return "text" if read_numbers(cells) is None else "number"
