"""Checkpoints as plain data, and the methods in them."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from mlcv.errors import ConfigError
from mlcv.methods.base import MultiLabelModule

CONFIG_KEY = "mlcv_config"
"""Under which a checkpoint of `mlcv fit` keeps its configuration, as YAML."""


def read_checkpoint(path: Path, option: str = "--ckpt_path") -> dict[str, Any]:
    """Reads a checkpoint's plain data and tensors; code in it is never run.

    Args:
        path: of the file.
        option: what the user calls it, for the error.

    Raises:
        ConfigError: if there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise ConfigError(f"{option}: no file {path}; a run keeps its checkpoints in runs/<name>/<number>/checkpoints")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{option}: {path} is no checkpoint that can be read safely: it is damaged, or holds objects that would "
            f"run code when loaded, and is not opened ({reason})"
        ) from error
    return checkpoint


def read_config(path: Path, option: str = "--ckpt_path") -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint and the configuration in it.

    Raises:
        ConfigError: as `read_checkpoint`, and if it carries no configuration.
    """
    checkpoint = read_checkpoint(path, option)
    config = yaml.safe_load(checkpoint.get(CONFIG_KEY, "null"))
    if config is None:
        raise ConfigError(f"{option}: {path} carries no configuration; it is not from `mlcv fit`")
    return checkpoint, config


def load_method(path: Path, option: str) -> MultiLabelModule:
    """The method that a checkpoint of `mlcv fit` is of, with its weights, in evaluation mode.

    Raises:
        ConfigError: as `read_config`, and if its method is none that has been imported.
    """
    _, config = read_config(path, option)
    name = config["model"]["class_path"].rpartition(".")[2]
    cls = next((cls for cls in _all_methods(MultiLabelModule) if cls.__name__ == name), None)
    if cls is None:
        raise ConfigError(f"{option}: {path} is of {config['model']['class_path']}, which is not imported here")
    method: MultiLabelModule = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return method.eval()


def run_folder(checkpoint: Path) -> Path:
    """Of the run that a checkpoint is of."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def _all_methods(base: type[MultiLabelModule]) -> Iterator[type[MultiLabelModule]]:
    """Every method whose file has been imported, which those of `mlcv.methods` and the user's own have."""
    for cls in base.__subclasses__():
        yield cls
        yield from _all_methods(cls)
