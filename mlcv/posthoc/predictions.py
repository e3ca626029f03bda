"""Files of predictions: CSV, a row an image (or study) and a column a class, from this project or any other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mlcv.errors import ConfigError, DataError
from mlcv.tables import Table

ID_COLUMNS = ("image", "Path", "Study", "Image Index")
"""Headers under which a row's name is looked for; else it is in the first column."""


@dataclass(frozen=True)
class Predictions:
    """What one model says.

    Args:
        name: of the model, for tables.
        ids: M names of images or studies.
        scores: float64 (M, C), higher where a class is likelier; most often probabilities.
        class_names: C names.
    """

    name: str
    ids: tuple[str, ...]
    scores: Tensor
    class_names: tuple[str, ...]


def read_predictions(path: Path, class_names: Sequence[str]) -> Predictions:
    """Reads the columns of some classes, wherever they stand; others are passed over.

    Args:
        path: CSV, plain or gzipped, with a header.
        class_names: C headers.

    Raises:
        DataError: naming the file, row and column of what is missing, no finite number, or named twice.
    """
    table = Table(path)
    ids = tuple(table.column(id_column(table)))
    check_unique(table, ids)
    columns = [_numbers(table, name) for name in class_names]
    scores = torch.tensor(columns, dtype=torch.float64).T if columns else torch.zeros(len(ids), 0)
    return Predictions(path.stem, ids, scores.reshape(len(ids), len(columns)), tuple(class_names))


def combine(models: Sequence[Predictions], how: Literal["mean", "rank"] = "mean") -> Predictions:
    """One model from several, which must know the same rows; the order of the first is kept.

    Args:
        models: at least one.
        how: `mean` of scores, for probabilities; or of `rank`s (ties have their mean rank, divided by M), where scales
            differ. Ranks depend on which rows there are.

    Raises:
        ConfigError: if the models are of other rows or classes.
    """
    first = models[0]
    total = torch.zeros_like(first.scores)
    for model in models:
        if model.class_names != first.class_names or set(model.ids) != set(first.ids):
            strange = sorted(set(model.ids) ^ set(first.ids))
            what = f"row {strange[0]} is only in one" if strange else "their classes differ"
            raise ConfigError(f"{first.name} and {model.name} cannot be combined: {what}")
        place = {name: row for row, name in enumerate(model.ids)}
        scores = model.scores[[place[name] for name in first.ids]]
        total += _ranks(scores) if how == "rank" else scores
    return Predictions(f"{how} of {len(models)}", first.ids, total / len(models), first.class_names)


def id_column(table: Table) -> str:
    """The header of the column with the rows' names."""
    return next((name for name in ID_COLUMNS if name in table.names), next(iter(table.names), ""))


def check_unique(table: Table, ids: Sequence[str]) -> None:
    """Raises a DataError that names the row of a name that was there before, or a table without rows."""
    if not ids:
        raise DataError(f"{table.path}: there is no row below the header")
    first: dict[str, int] = {}
    again = next((row for row, name in enumerate(ids) if first.setdefault(name, row) != row), None)
    if again is not None:
        raise DataError(
            f"{table.where(again)}: {ids[again]} is in {table.where(first[ids[again]])} already; drop one of the two"
        )


def _numbers(table: Table, name: str) -> list[float]:
    values = []
    for row, cell in enumerate(table.column(name)):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{table.where(row)}: column {name!r} holds {cell!r}; a finite score is needed")
        values.append(value)
    return values


def _ranks(scores: Tensor) -> Tensor:
    """Ranks of each column's scores in (0, 1], equal ones alike."""
    ordered = scores.T.contiguous().sort(dim=1).values
    queries = scores.T.contiguous()
    below = torch.searchsorted(ordered, queries)
    up_to = torch.searchsorted(ordered, queries, right=True)
    return ((below + up_to + 1) / 2 / max(len(scores), 1)).T
