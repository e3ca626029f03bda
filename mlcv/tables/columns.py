"""Columns of a table, as those who ask for them need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spelled:
    """A column by its distinct cells, which are few where there are many rows.

    Args:
        cells: K distinct cells, in any order.
        codes: the place among them of each row's cell (M,).
    """

    cells: list[str]
    codes: NDArray[Any]

    @cached_property
    def first(self) -> NDArray[np.intp]:
        """The row in which each cell first comes (K,)."""
        first = np.zeros(len(self.cells), np.intp)
        first[self.codes[::-1]] = np.arange(len(self.codes))[::-1]  # of several for one place the last one stays
        return first

    def texts(self) -> list[str]:
        """Each row's cell."""
        texts: list[str] = np.array(self.cells, object)[self.codes].tolist()
        return texts

    def array(self) -> NDArray[np.str_]:
        """Likewise (M,)."""
        array: NDArray[np.str_] = np.array(self.cells, np.str_)[self.codes]
        return array

    def counts(self) -> dict[str, int]:
        """In how many rows each cell is, the one that comes first in the table first."""
        counts = np.bincount(self.codes, minlength=len(self.cells))
        return {self.cells[place]: int(counts[place]) for place in np.argsort(self.first)}


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
    return Spelled(list(place), np.fromiter(map(place.__getitem__, cells), np.intp, len(cells)))


def read_numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """See `Columns.numbers`."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    return None if "_" in "".join(cells) else values  # which Python takes for a comma of thousands
