"""A command line that names a checkpoint: which file it means, and the configuration in it."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcv.command_line import take
from mlcv.data.base import MultiLabelDataModule
from mlcv.errors import ConfigError
from mlcv.launchers import is_requeued
from mlcv.plain_config import plain, resolve
from mlcv.runs import GREY_KEY, Run
from mlcv.shipped_configs import with_files
from mlcv.trainer_settings import settings_for_evaluation, settings_for_training

logger = logging.getLogger(__name__)

_WORDS = ("last", "best", "hpc")
"""Lightning's, for a checkpoint of the run's folder."""

_OF_EVERY_DATA = ("image_size", "batch_size", "num_workers", "augment", "statistics", "max_megapixels")


@dataclass(frozen=True)
class CommandLine:
    """What a command of Lightning's is given: `config` is the checkpoint's, over which the arguments go."""

    arguments: list[str]
    config: dict[str, Any] | None = None
    run: Run | None = None


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """A command line, and the configuration that its checkpoint carries if it names no other.

    Args:
        arguments: subcommand and options. Configs are put first: what is given by itself counts, wherever it stands.

    Raises:
        ConfigError: as `mlcv.runs.Run.config` and `with_checkpoint_found`.
    """
    line = with_checkpoint_found([arguments[0], *with_files(arguments[1:])])
    options = {argument.partition("=")[0] for argument in line}
    says_all = {"--model", "--data"} <= options
    if "--config" in options or says_all or {"-h", "--help"} & options or "--ckpt_path" not in options:
        return CommandLine(line)
    path = take(line, "--ckpt_path")[0][-1]
    settings = settings_for_training if line[0] == "fit" else settings_for_evaluation
    run = Run(Path(path))
    config = run.config(settings)
    if line[0] != "fit":
        config.pop("compile", None)  # it takes longer than most evaluations
    if line[0] == "predict" and "--data.path" in options and "--data" not in options:
        config["data"] = _for_images(config["data"], run)
    return CommandLine(line, config, run)


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
    paths, others = take(arguments, "--ckpt_path")
    word, run_dir = (paths or [""])[-1], (take(arguments, "--run_dir")[0] or [""])[-1]
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


def _for_images(data: dict[str, Any], run: Run) -> dict[str, Any]:
    """Configuration of images without labels, as the model of a checkpoint expects them."""
    given = data["init_args"]
    kept = {key: given[key] for key in _OF_EVERY_DATA if key in given}
    known: Any = resolve(data["class_path"], MultiLabelDataModule, run.where)
    about = run.contents.get("hyper_parameters")
    names = plain(
        about.get("class_names") if isinstance(about, dict) else None, Sequence[str], f"{run.where}: class_names"
    )
    arguments = {**kept, "classes": names, "grey": bool(run.contents.get(GREY_KEY, known.grey)), "path": ""}
    return {"class_path": "mlcv.data.ImageFilesDataModule", "init_args": arguments}
