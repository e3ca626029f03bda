"""Ends a training that has stopped getting better."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from mlcv.errors import ConfigError

MONITOR = "val/mAP"
"""What is best by it is `best.ckpt`; the more, the better."""

logger = logging.getLogger(__name__)


class Patience(EarlyStopping):
    """Lightning's early stopping by what `best.ckpt` is chosen by, which says why it stopped, and what was best.

    Args:
        validations: in a row without a new best, after which training stops; at least 1.
    """

    def __init__(self, validations: int) -> None:
        if validations < 1:
            raise ConfigError(f"patience is at least 1, got {validations}; leave it out to train all epochs")
        # After a validation alone: an epoch without one judges nothing. Without evaluable classes, mAP is no number.
        super().__init__(MONITOR, patience=validations, mode="max", check_finite=False, check_on_train_epoch_end=False)
        self.validations, self.best_epoch = validations, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            raise ConfigError("patience needs validation: set trainer.limit_val_batches above 0, or leave patience out")
        if self.wait_count >= self.patience:  # it had stopped already
            trainer.should_stop = True
            self._say("training had stopped")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        had_stopped = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if not self.wait_count:
            self.best_epoch = trainer.current_epoch + 1
        if trainer.should_stop and not had_stopped:
            self._say(f"training stops after epoch {trainer.current_epoch + 1}")

    def _say(self, what: str) -> None:
        logger.info(
            "%s: %s has not risen in %d validations (patience %d); best: %.4f in epoch %d",
            what, MONITOR, self.wait_count, self.patience, float(self.best_score), self.best_epoch,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_epoch = state_dict["best_epoch"]
        self.patience = self.validations  # more of it is a reason to resume
