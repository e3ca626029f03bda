"""What a checkpoint was trained on, and how it decides."""

import logging
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import instantiate_module

from mlcv.data.base import MultiLabelDataModule
from mlcv.errors import ConfigError
from mlcv.methods.checkpoints import run_folder
from mlcv.models.backbones import image_statistics
from mlcv.posthoc.calibrated import FILE_NAME, Calibration

logger = logging.getLogger(__name__)


def load_data(config: dict[str, Any]) -> MultiLabelDataModule:
    """The data of a checkpoint's configuration, with what its backbone expects of images.

    Raises:
        ConfigError: if it cannot be built here.
    """
    about = config["data"]
    given = {"_class_path": about["class_path"], **about.get("init_args", {})}
    given.setdefault("statistics", image_statistics(config["model"]))
    try:
        data: MultiLabelDataModule = instantiate_module(MultiLabelDataModule, given)
    except (TypeError, ValueError, ArgumentError) as error:
        raise ConfigError(f"the data of the checkpoint, {about['class_path']}, cannot be built: {error}") from error
    return data


def find_calibration(named: Path | None, checkpoint: Path, class_names: tuple[str, ...]) -> Calibration | None:
    """The one that was named, or that of the checkpoint's run; None if there is none."""
    path = named or run_folder(checkpoint) / FILE_NAME
    if named is None and not path.is_file():
        return None
    calibration = Calibration.load(path, class_names)
    logger.info("calibrated by %s: thresholds for %s", path, calibration.goal)
    return calibration
