"""Tables that are provably so plain that polars reads what `csv` would.

polars has another view than `csv` of short rows, blank lines, quotes and much else. So it is given only what has none
of these; all other tables, and all errors, are left to `csv`.
"""

import codecs
import csv
import re

import numpy as np

_SCANNED = 1 << 16
"""Bytes at a time, few enough to stay in a core's cache."""
_DECODED = 1 << 20


def plain_lines(data: bytes, separator: str, width: int) -> tuple[bytes, int] | None:
    r"""A table's lines and how many there are, if they are plain; else None.

    All lines together then have as many separators as if each had `width` cells; polars refuses a longer one, so that
    there is no shorter one either. Each has some content. None has a NUL, a blank where a cell begins, which `csv` is
    told to pass over, or more than `csv` takes; and all is UTF-8. What is returned ends its lines by `\n` and has no
    quotes: those that only stand around whole cells are left out.

    Args:
        data: the table, its header too, without a byte order mark.
        separator: between cells.
        width: cells of the header.
    """
    between = separator.encode()
    if len(between) > 1 or b"\0" in data:
        return None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if b'"' in data:
        data = _unquoted(data, between)
    if b"\r" in data or b'"' in data or not (data.isascii() or _is_utf8(data)) or not _has_short_lines(data):
        return None
    lines, separators, has_blanks, may_be_blank = _scan(data, between)
    lines += not data.endswith(b"\n")
    if separators != lines * (width - 1) or has_blanks or (may_be_blank and _has_blank_line(data, between)):
        return None
    return data, lines


def _scan(data: bytes, between: bytes) -> tuple[int, int, bool, bool]:
    """Line ends, separators, whether a cell begins with a blank, and whether a line may be blank by how it begins."""
    separator, is_first_blank = between[0], data.startswith(b" ")
    lines, separators, has_blanks, may_be_blank = 0, 0, is_first_blank, is_first_blank
    values = np.frombuffer(data, np.uint8)
    for start in range(0, len(values), _SCANNED):
        block = values[start : start + _SCANNED]
        after = values[start + 1 : start + 1 + _SCANNED]
        ends, betweens = block == ord("\n"), block == separator
        lines += int(np.count_nonzero(ends))
        separators += int(np.count_nonzero(betweens))
        ends, betweens = ends[: len(after)], betweens[: len(after)]
        may_be_blank |= bool((ends & ((after <= ord(" ")) | (after == separator) | (after >= 127))).any())
        has_blanks |= bool(((ends | betweens) & (after == ord(" "))).any())
    return lines, separators, has_blanks, may_be_blank


def _has_blank_line(data: bytes, between: bytes) -> bool:
    """Whether a line may be blank: it has nothing but separators, blanks, and what is no ASCII, as some blanks are."""
    blank = rb"[\x00-\x09\x0b-\x20\x7f-\xff%b]*" % re.escape(between)
    return re.search(rb"\n%b(?:\n|(?<!\n)\Z)" % blank, data) is not None


def _unquoted(data: bytes, between: bytes) -> bytes:
    """Without quotes, if each cell has none, or one at its start and one at its end; else as it is."""
    marks = data.translate(None, bytes({*range(256)} - {*between, *b'\n"'}))
    pairs = marks.count(b'"') // 2
    starts = data.startswith(b'"') + data.count(between + b'"') + data.count(b'\n"')
    ends = data.endswith(b'"') + data.count(b'"' + between) + data.count(b'"\n')
    # In a cell with two quotes they are neighbours among the marks. If there is one at the start for each pair, and one
    # at the end, then each pair has its own there.
    are_whole = b'"""' not in marks and b'"' not in marks.replace(b'""', b"") and starts == ends == pairs
    return data.replace(b'"', b"") if are_whole else data


def _has_short_lines(data: bytes) -> bool:
    """Whether each half of what a cell may have at most sees a line end."""
    half = max(csv.field_size_limit() // 2, 1)
    return all(data.find(b"\n", start, start + half) >= 0 for start in range(0, len(data) - half, half))


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _DECODED):  # the whole text at once may take four times the room
            decoder.decode(data[start : start + _DECODED], final=start + _DECODED >= len(data))
    except UnicodeDecodeError:
        return False
    return True
