"""The runs of a study, each in a process of its own: trainings, the choice among them, one test."""

import csv
import json
import logging
import math
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcv.callbacks.patience import MONITOR
from mlcv.commands.begun import files_in
from mlcv.commands.evaluate import main as evaluate
from mlcv.commands.training import TrainingCLI
from mlcv.commands.unwritten import UnwrittenCLI
from mlcv.errors import ConfigError, UserError, find_user_error, one_line
from mlcv.files import read_checkpoint, read_json, write_text
from mlcv.labels.states import evaluable
from mlcv.posthoc.predictions import read_predictions
from mlcv.studies.plan import KL, STORED, Run

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
        planned: what is written about it.
        is_check: only build it, as far as nothing is trained.
    """

    folder: Path
    run: Run
    threads: int
    planned: dict[str, Any] = field(default_factory=dict)
    is_check: bool = False


def planned(folder: Path, run: Run, digests: dict[str, str]) -> dict[str, Any]:
    """What a run is told by: its options, and the content of configs and tables that they name.

    Args:
        folder: of the run.
        run: of a plan.
        digests: by argument, of those that are known already; others are added.
    """
    told = {name: getattr(run, name) for name in ("condition", "method", "seed", "checkpoint", "min_val_positives")}
    study = str(folder).removesuffix(run.place)  # what other runs write there is no setting
    words = sorted({word for arguments in run.arguments for word in arguments if study not in word})
    for word in words:
        if word not in digests:
            digests[word] = files_in([word]).get(word, "")
    files = {word: digests[word] for word in words if digests[word]}
    return {**told, "arguments": list(run.arguments), "then": run.then, "files": files}


def result_of(folder: Path, run: Run, digests: dict[str, str]) -> dict[str, Any] | None:
    """Of a run that is done; None of one that is not; see `planned`.

    Raises:
        ConfigError: if the folder holds a run of other settings.
    """
    if not (folder / PLANNED).is_file():
        return None
    then: Any = read_json(folder / PLANNED, "note of a run")
    if then != json.loads(json.dumps(planned(folder, run, digests))):
        raise ConfigError(
            f"study: {folder} holds a run of other settings: give another --out, or remove that folder to run it anew"
        )
    return read_json(folder / RESULT, "result of a run") if (folder / RESULT).is_file() else None


def work(job: Job) -> None:
    """Does a job; what failed is in the folder's `error.txt`, in a sentence.

    Raises:
        SystemExit: if it failed.
    """
    torch.set_num_threads(job.threads)
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        _check(job.run) if job.is_check else _train(job.folder, job.run, job.planned, job.threads)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is one run's
        write_text(job.folder / FAILED, f"{_said(error)}\n")
        raise SystemExit(2) from None


def _train(folder: Path, run: Run, told: dict[str, Any], threads: int) -> None:
    write_text(folder / PLANNED, json.dumps(told, indent=1) + "\n")
    # With a core for each run, loader processes would only be waited for; what they give is the same.
    alone = threads == 1 and not any(word.startswith("--data.num_workers=") for word in run.arguments[0])
    more = ["--data.num_workers=0"] if alone else []
    tried = [_try(folder / str(number), run, number, more) for number in range(len(run.settings))]
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
    order = ("best", "last") if run.checkpoint == "best" else ("last", "best")
    checkpoints = [path for name in order if (path := kept / "checkpoints" / f"{name}.ckpt").is_file()]
    if not checkpoints:
        raise ConfigError("the training has written no checkpoint to test: leave trainer.enable_checkpointing as it is")
    for number in range(len(tried)):
        if number != chosen:
            shutil.rmtree(folder / str(number))
    TrainingCLI.run(["test", f"--ckpt_path={checkpoints[0]}", "--calibration=none"])
    _link(checkpoints[0], folder / "chosen.ckpt")  # a path that others can name, whatever was chosen
    test: Any = read_json(kept / "test.json", "metrics")
    with (kept / "test_per_class.csv").open(encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    for command, *options in run.then:
        evaluate(options) if command == "evaluate" else TrainingCLI.run([command, *options])
    metrics = dict(test["metrics"])
    if run.reference is not None:
        names = [row["class"] for row in classes]
        metrics[KL] = _divergence(_predictions(Path(run.reference), names), _predictions(folder, names))
    if run.stored is not None:
        metrics[STORED] = _size(Path(run.stored))
    result = {"tried": tried, "chosen": chosen, "classes": classes, "metrics": metrics, "labels": test["labels"]}
    write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")


def _link(path: Path, to: Path) -> None:
    try:
        to.hardlink_to(path)
    except OSError:  # not all file systems have them
        shutil.copyfile(path, to)


def _predictions(folder: Path, names: Sequence[str]) -> Tensor:
    """Probabilities (M, C) of the test images, of a run that is done."""
    path = next(folder.glob("*/test_predictions.csv"))
    return read_predictions(path, names).scores.double()


def _divergence(true: Tensor, said: Tensor) -> float:
    """Mean over images and classes of the Kullback-Leibler divergence of two Bernoulli distributions, in nats.

    Shape:
        true, said (M, C), probabilities.
    """
    true, said = (p.clamp(1e-6, 1 - 1e-6) for p in (true, said))
    return float((true * (true / said).log() + (1 - true) * ((1 - true) / (1 - said)).log()).mean())


def _size(path: Path) -> int:
    """Of a file in bytes; of a checkpoint that of its weights."""
    if path.suffix == ".ckpt":
        return sum(tensor.nbytes for tensor in read_checkpoint(path)["state_dict"].values())
    return path.stat().st_size


def _try(folder: Path, run: Run, number: int, more: Sequence[str]) -> dict[str, Any]:
    """Trains by one of the settings; one that fails, such as too high a rate, loses against those that do not."""
    begun, error = time.perf_counter(), None
    try:
        _Run.run(["fit", *run.arguments[number], *more, *_QUIET, f"--run_dir={folder}"])
    except Exception as failure:  # noqa: BLE001
        error = _said(failure)
    epochs = _validations(folder / "metrics.csv")
    found = {"setting": run.settings[number], "error": error, "seconds": round(time.perf_counter() - begun, 2)}
    if not epochs:
        return {**found, "val": None, "fallen": None}
    value = max(epochs) if run.checkpoint == "best" else _last_validation(folder, run.min_val_positives)
    return {**found, "val": value, "fallen": max(epochs) - epochs[-1]}


def _said(error: Exception) -> str:
    """An error in a sentence; of one that nobody foresaw the log has the rest."""
    said = find_user_error(error)
    if said is None:
        logger.error("failed", exc_info=error)
    return str(said or one_line(error))


def _last_validation(folder: Path, min_positives: int) -> float:
    """Mean AP over the classes with so many positives; of none 0."""
    with (folder / "val_per_class.csv").open(encoding="utf-8", newline="") as file:
        judged = [float(row["AP"]) for row in csv.DictReader(file) if int(row["positives"]) >= min_positives]
    known = [value for value in judged if not math.isnan(value)]
    return statistics.fmean(known) if known else 0.0


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
