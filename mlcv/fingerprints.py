"""Short names of what something was made of, by which it is told apart from what is only called alike."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


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
