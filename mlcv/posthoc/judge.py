"""Models judged against a truth, row by row or study by study, with confidence intervals over patients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, known
from mlcv.metrics.bootstrap import Areas, Interval, bootstrap_areas
from mlcv.posthoc.predictions import Predictions
from mlcv.posthoc.studies import aggregate, image_key, study_of
from mlcv.posthoc.truth import Truth

Study = Literal["max", "mean"] | None
AGES = (0, 40, 60, 80)
"""Where age groups begin."""
_FEW = 10
"""Groups, below which intervals by bootstrap are said to be too narrow."""


@dataclass(frozen=True)
class Judged:
    """A model's scores beside the truth.

    Args:
        name: of the model.
        scores: (S, C).
        truth: targets (S, C) and what is known of each row.
        areas: under the curves of each class, with resamples.
    """

    name: str
    scores: Tensor
    truth: Truth
    areas: Areas

    @property
    def resampled(self) -> str:
        """What was drawn for the intervals: `40 groups by 'patient'`."""
        owners, unit = self.truth.owners
        return f"{len(set(owners))} {unit}"

    def intervals(self, resamples: int) -> str:
        """What the intervals of so many resamples are, in words, or why there are none."""
        owners, unit = self.truth.owners
        judged = known(self.truth.targets).any(dim=1).tolist()
        count = len({owner for owner, is_judged in zip(owners, judged, strict=True) if is_judged})
        if count < 2:
            return f"no intervals: all rows with labels are one of {unit}, and a resample of it would be itself"
        few = " (so few that they are too narrow)" if count < _FEW else ""
        return f"95 % intervals of {resamples} resamples of {self.resampled}{few}"


def match(model: Predictions, truth: Truth, study: Study = None) -> tuple[Tensor, Truth]:
    """The scores of each row of the truth, and the truth; by study if asked.

    Args:
        model: of images, or of studies.
        truth: likewise.
        study: None to match rows by their names (a CheXpert path from its patient on; if one file names more folders,
            by the end of the path, where that is clear); else by patient and study, whose score is the largest (`max`)
            or the mean of its images', and whose labels all its rows must agree upon.

    Raises:
        DataError: naming a row of the truth without a prediction, or a study whose rows disagree.
    """
    ids, scores = tuple(map(image_key, model.ids)), model.scores
    if study is not None:
        ids, scores = aggregate(scores, [study_of(name) for name in ids], study)
        truth = truth_of_studies(truth)
    wanted = tuple(map(image_key, truth.ids))
    if not set(wanted) <= set(ids):
        ids, wanted = _endings(ids, wanted)
    place = {name: row for row, name in enumerate(ids)}
    absent = [name for name in wanted if name not in place]
    if absent:
        raise DataError(
            f"{model.name}: {len(absent)} of the {len(truth.ids)} rows of the truth have no prediction, such as "
            f"{absent[0]}. Names must be the same"
            + ("" if study else " (or give --study, if both name studies)")
            + "; take rows that were not to be predicted out of the truth"
        )
    return scores[[place[name] for name in wanted]], truth


def _endings(ids: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both without the folders that only one side names, if what is left tells all rows apart; else as they are."""
    parts = [[name.split("/") for name in names] for names in (ids, wanted)]
    depth = min((len(path) for names in parts for path in names), default=0)
    short = [tuple("/".join(path[-depth:]) for path in names) for names in parts]
    is_clear = all(len(set(names)) == len(names) for names in short) and set(short[1]) <= set(short[0])
    return (short[0], short[1]) if is_clear else (ids, wanted)


def truth_of_studies(truth: Truth) -> Truth:
    """One row a study; its images' labels must agree, as they come from one report."""
    first: dict[str, int] = {}
    for row, name in enumerate(truth.ids):
        start = first.setdefault(study_of(name), row)
        if not torch.equal(truth.targets[row], truth.targets[start]):
            raise DataError(f"the truth of {name} is not that of {truth.ids[start]}, the same study; mend one of them")
    return replace(truth.select(list(first.values())), ids=tuple(first))


