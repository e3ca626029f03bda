"""Columns that polars reads, of plain tables; to be imported where there is one, for it takes a tenth of a second."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mlcv.tables.columns import Spelled, first_rows, read_numbers, spell

Kind = Literal["text", "words", "number"]
_TYPES = {"text": pl.String, "words": pl.Categorical, "number": pl.Float64}


class PolarsColumns:
    """The columns of a plain table: read at once as a sample of rows suggests, and again where more is asked for.

    Args:
        data: see `mlcv.tables.plain`.
        separator: between cells.
        sample: some of its rows.
    """

    def __init__(self, data: bytes, separator: str, sample: Sequence[Sequence[str]]) -> None:
        self._data, self._separator = data, separator
        self._kept: dict[tuple[int, Kind], pl.Series] = {}
        self._texts: dict[int, list[str]] = {}
        kinds = [_kind(cells) for cells in zip(*sample, strict=True)]
        self._width = len(kinds)
        try:
            self._length = self._read(dict(enumerate(kinds)))
        except pl.exceptions.PolarsError:  # a column that begins with numbers
            self._length = self._read({place: kind for place, kind in enumerate(kinds) if kind != "number"})

    def __len__(self) -> int:
        return self._length

    def texts(self, place: int) -> Sequence[str]:
        if (place, "words") in self._kept:
            return self.spelled(place).texts()
        if place not in self._texts:
            self._texts[place] = self._column(place, "text").fill_null("").to_list()
            del self._kept[place, "text"]
        return self._texts[place]

    def spelled(self, place: int) -> Spelled:
        if place in self._texts:
            return spell(self._texts[place])
        words = self._column(place, "words")
        physical = words.to_physical().cast(pl.Int32)
        largest = physical.max()
        blank = largest + 1 if isinstance(largest, int) else 0
        codes = physical.fill_null(blank).to_numpy()
        first = first_rows(codes, blank + 1)  # polars may count the words of several columns together
        order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
        place_of = np.empty(blank + 1, np.int32)
        place_of[order] = np.arange(len(order), dtype=np.int32)
        cells = words.gather(first[order]).cast(pl.String).fill_null("").to_list()
        return Spelled(cells, place_of[codes], first[order])

    def numbers(self, place: int) -> NDArray[np.float64] | None:
        if (place, "words") in self._kept:
            spelled = self.spelled(place)
            values = read_numbers(spelled.cells)
            return None if values is None else values[spelled.codes]
        try:
            numbers = self._column(place, "number")
        except pl.exceptions.PolarsError:
            return read_numbers(self.texts(place))  # numbers for Python alone, or none
        return None if numbers.null_count() else numbers.to_numpy()

    def _column(self, place: int, kind: Kind) -> pl.Series:
        if (place, kind) not in self._kept:
            self._read({place: kind})
        return self._kept[place, kind]

    def _read(self, kinds: dict[int, Kind]) -> int:
        """Reads columns, and returns the number of rows."""
        frame = pl.read_csv(
            self._data,
            has_header=False,
            skip_rows=1,
            separator=self._separator,
            quote_char=None,
            schema={str(place): _TYPES[kinds.get(place, "text")] for place in range(self._width)},
            columns=list(kinds),
        )
        self._kept |= {(place, kind): frame[str(place)] for place, kind in kinds.items()}
        return frame.height


def _kind(cells: Sequence[str]) -> Kind:
    if 2 * len(set(cells)) <= len(cells):
        return "words"
    return "text" if read_numbers(cells) is None else "number"
