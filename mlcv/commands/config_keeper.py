"""The configuration of a run, in its folder and in its checkpoints."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from mlcv.files import write_text
from mlcv.runs import CONFIG_KEY, FOLDER_KEY, GREY_KEY

_OF_THE_COMMAND = (
    "run_dir", "untrained", "predictions", "split", "calibration", "ckpt_path", "start_from", "more_epochs"
)  # fmt: skip
"""Options that belong to one command, not to what it trains."""


class ConfigKeeper(SaveConfigCallback):
    """Writes the full configuration to the run's folder, and into every checkpoint."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        path = Path(trainer.default_root_dir) / "config.yaml"
        write_text(path, self._text(), keep=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self._text()
        checkpoint[FOLDER_KEY] = str(Path.cwd())
        checkpoint[GREY_KEY] = bool(getattr(getattr(trainer, "datamodule", None), "grey", False))

    def _text(self) -> str:
        config = self.config.clone()
        for name in _OF_THE_COMMAND:
            config.pop(name, None)
        config.trainer.pop("default_root_dir", None)
        text: str = self.parser.dump(config, skip_none=False, skip_validation=True)
        return text
