"""Exponential moving average of the weights."""

from collections.abc import Callable
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
        super().__init__(use_buffers=False, multi_avg_fn=_average(decay, warmup))
        self.decay, self.start_step, self.warmup = decay, start_step, warmup

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Buffers that have their size from the training labels had none yet when the average was made."""
        if self._average_model is not None:
            for ours, theirs in zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True):
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


def _average(decay: float, warmup: bool) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor) -> None:
        steps = int(n_averaged)
        weight = min(decay, (1 + steps) / (10 + steps)) if warmup else decay
        torch._foreach_lerp_(averaged, current, 1 - weight)

    return average
