"""What stands at or above each positive: of the images of a class, or of the classes of an image.

Areas under curves and metrics of a ranking are sums over positives of these counts. One sort finds them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlcv.labels.states import NEGATIVE, POSITIVE

ENTRIES = 2**21
"""Entries that are sorted at once: what is made of them takes some 60 MiB."""


@dataclass(frozen=True)
class AtPositives:
    """Counts at each of P known positives of M rows, in the order of the rows.

    Args:
        row: which row it is of.
        positives: positives of its row with at least its score, itself among them.
        negatives: known negatives of its row with at least its score.
        above: known negatives of its row with more.
        positives_of_rows: (M,).
        negatives_of_rows: (M,).

    Shape:
        (P,), if nothing else is said.
    """

    row: NDArray[np.intp]
    positives: NDArray[np.intp]
    negatives: NDArray[np.intp]
    above: NDArray[np.intp]
    positives_of_rows: NDArray[np.intp]
    negatives_of_rows: NDArray[np.intp]

    @classmethod
    def of(cls, scores: NDArray[Any], targets: NDArray[Any]) -> "AtPositives":
        """Of rows of numbers and their targets in {0, 1}, or negative where unknown: both (M, K), no NaN."""
        rows, length = scores.shape
        order = np.argsort(scores, axis=1)
        ordered, answers = (np.take_along_axis(each, order, axis=1).ravel() for each in (scores, targets))
        is_positive = answers == POSITIVE
        places, row_ends = np.flatnonzero(is_positive), np.arange(1, rows + 1) * length
        row = places // max(length, 1)
        # Equal scores of a row are one step.
        begins_step = np.ones(ordered.size + 1, bool)
        np.not_equal(ordered[1:], ordered[:-1], out=begins_step[1:-1])
        begins_step[: ordered.size : max(length, 1)] = True
        steps = np.flatnonzero(begins_step)
        step = np.searchsorted(steps, places, side="right") - 1
        begin, end = steps[step], steps[step + 1]
        negatives_before = np.zeros(ordered.size + 1, np.int64)
        np.cumsum(answers == NEGATIVE, out=negatives_before[1:])
        last = row_ends[row]
        positives_of_rows = np.bincount(row, minlength=rows)
        return cls(
            row,
            np.cumsum(positives_of_rows)[row] - np.searchsorted(places, begin),
            negatives_before[last] - negatives_before[begin],
            negatives_before[last] - negatives_before[end],
            positives_of_rows,
            np.diff(negatives_before[np.append(0, row_ends)]),
        )

    def sums(self, each: NDArray[Any]) -> NDArray[np.float64]:
        """The sum of a number of each positive over each row: (P,) to (M,)."""
        return np.bincount(self.row, each, len(self.positives_of_rows)).astype(np.float64)

    def average_precision(self) -> NDArray[np.float64]:
        """Mean over a row's positives of the precision at their score; 0 without positives."""
        precision: NDArray[np.float64] = self.sums(self.positives / (self.positives + self.negatives))
        precision /= self.positives_of_rows.clip(1)
        return precision

    def pairs(self) -> NDArray[np.float64]:
        """Pairs of a positive and a negative in each row, 1 where there is none."""
        return (self.positives_of_rows * self.negatives_of_rows).clip(1).astype(np.float64)


def by_images(*arrays: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows of tensors (M, ...) that are small enough to sort; one, if they have none."""
    rows = max(ENTRIES // max(arrays[0].shape[1], 1), 1)
    for start in range(0, max(len(arrays[0]), 1), rows):
        yield tuple(array[start : start + rows] for array in arrays)


def by_classes(scores: Tensor, targets: Tensor) -> Iterator[AtPositives]:
    """Counts of the classes of tensors (M, C), in blocks of classes."""
    for block in by_images(scores.T, targets.T):
        yield AtPositives.of(*(np.ascontiguousarray(each.numpy()) for each in block))
