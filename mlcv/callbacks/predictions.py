"""Writes predictions as they are made, so that a run that is stopped goes on where it was."""

import glob
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from mlcv.callbacks.results import Decide, leaves_out
from mlcv.errors import ConfigError, DataError
from mlcv.files import whole_file
from mlcv.fingerprints import note
from mlcv.posthoc.predictions import Predicted, write_predictions
from mlcv.tables import printable
from mlcv.terminal import console

logger = logging.getLogger(__name__)

_KINDS = (".csv", ".jsonl", ".npy")


class PredictionWriter(Callback):
    """After `predict` there is one file: each image's path or position, the probability of each class, chosen labels.

    Each process appends to a part of its own; the first puts the parts together in the order of the images, none twice.
    Parts of a stopped run are kept if the data has an attribute `done`, of images to leave out. Parts carry the name of
    what made them, so that those of another model, calibration or set of images are left alone; and of each image the
    size and time of its file, so that one that has changed since is predicted again.

    Args:
        path: of the file; JSON lines if it ends with .jsonl; float32 probabilities (N, C) alone if with .npy, a row for
            each image of the split; CSV, in which labels are joined by |, if with .csv.
        decide: what is written and chosen; the model's probabilities, and those above 0.5, if None.
        model: fingerprint of the weights, for the file.
        made_by: fingerprint of all that a prediction depends on beside its image.

    Raises:
        ConfigError: for a path of another ending.
    """

    def __init__(
        self, path: str | Path, decide: Decide | None = None, model: str | None = None, made_by: str = ""
    ) -> None:
        self.path, self.decide = Path(path), decide or _above_half
        if self.path.suffix not in _KINDS:
            raise ConfigError(f"--predictions {path}: the file's name has to end with .csv, .jsonl or .npy")
        self.model, self.made_by = model, made_by
        self._part: TextIO | None = None

    def done(self) -> frozenset[str]:
        """Images that a stopped run has predicted; it is for the data to leave them out."""
        anyones = self.path.parent.glob(f"{glob.escape(self.path.name)}.*.part*")
        others = {path.name for path in anyones} - {path.name for path in self._parts()}
        if others:
            logger.info(
                "%s beside it: of a stopped run of another model, calibration, option or set of images. It is left "
                "alone, and this run starts anew", ", ".join(sorted(others)),
            )  # fmt: skip
        return frozenset(row["image"] for row in self._read_parts() if row["file"] == _version_of(row["image"]))

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
        dataset = datamodule.datasets["predict"]
        probs, chosen = self.decide(outputs["probs"].cpu())
        rows = zip(outputs["index"].tolist(), probs.tolist(), chosen.int().tolist(), strict=True)
        lines = []
        for index, row, labels in rows:
            if index >= 0:  # else of a batch without any readable image
                image = dataset.describe(index)
                content = {"index": index, "image": image, "file": _version_of(image), "probs": row, "chosen": labels}
                lines.append(json.dumps(content) + "\n")
        part: Any = self._part
        try:
            part.write("".join(lines))
            part.flush()
        except OSError as error:
            raise ConfigError(
                f"{part.name} cannot be written ({error.strerror}); what is there is kept: make room and give the same "
                "command again"
            ) from error
        if trainer.received_sigterm:  # which Lightning looks at in all loops but this
            raise SIGTERMException

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._part is not None:
            self._part.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Of an image that has changed since it was predicted, the row of its new content comes last.
        found = sorted(self._read_parts(), key=lambda row: row["file"] == _version_of(row["image"]))
        dataset = datamodule.datasets["predict"]
        left_out = hasattr(datamodule, "done")  # so that the split has only what was left, and positions say nothing
        rows = {row["image"] if left_out else row["index"]: row for row in found}
        every = datamodule.paths if left_out else map(dataset.describe, range(len(dataset)))
        place = {image if left_out else n: (n, image) for n, image in enumerate(every)}
        ordered = [rows[key] for key in place if key in rows]
        unreadable = [image for key, (_, image) in place.items() if key not in rows]
        is_limited = leaves_out(trainer.limit_predict_batches)
        if self.path.suffix == ".npy":
            if unreadable:
                if not left_out:
                    self._remove_parts()
                why = "trainer.limit_predict_batches" if is_limited else "unreadable files"
                raise DataError(
                    f"{self.path} would have a row for each image, and {len(unreadable)} of {len(place)} have none, "
                    f"such as {printable(unreadable[0])} ({why}): choose a .csv, or leave unreadable images out of the "
                    "data with data.check true and data.on_error skip"
                )
            with whole_file(self.path, "wb") as file:
                np.save(file, np.array([row["probs"] for row in ordered], np.float32))
            note(self.path, images=datamodule.predicted_images(), model=str(self.model))
        else:
            names: Any = pl_module.class_names
            written = [Predicted(n, row["image"], row["probs"], row["chosen"]) for n, row in enumerate(ordered)]
            write_predictions(self.path, names, written, self.model)
        self._remove_parts()
        console().print(f"{len(ordered)} predictions: {self.path}", soft_wrap=True)
        if unreadable and is_limited:
            logger.warning("trainer.limit_predict_batches has left out %d images", len(unreadable))
        elif unreadable:
            listed = "".join(f"\n  {printable(image)}" for image in unreadable)
            count = f"{len(unreadable)} image{'s' if len(unreadable) > 1 else ''}"
            raise DataError(f"{count} could not be read, all others are in {self.path}:{listed}")

    def _name(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{self.made_by}.part{rank}")

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.{self.made_by}.part*"))

    def _read_parts(self) -> Iterator[dict[str, Any]]:
        for path in self._parts():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError):  # a torn line
                        continue
                    if isinstance(row, dict) and {"index", "image", "file", "probs", "chosen"} <= set(row):
                        yield row

    def _remove_parts(self) -> None:
        for path in self._parts():
            path.unlink()


def _version_of(image: str) -> list[int] | None:
    """Size and time of a file; None of what is none."""
    try:
        about = os.stat(image)  # noqa: PTH116  # the name may be no path
    except (OSError, ValueError):
        return None
    return [about.st_size, about.st_mtime_ns]


def _above_half(probs: Tensor) -> tuple[Tensor, Tensor]:
    return probs, probs > 0.5
