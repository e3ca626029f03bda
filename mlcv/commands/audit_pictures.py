"""What the page of an audit shows: the entries with their images, and examples of their classes beside them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.audits.instructions import examples_of_class
from mlcv.commands.audit_files import Entries, Part, reasons_of
from mlcv.commands.audit_page import ClassExamples, Entry, Example, thumbnail, write_page
from mlcv.data.images import MAX_MEGAPIXELS, Pixels
from mlcv.errors import DataError
from mlcv.labels.states import POSITIVE

logger = logging.getLogger(__name__)

SIDE, SMALL = 320, 128
"""Of a picture, and of one beside it, in pixels."""
_NEAREST = 3
_BLOCK = 8192
"""Images whose features are compared at once."""


Heat = Callable[[int, int], Pixels | None]
"""The picture of an image with the heat map of a class, by row and column; None if there is none."""


def draw(
    path: Path,
    parts: Sequence[Part],
    entries: Entries,
    features: Sequence[NDArray[Any]],
    heat: Sequence[Heat],
    title: str,
    earlier: Sequence[Mapping[str, str]] = (),
) -> int:
    """Writes the page.

    Args:
        path: of the file.
        parts: that the entries are of.
        entries: in the order in which they are shown.
        features: of each part's images (M, D), by which examples are chosen.
        heat: of each part.
        title: of the page.
        earlier: see `write_page`.

    Returns:
        how many entries have no picture, as no image can be read.
    """
    load = cache(lambda part, row, side: _picture(parts[part], row, side))
    names = [part.names for part in parts]
    # A file of predictions does not say it.
    split_of = {(row["image"], row["class"]): row["split"] for row in earlier}

    def example(part: int, row: int) -> Example | None:
        picture = load(part, row, SMALL)
        return None if picture is None else Example(names[part][row], picture, _labels(parts[part], row))

    units = [_units(one) for one in features]
    shown, words = [], reasons_of(parts, entries)
    for place, (number, row, column) in enumerate(
        zip(entries.part.tolist(), entries.row.tolist(), entries.column.tolist(), strict=True)
    ):
        part = parts[number]
        given = int(part.states[row, column])
        picture = load(number, row, SIDE)
        warm = None if picture is None else heat[number](row, column)
        near = [example(number, other) for other in _nearest(units[number], row)]
        shown.append(
            Entry(
                names[number][row],
                part.class_names[column],
                given,
                1 - given,
                float(part.judgement.wrong[row, column]),
                words[place],
                picture,
                None if warm is None else thumbnail(warm, SIDE),
                _labels(part, row),
                [one for one in near if one is not None],
                part.split or split_of.get((names[number][row], part.class_names[column]), ""),
            )
        )
    largest = int(np.argmax([len(part.names) for part in parts])) if parts else 0
    wanted = {entry.class_name for entry in shown}
    examples = {
        name: _examples(parts[largest], c, features[largest], lambda row: example(largest, row))
        for c, name in enumerate(parts[largest].class_names)
        if name in wanted
    }
    write_page(path, shown, examples, title, earlier=earlier)
    return sum(entry.thumbnail is None for entry in shown)


def _examples(part: Part, c: int, features: NDArray[Any], example: Callable[[int], Example | None]) -> ClassExamples:
    found = examples_of_class(features, part.states[:, c], part.judgement.wrong[:, c])
    kinds = [
        [one for row in rows.tolist() if (one := example(row)) is not None]
        for rows in (found.typical, found.confusing, found.doubtful)
    ]
    return ClassExamples(*kinds)


def _labels(part: Part, row: int) -> tuple[str, ...]:
    return tuple(part.class_names[c] for c in np.flatnonzero(part.states[row] == POSITIVE))


def _picture(part: Part, row: int, side: int) -> bytes | None:
    try:
        pixels = part.items.read(row, side, False, MAX_MEGAPIXELS)
    except DataError as error:
        logger.debug("%s", error)
        return None
    return thumbnail(pixels, side)


def _units(features: NDArray[Any]) -> NDArray[np.float32]:
    found = np.asarray(features, np.float32)
    found = found - found.mean(axis=0)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)


def _nearest(units: NDArray[np.float32], row: int) -> list[int]:
    """Images that look most like one."""
    alike = np.concatenate([units[at : at + _BLOCK] @ units[row] for at in range(0, len(units), _BLOCK)])
    alike[row] = -np.inf
    count = min(_NEAREST, len(units) - 1)
    best = np.argpartition(-alike, count - 1)[:count] if count else np.empty(0, int)
    found: list[int] = best[np.argsort(-alike[best], kind="stable")].tolist()
    return found
