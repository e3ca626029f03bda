"""A command line that names a checkpoint and no config: what the checkpoint carries, as arguments before the others."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlcv.data.base import MultiLabelDataModule
from mlcv.plain_config import plain, resolve
from mlcv.runs import read_config
from mlcv.trainer_settings import settings_for_evaluation, settings_for_training

_OF_EVERY_DATA = ("image_size", "batch_size", "num_workers", "augment", "statistics", "max_megapixels")
_LINE_ENDS = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
"""What YAML takes for a line's end or does not print, and JSON lets pass."""


def with_checkpoint_config(arguments: list[str]) -> list[str]:
    """Puts the configuration that a checkpoint carries in front of the other arguments, if they name no config.

    Args:
        arguments: subcommand and options.

    Raises:
        ConfigError: as `mlcv.runs.read_config`.
    """
    options = [argument.split("=")[0] for argument in arguments]
    if {"-c", "--config", "-h", "--help"} & set(options) or "--ckpt_path" not in options:
        return arguments
    place = len(options) - 1 - options[::-1].index("--ckpt_path")  # of several, the last one counts
    value = arguments[place].partition("=")[2] or "".join(arguments[place + 1 : place + 2])
    settings = settings_for_training if arguments[0] == "fit" else settings_for_evaluation
    checkpoint, config = read_config(Path(value), trainer=settings)
    if arguments[0] == "predict" and "--data.path" in options and "--data" not in options:
        config["data"] = _for_images(config["data"], checkpoint, value)
    return [arguments[0], "--config", _as_yaml(config), *arguments[1:]]


def _for_images(data: dict[str, Any], checkpoint: dict[str, Any], path: str) -> dict[str, Any]:
    """Configuration of images without labels, as the model of a checkpoint expects them."""
    given = data["init_args"]
    kept = {key: given[key] for key in _OF_EVERY_DATA if key in given}
    known: Any = resolve(data["class_path"], MultiLabelDataModule, path)
    about = checkpoint.get("hyper_parameters")
    names = plain(about.get("class_names") if isinstance(about, dict) else None, Sequence[str], f"{path}: class_names")
    arguments = {**kept, "classes": names, "grey": bool(known.grey), "path": ""}
    return {"class_path": "mlcv.data.ImageFilesDataModule", "init_args": arguments}


def _as_yaml(tree: dict[str, Any]) -> str:
    """Plain data as JSON that YAML reads alike."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False)
    return _LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
