"""Files that are whole or not there, and reading what somebody else has written."""

import csv
import hashlib
import itertools
import json
import os
import pickle
import tokenize
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlcv.errors import ConfigError

MOST_JSON = MOST_PICKLE = 2**28
MOST_VALUES, MOST_LEVELS = 2_000_000, 64
UNREADABLE = (
    OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError, OverflowError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What torch.load makes of a file that is damaged, or of another kind."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def whole_file(path: Path, mode: str = "w", *, keep: bool = False) -> Iterator[IO[Any]]:
    """A file to write that takes its place when all of it is on the disk; else what was there stays as it was.

    Args:
        path: of the file.
        mode: `w` for text in UTF-8, whose line ends stay, or `wb`.
        keep: rename what is in the way first, see `keep_earlier`.

    Raises:
        ConfigError: if it cannot be written.
    """
    if not path.name or path.is_dir():
        raise ConfigError(f"{path} is a folder, and a file is to be written: give it a name")
    name = path.name if len(os.fsencode(path.name)) < 200 else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    unfinished = path.with_name(f".{name}.{os.getpid()}")
    text: dict[str, Any] = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep:
            keep_earlier(path)
        unfinished.replace(path)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{path} cannot be written: it would hold {error.object[max(error.start - 40, 0) : error.end + 20]!r}, and "
            "a part of that is no text; what was there before is as it was"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}); what was there before is as it was: make room, or "
            "choose another place, and give the command again"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, keep: bool = False) -> None:
    """Writes a text; as `whole_file`."""
    with whole_file(path, keep=keep) as file:
        file.write(text)


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, keep: bool = False, shield: bool = True
) -> None:
    """Writes a CSV file; as `whole_file`.

    Args:
        path: of the file.
        header: names of the columns.
        rows: of cells.
        keep: see `whole_file`.
        shield: texts that a spreadsheet would run as formulas are `shielded`; not in a table to train on, whose reader
            takes names as they stand.
    """
    with whole_file(path, keep=keep) as file:
        writer = csv.writer(file)
        for row in itertools.chain([header], rows):
            writer.writerow([shielded(cell) if shield and isinstance(cell, str) else cell for cell in row])


def shielded(text: str) -> str:
    """A text with an apostrophe before what a spreadsheet takes for a formula; `unshielded` takes it away."""
    is_shielded = text[:1] == "'" and text[1:2] in (*_FORMULA, "'")
    return f"'{text}" if text[:1] in _FORMULA or is_shielded else text


def unshielded(text: str) -> str:
    """What was written as `shielded`."""
    return text[1:] if text[:1] == "'" and text[1:2] in (*_FORMULA, "'") else text


def keep_earlier(path: Path) -> None:
    """Renames a file that is in the way: `test.json` becomes `test.1.json`, or the next free number."""
    if not path.exists():
        return
    for number in itertools.count(1):
        kept = path.with_suffix(f".{number}{path.suffix}")
        try:
            os.close(os.open(kept, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # made, so that no other process takes it
        except FileExistsError:
            continue
        path.replace(kept)
        return


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file of at most 256 MiB.

    Args:
        path: of the file.
        what: it should be, for the error.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_JSON + 1)
        content = json.loads(text) if len(text) <= MOST_JSON else None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no readable {what} ({error})") from error
    if len(text) > MOST_JSON:
        raise ConfigError(f"{path} is no {what}: it is larger than {MOST_JSON >> 20} MiB")
    return content


def read_checkpoint(path: Path, option: str = "--ckpt_path") -> dict[str, Any]:
    """A checkpoint's plain data and tensors; code in it is never run.

    Args:
        path: of the file.
        option: what the user calls it, for the error.

    Raises:
        ConfigError: if there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise ConfigError(f"{option}: no file {path}; a run keeps its checkpoints in runs/<name>/<number>/checkpoints")
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        raise ConfigError(
            f"{option}: {path} is no checkpoint that can be read safely: it is damaged, or holds objects that would "
            f"run code when loaded, and is not opened ({why_unreadable(error)})"
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    entries = list(state.items()) if isinstance(state, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in entries):
        raise ConfigError(f"{option}: {path} is no checkpoint of `mlcv fit`: it has no state_dict of tensors")
    _check_content(checkpoint, f"{option}: {path}")
    return checkpoint  # type: ignore[no-any-return]


def why_unreadable(error: BaseException) -> str:
    """What torch.load says first, without its advice to run the code in the file after all."""
    return str(error).strip().partition("\n")[0].partition(". In PyTorch")[0][:200]


def _check_archive(path: Path) -> None:
    """A checkpoint's parts are stored as they are; compressed, a small file would swell to a large one."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (OSError, zipfile.BadZipFile):  # torch says what it is
        return
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its parts are compressed, as torch never writes them")
    if sum(part.file_size for part in parts if part.filename.endswith("data.pkl")) > MOST_PICKLE:
        raise ValueError(f"it lists more than {MOST_PICKLE >> 20} MiB of names and numbers beside tensors")


def _check_content(checkpoint: dict[str, Any], where: str) -> None:
    """By references to one thing from many places a small file holds a large one, and so do views of one number."""
    left, stack = MOST_VALUES, [(checkpoint, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if left < 0 or depth > MOST_LEVELS:
            raise ConfigError(f"{where} holds more than {MOST_VALUES} values or {MOST_LEVELS} levels, and is not taken")
        if isinstance(value, torch.Tensor):
            is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            if not is_plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ConfigError(f"{where} holds a tensor that is sparse, or larger than what the file has of it")
        elif isinstance(value, dict):
            stack += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, (list, tuple, set)):
            stack += [(one, depth + 1) for one in value]


def read_array(path: Path, option: str) -> NDArray[np.float32]:
    """Finite numbers of a .npy file, as float32; nothing of it is unpickled.

    Args:
        path: of the file.
        option: what the user calls it, for the error.

    Raises:
        ConfigError: if it holds anything else, or is cut off.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        with np.errstate(over="ignore"):
            numbers = np.array(array, np.float32) if array.dtype.kind in "fiub" else np.full(1, np.nan, np.float32)
    except (OSError, ValueError, TypeError, EOFError, OverflowError, SyntaxError, MemoryError,
            tokenize.TokenError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{option}: {path} is no array of numbers ({reason}); it is made by numpy.save") from error
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{option}: {path} holds entries of {array.dtype} that are not finite numbers")
    return numbers
