"""A training that goes on: from the same data in the same steps, and with the files of its own run alone."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mlcv.errors import ConfigError

_KEY = "trained_on"


class Resuming(Callback):
    """Stores what the training's steps depend on in checkpoints, and refuses to resume where that differs.

    A checkpoint also says which other checkpoints its run keeps, of which worse ones are removed later. Only files of
    the run's own folder are taken from it: a stranger's may name any, and a run's folder may have moved.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = training_facts(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        before, now = checkpoint.get(_KEY), training_facts(trainer)
        before = before if isinstance(before, dict) else now
        then = {name: str(before.get(name))[:40] for name in now}
        changed = [f"{name}: {then[name]} (now {value})" for name, value in now.items() if then[name] != str(value)]
        if changed:
            raise ConfigError(
                f"the checkpoint was trained with {', '.join(changed)}. A training goes on as it began: give the data "
                "and options that it had, or train anew"
            )
        states = checkpoint.get("callbacks")
        checkpoint["callbacks"] = states = dict(states) if isinstance(states, dict) else {}
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state is not None:
                states[callback.state_key] = _of_own_folder(state, Path(str(callback.dirpath)))


def training_facts(trainer: Trainer) -> dict[str, Any]:
    """What a training's steps depend on: images a step, training images, and a fingerprint of their labels."""
    data: Any = getattr(trainer, "datamodule", None)
    labels = getattr(data, "label_summary", {}).get("train")
    if labels is None:
        return {}
    return {
        "images a step": data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
        "training images": labels["images"],
        "labels": labels["fingerprint"],
    }


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
