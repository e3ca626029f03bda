"""A training that goes on: from the same data in the same steps, and with the files of its own run alone."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mlcv.errors import ConfigError

TRAINED_ON = "trained_on"
"""Under which a checkpoint says what its training depended on."""
_SCHEDULER = {"last_epoch": 0, "_step_count": 0, "total_steps": 0, "base_lrs": [0.0], "_last_lr": [0.0]}
"""What schedulers of torch hold."""


class Resuming(Callback):
    """Stores what the training's steps depend on in checkpoints, and refuses to resume where that differs.

    A checkpoint also says which other checkpoints its run keeps, of which worse ones are removed later. Only files of
    the run's own folder are taken from it: a stranger's may name any, and a run's folder may have moved.
    """

    def __init__(self) -> None:
        self._has_loaded = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[TRAINED_ON] = training_facts(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        self._has_loaded = True
        before, now = checkpoint.get(TRAINED_ON), training_facts(trainer)
        before = before if isinstance(before, dict) else now
        then = {name: str(before.get(name))[:40] for name in now}
        changed = [f"{name}: {then[name]} (now {value})" for name, value in now.items() if then[name] != str(value)]
        if changed:
            raise ConfigError(
                f"the checkpoint was trained with {', '.join(changed)}. A training goes on as it began: give the data "
                "and options that it had, or begin a new training with its weights: "
                "--start_from in place of --ckpt_path"
            )
        states = checkpoint.get("callbacks")
        checkpoint["callbacks"] = states = dict(states) if isinstance(states, dict) else {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's own attribute
            state = states.get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state is not None:
                states[callback.state_key] = _of_own_folder(state, Path(str(callback.dirpath)))
            elif state is not None and not _alike(state, callback.state_dict()):
                raise ConfigError(
                    f"the checkpoint's state of {type(callback).__name__} is of another kind: it is damaged"
                )
        if not _alike(checkpoint.get("lr_schedulers"), [_SCHEDULER]):
            raise ConfigError("the checkpoint's state of the learning rate is of another kind: it is damaged")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Loader processes have fetched ahead when the sampler did not know the epoch yet: images of the first one."""
        if self._has_loaded:
            self._has_loaded = False
            with torch.random.fork_rng(devices=[]):  # a loader draws a seed, as it has already
                iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


def training_facts(trainer: Trainer) -> dict[str, Any]:
    """What a training's steps depend on: images a step, training images, a fingerprint of their labels, corrections."""
    data: Any = getattr(trainer, "datamodule", None)
    labels = getattr(data, "label_summary", {}).get("train")
    if labels is None:
        return {}
    corrected = f"{labels['corrections']} ({labels['corrected']} training labels)" if "corrections" in labels else None
    return {
        "images a step": data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
        "training images": labels["images"],
        "labels": labels["fingerprint"],
        "corrections": corrected,
    }


def _alike(theirs: Any, ours: Any) -> bool:
    """Whether a state is of the kinds of a fresh one, as far as both go; of lists, each of the fresh one's first."""
    if ours is None or theirs is None:
        return True
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(
            _alike(theirs[key], value) for key, value in ours.items() if key in theirs
        )
    if isinstance(ours, (list, tuple)):
        return isinstance(theirs, (list, tuple)) and all(_alike(one, ours[0]) for one in theirs if ours)
    if isinstance(ours, (bool, int, float)):
        return isinstance(theirs, (bool, int, float))
    return isinstance(theirs, type(ours))


def _of_own_folder(state: Any, folder: Path) -> dict[str, Any]:
    """A ModelCheckpoint's state with the files that are in its folder, by their names alone."""

    def own(path: Any) -> str:
        name = str(path).replace("\\", "/").rpartition("/")[2]
        file = folder / name
        return str(file) if name.endswith(".ckpt") and file.is_file() and not file.is_symlink() else ""

    given = state if isinstance(state, dict) else {}
    kept: Any = given.get("best_k_models")
    scores = {own(path): score for path, score in kept.items() if own(path)} if isinstance(kept, dict) else {}
    best = own(given.get("best_model_path"))
    numbers = {name: given[name] for name in ("best_model_score", "kth_value") if isinstance(given.get(name), Tensor)}
    return {
        "best_model_score": None,
        **(numbers if best else {}),
        "best_model_path": best,
        "dirpath": str(folder),
        "best_k_models": {path: score for path, score in scores.items() if isinstance(score, Tensor)},
        **{name: own(given.get(name)) for name in ("kth_best_model_path", "last_model_path")},
    }
