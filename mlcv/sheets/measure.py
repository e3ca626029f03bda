"""All that a data sheet says, in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, States, known
from mlcv.sheets.clusters import design_effects, numbered
from mlcv.sheets.collection import Collection, Shared
from mlcv.sheets.drift import Area, Gap, Shift, area, rates_apart, values_apart
from mlcv.sheets.labels import LabelFacts, Together, label_facts, together
from mlcv.sheets.looks import look_at_all
from mlcv.sheets.near import GREY, PHOTOGRAPHS, Pair, near_pairs

_MOSTLY = 0.9
"""From this part on of grey images, they are compared as radiographs are."""
LEAST = 20
"""Known labels that a value of a column has at least where one asks whether a label follows it."""

Parts = Mapping[str, NDArray[np.intp]]


@dataclass(frozen=True)
class Compared:
    """Parts of the images beside each other.

    Args:
        what: they are, such as `split`, or the name of a column.
        parts: positions of the images of each.
        gaps: of label rates.
        shifts: by quantity.
    """

    what: str
    parts: Parts
    gaps: list[Gap]
    shifts: dict[str, list[Shift]]

    def names(self, one: Gap | Shift) -> tuple[str, str]:
        """Of the two parts."""
        names = list(self.parts)
        return names[one.parts[0]], names[one.parts[1]]


@dataclass(frozen=True)
class Facts:
    """What is known of a data set.

    Args:
        labels: of each split.
        together: which classes occur together, in all splits.
        shared: groups in two splits.
        compared: splits, and the values of a column.
        looks: (M,) of `LOOK`; None if no image was opened.
        errors: what is wrong with each image that cannot be read.
        is_grey: whether images are compared as radiographs are.
        pairs: copies.
        areas: for each quantity, how well it tells whether each class's label is there.
    """

    labels: dict[str, LabelFacts]
    together: Together
    shared: list[Shared]
    compared: list[Compared]
    looks: NDArray[Any] | None = None
    errors: dict[int, DataError] = field(default_factory=dict)
    is_grey: bool = False
    pairs: list[Pair] = field(default_factory=list)
    areas: dict[str, list[Area]] = field(default_factory=dict)


def measure(
    collection: Collection,
    by: str | None,
    images: bool,
    max_megapixels: float,
    threads: int,
    cache: Path | None,
    features: NDArray[Any] | None = None,
) -> Facts:
    """Measures all of it.

    Args:
        collection: of the images.
        by: column whose values are compared, too.
        images: whether they are opened.
        max_megapixels: see `mlcv.data.images.read_image`.
        threads: at work at the same time.
        cache: see `look_at_all`.
        features: see `near_pairs`.
    """
    names, states = collection.names, collection.states
    groups = numbered(collection.groups)
    labels = {
        name: label_facts(
            one.states, names, one.soft, effects=design_effects(list(states.T), groups, [rows], _label)[0]
        )
        for (name, one), rows in zip(collection.splits.items(), collection.parts().values(), strict=True)
    }
    looks, is_grey = None, False
    errors: dict[int, DataError] = {}
    pairs: list[Pair] = []
    if images:
        looks, errors = look_at_all(collection.items, max_megapixels, threads, cache)
        good = looks["good"]
        is_grey = bool(good.any()) and float(looks["grey"][good].mean()) >= _MOSTLY
        gate = GREY if is_grey else PHOTOGRAPHS
        pairs = near_pairs(collection.items, looks, gate, max_megapixels, threads, features)
        if is_grey:  # of one person all radiographs are alike
            whose = collection.groups
            pairs = [pair for pair in pairs if pair.is_exact or whose[pair.one] != whose[pair.other]]
    measured = {} if looks is None else quantities(looks)
    compared = [_compared("split", collection.parts(), states, measured, groups)]
    if by is not None:
        compared.append(_compared(by, collection.parts(by), states, measured, groups))
    areas = _areas(measured, states, compared[1] if by is not None else None, groups)
    return Facts(labels, together(states), collection.shared_groups(), compared, looks, errors, is_grey, pairs, areas)


def quantities(looks: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """What images are compared by; NaN of those that cannot be read."""
    height, width = looks["height"].astype(np.float64), looks["width"].astype(np.float64)
    found = {
        "brightness": looks["mean"], "contrast": looks["high"] - looks["low"], "sharpness": looks["sharp"],
        "border": looks["border"], "megapixels": height * width / 1e6, "width / height": width / np.maximum(height, 1),
    }  # fmt: skip
    return {name: np.where(looks["good"], values, np.nan).astype(np.float64) for name, values in found.items()}


def _label(states: States) -> NDArray[np.float64]:
    """1, 0 and NaN: present, absent, not known."""
    return np.where(known(states), states == POSITIVE, np.nan)


def _compared(
    what: str,
    parts: Parts,
    states: States,
    measured: dict[str, NDArray[np.float64]],
    groups: NDArray[np.intp] | None,
) -> Compared:
    counts = [
        [np.count_nonzero(mask, axis=0) for mask in (states[rows] == POSITIVE, known(states[rows]))]
        for rows in parts.values()
    ]
    positive, total = (np.array([pair[n] for pair in counts], np.int64) for n in (0, 1))
    there = {
        name: [values[rows][~np.isnan(values[rows])] for rows in parts.values()] for name, values in measured.items()
    }
    rows = list(parts.values())
    of_rates = design_effects(list(states.T), groups, rows, _label)
    of_values = design_effects(list(measured.values()), groups, rows, _ranks)
    shifts = values_apart(there, dict(zip(measured, of_values.T, strict=True)))
    return Compared(what, parts, rates_apart(positive, total, of_rates), shifts)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there is no value."""
    return np.asarray(rankdata(values, nan_policy="omit"), np.float64)


def _areas(
    measured: dict[str, NDArray[np.float64]], states: States, by: Compared | None, groups: NDArray[np.intp] | None
) -> dict[str, list[Area]]:
    """Of a column the scores are its values' own rates, so that few images a value would follow by chance."""
    count = states.shape[1]
    tests = count * (len(measured) + (by is not None))
    positive, negative = states == POSITIVE, states == NEGATIVE
    found = {}
    for name, values in measured.items():
        there = ~np.isnan(values)
        if there.any() and np.ptp(values[there]) > 0:
            found[name] = [
                area(values, positive[:, c] & there, negative[:, c] & there, tests, groups) for c in range(count)
            ]
    if by is not None and len(by.parts) > 1:
        rates = np.full(states.shape, np.nan)
        for rows in by.parts.values():
            hits, total = positive[rows].sum(axis=0), known(states[rows]).sum(axis=0)
            rates[rows] = np.where(total >= LEAST, hits / np.maximum(total, 1), np.nan)
        found[by.what] = [
            area(rates[:, c], positive[:, c] & (there := ~np.isnan(rates[:, c])), negative[:, c] & there, tests, groups)
            for c in range(count)
        ]
    return found
