"""Files of predictions: CSV, a row an image (or study) and a column a class, from this project or any other.

This project's have a name in `image`, in `group` whose it is where the data say so (a patient), a column of
probabilities for each class, where the truth is known its labels in `truth:<class>`, where something was chosen the
classes in `labels`, joined by |; in `model` the fingerprint of the weights that said so, and in `rows` how many rows
there are, so that a file that was cut off is not taken for whole.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcv.errors import ConfigError, DataError
from mlcv.files import whole_file, write_table
from mlcv.posthoc.columns import class_column, is_ours, read_ids
from mlcv.tables import GROUP, TRUTH, Table, printable, read_table


@dataclass(frozen=True)
class Predictions:
    """What one model says.

    Args:
        name: of the model, for tables.
        ids: M names of images or studies.
        scores: float64 (M, C), higher where a class is likelier; most often probabilities.
        class_names: C names.
        model: fingerprint of the weights; None if the file does not say.
    """

    name: str
    ids: tuple[str, ...]
    scores: Tensor
    class_names: tuple[str, ...]
    model: str | None = None


@dataclass(frozen=True)
class Predicted:
    """One row to write.

    Args:
        index: position of the image in its split.
        image: its name; of one that is no UTF-8, `mlcv.tables.printable` is written.
        probs: C numbers.
        chosen: C decisions; None if there are none.
        truth: C labels in [0, 1], or below 0 where unknown; None if there are none.
        group: whose it is, such as a patient's; None if nobody asks.
    """

    index: int
    image: str
    probs: Sequence[float]
    chosen: Sequence[bool] | None = None
    truth: Sequence[float] | None = None
    group: str | None = None


def write_predictions(path: Path, class_names: Sequence[str], rows: Sequence[Predicted], model: str | None) -> None:
    """Writes a file of predictions, whole or not at all; what is in the way is kept under another name.

    Args:
        path: JSON lines if it ends with .jsonl, else CSV.
        class_names: C names.
        rows: alike in what they hold.
        model: fingerprint of the weights.

    Raises:
        ConfigError: if it cannot be written.
    """
    names = list(class_names)
    if path.suffix == ".jsonl":
        with whole_file(path, keep=True) as file:
            file.writelines(json.dumps(_as_json(row, names, model, len(rows))) + "\n" for row in rows)
        return
    has_truth, has_choice, has_group = (
        bool(rows) and getattr(rows[0], part) is not None for part in ("truth", "chosen", "group")
    )
    header = ["index", "image", *([GROUP] if has_group else []), *names]
    header += [TRUTH + name for name in names] if has_truth else []
    header += ["labels"] if has_choice else []
    write_table(path, [*header, "model", "rows"], _as_cells(rows, names, model), keep=True)


def chosen_names(names: Sequence[str], chosen: Sequence[bool]) -> list[str]:
    """Of the classes that were chosen."""
    return [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]


def _as_cells(rows: Sequence[Predicted], names: list[str], model: str | None) -> Iterator[list[Any]]:
    for row in rows:
        truth = [f"{value:g}" if value >= 0 else "" for value in row.truth or ()]
        labels = [] if row.chosen is None else ["|".join(chosen_names(names, row.chosen))]
        group = [] if row.group is None else [row.group]
        yield [row.index, printable(row.image), *group, *row.probs, *truth, *labels, model or "", len(rows)]


def _as_json(row: Predicted, names: list[str], model: str | None, count: int) -> dict[str, Any]:
    content: dict[str, Any] = {"image": printable(row.image), "probs": dict(zip(names, row.probs, strict=True))}
    if row.group is not None:
        content[GROUP] = row.group
    if row.truth is not None:
        known = zip(names, row.truth, strict=True)
        content["truth"] = {name: value if value >= 0 else None for name, value in known}
    if row.chosen is not None:
        content["labels"] = chosen_names(names, row.chosen)
    return {**content, "model": model, "rows": count}


def read_predictions(path: Path, class_names: Sequence[str], names: str | None = None) -> Predictions:
    """Reads the columns of some classes, wherever they stand; others are passed over.

    Args:
        path: CSV, plain or gzipped, with a header.
        class_names: C headers.
        names: header of the column with the rows' names, if it has one of its own; see `mlcv.posthoc.columns`.

    Raises:
        DataError: naming the file, row and column of what is missing, no finite number, or named twice; or if the file
            was cut off.
    """
    table = read_table(path)
    ids = read_ids(table, names)
    columns = [_numbers(table, class_column(table, name)) for name in class_names]
    scores = torch.from_numpy(np.stack(columns, axis=1) if columns else np.empty((len(ids), 0)))
    models = sorted(table.spelled("model").cells) if is_ours(table) else []
    if len(models) > 1:
        raise DataError(f"{path} holds rows of several models ({', '.join(models[:3])}); make it again with one")
    model = models[0] or None if models else None
    return Predictions(path.stem, ids, scores, tuple(class_names), model)


def apart(names: Sequence[str], paths: Sequence[Path], least: int = 1) -> list[str]:
    """Names of files; with as many of their folders, `least` at least, as tell all apart, where alike or empty."""
    places = [path.resolve().parent.parts for path in paths]
    alike = [not name or names.count(name) > 1 for name in names]
    for depth in range(least, max(map(len, places)) + 1):
        shown = [
            str(Path(*place[-depth:], name)) if same else name
            for name, place, same in zip(names, places, alike, strict=True)
        ]
        if len(set(shown)) == len(shown):
            return shown
    return [
        f"{name} ({number})" if same else name for number, (name, same) in enumerate(zip(names, alike, strict=True), 1)
    ]


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


def _numbers(table: Table, name: str) -> NDArray[np.float64]:
    values = table.numbers(name)
    if values is not None and np.isfinite(values).all():
        return values
    cells = table.column(name)
    row = next(row for row, cell in enumerate(cells) if not _is_score(cell))
    raise DataError(f"{table.where(row)}: column {name!r} holds {cells[row]!r}; a finite score is needed")


def _is_score(cell: str) -> bool:
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def _ranks(scores: Tensor) -> Tensor:
    """Ranks of each column's scores in (0, 1], equal ones alike."""
    ordered = scores.T.contiguous().sort(dim=1).values
    queries = scores.T.contiguous()
    below = torch.searchsorted(ordered, queries)
    up_to = torch.searchsorted(ordered, queries, right=True)
    return ((below + up_to + 1) / 2 / max(len(scores), 1)).T
