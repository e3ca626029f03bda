"""The method that a checkpoint is of."""

from pathlib import Path
from typing import Any

from mlcv.errors import ConfigError
from mlcv.files import read_checkpoint
from mlcv.methods.base import CLASS_KEY, MultiLabelModule, written_by
from mlcv.plain_config import resolve


def load_method(path: Path, option: str) -> MultiLabelModule:
    """The method of a file, with its weights, in evaluation mode.

    Args:
        path: of a checkpoint of `mlcv fit`, or of a Trainer in Python.
        option: what the user calls it, for errors.

    Raises:
        ConfigError: if it cannot be read, and as `method_of`.
    """
    checkpoint = read_checkpoint(path, option)
    return method_of(checkpoint, written_by(checkpoint, f"{option}: {path}"))


def method_of(checkpoint: dict[str, Any], where: str) -> MultiLabelModule:
    """As `load_method`, of what `mlcv.files.read_checkpoint` has read.

    Raises:
        ConfigError: as `MultiLabelModule.restore`, and if its method is none of this project or of a
            package that the user trusts.
    """
    given = checkpoint.get("hyper_parameters")
    name = given.get(CLASS_KEY) if isinstance(given, dict) else None
    if name is None:
        raise ConfigError(f"{where} does not say what method it is of; it is not from `mlcv fit`")
    cls: Any = resolve(name, MultiLabelModule, where)
    method: MultiLabelModule = cls.restore(checkpoint, where)
    return method.eval()
