"""Predictions and truth that belong together, as every command that judges reads them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mlcv.data.splits import group_keys, told_apart
from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import known
from mlcv.posthoc.columns import check_no_copies, common_classes, read_ids
from mlcv.posthoc.judge import Study, match
from mlcv.posthoc.predictions import Predictions, read_predictions
from mlcv.posthoc.studies import image_key
from mlcv.posthoc.truth import Truth, TruthFile, label_states, read_truth
from mlcv.tables import GROUP, TRUTH, Codes, read_table


def read_all(
    predictions: Sequence[Path], source: TruthFile, study: Study = None
) -> tuple[tuple[str, ...], Truth, list[Predictions]]:
    """Class names, truth and predictions, of files that fit together.

    Args:
        predictions: paths of at least one.
        source: of the truth.
        study: as `mlcv.posthoc.judge.match`, for a check.

    Raises:
        UserError: for files that are missing or malformed, or do not fit together.
    """
    path_of_truth = source.path or predictions[0]
    names = common_classes([path_of_truth, *predictions], source.classes, source.ids)
    truth = _grouped(read_truth(path_of_truth, names, source.codes, source.ids), predictions, source)
    models = [read_predictions(path, names, source.ids) for path in predictions]
    for path, model in zip(predictions, models, strict=True):
        if source.path is None:
            if path != predictions[0]:
                _check_same_images(path, model, truth, source.codes)
        elif source.classes is None:
            scores, matched = match(model, truth, study)
            check_no_copies(scores, matched.targets, names, path)
    return names, truth, models


def _grouped(truth: Truth, predictions: Sequence[Path], source: TruthFile) -> Truth:
    """With whose each row is, by the column that was asked for, or `group` where a file has it."""
    column = source.group or GROUP
    for path in dict.fromkeys([source.path or predictions[0], *predictions]):
        table = read_table(path)
        if column in table.names:
            keys = told_apart(group_keys(table.column(column)))
            ids = read_ids(table, source.ids)
            names = list(map(image_key, ids))
            key_of = dict(zip(names, keys, strict=True))
            groups = [key_of.get(name) for name in (names if ids == truth.ids else map(image_key, truth.ids))]
            if None not in groups:
                return replace(truth, groups=tuple(map(str, groups)), unit=f"groups by {column!r}")
    if source.group:
        raise ConfigError(f"--group {column}: neither truth nor predictions have this column for all rows of the truth")
    return truth


def _check_same_images(path: Path, model: Predictions, truth: Truth, codes: Codes) -> None:
    """Names may be alike where images are not, as positions in data sets are; labels that differ give them away."""
    table = read_table(path)
    if not any(header.startswith(TRUTH) for header in table.names):
        return
    theirs = torch.from_numpy(label_states(table, model.class_names, codes)).long()
    place = {name: row for row, name in enumerate(model.ids)}
    rows = [row for row, name in enumerate(truth.ids) if name in place]
    others = [place[truth.ids[row]] for row in rows]
    one, other = truth.targets[rows], theirs[others]
    differ = (known(one) & known(other) & (one != other)).any(dim=1)
    if differ.any():
        first = others[int(differ.long().argmax())]
        raise DataError(
            f"{table.where(first)}: the labels of {model.ids[first]} are not those of the first file, so these are "
            "other images of the same name, or corrected labels: say which truth counts with --truth"
        )
