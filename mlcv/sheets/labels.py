"""Facts on label states: how many of each, how often, how many an image, which together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mlcv.labels.intervals import wilson
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States, known

_BLOCK = 65536
"""Images whose labels are numbers of four bytes at a time."""
_MOST_ORDERED = 200
"""Classes of which the order is the best that the clustering allows; its time grows with their square and more."""


@dataclass(frozen=True)
class ClassFacts:
    """A class in a split.

    Args:
        name: of the class.
        positive: images that show it.
        negative: images that do not.
        unknown: of which nobody said.
        uncertain: of which somebody said "maybe".
        soft: of the uncertain, those with a probability.
        rate: positives among what is known, in [0, 1]; NaN if nothing is.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    name: str
    positive: int
    negative: int
    unknown: int
    uncertain: int
    soft: int
    rate: float
    low: float
    high: float

    @property
    def known(self) -> int:
        """Images of which somebody said something definite."""
        return self.positive + self.negative

    @property
    def is_judged(self) -> bool:
        """Whether a ranking metric can judge it: some image is known to show it, some other not to."""
        return self.positive > 0 and self.negative > 0


@dataclass(frozen=True)
class LabelFacts:
    """The labels of a split.

    Args:
        images: how many.
        classes: each class's.
        sizes: how many images have 0, 1, 2, ... positive labels.
        combinations: sets of positive labels by name, with their number of images, commonest first.
        sets: how many different ones there are.
        single: of these, how many one image alone has.
    """

    images: int
    classes: list[ClassFacts]
    sizes: list[int]
    combinations: list[tuple[tuple[str, ...], int]]
    sets: int
    single: int

    @property
    def positives_an_image(self) -> float:
        """Mean; NaN without images."""
        return float(np.dot(np.arange(len(self.sizes)), self.sizes)) / self.images if self.images else np.nan

    @property
    def imbalance(self) -> float:
        """Positives of the commonest class over those of the rarest that has any; NaN if none has."""
        counts = [one.positive for one in self.classes if one.positive]
        return max(counts) / min(counts) if counts else np.nan

    @property
    def unjudged(self) -> list[str]:
        """Classes that no metric can judge here."""
        return [one.name for one in self.classes if not one.is_judged]


@dataclass(frozen=True)
class Together:
    """Which classes occur together.

    Args:
        order: of the classes (C,), like beside like: average linkage of 1 - Jaccard.
        both: images that are known to show both (C, C).
        expected: how many it would be if neither told anything of the other, among images of which both are known:
            n_i * n_j / n (C, C); NaN if there are none.
    """

    order: NDArray[np.intp]
    both: NDArray[np.int64]
    expected: NDArray[np.float64]

    @property
    def lift(self) -> NDArray[np.float64]:
        """How many times more often they are seen together than that; NaN where one never occurs, or is the other."""
        with np.errstate(invalid="ignore", divide="ignore"):
            lift = self.both / np.where(self.expected > 0, self.expected, np.nan)
        np.fill_diagonal(lift, np.nan)
        return lift


def label_facts(
    states: States,
    names: Sequence[str],
    soft: NDArray[np.float32] | None = None,
    most: int = 12,
    effects: NDArray[np.float64] | None = None,
) -> LabelFacts:
    """Counts a split's labels.

    Args:
        states: (M, C), see `mlcv.labels`.
        names: C names.
        soft: see `LabeledImages`.
        most: combinations that are named.
        effects: (C,), see `mlcv.sheets.clusters`: by how much less than as many images of different groups they say of
            a rate; None if images are independent.
    """
    counts = {value: np.count_nonzero(states == value, axis=0) for value in (POSITIVE, NEGATIVE, UNKNOWN, UNCERTAIN)}
    total = counts[POSITIVE] + counts[NEGATIVE]
    softs = np.zeros(len(names), np.int64) if soft is None else np.count_nonzero(~np.isnan(soft), axis=0)
    with np.errstate(invalid="ignore"):
        rate = counts[POSITIVE] / total
    low, high = np.where(total > 0, wilson(rate, total if effects is None else total / effects).T, np.nan)
    columns = [*counts.values(), softs, rate, low, high]
    classes = [
        ClassFacts(name, *row) for name, *row in zip(names, *(column.tolist() for column in columns), strict=True)
    ]
    _, first, times = np.unique(_sets(states), return_index=True, return_counts=True)
    order = np.lexsort((first, -times))[:most]
    combinations = [
        (tuple(names[c] for c in np.flatnonzero(states[first[k]] == POSITIVE).tolist()), int(times[k])) for k in order
    ]
    sizes = np.bincount(np.count_nonzero(states == POSITIVE, axis=1)).tolist() if len(states) else []
    return LabelFacts(len(states), classes, sizes, combinations, len(times), int((times == 1).sum()))


def _sets(states: States) -> NDArray[Any]:
    """The positive labels of each image as something that can be sorted (M,)."""
    packed = np.packbits(states == POSITIVE, axis=1)
    packed = np.ascontiguousarray(np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))))
    if packed.shape[1] == 8:  # numbers are sorted ten times as fast as strings of bytes
        return packed.view(np.uint64)[:, 0]
    return packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]


def rows_of_rare_sets(states: States, most: int) -> NDArray[np.intp]:
    """Images of the rarest combinations of at least two positive labels, one of each."""
    chosen = np.flatnonzero(np.count_nonzero(states == POSITIVE, axis=1) >= 2)
    _, first, times = np.unique(_sets(states[chosen]), return_index=True, return_counts=True)
    rows: NDArray[np.intp] = chosen[first[np.lexsort((first, times))[:most]]]
    return rows


def together(states: States) -> Together:
    """Which classes occur together in these images (M, C)."""
    count = states.shape[1]
    both, known_both, by_known = (np.zeros((count, count)) for _ in range(3))
    for start in range(0, len(states), _BLOCK):
        block = states[start : start + _BLOCK]
        positive, is_known = (block == POSITIVE).astype(np.float32), known(block).astype(np.float32)
        both += positive.T @ positive
        known_both += is_known.T @ is_known
        by_known += positive.T @ is_known  # positives of the row's class, where the column's is known
    occurs = np.diag(both)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = by_known * by_known.T / known_both
        alike = both / (by_known + by_known.T - both)
    distance = 1 - np.nan_to_num(alike)
    np.fill_diagonal(distance, 0)
    order = np.arange(count)
    if count > 2:
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=count <= _MOST_ORDERED)
        order = leaves_list(tree).astype(np.intp)
    order = np.concatenate([order[occurs[order] > 0], order[occurs[order] == 0]])
    return Together(order, both.astype(np.int64), expected)
