"""Predictions of a checkpoint, from Python; the command line's are Lightning's, as all of `training`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mlcv.command_line import take
from mlcv.commands.training import main
from mlcv.runs import run_folder
from mlcv.trust import trusting


def predict(
    checkpoint: str | Path,
    images: str | Path | None = None,
    *,
    split: Literal["train", "val", "test"] = "test",
    out: str | Path | None = None,
    calibration: str | Path | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Writes probabilities and labels of images as `mlcv predict` does, going on with what an earlier call has begun.

    Args:
        checkpoint: of `mlcv fit`.
        images: a file or folder; None for the data that it was trained on.
        split: of these data, as an evaluation would see it.
        out: .csv, .jsonl, or .npy (probabilities alone, to learn from); predictions.csv in the run's folder if None.
        calibration: file of `mlcv calibrate`, or `none`; the run's own, if any, if None.
        options: more of `mlcv predict`, such as `["--data.batch_size=8"]`.

    Returns:
        the path of the file; `mlcv.posthoc.read_predictions` reads a CSV.

    Raises:
        UserError: for a checkpoint, calibration or image that cannot be read.
    """
    path = Path(out) if out is not None else run_folder(Path(checkpoint)) / "predictions.csv"
    given: dict[str, Any] = {
        "--ckpt_path": checkpoint,
        "--predictions": path,
        "--data.path": images,
        "--calibration": calibration,
        "--split": split,
    }
    packages, options = take(options, "--trust")
    said = [f"{name}={value}" for name, value in given.items() if value is not None]
    with trusting(packages):
        main(["predict", *said, *options])
    return path