def judge(model: Predictions, truth: Truth, study: Study = None, resamples: int = 1000, seed: int = 0) -> Judged:
    """Areas under the curves of each class, with resamples of whole groups, see `Truth`.

    Args:
        model: what is judged.
        truth: against what; see `match`.
        study: see `match`.
        resamples: of the bootstrap.
        seed: of the bootstrap; the same for all models, so that they are compared on the same resamples.
    """
    scores, matched = match(model, truth, study)
    return _judged(model.name, scores, matched, resamples, seed)


def _judged(name: str, scores: Tensor, truth: Truth, resamples: int, seed: int) -> Judged:
    return Judged(name, scores, truth, bootstrap_areas(scores, truth.targets, truth.owners[0], resamples, seed))


def summary(judged: Judged, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class, and one for their mean: AUROC and AUPRC with intervals, positives and negatives."""
    targets = judged.truth.targets
    columns = [c for c in range(len(class_names)) if not judged.areas.value[0, c].isnan()]
    rows = [_row(name, judged.areas, [c], targets[:, c]) for c, name in enumerate(class_names)]
    return [*rows, _row(f"mean of {len(columns)}", judged.areas, columns, targets[:, columns])]


def _row(name: str, areas: Areas, columns: list[int], targets: Tensor) -> dict[str, Any]:
    found: dict[str, Interval] = {kind: areas.interval(k, columns) for k, kind in enumerate(("AUROC", "AUPRC"))}
    counts = {"positives": int((targets == POSITIVE).sum()), "negatives": int((targets == NEGATIVE).sum())}
    return {"class": name, **found, **counts}


def difference(one: Judged, other: Judged) -> Interval:
    """How much larger the first model's mean AUROC is, resample by resample; both of the same seed and rows."""
    columns = [c for c in range(one.scores.shape[1]) if not one.areas.value[0, c].isnan()]
    return Areas(one.areas.value - other.areas.value, one.areas.resampled - other.areas.resampled).interval(0, columns)


def subgroups(truth: Truth, column: str) -> dict[str, list[int]]:
    """Rows by the value of a column; numbers of many values (an age) by decades of life that matter: 0, 40, 60, 80.

    Raises:
        ConfigError: if the truth has no such column.
    """
    if column not in truth.about:
        raise ConfigError(f"--by {column}: the truth has the columns {', '.join(truth.about) or 'none'} besides labels")
    cells = truth.about[column]
    labels = list(cells)
    if len(set(cells)) > len(AGES) and all(cell.replace(".", "", 1).isdecimal() for cell in cells if cell):
        ends = [*(f"{low}-{high - 1}" for low, high in pairwise(AGES)), f"{AGES[-1]}+"]
        labels = [ends[int(np.searchsorted(AGES, float(c), side="right")) - 1] if c else "" for c in cells]
    rows: dict[str, list[int]] = {value: [] for value in sorted(set(labels))}
    for row, value in enumerate(labels):
        rows[value].append(row)
    return {value or "(blank)": members for value, members in rows.items()}


def part(judged: Judged, rows: list[int], resamples: int, seed: int) -> Judged:
    """A model judged on some of its rows."""
    return _judged(judged.name, judged.scores[rows], judged.truth.select(rows), resamples, seed)


def operating_points(decisions: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Sensitivity, specificity and precision of yes-or-no decisions, for each class; NaN where there is none to count.

    Shape:
        decisions bool (S, C), targets (S, C) in {0, 1, -1}; each of the three (C,).
    """
    positive, negative = targets == POSITIVE, targets == NEGATIVE
    hits, alarms = (decisions & positive).sum(dim=0), (decisions & negative).sum(dim=0)
    return {
        "sensitivity": hits / positive.sum(dim=0),  # 0 / 0 is NaN
        "specificity": 1 - alarms / negative.sum(dim=0),
        "precision": hits / (hits + alarms),
    }
