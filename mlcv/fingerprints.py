"""Short names of what something was made of, by which it is told apart from what is only called alike."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import read_json, write_text


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Of a state dict, 64 hexadecimal digits that change with any weight."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """The first 12 digits, which files of predictions and calibrations carry."""
    return weights_digest(state)[:12]


def fingerprint_of(*parts: Any) -> str:
    """12 hexadecimal digits of plain data and dataclasses of it."""

    def plain(part: Any) -> Any:
        return dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else str(part)

    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=plain).encode()).hexdigest()[:12]


def note(path: Path, **facts: str) -> None:
    """Writes beside an array what it was made of, as `<file>.json`.

    Raises:
        ConfigError: if it cannot be written.
    """
    write_text(_note(path), json.dumps(facts, indent=1) + "\n")


def check_note(path: Path, option: str, remedy: str, **facts: str) -> None:
    """Refuses an array that was made of something else; one without a note is taken as it is.

    Args:
        path: of the array.
        option: what the user calls it.
        remedy: what to do, for the error.
        facts: what it should be made of.

    Raises:
        ConfigError: naming what differs.
    """
    if not _note(path).is_file():
        return
    then = read_json(_note(path), "note")
    changed = [name for name, value in facts.items() if not isinstance(then, dict) or then.get(name) != value]
    if changed:
        raise ConfigError(f"{option}: {path} was made of other {' and '.join(changed)} than there are now; {remedy}")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
