"""What models say about images that they have not seen: K trainings, each without one part of the training images."""

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from mlcv.command_line import take
from mlcv.commands.begun import begin
from mlcv.commands.features import features
from mlcv.commands.gallery import laid_over
from mlcv.commands.stages import call, train
from mlcv.commands.unwritten import UnwrittenCLI
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.images import Pixels
from mlcv.data.samples import Collate, LabeledImages, Split
from mlcv.data.splits import groups_of, told_apart
from mlcv.errors import ConfigError, DataError
from mlcv.fingerprints import check_note, note
from mlcv.labels.protocols import Protocol, fingerprint
from mlcv.models.backbones import Backbone
from mlcv.posthoc.predictions import Predicted, Predictions, read_predictions, write_predictions
from mlcv.runs import Run
from mlcv.shipped_configs import with_files
from mlcv.tables import printable

logger = logging.getLogger(__name__)

EDGE = 1e-15
"""Probabilities nearer to 0 or 1 are taken for this, as a file may have rounded them."""
_OURS = ("--run_dir", "--ckpt_path", "--data.fold", "--test_after_fit")
_QUIET = ("--test_after_fit=false", "--trainer.enable_model_summary=false")


@dataclass(frozen=True)
class Unseen:
    """A split, and what models that did not see it say.

    Args:
        split: its name.
        labeled: M images.
        logits: float64 (M, C).
        groups: whose each image is (M,), or None.
        data: that it is of, set up with what the models expect of images.
        models: checkpoints of the folds.
        fold: of each image that of these which did not see it (M,); of other splits the first.
    """

    split: Split
    labeled: LabeledImages
    logits: NDArray[np.float64]
    groups: tuple[str, ...] | None
    data: MultiLabelDataModule
    models: tuple[Path, ...]
    fold: NDArray[np.intp]


class HeatMaps:
    """Heat maps of images by models that did not see them, where their method has any.

    Args:
        unseen: of a split.
    """

    def __init__(self, unseen: Unseen) -> None:
        self.unseen, data = unseen, copy(unseen.data)
        data.features, data.stored = None, None  # images, not what is stored of them
        self.dataset = data._build(unseen.split, unseen.labeled, training=False)
        self.collate = Collate(data.normalize)
        self._method = cache(lambda fold: Run(unseen.models[fold]).method())

    @torch.no_grad()
    def picture(self, row: int, column: int) -> Pixels | None:
        """What the network sees of an image, with the class's map laid over it; None without maps, or an image."""
        sample = self.dataset[row]
        if "error" in sample:
            return None
        image: Pixels = sample["image"]
        method = self._method(int(self.unseen.fold[row])).eval()
        _, maps = method.forward_with_maps(self.collate([sample])["image"])
        if maps is None:
            return None
        rgb = np.repeat(image.reshape(*image.shape[:2], -1), 3 if image.ndim == 2 or image.shape[2] == 1 else 1, axis=2)
        return laid_over(rgb, maps[0, column].float())


def predict_unseen(
    options: Sequence[str], folder: Path, folds: int = 5, full: bool = False, splits: Sequence[Split] = ("train",)
) -> list[Unseen]:
    """Trains a model for each fold; of the images of that fold it is asked, of other splits all models are.

    What is done is not repeated. The folder gets `features` (unless the whole network trains, or the options name
    some), the run of each fold, and for each split `<split>_predictions.csv`.

    Args:
        options: of `mlcv fit`.
        folder: of all files.
        folds: parts of the training images.
        full: train the whole network, not its head on features of a frozen backbone.
        splits: that are asked for.

    Raises:
        UserError: for options that cannot be trained, before anything is.
    """
    if given := [name for name in _OURS if take(options, name)[0]]:
        raise ConfigError(f"audit: it says itself what {', '.join(given)} is; leave that out")
    cli = UnwrittenCLI.of([*options, "--trainer.logger=false", "--trainer.enable_checkpointing=false"])
    data: MultiLabelDataModule = cli.datamodule
    _check(data, cli.model, full, splits)
    labels: dict[Split, LabeledImages] = {split: _labels(data, split) for split in dict.fromkeys(("train", *splits))}
    _check_folds(folder, labels["train"], data, folds)
    options = with_files(list(options))
    if not full and data.features is None:
        reads_patches = getattr(getattr(cli.model, "head", None), "features", "pooled") == "patches"
        stored = folder / "features"
        begin(stored, *options, chosen_by="--out")
        features(options, stored, patches=reads_patches)
        options = [*options, f"--data.features={stored}"]
        data.features = stored
    asked: dict[Split, list[Predictions]] = {split: [] for split in splits}
    models = []
    for number in range(1, folds + 1):
        run = folder / f"fold-{number}"
        logger.info("fold %d of %d", number, folds)
        fold = [f"--data.fold={number}/{folds}", f"--data.seed={data.seed}"]
        last = train(run, [*options, *_QUIET, *fold], "--out")
        models.append(last)
        for split in splits:
            path = run / f"{split}_predictions.csv"
            # Of the training images those of the fold, which validated; other splits are whole.
            which = ["--split=val"] if split == "train" else [f"--split={split}", "--data.fold=null"]
            if not path.is_file():
                try:
                    call("predict", f"--ckpt_path={last}", *which, f"--predictions={path}", "--calibration=none")
                except ConfigError:  # so it ends, too, where images could not be read and all others are predicted
                    if not path.is_file():
                        raise
            asked[split].append(read_predictions(path, data.class_names))
    found = [_together(split, labels[split], asked[split], data, tuple(models)) for split in splits]
    for one in found:
        _write(folder / f"{one.split}_predictions.csv", one)
    return found


