"""Tables in memory, by columns."""

import codecs
import csv
import gzip
import io
import re
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from mlcv.collector import without_collector
from mlcv.errors import AbsentError, DataError
from mlcv.tables.columns import Columns, Listed, Spelled, spell
from mlcv.tables.files import exists, line_of, open_regular, printable, read_regular
from mlcv.tables.plain import plain_lines
from mlcv.tables.records import read_excel, read_records

LEAST = 2 << 20
"""Bytes below which `csv` has read a whole table before polars is imported."""
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
PARQUET, EXCEL = (".parquet", ".pq"), (".xlsx", ".xls", ".xlsb", ".ods")
JSON = (".jsonl", ".ndjson", ".json")
"""Endings of names, in any case, and before `.gz`, of what is no CSV."""
_SAMPLE = 100
"""Lines by which the separator is found."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's mark, with which it starts
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GZIP = b"\x1f\x8b"
_WHOLE = re.compile(r"0|[1-9][0-9]*")
_Content = tuple[list[str], Columns, NDArray[np.intp]]
"""Header, columns, and the lines of header and rows."""


class Table:
    """A table in memory, by columns: CSV, or by the ending of its name Parquet, JSON (lines) or a sheet of Excel.

    Lines without content are passed over, blanks around headers and after a separator left out. So are columns without
    a header that are blank or, in the first place, count the rows, as pandas writes them.

    Args:
        path: with a header, and of text plain or gzipped, in UTF-8 or with a byte order mark; rows of Parquet count
            from 1 in place of lines, and so do the objects of one JSON list.
        separator: between cells; if None, the comma, semicolon, tab or bar that gives all lines one number of cells.

    Raises:
        DataError: if it is missing, damaged, in another encoding, names two columns alike, has a row of another length
            than its header, or could be read with two separators.
    """

    def __init__(self, path: Path, separator: str | None = None) -> None:
        with without_collector():
            self._fill(path, *_content(path, separator))

    def _fill(self, path: Path, header: list[str], columns: Columns, lines: NDArray[np.intp]) -> None:
        self.path, self._columns, self._lines = path, columns, lines
        again = next((name for place, name in enumerate(header) if name and name in header[:place]), None)
        if again is not None:
            raise DataError(
                f"{printable(path)}:{self._lines[0]}: two columns are called {again!r}; rename one of them, or add a "
                "first line of column names if there is none"
            )
        self._places = {name: place for place, name in enumerate(header) if self._has_name(place, name)}
        self._length = len(self._lines) - 1

    def __len__(self) -> int:
        return max(self._length, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The headers, from left to right."""
        return tuple(self._places)

    def column(self, name: str) -> Sequence[str]:
        """The cells under a header, from top to bottom.

        Raises:
            DataError: if there is no such header.
        """
        return self._columns.texts(self._place(name)) if len(self) else ()

    def spelled(self, name: str) -> Spelled:
        """The column by its distinct cells, likewise: for what is understood once a spelling."""
        return self._columns.spelled(self._place(name)) if len(self) else spell(())

    def numbers(self, name: str) -> NDArray[np.float64] | None:
        """The column as numbers, likewise; None if a cell is none, as `1_000` is."""
        return self._columns.numbers(self._place(name)) if len(self) else np.empty(0)

    def where(self, row: int) -> str:
        """The file and line of a row, for errors; lines count from 1, most often the header's."""
        return f"{printable(self.path)}:{self._lines[int(row) + 1]}"

    def lines(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """The line that each of these rows is in."""
        return self._lines[1:][rows]

    def _place(self, name: str) -> int:
        if name not in self._places:
            raise DataError(f"{printable(self.path)}: no column {name!r}; its columns are {', '.join(self._places)}")
        return self._places[name]

    def _has_name(self, place: int, name: str) -> bool:
        if name or (place == 0 and not _counts(self._columns.texts(0))):
            return True
        cells = self._columns.texts(place)
        if place > 0 and any(cell.strip() for cell in cells):
            row = next(row for row, cell in enumerate(cells) if cell.strip())
            raise DataError(
                f"{printable(self.path)}:{self._lines[0]}: column {place + 1} has no name, but line "
                f"{self._lines[row + 1]} holds {cells[row]!r} there; name the column"
            )
        return False


_KEPT: ContextVar[dict[tuple[Path, str | None], Table] | None] = ContextVar("kept", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Meanwhile `read_table` gives all who ask for a file the same table; as a decorator, while a function runs."""
    before = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(before)


def read_table(path: Path, separator: str | None = None) -> Table:
    """A `Table`, which is read once under `read_once`."""
    kept, key = _KEPT.get(), (path, separator)
    if kept is None:
        return Table(path, separator)
    if key not in kept:
        kept[key] = Table(path, separator)
    return kept[key]


def read_header(path: Path) -> list[str]:
    """The first row of a CSV file.

    Raises:
        DataError: if the file is missing or empty.
    """
    with open_text(path) as file:
        head = _sample(file, path)
    row = next(csv.reader(head, delimiter=_separator(head, path), skipinitialspace=True), None)
    if not row:
        raise DataError(f"{printable(path)}: the file is empty; the first row names the columns")
    return [name.strip() for place, name in enumerate(row) if name.strip() or place == 0]


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file, plain or gzipped, in UTF-8 or with a byte order mark.

    Raises:
        DataError: if it is missing, damaged, or in another encoding.
    """
    if not exists(path):
        raise AbsentError(f"no table {printable(path)}; give the path of a CSV file with a header, plain or .gz")
    try:
        with open_regular(path) as raw:
            peekable: Any = raw
            is_packed = peekable.peek(2).startswith(_GZIP)
            content: Any = gzip.GzipFile(fileobj=raw) if is_packed else raw
            start = content.peek(4)
            encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
            with io.TextIOWrapper(content, encoding=encoding, newline="") as file:
                yield file
    except UnicodeError as error:
        raise DataError(_not_utf8(path, error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{printable(path)}: the table cannot be read ({error})") from error


def _content(path: Path, separator: str | None) -> _Content:
    """A table of any format."""
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending in PARQUET:
        from mlcv.tables.polars_columns import read_parquet  # noqa: PLC0415  # see `_plain`

        names, frame, rows = read_parquet(path)
        return [name.strip() for name in names], frame, np.concatenate([[1], np.arange(1, rows + 1)])
    if ending in EXCEL:
        return read_excel(path)
    with open_text(path) as file:
        if ending in JSON:
            return read_records(file, path)
        head = _sample(file, path)
        separator = separator or _separator(head, path)
        return _plain(file, head, separator) or _listed(file, path, separator)


def _sample(file: Iterator[str], path: Path) -> list[str]:
    """The first lines, which say how the others are to be read."""
    head = list(islice(file, _SAMPLE))
    if any("\0" in line for line in head):
        raise DataError(f"{printable(path)}: not a text file, or in UTF-16 without a byte order mark; save it as UTF-8")
    return head


def _plain(file: TextIO, head: list[str], separator: str) -> _Content | None:
    """A table that is large, and so plain that polars may read it; None of any other, whatever is wrong with it."""
    file.seek(0)
    if not file.encoding.startswith("utf-8"):
        return None
    try:
        data = file.buffer.read()
        rows = list(csv.reader(head, delimiter=separator, skipinitialspace=True))
    except (OSError, EOFError, zlib.error, csv.Error):
        return None
    header = [name.strip() for name in rows[0]] if rows else []
    if len(data) < LEAST or len(rows) < 2 or not any(header) or len({*map(len, rows)}) > 1:
        return None
    plain = plain_lines(data.removeprefix(codecs.BOM_UTF8), separator, len(header))
    if plain is None:
        return None
    from mlcv.tables.polars_columns import read_plain  # noqa: PLC0415  # it takes a tenth of a second, and few need it

    lines, count = plain
    columns = read_plain(lines, count - 1, separator, rows[1:])
    return None if columns is None else (header, columns, np.arange(1, count + 1))


def _listed(file: TextIO, path: Path, separator: str) -> _Content:
    """Any table, by `csv`."""
    file.seek(0)
    rows, lines = _read(file, path, separator)
    header = [name.strip() for name in rows[0]] if rows else []
    bad = next((number for number, row in enumerate(rows) if len(row) != len(header)), None)
    if bad is not None:
        surplus = "; the line ends with a separator" if len(rows[bad]) == len(header) + 1 and not rows[bad][-1] else ""
        raise DataError(
            f"{printable(path)}:{lines[bad]}: {len(rows[bad])} cells under a header of {len(header)}"
            f"{surplus or '; quote cells with commas'}"
        )
    cells: Any = zip(*rows[1:], strict=True) if len(rows) > 1 else [()] * len(header)
    return header, Listed(list(cells)), np.array(lines, np.intp)


def _read(file: TextIO, path: Path, separator: str | None) -> "tuple[list[list[str]], array[int]]":
    """The rows that have content, and the number of the line that each starts in."""
    head = _sample(file, path)
    lines = chain(head, file)
    reader = csv.reader(lines, delimiter=separator or _separator(head, path), skipinitialspace=True, strict=True)
    rows, starts, start = [], array("q"), 1
    try:
        for row in reader:
            if row and (row[0].strip() or any(cell.strip() for cell in row)):
                rows.append(row)
                starts.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{printable(path)}:{start}: the table cannot be read ({error})") from error
    return rows, starts


def _separator(head: list[str], path: Path) -> str:
    """The one separator that gives all lines as many cells as the header, and more than one.

    If there is none, one that divides the header, or else the comma: what is wrong is then said of the lines.
    """
    sizes = {separator: _sizes(head, separator) for separator in SEPARATORS}
    dividing = [separator for separator in SEPARATORS if sizes[separator] and sizes[separator][0] > 1]
    fitting = [separator for separator in dividing if len(set(sizes[separator])) == 1]
    if len(fitting) > 1:
        names = " or by ".join(SEPARATORS[separator] for separator in fitting)
        raise DataError(
            f"{printable(path)}: are its cells divided by {names}? Quote the cells that hold such a character "
            "(of a table to train on, data.separator says it, too)"
        )
    return next(iter(fitting or dividing), ",")


def _sizes(head: list[str], separator: str) -> list[int]:
    """Cells of each row of a sample, without the last row of a long one, which may be cut."""
    sizes = [len(row) for row in csv.reader(head, delimiter=separator, skipinitialspace=True) if row]
    return sizes[:-1] if len(head) == _SAMPLE else sizes


def _counts(cells: Sequence[str]) -> bool:
    """Whether a column is what pandas writes in front: whole numbers, none twice."""
    return len(set(cells)) == len(cells) and all(map(_WHOLE.fullmatch, cells))


def _not_utf8(path: Path, error: UnicodeError) -> str:
    """Where a table's first wrong byte is; the error itself knows its place in a block only."""
    data = read_regular(path)
    data = gzip.decompress(data) if data.startswith(_GZIP) else data
    try:
        data.decode()
    except UnicodeDecodeError as first:
        if not data.startswith(tuple(mark for mark, name in _MARKS.items() if name != "utf-8-sig")):
            place = f"{line_of(data, first.start)}: byte 0x{data[first.start]:02x} is no UTF-8"
            return f"{printable(path)}:{place}; save the table in that encoding"
    return f"{printable(path)}: the table cannot be read ({error}); save it in UTF-8"
