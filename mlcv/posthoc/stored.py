"""The calibration of a checkpoint's run."""

import logging
from pathlib import Path

from mlcv.errors import ConfigError
from mlcv.posthoc.calibrated import FILE_NAME, Calibration
from mlcv.runs import run_folder

logger = logging.getLogger(__name__)


def find_calibration(
    named: str | None, checkpoint: Path, class_names: tuple[str, ...], model: str | None
) -> Calibration | None:
    """The one that was named, or that of the checkpoint's run; None if there is none, or `none` was named.

    Args:
        named: path of a file, or `none`.
        checkpoint: whose decisions are asked for.
        class_names: C names.
        model: fingerprint of the checkpoint's weights.

    Raises:
        ConfigError: for a file that cannot be read, is of other classes, or was made of another model's predictions.
    """
    path = Path(named) if named is not None else run_folder(checkpoint) / FILE_NAME
    if named == "none" or (named is None and not path.is_file()):
        return None
    calibration = Calibration.load(path, class_names)
    if calibration.model not in (None, model):
        raise ConfigError(
            f"{path} was made of the predictions of another model ({calibration.model}; {checkpoint} is {model}). Make "
            f"it again (mlcv validate --ckpt_path {checkpoint}, then mlcv calibrate), or go without: --calibration none"
        )
    logger.info("calibrated by %s: thresholds for %s", path, calibration.goal)
    return calibration
