"""Trainings that begin where others ended: with their weights, or for more epochs."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import read_checkpoint
from mlcv.methods.base import MultiLabelModule
from mlcv.runs import Run

logger = logging.getLogger(__name__)


def check_start(config: Any) -> None:
    """Refuses two starts, and leaves out the download that a checkpoint's weights would replace.

    Raises:
        ConfigError: for `start_from` beside `ckpt_path`.
    """
    if config.start_from is None:
        return
    if config.get("ckpt_path"):
        raise ConfigError(
            "--start_from begins a new training with the weights of another, --ckpt_path goes on with one: choose"
        )
    arguments = config.model.init_args
    if arguments.get("weights") in ("pretrained", "installed"):
        arguments.weights = None


def plan_more_epochs(config: Any, run: Run | None) -> None:
    """Sets the end of a training that goes on past the one that was planned.

    Raises:
        ConfigError: for `more_epochs` without a checkpoint, below 1, or of a training that is planned by steps.
    """
    if config.more_epochs is None:
        return
    done = run.contents.get("epoch") if run is not None else None
    if not isinstance(done, int) or config.more_epochs < 1:
        raise ConfigError("--more_epochs is 1 or more, of the run of --ckpt_path <run>/checkpoints/last.ckpt")
    if config.trainer.get("max_steps") not in (None, -1):
        raise ConfigError("--more_epochs counts epochs, and trainer.max_steps steps: set --trainer.max_steps -1, too")
    config.trainer.max_epochs = done + 1 + config.more_epochs


def start_from(method: MultiLabelModule, path: Path) -> None:
    """Gives a method the weights that another checkpoint has for it.

    Tensors of one name and shape are taken. Where the classes differ, those with a row a class take the rows of classes
    of the same name; other rows stay as they are.

    Args:
        method: that is to be trained.
        path: of a checkpoint of `mlcv fit`, of the same backbone.

    Raises:
        ConfigError: if it cannot be read, or has less than half of the backbone.
    """
    contents = read_checkpoint(path, "--start_from")
    about = contents.get("hyper_parameters")
    names = about.get("class_names") if isinstance(about, dict) else None
    theirs, ours = tuple(map(str, names or ())), method.class_names
    given, own = contents["state_dict"], method.state_dict()
    rows = [(ours.index(name), theirs.index(name)) for name in ours if name in theirs]
    taken = {name: _taken(name, value, given.get(name), rows, (len(ours), len(theirs))) for name, value in own.items()}
    found = {name: value for name, value in taken.items() if value is not None}
    backbone = [name for name in own if name.startswith("backbone.")]
    if 2 * sum(name in found for name in backbone) < len(backbone):
        backbone_of_theirs = about.get("backbone") if isinstance(about, dict) else None
        raise ConfigError(
            f"--start_from: {path} holds few weights of this backbone; its own is {str(backbone_of_theirs)[:60]}: give "
            "--model.backbone its name"
        )
    method.load_state_dict(found, strict=False)
    same = f"; of {len(ours)} classes {len(rows)} are known there" if theirs != ours else ""
    logger.info("starts from %s: %d of %d tensors%s", path, len(found), len(own), same)


def _taken(name: str, own: Tensor, given: Any, rows: list[tuple[int, int]], counts: tuple[int, int]) -> Tensor | None:
    """What a tensor of a method takes from another's, by rows where these are classes."""
    if not isinstance(given, Tensor):
        return None
    is_by_class = not name.startswith("backbone.") and own.ndim > 0 and (len(own), *given.shape[:1]) == counts
    if is_by_class and own.shape[1:] == given.shape[1:]:
        mixed = own.clone()
        for ours, theirs in rows:
            mixed[ours] = given[theirs].to(own.dtype)
        return mixed
    return given.to(own.dtype) if own.shape == given.shape else None
