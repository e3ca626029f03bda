"""Tables that are provably so plain that polars reads what `csv` would.

polars has another view than `csv` of short rows, blank lines, quotes and much else. So it is given only what has none of
these; all other tables, and all errors, are left to `csv`.
"""

import codecs
import csv
import re

_BLOCK = 1 << 20


def plain_lines(data: bytes, separator: str, width: int) -> bytes | None:
    r"""A table's lines if they are plain, else None.

    Each line then has `width` cells and some content. None has a NUL, a blank where a cell begins, which `csv` is told
    to pass over, or more than `csv` takes; and all is UTF-8. What is returned ends its lines by `\n` and has no quotes:
    those that only stand around whole cells are left out.

    Args:
        data: the table, its header too, without a byte order mark.
        separator: between cells.
        width: cells of the header.
    """
    between = separator.encode()
    if len(between) > 1:
        return None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if b'"' in data:
        data = _unquoted(data, between)
    marks = _only(data, between + b'\n\r"\0')
    if not data.endswith(b"\n"):
        marks += b"\n"
    line = between * (width - 1) + b"\n"
    is_plain = (
        marks == line * (len(marks) // len(line))
        and not _has_cells_after_blanks(data, between)
        and not _has_blank_lines(data, between)
        and _has_short_lines(data)
        and _is_utf8(data)
    )
    return data if is_plain else None


def _only(data: bytes, kept: bytes) -> bytes:
    """Of all bytes these alone."""
    return data.translate(None, bytes(set(range(256)) - set(kept)))


def _unquoted(data: bytes, between: bytes) -> bytes:
    """Without quotes, if each cell has none, or one at its start and one at its end; else as it is."""
    marks = _only(data, between + b'\n"')
    pairs = marks.count(b'"') // 2
    starts = data.startswith(b'"') + data.count(between + b'"') + data.count(b'\n"')
    ends = data.endswith(b'"') + data.count(b'"' + between) + data.count(b'"\n')
    # In a cell with two quotes they are neighbours among the marks. If there is one at the start for each pair, and one
    # at the end, then each pair has its own there.
    are_whole = b'"""' not in marks and b'"' not in marks.replace(b'""', b"") and starts == ends == pairs
    return data.replace(b'"', b"") if are_whole else data


def _has_cells_after_blanks(data: bytes, between: bytes) -> bool:
    return data.startswith(b" ") or (b" " in data and (between + b" " in data or b"\n " in data))


def _has_blank_lines(data: bytes, between: bytes) -> bool:
    """Whether there may be one: of nothing but separators, blanks, and what is no ASCII, as some blanks are."""
    blank = rb"[\x00-\x09\x0b-\x20\x7f-\xff%b]*" % re.escape(between)
    return re.search(rb"\n%b(?:\n|(?<!\n)\Z)" % blank, data) is not None


def _has_short_lines(data: bytes) -> bool:
    """Whether each half of what a cell may have at most sees a line end."""
    half = max(csv.field_size_limit() // 2, 1)
    return all(data.find(b"\n", start, start + half) >= 0 for start in range(0, len(data) - half, half))


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _BLOCK):  # the whole text at once may take four times the room
            decoder.decode(data[start : start + _BLOCK], final=start + _BLOCK >= len(data))
    except UnicodeDecodeError:
        return False
    return True
