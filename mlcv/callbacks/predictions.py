"""Writes predictions as they are made, so that a run that is stopped goes on where it was."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from mlcv.callbacks.results import Decide, chosen_names, keep_earlier
from mlcv.errors import ConfigError, DataError


class PredictionWriter(Callback):
    """After `predict` there is one file: each image's path or position, the probability of each class, chosen labels.

    Each process appends to a part of its own; the first puts the parts together in the order of the images, none twice.
    Parts of a stopped run are kept if the data has an attribute `done`, of images to leave out.

    Args:
        path: of the file; JSON lines if it ends with .jsonl, else CSV, in which labels are joined by |.
        decide: what is written and chosen; the model's probabilities, and those above 0.5, if None.
    """

    def __init__(self, path: str | Path, decide: Decide | None = None) -> None:
        self.path, self.decide = Path(path), decide or _above_half
        self._part: TextIO | None = None

    def done(self) -> frozenset[str]:
        """Images that a stopped run has predicted; it is for the data to leave them out."""
        return frozenset(row["image"] for row in self._read_parts())

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(data, "done"):  # it starts anew, so nothing of an earlier run may stay
            if trainer.is_global_zero:
                self._remove_parts()
            trainer.strategy.barrier()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            path = self._name(trainer.global_rank)
            is_torn = path.is_file() and not path.read_bytes().endswith(b"\n")  # the last line of a run that was killed
            self._part = path.open("a", encoding="utf-8")
            self._part.write("\n" if is_torn else "")
        except OSError as error:
            raise ConfigError(f"predictions cannot be written to {self.path} ({error.strerror})") from error

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by every run with data
        dataset = datamodule.datasets["test"]
        probs, chosen = self.decide(outputs["probs"].cpu())
        lines = [
            json.dumps({"index": index, "image": dataset.describe(index), "probs": row, "chosen": labels}) + "\n"
            for index, row, labels in zip(outputs["index"].tolist(), probs.tolist(), chosen.int().tolist(), strict=True)
            if index >= 0  # a batch without any readable image
        ]
        part: Any = self._part
        try:
            part.write("".join(lines))
            part.flush()
        except OSError as error:
            raise ConfigError(
                f"{part.name} cannot be written ({error.strerror}); what is there is kept: make room and give the same "
                "command again"
            ) from error

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._part is not None:
            self._part.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = {row["image"]: row for row in self._read_parts()}
        place = {image: n for n, image in enumerate(getattr(datamodule, "paths", ()))}
        ordered = sorted(rows.values(), key=lambda row: place.get(row["image"], row["index"]))
        names: Any = pl_module.class_names
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            if self.path.suffix == ".jsonl":
                file.writelines(json.dumps(line) + "\n" for line in _as_json(ordered, names))
            else:
                writer = csv.writer(file)
                writer.writerow(["index", "image", *names, "labels"])
                writer.writerows(_as_cells(ordered, names))
        keep_earlier(self.path)
        unfinished.replace(self.path)
        self._remove_parts()
        Console().print(f"{len(ordered)} predictions: {self.path}", soft_wrap=True, highlight=False)
        unreadable = [image for image in place if image not in rows]
        if unreadable:
            listed = "".join(f"\n  {image}" for image in unreadable)
            raise DataError(f"{len(unreadable)} images could not be read, all others are in {self.path}:{listed}")

    def _name(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{rank}")

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}.part*"))

    def _read_parts(self) -> Iterator[dict[str, Any]]:
        for path in self._parts():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # a torn line
                    continue
                if isinstance(row, dict):
                    yield row

    def _remove_parts(self) -> None:
        for path in self._parts():
            path.unlink()


def _above_half(probs: Tensor) -> tuple[Tensor, Tensor]:
    return probs, probs > 0.5


def _as_cells(rows: list[dict[str, Any]], names: Sequence[str]) -> Iterator[list[Any]]:
    for number, row in enumerate(rows):
        yield [number, row["image"], *row["probs"], "|".join(chosen_names(names, row["chosen"]))]


def _as_json(rows: list[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "image": row["image"],
            "labels": chosen_names(names, row["chosen"]),
            "probs": dict(zip(names, row["probs"], strict=True)),
        }
