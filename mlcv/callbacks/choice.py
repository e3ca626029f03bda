"""Callbacks that a training has by default, as far as the Trainer's settings leave them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar

from mlcv.callbacks.model_table import ModelTable
from mlcv.callbacks.patience import MONITOR, Patience
from mlcv.callbacks.progress import Progress


def shown(settings: Any, own: Sequence[Callback]) -> list[Callback]:
    """Progress and what is trained; they stand before what prints results.

    Args:
        settings: of the Trainer, by name.
        own: callbacks that are there already.
    """
    wanted: list[tuple[str, type[Callback], type[Callback]]] = [
        ("enable_progress_bar", ProgressBar, Progress),
        ("enable_model_summary", ModelSummary, ModelTable),
    ]
    is_bare = bool(settings.get("barebones"))
    return [
        ours()
        for name, base, ours in wanted
        if not is_bare and settings.get(name) is not False and not any(isinstance(one, base) for one in own)
    ]


def judging(run_dir: Path, settings: Any, patience: int | None, *, resumable: bool = True) -> list[Callback]:
    """What stops training early, and the checkpoints; as `shown`.

    The best by validation, which `test` takes, and the last epoch's: Lightning's `save_last` follows new bests only.
    What need not be resumed has the latter after the whole training alone.
    """
    stopping: list[Callback] = [] if patience is None else [Patience(patience)]
    if settings.get("enable_checkpointing") is False:
        return stopping
    folder: dict[str, Any] = {"dirpath": run_dir / "checkpoints", "enable_version_counter": False}
    best = ModelCheckpoint(**folder, filename="best", monitor=MONITOR, mode="max")
    each = 1 if resumable else settings.get("max_epochs") or 1
    last = ModelCheckpoint(**folder, filename="last", every_n_epochs=each, save_on_train_epoch_end=True)
    return [*stopping, best, last]
