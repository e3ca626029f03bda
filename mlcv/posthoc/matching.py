"""Predictions and truth that belong together, as every command that judges reads them."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mlcv.data.splits import group_keys, told_apart
from mlcv.errors import ConfigError, DataError
from mlcv.posthoc.columns import check_no_copies, common_classes, read_ids
from mlcv.posthoc.judge import match
from mlcv.posthoc.predictions import Predictions, read_predictions
from mlcv.posthoc.studies import image_key
from mlcv.posthoc.truth import Truth, codes_of, label_states, read_truth
from mlcv.tables import GROUP, TRUTH, Codes, Table


def read_all(options: argparse.Namespace) -> tuple[tuple[str, ...], Truth, list[Predictions]]:
    """Class names, truth and predictions that the options of a command name, as files that fit together.

    Args:
        options: of `mlcv.posthoc.truth.add_truth_options`, and `predictions`, paths; `study`, if the command has it.

    Raises:
        UserError: for files that are missing or malformed, or do not fit together.
    """
    paths: list[Path] = options.predictions
    names = common_classes([options.truth or paths[0], *paths], options.classes, options.id)
    truth = _grouped(read_truth(options.truth or paths[0], names, codes_of(options), options.id), options)
    models = [read_predictions(path, names, options.id) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if options.truth is None:
            _check_same_images(path, model, truth, codes_of(options))
        elif options.classes is None:
            scores, matched = match(model, truth, getattr(options, "study", None))
            check_no_copies(scores, matched.targets, names, path)
    return names, truth, models


def _grouped(truth: Truth, options: argparse.Namespace) -> Truth:
    """With whose each row is, by the column that was asked for, or `group` where a file has it."""
    column = options.group or GROUP
    for path in dict.fromkeys([options.truth or options.predictions[0], *options.predictions]):
        table = Table(path)
        if column in table.names:
            keys = told_apart(group_keys(table.column(column)))
            key_of = dict(zip(map(image_key, read_ids(table, options.id)), keys, strict=True))
            groups = [key_of.get(image_key(name)) for name in truth.ids]
            if None not in groups:
                return replace(truth, groups=tuple(map(str, groups)), unit=f"groups by {column!r}")
    if options.group:
        raise ConfigError(f"--group {column}: neither truth nor predictions have this column for all rows of the truth")
    return truth


def _check_same_images(path: Path, model: Predictions, truth: Truth, codes: Codes) -> None:
    """Names may be alike where images are not, as positions in data sets are; labels that differ give them away."""
    table = Table(path)
    if not any(header.startswith(TRUTH) for header in table.names):
        return
    theirs = torch.from_numpy(label_states(table, model.class_names, codes)).long()
    place = {name: row for row, name in enumerate(model.ids)}
    pairs = [(row, place[name]) for row, name in enumerate(truth.ids) if name in place]
    for row, other in pairs:
        both = (truth.targets[row] >= 0) & (theirs[other] >= 0)
        if not torch.equal(truth.targets[row][both], theirs[other][both]):
            raise DataError(
                f"{table.where(other)}: the labels of {model.ids[other]} are not those of the first file, so these are "
                "other images of the same name, or corrected labels: say which truth counts with --truth"
            )
