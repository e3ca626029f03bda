"""Tables that are no text in rows: JSON with an object a row, and sheets of Excel."""

import datetime
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from mlcv.errors import ConfigError, DataError
from mlcv.tables.columns import Listed
from mlcv.tables.files import open_regular, printable

Content = tuple[list[str], Listed, "NDArray[np.intp]"]
"""Header, columns, and the lines of header and rows."""


def read_records(file: TextIO, path: Path) -> Content:
    """JSON lines, or one list of objects, whose place in it is taken for a line; what an object lacks is blank.

    Raises:
        DataError: naming the line that is no object of texts, numbers, words and lists of these, or has a key twice.
    """
    columns: dict[str, list[str]] = {}
    lines = array("q", [1])
    for number, record in _records(file, path):
        if not isinstance(record, _Pairs):
            raise DataError(f"{printable(path)}:{number}: {json.dumps(record)[:40]} is no object with a value a column")
        for name, value in record:
            cells = columns.setdefault(name, [])
            if len(cells) == len(lines):
                raise DataError(f"{printable(path)}:{number}: {name!r} is there twice; drop one of the two")
            cells.extend([""] * (len(lines) - 1 - len(cells)))
            cells.append(_cell(value, name, f"{printable(path)}:{number}"))
        lines.append(number)
    rows = len(lines) - 1
    filled = [cells + [""] * (rows - len(cells)) for cells in columns.values()]
    return [name.strip() for name in columns], Listed(filled), np.array(lines, np.intp)


def read_excel(path: Path) -> Content:
    """The one sheet of a workbook that has cells, of xlsx, xls, xlsb or ods.

    Raises:
        ConfigError: if the package that reads it is not installed.
        DataError: if it cannot be read, or several sheets have cells.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{printable(path)}: sheets are read with python-calamine: pip install 'mlcv[excel]', or save it as CSV"
        ) from error
    try:
        with open_regular(path) as file:
            book = CalamineWorkbook.from_filelike(file)
            sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    except (CalamineError, OSError) as error:
        raise DataError(f"{printable(path)}: the table cannot be read ({error})") from error
    filled = {name: rows for name, rows in sheets.items() if any(cell != "" for row in rows for cell in row)}
    if len(filled) > 1:
        raise DataError(f"{printable(path)}: sheets {', '.join(filled)} have cells; save the table's alone")
    where = printable(path)
    rows = next(iter(filled.values()), [])
    kept = [
        (number, [_cell(cell, "", f"{where}:{number}") for cell in row])
        for number, row in enumerate(rows, 1)
        if any(cell != "" for cell in row)
    ]
    header = [name.strip() for name in kept[0][1]] if kept else []
    cells = [list(column) for column in zip(*(row for _, row in kept[1:]), strict=True)] or [[] for _ in header]
    return header, Listed(cells), np.array([number for number, _ in kept], np.intp)


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written, so that nothing of it is lost."""


def _records(file: TextIO, path: Path) -> Iterator[tuple[int, Any]]:
    number = 1
    try:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
        file.seek(0)
        if start == "[":
            yield from enumerate(json.load(file, object_pairs_hook=_Pairs), 1)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, json.loads(line, object_pairs_hook=_Pairs)
    except (json.JSONDecodeError, RecursionError) as error:
        number = error.lineno if start == "[" and isinstance(error, json.JSONDecodeError) else number
        raise DataError(f"{printable(path)}:{number}: no JSON ({error}); an object a line is needed") from error


def _cell(value: Any, name: str, where: str) -> str:
    """A value as `csv` would have read it."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    if isinstance(value, float):  # as sheets hold all numbers
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (int, datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    is_list = isinstance(value, list) and not isinstance(value, _Pairs)
    if is_list and all(one is None or isinstance(one, (str, int, float)) for one in value):
        return json.dumps(value, ensure_ascii=False)
    raise DataError(f"{where}: {name!r} holds an object, no text, number or list of these; leave it out")
