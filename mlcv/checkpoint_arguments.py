"""A command line that names a checkpoint: which file it means, and the configuration in it, as further arguments."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlcv.data.base import MultiLabelDataModule
from mlcv.errors import ConfigError
from mlcv.launchers import is_requeued
from mlcv.plain_config import plain, resolve
from mlcv.runs import GREY_KEY, read_config
from mlcv.trainer_settings import settings_for_evaluation, settings_for_training

logger = logging.getLogger(__name__)

_WORDS = ("last", "best", "hpc")
"""Lightning's, for a checkpoint of the run's folder."""

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
    if {"--model", "--data"} <= set(options):  # a line that says all by itself
        return arguments
    value, _ = _split(arguments, "--ckpt_path")
    settings = settings_for_training if arguments[0] == "fit" else settings_for_evaluation
    checkpoint, config = read_config(Path(value), trainer=settings)
    if arguments[0] == "predict" and "--data.path" in options and "--data" not in options:
        config["data"] = _for_images(config["data"], checkpoint, value)
    return [arguments[0], "--config", _as_yaml(config), *arguments[1:]]


def with_checkpoint_found(arguments: list[str]) -> list[str]:
    """Puts a path for `--ckpt_path last`, `best` or `hpc`, which mean what Lightning says, in `--run_dir`.

    `last` is the newest of the run's last checkpoint and of those that a cluster's signal has left (hpc_ckpt_*.ckpt).
    If there is none, training begins anew, so that the same command line starts a job and goes on with it. A job that
    its cluster has queued again goes on in this way without being told.

    Args:
        arguments: subcommand and options.

    Raises:
        ConfigError: for such a word without `--run_dir`, or without such a checkpoint.
    """
    if any(argument in ("-h", "--help") or argument.partition("=")[0].endswith(".help") for argument in arguments):
        return arguments
    (word, others), (run_dir, _) = _split(arguments, "--ckpt_path"), _split(arguments, "--run_dir")
    goes_on = arguments[0] == "fit" and is_requeued()
    if word not in _WORDS and not goes_on:
        return arguments
    if not run_dir:
        what = "a job that was queued again goes on in" if goes_on else f"--ckpt_path {word} is of"
        raise ConfigError(f"{what} the run's folder: give --run_dir, too, on the command line")
    last, best = (Path(run_dir) / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    hpc = sorted(Path(run_dir).glob("hpc_ckpt_*.ckpt"), key=lambda path: int("0" + re.sub(r"\D", "", path.stem)))
    wanted = "last" if goes_on else word
    found = [path for path in {"last": [last, *hpc], "best": [best], "hpc": hpc}[wanted] if path.is_file()]
    if wanted == "last":
        found.sort(key=lambda path: path.stat().st_mtime)
    if goes_on and not found and word not in _WORDS:  # it was stopped before its first checkpoint
        return arguments
    if found:
        return [*others, f"--ckpt_path={found[-1]}"]
    if goes_on or (word == "last" and arguments[0] == "fit"):
        logger.warning("--ckpt_path last: %s holds no checkpoint yet, so training begins anew", run_dir)
        return others
    raise ConfigError(f"--ckpt_path {word}: {run_dir} holds no such checkpoint")


def _split(arguments: Sequence[str], option: str) -> tuple[str, list[str]]:
    """An option's value, of several the last one's, empty without any; and the arguments without it."""
    value, rest, is_next = "", [], False
    for argument in arguments:
        name, _, given = argument.partition("=")
        if is_next or name == option:
            value = argument if is_next else given
        else:
            rest.append(argument)
        is_next = not is_next and argument == option
    return value, rest


def _for_images(data: dict[str, Any], checkpoint: dict[str, Any], path: str) -> dict[str, Any]:
    """Configuration of images without labels, as the model of a checkpoint expects them."""
    given = data["init_args"]
    kept = {key: given[key] for key in _OF_EVERY_DATA if key in given}
    known: Any = resolve(data["class_path"], MultiLabelDataModule, path)
    about = checkpoint.get("hyper_parameters")
    names = plain(about.get("class_names") if isinstance(about, dict) else None, Sequence[str], f"{path}: class_names")
    arguments = {**kept, "classes": names, "grey": bool(checkpoint.get(GREY_KEY, known.grey)), "path": ""}
    return {"class_path": "mlcv.data.ImageFilesDataModule", "init_args": arguments}


def _as_yaml(tree: dict[str, Any]) -> str:
    """Plain data as JSON that YAML reads alike."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False)
    return _LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
