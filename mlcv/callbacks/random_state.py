"""Makes a resumed run draw the random numbers that the straight one would have drawn."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class KeepRandomState(Callback):
    """Stores torch's random state in checkpoints and restores it when training resumes on one process.

    With several processes, each of which has its own state, a checkpoint of one cannot serve all: nothing is restored.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_state"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("random_state")
        if state is None or trainer.state.fn != "fit" or trainer.world_size > 1:
            return
        torch.set_rng_state(state["cpu"])
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
