"""Columns of a table, as those who ask for them need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spelled:
    """A column by its distinct cells, which are few where there are many rows.

    Args:
        cells: K distinct cells, in the order in which they first come.
        codes: the place among them of each row's cell (M,).
        first: the row in which each first comes (K,).
    """

    cells: list[str]
    codes: NDArray[np.int32]
    first: NDArray[np.intp]

    def texts(self) -> list[str]:
        """Each row's cell."""
        return [self.cells[code] for code in self.codes.tolist()]

    def counts(self) -> NDArray[np.intp]:
        """The rows in which each cell comes (K,)."""
        return np.bincount(self.codes, minlength=len(self.cells))


class Columns(Protocol):
    """The cells below a header, by the place of their column."""

    def texts(self, place: int) -> Sequence[str]:
        """As they are, from top to bottom."""

    def spelled(self, place: int) -> Spelled:
        """By what is distinct."""

    def numbers(self, place: int) -> NDArray[np.float64] | None:
        """As Python reads numbers, but for `1_000`; None if a cell is none."""


@dataclass(frozen=True)
class Listed:
    """Columns as texts."""

    columns: Sequence[Sequence[str]]

    def texts(self, place: int) -> Sequence[str]:
        return self.columns[place]

    def spelled(self, place: int) -> Spelled:
        return spell(self.columns[place])

    def numbers(self, place: int) -> NDArray[np.float64] | None:
        return read_numbers(self.columns[place])


def spell(cells: Sequence[str]) -> Spelled:
    """Cells by what is distinct."""
    place = dict(zip(dict.fromkeys(cells), count(), strict=False))
    codes = np.fromiter(map(place.__getitem__, cells), np.int32, len(cells))
    return Spelled(list(place), codes, first_rows(codes, len(place)))


def first_rows(codes: NDArray[np.int32], count: int) -> NDArray[np.intp]:
    """The first row of each code below `count`; M if it does not occur."""
    first = np.full(count, len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of several values for one place the last one stays
    return first


def read_numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """See `Columns.numbers`."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    return None if "_" in "".join(cells) else values  # which Python takes for a comma of thousands
