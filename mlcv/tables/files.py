"""Files as everything here opens them: regular ones only, with names that can be printed."""

import codecs
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from mlcv.errors import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Without waiting, and for no program that is started; systems without the one or the other need it not.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# What no text file holds, and a backslash that would be read as the start of an escape.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|\\(?=x[0-9a-f]{2}|ud[89a-f][0-9a-f]{2})")


def printable(path: str | Path) -> str:
    r"""A file's name as text that can be printed and written as UTF-8; different names stay different.

    Bytes of a name that are no UTF-8, and control characters, become `\xhh`, as in Python; so does the backslash of a
    name that holds such an escape itself. Every other name stays as it is. A name comes back by replacing each `\xhh`
    by its byte.
    """
    return _UNPRINTABLE.sub(_escape, str(path))


def exists(path: str | Path) -> bool:
    """Whether there is anything; False also for a name that nothing can have, where `Path.exists` raises."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file, likewise."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112


def open_regular(path: Path | str) -> BinaryIO:
    """Opens a file to read, but no pipe, socket or device, which could block for ever.

    Raises:
        DataError: if it is missing, cannot be opened, or is no regular file.
    """
    try:
        _check_kind(os.stat(path).st_mode, path)  # noqa: PTH116  # a device is not even opened
        # What is put there in between is opened without waiting, and looked at again.
        number = os.open(path, os.O_RDONLY | _FLAGS)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        _check_kind(os.fstat(number).st_mode, path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: Path | str, largest: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        largest: bytes above which it is not read; None for any size.

    Raises:
        DataError: if it cannot be read, is no regular file, or is too large.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if largest is not None and size > largest:
            raise DataError(f"{printable(path)}: {size:,} bytes, where at most {largest:,} are expected")
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from error


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and words of each line of a text file that is not blank.

    Raises:
        DataError: if it cannot be read, or is not in UTF-8.
    """
    data = read_regular(path).removeprefix(codecs.BOM_UTF8)
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}:{line_of(data, error.start)}: not in UTF-8; save it as such") from error
    return [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]


def line_of(data: bytes, place: int) -> int:
    """Number of the line that a byte is in, however lines end."""
    before = data[:place].replace(b"\r\n", b"\n")
    return 1 + before.count(b"\n") + before.count(b"\r")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _check_kind(mode: int, path: Path | str) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise DataError(f"{printable(path)}: {kind}, not a regular file; it is not opened")


def _unreadable(path: Path | str, error: OSError | ValueError) -> DataError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return DataError(f"{printable(path)}: cannot be read ({why})")
