"""Stops training at the first loss that is no number."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mlcv.errors import UserError


class StopOnNonFiniteLoss(Callback):
    """Raises an error that names the samples of the batch whose loss was NaN or infinite.

    A loss is looked at one step late, when a GPU has long computed it, so that no step waits for it; and before every
    validation, so that no checkpoint is made of what came out of it.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor, int] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check(trainer)
        if outputs is not None:
            self._last = (outputs["loss"].detach(), batch["index"], trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._last is None:
            return
        loss, index, step = self._last
        self._last = None
        if not loss.isfinite():
            dataset: Any = getattr(getattr(trainer, "datamodule", None), "datasets", {}).get("train")
            first = f" ({dataset.describe(int(index[0]))}, ...)" if dataset is not None else ""
            raise UserError(
                f"the loss was {float(loss)} at step {step}, on the training samples {index.tolist()}{first}. The "
                "checkpoints are from before. Lower model.optim.lr, set trainer.gradient_clip_val 1.0, or look at "
                "these samples; with 16-mixed precision try bf16-mixed"
            )
