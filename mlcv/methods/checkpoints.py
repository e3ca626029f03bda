"""Checkpoints as plain data, and the methods in them."""

from pathlib import Path
from typing import Any

from mlcv.errors import ConfigError
from mlcv.files import read_checkpoint
from mlcv.methods.base import CLASS_KEY, MultiLabelModule
from mlcv.plain_config import resolve


def load_method(path: Path, option: str) -> MultiLabelModule:
    """The method that a checkpoint is of, with its weights, in evaluation mode.

    Args:
        path: of a checkpoint of `mlcv fit`, or of a Trainer in Python.
        option: what the user calls it, for errors.

    Raises:
        ConfigError: as `MultiLabelModule.restore`, and if its method is none of this project or of a
            package that the user trusts.
    """
    where = f"{option}: {path}"
    given = read_checkpoint(path, option).get("hyper_parameters")
    name = given.get(CLASS_KEY) if isinstance(given, dict) else None
    if name is None:
        raise ConfigError(f"{where} does not say what method it is of; it is not from `mlcv fit`")
    cls: Any = resolve(name, MultiLabelModule, where)
    method: MultiLabelModule = cls.restore(path, option)
    return method.eval()