def _check(data: MultiLabelDataModule, model: Any, full: bool, splits: Sequence[Split]) -> None:
    if data.protocol != Protocol():
        raise ConfigError("audit: labels are judged as they were given; leave data.protocol out")
    if "val" in splits and data.val_fraction:
        raise ConfigError("audit: with data.val_fraction validation images are training images, and judged with them")
    if full or data.features is not None:
        return
    if not isinstance(getattr(model, "backbone", None), Backbone):
        raise ConfigError(f"audit: {type(model).__name__} has no backbone of which features could be stored; --full")
    if model.hparams.get("weights") is None:
        raise ConfigError(
            "audit: the backbone has random weights, of which features say little: give model.weights (such as "
            "pretrained), or --full, which trains the whole network once a fold"
        )


def _check_folds(folder: Path, train: LabeledImages, data: MultiLabelDataModule, folds: int) -> None:
    """Refuses more folds than there are groups, and models of other labels than there are now."""
    there = len(set(groups_of(train, data.group)))
    if there < folds:
        raise ConfigError(
            f"audit: {there} {data.group or 'image'}(s) cannot be dealt into {folds} folds; fewer --folds"
        )
    facts = {"images": train.fingerprint(), "labels": fingerprint(train.states, train.soft)}
    begun = folder / "fold-1"
    if begun.exists():
        check_note(begun, "--out", "choose another folder", **facts)
    else:
        note(begun, **facts)


def _labels(data: MultiLabelDataModule, split: Split) -> LabeledImages:
    """A split as its annotators left it, with all images that may train."""
    held, data.val_fraction = data.val_fraction, 0.0
    try:
        return data._read(split)
    finally:
        data.val_fraction = held


def _together(
    split: Split,
    labeled: LabeledImages,
    asked: Sequence[Predictions],
    data: MultiLabelDataModule,
    models: tuple[Path, ...],
) -> Unseen:
    """Logits of all images; a mean over models where several were asked."""
    rows = {printable(labeled.name(row)): row for row in range(len(labeled))}
    total, count, fold = np.zeros(labeled.states.shape), np.zeros(len(labeled)), np.zeros(len(labeled), int)
    for number, one in enumerate(asked):
        if gone := [name for name in one.ids if name not in rows]:
            raise DataError(
                f"audit: {printable(gone[0])} was in the {split} split when it was predicted, and is not any more, as "
                f"{len(gone)} images in all: choose another --out"
            )
        at = np.array([rows[name] for name in one.ids], int)
        total[at] += logit(np.clip(one.scores.numpy(), EDGE, 1 - EDGE))
        count[at] += 1
        fold[at] = number if split == "train" else 0
    if not count.any():
        raise DataError(f"audit: no image of the {split} split was predicted")
    if (count == 0).any():
        logger.warning(
            "%d images of the %s split are left out: they could not be read, or are new since it was predicted",
            (count == 0).sum(), split,
        )  # fmt: skip
        labeled = labeled.select(np.flatnonzero(count))
        total, fold, count = total[count > 0], fold[count > 0], count[count > 0]
    groups = None if data.group is None else tuple(told_apart(list(groups_of(labeled, data.group))))
    return Unseen(split, labeled, total / count[:, None], groups, data, models, fold)


def _write(path: Path, unseen: Unseen) -> None:
    """As files of predictions are, with the labels as truth, so that anybody can judge them again."""
    labeled, names = unseen.labeled, unseen.data.class_names
    rows = [
        Predicted(
            row, labeled.name(row), expit(unseen.logits[row]).tolist(), None, labeled.states[row].tolist(),
            None if unseen.groups is None else unseen.groups[row].lstrip("\0"),
        )
        for row in range(len(labeled))
    ]  # fmt: skip
    path.unlink(missing_ok=True)
    write_predictions(path, names, rows, None)
