"""Writes what a run found out: metrics as JSON, a per-class table as CSV, predictions as CSV; prints the table."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from rich import box
from rich.table import Table
from torch import Tensor

from mlcv.callbacks.resuming import TRAINED_ON, training_facts
from mlcv.files import read_checkpoint, write_table, write_text
from mlcv.fingerprints import weights_fingerprint
from mlcv.metrics.scores import Scores, scores_of_decisions
from mlcv.posthoc.predictions import Predicted, write_predictions
from mlcv.terminal import MOST_ROWS, console, print_table

_HEADLINE = (
    "mAP", "AUROC", "CF1", "OF1", "CF1_tuned", "OF1_tuned", "CF1_top3", "OF1_top3", "GAP@20", "ranking_loss",
    "coverage_error", "LRAP", "ECE", "pointing_game", "CF1_calibrated", "OF1_calibrated", "ECE_calibrated",
)  # fmt: skip
_NAMED = 20
"""Classes that a sentence names."""

Decide = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a model's probabilities (B, C) to those that are written and the labels that are chosen, bool (B, C)."""


class ResultsWriter(Callback):
    """After each evaluation writes `val.json` or `test.json` and `val_per_class.csv` or `test_per_class.csv`.

    `mlcv validate` and `mlcv test` also write `val_predictions.csv` or `test_predictions.csv`: each image, the
    probability of each class, and in columns `truth:<class>` its label, blank where unknown. With a calibration,
    the test's are calibrated probabilities, and there is a column of chosen labels, joined by |.

    Files that an earlier run left in the folder are kept, renamed with a number.

    Args:
        directory: the run's folder.
        decide: a calibration, whose decisions a test judges too: `CF1_calibrated`, `ECE_calibrated` and so on.
        model: fingerprint of the weights, if it is known already; else of the checkpoint that is evaluated.
        calibrated_by: the calibration's file and what it was fitted to, for `test.json`.
        trained_on: what the checkpoint says of its training labels, if it is known already; see `Resuming`.
    """

    def __init__(
        self,
        directory: str | Path,
        decide: Decide | None = None,
        model: str | None = None,
        calibrated_by: str | None = None,
        trained_on: Any = None,
    ) -> None:
        self.trained_on = trained_on
        self.directory, self.decide, self.model, self.calibrated_by = Path(directory), decide, model, calibrated_by
        self._written: set[str] = set()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write("val", trainer, pl_module)
        if trainer.state.fn == "validate":
            self._write_predictions("val", trainer, pl_module)
            self._print(trainer, pl_module, "validation", "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        method: Any = pl_module
        if self.decide is not None and getattr(method, "evaluated", None) is not None:
            probs, chosen = self.decide(method.precise_probabilities(method.evaluated.logits))
            judged = scores_of_decisions(probs, chosen, method.evaluated.targets.cpu().long())
            method.scores.summary.update({f"{name}_calibrated": value for name, value in judged.items()})
        self._write("test", trainer, pl_module)
        self._write_predictions("test", trainer, pl_module, self.decide)
        self._print(trainer, pl_module, "test", "test")

    def _print(self, trainer: Trainer, pl_module: LightningModule, title: str, stage: str) -> None:
        scores = getattr(pl_module, "scores", None)
        if scores is not None and trainer.is_global_zero:
            print_scores(scores, title, self.directory / f"{stage}_per_class.csv")
            console().print(f"results and configuration: {self.directory}", soft_wrap=True)

    def _write(self, stage: str, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = getattr(pl_module, "scores", None)
        skipped = _on_all_processes(getattr(getattr(trainer, "datamodule", None), "skipped", ()))
        if scores is None or not trainer.is_global_zero:
            return
        facts = {
            "metrics": {name: None if math.isnan(value) else value for name, value in scores.summary.items()},
            "not_evaluable": list(scores.excluded),
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "labels": getattr(trainer.datamodule, "label_summary", None) if hasattr(trainer, "datamodule") else None,
            "trained_with_corrections": _corrections_of(trainer, self.trained_on),
            "skipped_images": skipped,
            "calibration": self.calibrated_by if stage == "test" else None,
        }
        limit = getattr(trainer, f"limit_{stage}_batches")
        facts |= {"limited_to_batches": limit} if leaves_out(limit) else {}
        is_first, rows = stage not in self._written, scores.rows()
        self._written.add(stage)
        write_text(self.directory / f"{stage}.json", json.dumps(facts, indent=2) + "\n", keep=is_first)
        header, cells = (list(rows[0]) if rows else []), [list(row.values()) for row in rows]
        write_table(self.directory / f"{stage}_per_class.csv", header, cells, keep=is_first)

    def _write_predictions(
        self, stage: str, trainer: Trainer, pl_module: LightningModule, decide: Decide | None = None
    ) -> None:
        evaluated: Any = getattr(pl_module, "evaluated", None)
        datasets = getattr(getattr(trainer, "datamodule", None), "datasets", {})
        if evaluated is None or stage not in datasets or not trainer.is_global_zero:
            return
        method: Any = pl_module
        probs, choices = method.precise_probabilities(evaluated.logits), None
        if decide is not None:
            probs, chosen = decide(probs)
            choices = chosen.tolist()
        columns = zip(evaluated.index.tolist(), probs.tolist(), evaluated.targets.tolist(), strict=True)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        groups = datasets[stage].labeled.about.get(getattr(datamodule, "group", None))
        rows = [
            Predicted(
                index,
                datasets[stage].describe(index),
                row,
                choices and choices[n],
                truth,
                None if groups is None else str(groups[index]),
            )
            for n, (index, row, truth) in enumerate(columns)
        ]
        write_predictions(
            self.directory / f"{stage}_predictions.csv", method.class_names, rows, self.model or _fingerprint(trainer)
        )


def _corrections_of(trainer: Trainer, trained_on: Any) -> str | None:
    """With which corrected labels the weights were trained; None for none, and of other checkpoints than ours."""
    if not trainer.ckpt_path:
        return training_facts(trainer).get("corrections")
    facts = read_checkpoint(Path(trainer.ckpt_path)).get(TRAINED_ON) if trained_on is None else trained_on
    found = facts.get("corrections") if isinstance(facts, dict) else None
    return found[:40] if isinstance(found, str) else None


def _fingerprint(trainer: Trainer) -> str:
    path = trainer.ckpt_path
    return weights_fingerprint(
        read_checkpoint(Path(path))["state_dict"] if path else trainer.lightning_module.state_dict()
    )


def leaves_out(limit: float) -> bool:
    """Whether a Trainer's limit on batches does: a float is a part of them, a whole number is how many."""
    return not (isinstance(limit, float) and limit == 1)


def _on_all_processes(names: Iterable[str]) -> list[str]:
    """What each process of the run holds, together and sorted."""
    mine = set(names)
    if not torch.distributed.is_initialized():
        return sorted(mine)
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return sorted(set().union(*everyone))


def print_scores(scores: Scores, title: str, everything: str | Path = "the run's folder") -> None:
    """Prints the headline numbers, then the per-class table, the worst by AP first.

    Args:
        scores: what is printed.
        title: above it.
        everything: where all classes are; of more than 30, the worst and the best are printed.
    """
    out = console()
    headline = Table("metric", "value", title=title, box=box.SIMPLE_HEAD, show_edge=False)
    for name in (*_HEADLINE, "mAP_11point"):
        if name in scores.summary:
            headline.add_row(name, _cell(scores.summary[name]))
    judged = len(scores.class_names) - len(scores.excluded)
    headline.add_row("evaluable classes", f"{judged} of {len(scores.class_names)}")
    rows = sorted(scores.rows(), key=lambda row: (math.isnan(float(row["AP"])), row["AP"]))
    if len(rows) > MOST_ROWS:
        rows = rows[: max(judged, 1)]  # what cannot be judged is named below
    cells = [
        [str(row["class"]), *(_cell(row[name]) for name in ("AP", "AUROC", "precision", "recall", "F1"))]
        + [f"{row[name]:d}" for name in ("positives", "negatives", "unknown")]
        for row in rows
    ]
    columns = ["class", "AP", "AUROC", "P", "R", "F1", "pos", "neg", "unk"]
    order = f"per class, lowest AP first; P, R and F1 of probabilities above {scores.threshold:g}"
    out.print(headline)
    print_table(out, columns, cells, order, everything)
    if scores.excluded:
        names = ", ".join(scores.excluded[:_NAMED])
        more = len(scores.excluded) - _NAMED
        names += f" and {more} more" if more > 0 else ""
        out.print(f"in no mean, for want of a known positive or negative: {names}")


def _cell(value: float | str) -> str:
    return "-" if math.isnan(float(value)) else f"{value:.4f}"
