"""Trainings that begin where others ended: with their weights, or for more epochs."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import read_checkpoint
from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.base import MultiLabelModule
from mlcv.models.csra import CSRAHead
from mlcv.models.linear import LinearHead
from mlcv.runs import Run

logger = logging.getLogger(__name__)

_CLASS_AXES: dict[type, dict[str, int]] = {
    LinearHead: {"head.classifier.weight": 0, "head.classifier.bias": 0},
    CSRAHead: {"head.weight": 1},
}
"""Of heads whose parameters belong to one class each: along which axis."""


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
    if config.start_from is not None:
        raise ConfigError("--more_epochs goes on with a run, --start_from begins a new one: choose")
    done = run.contents.get("epoch") if run is not None else None
    if not isinstance(done, int) or config.more_epochs < 1:
        raise ConfigError("--more_epochs is 1 or more, of the run of --ckpt_path <run>/checkpoints/last.ckpt")
    if config.trainer.get("max_steps") not in (None, -1):
        raise ConfigError("--more_epochs counts epochs, and trainer.max_steps steps: set --trainer.max_steps -1, too")
    config.trainer.max_epochs = done + 1 + config.more_epochs


def start_from(method: MultiLabelModule, path: Path) -> None:
    """Gives a method the weights that another checkpoint has for it.

    Where the classes are the same, in the same order, tensors of one name and shape are taken. Where they differ, the
    backbone is; and of a `LinearHead` or `CSRAHead` what belongs to classes of the same name.

    Args:
        method: that is to be trained.
        path: of a checkpoint of `mlcv fit`, of the same backbone.

    Raises:
        ConfigError: if it cannot be read, or does not hold all of the backbone.
    """
    contents = read_checkpoint(path, "--start_from")
    about = contents.get("hyper_parameters")
    about = about if isinstance(about, dict) else {}
    names = about.get("class_names")
    are_names = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    theirs, ours = tuple(names) if are_names and names else (), method.class_names
    given, own = contents["state_dict"], method.state_dict()
    alike = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    backbone = [name for name in own if name.startswith("backbone.")]
    absent = [name for name in backbone if name not in alike]
    if absent:
        raise ConfigError(
            f"--start_from: {path} does not hold this backbone ({len(absent)} of {len(backbone)} tensors are absent or "
            f"of another shape, such as {absent[0]}); its own is {str(about.get('backbone'))[:60]}"
        )
    if theirs == ours:
        if isinstance(method, BackboneMethod):
            method.prior_bias = False  # it begins with what the other has learnt
        found, said = alike, f"{len(alike)} of {len(own)} tensors"
    else:
        found = {name: alike[name] for name in backbone}
        shared = _rows_of_classes(method, own, given, theirs)
        said = f"its backbone, and {shared} of {len(ours)} classes" if shared else "its backbone; the head starts anew"
        found |= {name: value for name, value in own.items() if name.startswith("head.")}
    method.load_state_dict(found, strict=False)
    logger.info("starts from %s: %s", path, said)


def _rows_of_classes(
    method: MultiLabelModule, own: dict[str, Tensor], given: dict[str, Any], theirs: tuple[str, ...]
) -> int:
    """Puts what another head knows of classes of the same name into `own`; how many these are."""
    axes = _CLASS_AXES.get(type(getattr(method, "head", None)), {})
    shared = [name for name in method.class_names if name in theirs and len(set(theirs)) == len(theirs)]
    for name, axis in axes.items():
        new, old = own.get(name), given.get(name)
        if (
            new is None
            or not isinstance(old, Tensor)
            or old.shape[:axis] + old.shape[axis + 1 :] != (new.shape[:axis] + new.shape[axis + 1 :])
        ):
            return 0
        if (new.shape[axis], old.shape[axis]) != (method.num_classes, len(theirs)):  # some have several rows a class
            return 0
    for name, axis in axes.items():
        own[name] = own[name].clone()
        for cls in shared:
            ours = own[name].select(axis, method.class_names.index(cls))
            ours.copy_(given[name].select(axis, theirs.index(cls)))
    return len(shared) if axes else 0
