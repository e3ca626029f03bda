"""The runs of a study, each in a process of its own: trainings, the choice among them, one test."""

import csv
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlcv.callbacks.patience import MONITOR
from mlcv.commands.training import TrainingCLI
from mlcv.commands.unwritten import UnwrittenCLI
from mlcv.errors import ConfigError, UserError, find_user_error, one_line
from mlcv.files import read_json, write_text
from mlcv.labels.states import evaluable
from mlcv.studies.plan import Run

logger = logging.getLogger(__name__)


class _Run(TrainingCLI):
    """Is repeated whole if it is stopped."""

    resumable = False


RESULT, PLANNED, FAILED = "result.json", "run.json", "error.txt"
_QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--test_after_fit=false")


@dataclass(frozen=True)
class Job:
    """What a process is to do.

    Args:
        folder: of the run.
        run: of a plan.
        threads: of PyTorch.
        is_check: only build it, as far as nothing is trained.
    """

    folder: Path
    run: Run
    threads: int
    is_check: bool = False


def planned(run: Run) -> dict[str, Any]:
    """What a run is told by, in its folder."""
    about = {"condition": run.condition, "method": run.method, "seed": run.seed, "configs": run.content}
    return {**about, "arguments": list(run.arguments)}


def result_of(folder: Path, run: Run) -> dict[str, Any] | None:
    """Of a run that is done; None of one that is not.

    Raises:
        ConfigError: if the folder holds a run of other settings.
    """
    if not (folder / PLANNED).is_file():
        return None
    then: Any = read_json(folder / PLANNED, "note of a run")
    now = json.loads(json.dumps(planned(run)))
    if then != {key: value for key, value in now.items() if key in then or key != "configs"}:  # older ones have none
        raise ConfigError(
            f"study: {folder} holds a run of other settings{_of_config(then, now)}: give another --out, or remove that "
            "folder to run it anew"
        )
    return read_json(folder / RESULT, "result of a run") if (folder / RESULT).is_file() else None


def _of_config(then: Any, now: Any) -> str:
    same = isinstance(then, dict) and then.get("arguments") == now["arguments"]
    return ", as a config has changed since" if same else ""


def work(job: Job) -> None:
    """Does a job; what failed is in the folder's `error.txt`, in a sentence.

    Raises:
        SystemExit: if it failed.
    """
    torch.set_num_threads(job.threads)
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        _check(job.run) if job.is_check else _train(job.folder, job.run)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is one run's
        write_text(job.folder / FAILED, f"{_said(error)}\n")
        raise SystemExit(2) from None


def _train(folder: Path, run: Run) -> None:
    write_text(folder / PLANNED, json.dumps(planned(run), indent=1) + "\n")
    tried = [_try(folder / str(number), run, number) for number in range(len(run.settings))]
    good = [number for number, one in enumerate(tried) if one["error"] is None]
    if not good:
        raise ConfigError(tried[0]["error"])
    if len(tried) > 1 and any(tried[number]["val"] is None for number in good):
        raise ConfigError(
            f"no epoch has written {MONITOR} into metrics.csv, by which a setting is chosen: leave trainer.logger and "
            "how often is validated as they are, or give the study tune: {}"
        )
    chosen = max(good, key=lambda number: float(tried[number]["val"] or 0.0))
    kept = folder / str(chosen)
    checkpoints = [path for name in ("best", "last") if (path := kept / "checkpoints" / f"{name}.ckpt").is_file()]
    if not checkpoints:
        raise ConfigError("the training has written no checkpoint to test: leave trainer.enable_checkpointing as it is")
    for number in range(len(tried)):
        if number != chosen:
            shutil.rmtree(folder / str(number))
    TrainingCLI.run(["test", f"--ckpt_path={checkpoints[0]}", "--calibration=none"])
    _link(checkpoints[0], folder / "best.ckpt")  # a path that others can name, whatever was chosen
    test: Any = read_json(kept / "test.json", "metrics")
    with (kept / "test_per_class.csv").open(encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    of_test = {"classes": classes, **{key: test[key] for key in ("metrics", "labels")}}
    result = {"tried": tried, "chosen": chosen, **of_test}
    write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # not all file systems have them
        shutil.copyfile(path, to)


def _try(folder: Path, run: Run, number: int) -> dict[str, Any]:
    """Trains by one of the settings; one that fails, such as too high a rate, loses against those that do not."""
    begun, error = time.perf_counter(), None
    try:
        _Run.run(["fit", *run.arguments[number], *_QUIET, f"--run_dir={folder}"])
    except Exception as failure:  # noqa: BLE001
        error = _said(failure)
    scores = _validations(folder / "metrics.csv")
    best, last = (max(scores), scores[-1]) if scores else (None, None)
    seconds = round(time.perf_counter() - begun, 2)
    return {"setting": run.settings[number], "val": best, "val_last": last, "seconds": seconds, "error": error}


def _said(error: Exception) -> str:
    """An error in a sentence; of one that nobody foresaw the log has the rest."""
    said = find_user_error(error)
    if said is None:
        logger.error("failed", exc_info=error)
    return str(said or one_line(error))


def _validations(path: Path) -> list[float]:
    """The judged metric after each epoch."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        cells = [row.get(MONITOR) for row in csv.DictReader(file)]
    return [float(cell) for cell in cells if cell]


def _check(run: Run) -> None:
    cli = UnwrittenCLI.of([*run.arguments[0], "--trainer.logger=false", "--trainer.enable_checkpointing=false"])
    data = cli.datamodule
    data.setup("fit")
    if data.stored is not None:
        cli.model.check_stored(data.stored)
    if getattr(cli.model, "prior_bias", False):
        cli.model.class_bias()
    judged = evaluable(data.datasets["val"].targets)
    if judged.sum() * 2 < len(judged):
        absent = [name for name, is_judged in zip(data.class_names, judged.tolist(), strict=True) if not is_judged]
        raise ConfigError(
            "the validation split, by which settings are chosen, has a positive and a negative of "
            f"{int(judged.sum())} of {len(judged)} classes (not of {', '.join(absent[:3])}, ...): give it more "
            "images, such as by data.val_fraction"
        )


def why_failed(folder: Path) -> str:
    """In one line; empty if it did not."""
    path = folder / FAILED
    return " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else ""


def check_error(jobs: Sequence[Job]) -> UserError | None:
    """What is wrong with the first that cannot be built."""
    for job in jobs:
        if said := why_failed(job.folder):
            return ConfigError(f"{job.run.method}, {job.run.condition}: {said}")
    return None
