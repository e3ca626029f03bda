"""What a person sees of a run: a bar at a terminal, and a line for each epoch, there and in any log."""

import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import rich.progress
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar, Timer
from torch import Tensor

from mlcv.callbacks.clock import Clock, Plan, span
from mlcv.callbacks.patience import MONITOR
from mlcv.terminal import console

_REFRESH = 0.25
"""Seconds between two looks at the bar; only then does anybody wait for a loss that a GPU has not computed yet."""
_FIRST_STEPS, _FIRST_SECONDS, _WORTH_TELLING = 5, 5.0, 60.0
"""After so many steps and seconds there is a first estimate, if it is of more than these seconds."""


class Progress(ProgressBar):
    """At a terminal, a bar of what is under way, with the time left for the whole run; it leaves nothing behind.

    Everywhere, a line for each epoch: its number from 1, the mean training loss (of the first process), the validation
    metric by which `best.ckpt` is chosen, whether it is the best so far, the epoch's seconds with its validation, and
    the time left; and early on an estimate for all epochs, or for all batches of an evaluation, if it takes long.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = console()
        self._is_enabled = True
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)
        self._looked = 0.0
        self._clock: Clock | None = None
        self._has_estimated = False
        self._loss: Tensor | float = 0.0
        self._losses = self._batches = 0
        self._score = math.nan
        self._best, self._best_epoch = -math.inf, 0
        self._epoch_began = self._stage_began = 0.0
        self._stage_batches: float = 0

    def disable(self) -> None:
        self._hide()
        self._is_enabled = False

    def enable(self) -> None:
        self._is_enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        self._say(" ".join(map(str, args)))

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "best_epoch": self._best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._best_epoch = state_dict["best"], state_dict["best_epoch"]

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show("trying a validation", None)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock = Clock(_plan(trainer))
        self._epoch_began = perf_counter()  # one that goes on within an epoch begins none

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._loss, self._losses, self._score = 0.0, 0, math.nan
        self._epoch_began = perf_counter()
        self._show(_epoch(trainer), self.total_train_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        clock = self._running
        clock.step()
        self._batches = batch_idx + 1
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if loss is not None:
            self._loss, self._losses = self._loss + loss.detach(), self._losses + 1
        done = trainer.current_epoch * clock.plan.epoch + self._batches
        if not self._has_estimated and clock.steps >= _FIRST_STEPS and clock.seconds() >= _FIRST_SECONDS:
            self._estimate(trainer, done)
        if self._is_due():
            told = [] if loss is None else [f"loss {float(loss) * trainer.accumulate_grad_batches:.4g}"]
            told += self._told_best()
            self._update(self._batches, "  ".join([*told, *self._told_left(trainer, done)]))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self._clock is not None:
            self._clock.begin_validation()
        what = f"{_epoch(trainer)}, validation" if trainer.state.fn == "fit" else "validation"
        self._begin_stage(what, trainer.num_val_batches)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if not trainer.sanity_checking:
            self._advance(trainer, batch_idx + 1, "validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._hide()
        if trainer.state.fn != "fit" or self._clock is None:
            return
        self._clock.end_validation()
        self._score = float(trainer.callback_metrics.get(MONITOR, math.nan))
        if self._score > self._best:
            self._best, self._best_epoch = self._score, trainer.current_epoch + 1
        if self._batches < self.total_train_batches:
            self._show(_epoch(trainer), self.total_train_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()
        clock, told = self._running, [_epoch(trainer)]
        if self._losses:
            told.append(f"loss {float(self._loss) * trainer.accumulate_grad_batches / self._losses:.4f}")
        if not math.isnan(self._score):
            is_best = self._best_epoch == trainer.current_epoch + 1
            told.append(
                f"{MONITOR} {self._score:.4f} ({'best so far' if is_best else f'best: epoch {self._best_epoch}'})"
            )
        told.append(span(perf_counter() - self._epoch_began))
        done = (trainer.current_epoch + 1) * clock.plan.epoch
        if done < (clock.plan.total or math.inf):
            told += self._told_left(trainer, done)
        self._has_estimated = True  # this line's is better
        self._say("  ".join(told))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()
        if not self._best_epoch:
            return
        paths = [Path(one.best_model_path) for one in trainer.checkpoint_callbacks if hasattr(one, "best_model_path")]
        path = next((one for one in paths if one.name == "best.ckpt"), Path())
        here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        where = f": {here}" if path.name else ""
        took = span(self._running.seconds())
        self._say(f"trained in {took}; best {MONITOR} {self._best:.4f} in epoch {self._best_epoch}{where}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_stage("test", trainer.num_test_batches)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._advance(trainer, batch_idx + 1, "test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_stage("prediction", trainer.num_predict_batches)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._advance(trainer, batch_idx + 1, "prediction")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hide()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hide()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._hide()

    @property
    def _running(self) -> Clock:
        assert self._clock is not None  # noqa: S101  # of a training
        return self._clock

    def _begin_stage(self, what: str, batches: Any) -> None:
        self._stage_began, self._stage_batches = perf_counter(), sum(batches) if isinstance(batches, list) else batches
        self._show(what, self._stage_batches)

    def _advance(self, trainer: Trainer, done: int, what: str) -> None:
        """Of an evaluation; one outside training has an estimate of its own."""
        if not self._is_due():
            return
        total = self._stage_batches
        seconds = perf_counter() - self._stage_began
        left = seconds / done * (total - done)
        if trainer.state.fn != "fit" and not self._has_estimated and seconds >= _FIRST_SECONDS:
            self._has_estimated = True
            if _WORTH_TELLING <= left < math.inf:
                self._say(f"{what}: about {span(seconds + left)} for {total} batches")
        self._update(done, f"about {span(left)} left" if math.isfinite(left) else "")

    def _estimate(self, trainer: Trainer, done: int) -> None:
        self._has_estimated = True
        clock, left = self._running, self._time_left(trainer, done)
        if left is None or left < _WORTH_TELLING:
            return
        epochs = math.ceil(((clock.plan.total or 0) - done) / clock.plan.epoch)
        more = "; validation, not timed yet, comes on top" if clock.lacks_validation else ""
        what = f"{epochs} epochs" if epochs > 1 else "the epoch"
        self._say(f"{_bound(trainer)} {span(left)} for {what}, by the first {clock.steps} steps{more}")

    def _told_best(self) -> list[str]:
        return [f"{MONITOR} {self._best:.4f}"] if self._best_epoch else []

    def _told_left(self, trainer: Trainer, done: int) -> list[str]:
        left = self._time_left(trainer, done)
        return [] if left is None else [f"{_bound(trainer)} {span(left)} left"]

    def _time_left(self, trainer: Trainer, done: int) -> float | None:
        left = self._running.left(done)
        timers = [one.time_remaining() for one in _callbacks(trainer) if isinstance(one, Timer)]
        ends = [end for end in [left, *timers] if end is not None]
        return min(ends, default=None)

    def _say(self, text: str) -> None:
        if self._is_enabled:
            where = self._bar.console if self._bar is not None else self._console
            where.print(text, soft_wrap=True)

    def _show(self, what: str, total: float | None) -> None:
        """Only a terminal has a bar."""
        self._hide()
        if not self._is_enabled or not self._console.is_terminal or self._console.is_dumb_terminal:
            return
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
            auto_refresh=False,  # without a thread of its own, a stop can come at any time
            transient=True,
            expand=True,
        )
        finite = total if total is not None and math.isfinite(total) else None
        self._task = self._bar.add_task(what, total=finite, told="")
        self._bar.start()
        self._looked = perf_counter()

    def _hide(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.stop()

    def _is_due(self) -> bool:
        if not self._is_enabled or perf_counter() - self._looked < _REFRESH:
            return False
        self._looked = perf_counter()
        return True

    def _update(self, done: int, told: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, told=told, refresh=True)


def _epoch(trainer: Trainer) -> str:
    last = trainer.max_epochs
    if last is None or last < 0:
        return f"epoch {trainer.current_epoch + 1}"
    return f"epoch {trainer.current_epoch + 1:{len(str(last))}d}/{last}"


def _callbacks(trainer: Trainer) -> list[Any]:
    return trainer.callbacks  # type: ignore[attr-defined,no-any-return]  # Lightning's own attribute


def _bound(trainer: Trainer) -> str:
    """A training that may stop early takes no longer."""
    return "at most" if any(isinstance(one, EarlyStopping) for one in _callbacks(trainer)) else "about"


def _plan(trainer: Trainer) -> Plan:
    epoch = trainer.num_training_batches
    validations = (trainer.val_check_batch or 0) if trainer.enable_validation else 0
    every = int(validations) if math.isfinite(validations) else 0
    ends = [epoch * trainer.max_epochs] if trainer.max_epochs is not None and trainer.max_epochs >= 0 else []
    ends += [trainer.max_steps * trainer.accumulate_grad_batches] if trainer.max_steps >= 0 else []
    total = int(min(ends)) if ends and math.isfinite(min(ends)) else None
    return Plan(int(epoch) if math.isfinite(epoch) else 1, total, every, trainer.check_val_every_n_epoch)
