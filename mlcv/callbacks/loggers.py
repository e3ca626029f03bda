"""Where a training's numbers go: one metrics.csv for a run, however often it is resumed, and experiment trackers."""

import csv
import importlib.util
import os
import secrets
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from mlcv.errors import ConfigError
from mlcv.files import keep_earlier, whole_file, write_text
from mlcv.launchers import process_rank

Tracker = Literal["wandb", "mlflow"]


class MetricsFile(CSVLogger):
    """Lightning's, which would delete the file of a run that goes on.

    Args:
        folder: the run's.
        first_step: of a resumed training. Rows from it on are of steps that are done again, and go; those before stay.
            None for a new one: a file that is in its way is kept under another name.
    """

    def __init__(self, folder: Path, first_step: int | None = None) -> None:
        super().__init__(folder, name="", version="")
        if process_rank() == 0:
            self._experiment = _Writer(self.log_dir, first_step)


class _Writer(ExperimentWriter):
    def __init__(self, folder: str, first_step: int | None) -> None:
        super().__init__(folder)
        self._first_step, self._is_open = first_step, False

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes what is there."""

    def save(self) -> None:
        if self.metrics and not self._is_open:  # a training that fails before leaves the file as it was
            self._is_open = True
            self._go_on(Path(self.metrics_file_path))
        super().save()

    def _go_on(self, path: Path) -> None:
        if self._first_step is None:
            keep_earlier(path)
        elif path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if _step(row) < self._first_step]
                self.metrics_keys = list(reader.fieldnames or [])
            with whole_file(path) as file:
                writer = csv.DictWriter(file, self.metrics_keys, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)


def loggers(folder: Path, first_step: int | None, name: Tracker | None, config: dict[str, Any]) -> list[Logger]:
    """A run's own files, and a tracker if one is named; see `MetricsFile` and `tracker`."""
    files: list[Logger] = [MetricsFile(folder, first_step), TensorBoardLogger(folder, name="", version="")]
    return files if name is None else [*files, tracker(name, folder, config)]


def _step(row: dict[str, Any]) -> float:
    """Of a row; one that a kill has cut off is done again."""
    text = str(row.get("step"))
    return int(text) if text.isdecimal() else float("inf")


def tracker(name: Tracker, folder: Path, config: dict[str, Any]) -> Logger:
    """A run at Weights & Biases or MLflow, which goes on if this one does.

    Where that is and whether it is online is said by their own variables: WANDB_MODE=offline, WANDB_PROJECT,
    MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. The project or experiment is else `mlcv`.

    Args:
        name: of the package.
        folder: the run's, where a file keeps the tracker's own name of the run. The last two parts of its path are the
            name that people see.
        config: of the training; a new run shows it.

    Raises:
        ConfigError: if the package is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"logger: the package {name} is not installed: pip install {name}, or leave --logger out")
    note, shown = folder / f"{name}_id", "/".join(folder.resolve().parts[-2:])
    known = note.read_text(encoding="utf-8").strip() if note.is_file() else None
    identity = known
    if name == "wandb":
        identity = known or secrets.token_hex(4)
        project = os.environ.get("WANDB_PROJECT", "mlcv")
        made: Logger = WandbLogger(shown, folder, id=identity, project=project, resume="allow")
    else:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mlcv")
        made = MLFlowLogger(experiment, shown, run_id=known)
        identity = made.run_id
    if known is None and process_rank() == 0:
        made.log_hyperparams(config)
        write_text(note, f"{identity}\n")
    return made
