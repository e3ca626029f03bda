"""A config as `fit` reads it, with its data, method and Trainer, and no run of which anything would be written."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer

from mlcv.commands.parser import Parser
from mlcv.commands.training import TrainingCLI
from mlcv.data.base import MultiLabelDataModule
from mlcv.methods.base import MultiLabelModule
from mlcv.shipped_configs import with_files


class UnwrittenCLI(TrainingCLI):
    """Has `model`, `datamodule` and `trainer`."""

    @classmethod
    def of(cls, options: Sequence[str]) -> Any:
        """Parses and builds.

        Args:
            options: as of `mlcv fit`.

        Raises:
            UserError: for a config that cannot be read.
        """
        return cls(
            MultiLabelModule,
            MultiLabelDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            run=False,
            args=with_files(options),
        )

    def before_instantiate_classes(self) -> None:
        """There is no run folder; relative paths are those that `fit` would take."""
        self.find_files(self.config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return super(TrainingCLI, self).instantiate_trainer(**kwargs)
