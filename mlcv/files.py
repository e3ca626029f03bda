"""Files that are whole or not there, and reading what somebody else has written."""

import csv
import itertools
import json
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from mlcv.errors import ConfigError

MOST_JSON = 2**28
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
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
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


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, keep: bool = False) -> None:
    """Writes a CSV file; as `whole_file`. Texts that a spreadsheet would run as formulas are `shielded`."""
    with whole_file(path, keep=keep) as file:
        writer = csv.writer(file)
        writer.writerow([shielded(name) for name in header])
        writer.writerows([shielded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


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
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError,
            pickle.UnpicklingError) as error:  # fmt: skip
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{option}: {path} is no checkpoint that can be read safely: it is damaged, or holds objects that would "
            f"run code when loaded, and is not opened ({reason})"
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"{option}: {path} is no checkpoint of `mlcv fit`: it has no state_dict of tensors")
    return checkpoint  # type: ignore[no-any-return]
