"""Exponential moving average of the weights."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from mlcv.errors import ConfigError


class EMA(WeightAveraging):
    """Validates, tests and saves averaged weights: average <- decay * average + (1 - decay) * weights, every step.

    It differs from Lightning's own in three points. Before the first average there is nothing to swap in, so a run
    shorter than `start_step` keeps its trained weights (Lightning's ends with the initial ones). Buffers are copied,
    not averaged. The decay rises with the steps, as (1 + n) / (10 + n) until it reaches its value, so that short runs
    are not an average of their beginnings. Sharded strategies are not supported.

    Args:
        decay: of the average, in [0, 1); 0.9997 is the field's for COCO at 40 epochs.
        start_step: optimizer steps before the first average.
        warmup: let the decay rise.
    """

    def __init__(self, decay: float = 0.9997, start_step: int = 0, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"EMA's decay lies in [0, 1), got {decay}")
        super().__init__(use_buffers=False)
        self.decay, self.start_step, self.warmup = decay, start_step, warmup

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # a count on a GPU would have to be waited for in each step
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """As Lightning's, in three calls for all tensors."""
        step, average = trainer.global_step, self._average_model
        if average is None or step <= self._latest_update_step or not self.should_update(step_idx=step - 1):
            return
        self._latest_update_step = step
        ours, theirs = (list[Tensor](module.parameters()) for module in (average.module, pl_module))
        averaged = int(average.n_averaged)
        if averaged:
            decay = min(self.decay, (1 + averaged) / (10 + averaged)) if self.warmup else self.decay
            torch._foreach_lerp_(ours, theirs, 1 - decay)
        else:
            torch._foreach_copy_(ours, theirs)
        ours, theirs = (list(module.buffers()) for module in (average.module, pl_module))
        if ours and not averaged:  # some have had their size from the training labels since
            self._match_buffers(average, pl_module)
        if ours:
            torch._foreach_copy_(ours, theirs)
        average.n_averaged += 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Buffers that have their size from the training labels had none yet when the average was made."""
        if self._average_model is not None:
            self._match_buffers(self._average_model, pl_module)

    @staticmethod
    def _match_buffers(average: Any, module: LightningModule) -> None:
        for ours, theirs in zip(average.module.buffers(), module.buffers(), strict=True):
            if ours.shape != theirs.shape:
                ours.data = theirs.detach().clone()

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= self.start_step

    @property
    def has_started(self) -> bool:
        """Whether there is an average yet."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.has_started:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.has_started:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.has_started:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.has_started:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Outside training the checkpoint's weights are the average already; inside, one saved before `start_step`
        # has none, and the average begins when its time comes.
        if self._average_model is not None and "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
