"""Stops training at the first loss that is no number."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mlcv.errors import UserError


class StopOnNonFiniteLoss(Callback):
    """Raises an error that names the samples of the batch whose loss was NaN or infinite.

    A loss is looked at one step late, and before every validation, so that no checkpoint is made of what came out of
    it. Whether it is a number is computed and copied behind its own step, so that the host waits for that step at most,
    never for the one that a GPU is busy with.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor, int] | None = None
        self._is_finite = torch.ones((), dtype=torch.bool)
        self._copied: torch.cuda.Event | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check(trainer)
        if outputs is not None:
            loss = outputs["loss"].detach()
            self._last = (loss, batch["index"], trainer.global_step)
            self._look(loss.isfinite())

    def _look(self, is_finite: Tensor) -> None:
        """Has the answer brought to the host, without waiting for it."""
        if not is_finite.is_cuda:
            self._is_finite, self._copied = is_finite, None
            return
        if self._copied is None:
            self._is_finite, self._copied = torch.ones((), dtype=torch.bool, pin_memory=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._is_finite.copy_(is_finite, non_blocking=True)
        self._copied.record()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._last is None:
            return
        loss, index, step = self._last
        self._last = None
        if self._copied is not None:
            self._copied.synchronize()
        if not self._is_finite:
            dataset: Any = getattr(getattr(trainer, "datamodule", None), "datasets", {}).get("train")
            first = f" ({dataset.describe(int(index[0]))}, ...)" if dataset is not None else ""
            raise UserError(
                f"the loss was {float(loss)} at step {step}, on the training samples {index.tolist()}{first}. The "
                "checkpoints are from before. Lower model.optim.lr, set trainer.gradient_clip_val 1.0, or look at "
                "these samples; with 16-mixed precision try bf16-mixed"
            )
