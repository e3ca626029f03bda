"""Tables with several rows an image: the same image again, several annotators, or a row for each label or box."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlcv.data.items import Files
from mlcv.data.paths import paths_of
from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States
from mlcv.tables import Codes, Labels, Table, column_labels, is_empty, printable
from mlcv.tables.columns import spell

Duplicates = Literal["raise", "first", "unknown", "majority", "soft"]
Where = Callable[[int], str]

_PRESENT, _ABSENT, _MAYBE, _UNSAID, _SOFT = 1, 2, 4, 8, 16
"""What the rows of an image have said of a class."""
_WORDS = {POSITIVE: "present", NEGATIVE: "absent"}


@dataclass(frozen=True)
class Long:
    """How a table says its labels that has a row for each label of an image, or each box.

    Args:
        label_column: header of the column with the name of the row's class; a blank cell, or the word for no finding,
            names an image and no class.
        absent: what a class is of which an image has no row: `unknown`, as in OpenImages, or `negative` where each
            image was searched for every class.
        confidence_column: header of the column that says whether the class is present, in cells as `codes` read them
            (1, 0, 0.7); each row says so if None.
        source_column: header of the column that says who, or what, has made the row.
        machines: cells of `source_column`, in any case, of rows that no person has verified.
        machine: what these say: `unknown`, nothing, or `soft`, their confidence as a soft label, 0 and 1 too. What a
            person says goes before.
        annotator_column: header of the column with the annotator: each has judged the images that name them, and
            `data.duplicates` says how they are put together.
    """

    label_column: str
    absent: Literal["unknown", "negative"] = "unknown"
    confidence_column: str | None = None
    source_column: str | None = None
    machines: tuple[str, ...] = ("machine",)
    machine: Literal["unknown", "soft"] = "unknown"
    annotator_column: str | None = None

    @property
    def columns(self) -> list[str]:
        """Headers that must be there."""
        named = (self.label_column, self.confidence_column, self.source_column, self.annotator_column)
        return [name for name in named if name is not None]


@dataclass(frozen=True)
class Owners:
    """The images that rows are of, in the order in which they come.

    Args:
        paths: of each image (N).
        first: the first row of each (N,).
        of_row: the image of each row (M,).
    """

    paths: list[str]
    first: NDArray[np.intp]
    of_row: NDArray[np.intp]

    def cells(self, table: Table, column: str) -> NDArray[np.str_]:
        """What a column says of each image (N,).

        Raises:
            DataError: naming two rows of an image that differ in it.
        """
        spelled = table.spelled(column)
        folded = spell([cell.strip().casefold() for cell in spelled.cells]).codes[spelled.codes]
        wrong = np.flatnonzero(folded != folded[self.first][self.of_row])
        if len(wrong):
            image = self.of_row[wrong[0]]
            rows = (int(self.first[image]), int(wrong[0]))
            said = [spelled.cells[spelled.codes[row]] for row in rows]
            raise DataError(
                f"{table.where(rows[0])} and {table.where(rows[1])}: {printable(self.paths[image])} has {said[0]!r} "
                f"and {said[1]!r} in column {column!r}; give all rows of an image the same"
            )
        chosen: NDArray[np.str_] = np.array(spelled.cells, np.str_)[spelled.codes[self.first]]
        return chosen


def find_owners(root: Path, table: Table, column: str, suffix: str, by_file: bool) -> Owners:
    """Which rows are of one image, by its path however it is written.

    Args:
        root: folder that paths start from.
        table: M rows.
        column: of the images' paths.
        suffix: of the files' names, after each cell.
        by_file: links to one file are one image, too.
    """
    spelled = table.spelled(column)
    order = np.argsort(spelled.first)
    first, places = spelled.first[order], order.tolist()
    cells = zip(first.tolist(), map(spelled.cells.__getitem__, places), strict=True)
    paths = list(paths_of(root, table, cells, suffix))
    keys = list(map(str, Files(paths).keys())) if by_file else paths
    images = np.empty(len(order), np.intp)
    if len(set(keys)) == len(keys):
        images[order] = np.arange(len(order))
        return Owners(paths, first, images[spelled.codes])
    same = spell(keys)
    images[order] = same.codes
    return Owners([paths[place] for place in same.first], first[same.first], images[spelled.codes])


def merge(labels: Labels, owners: Owners, policy: Duplicates, classes: Sequence[str], where: Where) -> Labels:
    """One row an image (N, C), from several readings of each.

    What one reading says and no other contradicts holds; "maybe" does not contradict, and holds where no reading is
    definite. Where readings differ, `unknown` takes none, `majority` what more than half of them say, uncertain at a
    half, and `soft` their mean as a soft label; soft labels vote by their value. `first` drops all but the first.

    Args:
        labels: of M readings.
        owners: their images.
        policy: see above; `raise` refuses a contradiction.
        classes: C names.
        where: the place of a reading, for errors.

    Raises:
        DataError: naming two readings that contradict each other, and a class.
    """
    order = np.argsort(owners.of_row, kind="stable")
    count = np.bincount(owners.of_row, minlength=len(owners.first))
    starts = np.cumsum(count) - count
    states = labels.states[order[starts]]
    soft = None if labels.soft is None else labels.soft[order[starts]]
    several = np.flatnonzero(count > 1)
    if policy == "first" or not len(several):
        return Labels(states, soft)
    rows = order[np.repeat(count > 1, count)]
    starts = np.cumsum(count[several]) - count[several]
    said, value = labels.states[rows], np.full((len(rows), len(classes)), np.nan, np.float32)
    if labels.soft is not None:
        value[:] = labels.soft[rows]
    np.copyto(value, said, where=said >= 0)
    is_known = ~np.isnan(value)
    low = np.minimum.reduceat(np.where(is_known, value, np.inf), starts)
    high = np.maximum.reduceat(np.where(is_known, value, -np.inf), starts)
    clash = high > low
    if policy == "raise" and clash.any():
        image, place = (int(i) for i in np.argwhere(clash)[0])
        own = slice(starts[image], starts[image] + count[several[image]])
        pair = sorted(rows[own][[np.nanargmin(value[own, place]), np.nanargmax(value[own, place])]])
        raise _contradiction(
            owners.paths[several[image]], classes[place], where(pair[0]), where(pair[1]), int(clash.sum())
        )
    votes = np.add.reduceat(is_known, starts, dtype=np.int64)
    mean = np.add.reduceat(np.where(is_known, value, 0), starts, dtype=np.float64) / np.maximum(votes, 1)
    is_maybe = np.logical_or.reduceat((said == UNCERTAIN) & ~is_known, starts)
    merged = np.where(is_maybe, UNCERTAIN, UNKNOWN).astype(np.int8)
    agreed = (votes > 0) & ~clash
    np.copyto(mean, low, where=agreed)  # without the error of a sum
    merged[agreed] = _definite(mean[agreed])
    keeps = agreed
    if policy == "soft":
        merged[clash], keeps = UNCERTAIN, agreed | clash
    else:
        merged[clash] = (
            UNKNOWN if policy == "unknown" else np.select([mean > 0.5, mean < 0.5], [1, 0], UNCERTAIN)[clash]
        )
    states[several] = merged
    shares = np.where(keeps & (merged == UNCERTAIN), mean, np.nan).astype(np.float32)
    if soft is None and not np.isnan(shares).all():
        soft = np.full(states.shape, np.nan, np.float32)
    if soft is not None:
        soft[several] = shares
    return Labels(states, soft)


def long_labels(
    table: Table,
    owners: Owners,
    long: Long,
    codes: Codes,
    classes: Sequence[str],
    columns: NDArray[np.intp],
    policy: Duplicates,
) -> Labels:
    """Labels (N, C) of images that have a row for each of their labels.

    Args:
        table: M rows.
        owners: the images that they are of.
        long: what its columns mean.
        codes: what the cells of the confidence column mean.
        classes: C names.
        columns: the class of each row (M,), -1 for none.
        policy: what to do where rows contradict each other, see `merge`; of annotators each is one reading.

    Raises:
        DataError: naming two rows that contradict each other.
    """
    if long.annotator_column is None:
        return _reading(table, owners, long, codes, classes, columns, policy)
    people = table.spelled(long.annotator_column)
    named = np.array([not is_empty(cell) for cell in people.cells])[people.codes]
    if not named.all():
        row = int(np.flatnonzero(~named)[0])
        raise DataError(f"{table.where(row)}: column {long.annotator_column!r} names no annotator")
    key = owners.of_row * np.intp(len(people.cells)) + people.codes
    _, first, reading = np.unique(key, return_index=True, return_inverse=True)
    of_people = Owners([owners.paths[image] for image in owners.of_row[first]], first, reading)
    labels = _reading(table, of_people, long, codes, classes, columns, policy)
    order = np.argsort(first)  # of an image's annotators the first is who comes first
    soft = None if labels.soft is None else labels.soft[order]
    images = Owners(owners.paths, owners.first, owners.of_row[first[order]])
    return merge(
        Labels(labels.states[order], soft), images, policy, classes, lambda row: table.where(int(first[order][row]))
    )


def _reading(
    table: Table,
    owners: Owners,
    long: Long,
    codes: Codes,
    classes: Sequence[str],
    columns: NDArray[np.intp],
    policy: Duplicates,
) -> Labels:
    rows = np.flatnonzero(columns >= 0)
    key = owners.of_row[rows] * np.intp(len(classes)) + columns[rows]
    said, values = _said(table, long, codes, rows)
    seen = np.zeros(len(owners.first) * len(classes), np.uint8)
    for bit in np.flatnonzero(np.bincount(said)).tolist():
        seen[key[said == bit]] |= bit
    soft = None
    if values is not None:
        places, own = np.unique(key[said == _SOFT], return_inverse=True)
        is_open = seen[places] & (_PRESENT | _ABSENT) == 0  # what a person says goes before
        soft = np.full(len(seen), np.nan, np.float32)
        soft[places] = np.where(is_open, np.bincount(own, values[said == _SOFT]) / np.bincount(own), np.nan)
    absent = key[said == _ABSENT]
    clash = np.unique(absent[seen[absent] & _PRESENT > 0])
    settled = _settled(clash, key, rows, said, policy, classes, owners, table) if len(clash) else None
    meaning = np.array([_state(bits) for bits in range(32)], np.int8)[seen[key]]
    states = seen.view(np.int8)  # in place: a table may have a thousand million entries
    states.fill(NEGATIVE if long.absent == "negative" else UNKNOWN)
    states[key] = meaning
    if settled is not None:
        states[clash] = settled.states
        if settled.soft is not None:
            soft = np.full(len(states), np.nan, np.float32) if soft is None else soft
            soft[clash] = settled.soft
    shape = len(owners.first), len(classes)
    return Labels(states.reshape(shape), None if soft is None else soft.reshape(shape))


def _said(
    table: Table, long: Long, codes: Codes, rows: NDArray[np.intp]
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """What each of these rows says, and its soft label."""
    said = np.full(len(rows), _PRESENT, np.uint8)
    values: NDArray[np.float32] | None = None
    states: States | None = None
    if long.confidence_column is not None:
        confidence = column_labels(table, [long.confidence_column], codes, "data.codes")
        states = confidence.states[rows, 0]
        for state, bit in ((NEGATIVE, _ABSENT), (UNCERTAIN, _MAYBE), (UNKNOWN, _UNSAID)):
            said[states == state] = bit
        if confidence.soft is not None:
            values = confidence.soft[rows, 0]
            said[~np.isnan(values)] = _SOFT
    if long.source_column is not None:
        sources, machines = table.spelled(long.source_column), {name.strip().casefold() for name in long.machines}
        is_machine = np.array([cell.strip().casefold() in machines for cell in sources.cells])[sources.codes[rows]]
        if long.machine == "unknown":
            said[is_machine] = _UNSAID
        elif states is not None:
            definite = is_machine & (states >= 0)
            values = np.full(len(rows), np.nan, np.float32) if values is None else values
            values[definite], said[definite] = states[definite], _SOFT
    return said, values if (said == _SOFT).any() else None


def _state(bits: int) -> int:
    for bit, state in ((_PRESENT, POSITIVE), (_ABSENT, NEGATIVE), (_SOFT | _MAYBE, UNCERTAIN), (_UNSAID, UNKNOWN)):
        if bits & bit:
            return state
    return UNKNOWN


def _settled(
    clash: NDArray[np.intp], key: NDArray[np.intp], rows: NDArray[np.intp], said: NDArray[np.uint8], policy: Duplicates,
    classes: Sequence[str], owners: Owners, table: Table,
) -> Labels:  # fmt: skip
    """Labels of the entries (K, 1) of which rows say both present and absent."""
    own = np.flatnonzero(np.isin(key, clash) & (said & (_PRESENT | _ABSENT) > 0))
    place = np.searchsorted(clash, key[own])
    votes = Labels(np.where(said[own] == _PRESENT, POSITIVE, NEGATIVE).astype(np.int8)[:, None])
    images, columns = np.divmod(clash, len(classes))
    if policy == "raise":
        pair = [int(rows[own[(place == 0) & (votes.states[:, 0] == state)][0]]) for state in (POSITIVE, NEGATIVE)]
        one, other = (table.where(row) for row in sorted(pair))
        raise _contradiction(owners.paths[images[0]], classes[columns[0]], one, other, len(clash))
    first = np.unique(place, return_index=True)[1]
    entries = Owners([""] * len(clash), first, place)
    labels = merge(votes, entries, policy, [""], str)
    return Labels(labels.states[:, 0], None if labels.soft is None else labels.soft[:, 0])


def _definite(values: NDArray[np.float64]) -> NDArray[np.int8]:
    states: NDArray[np.int8] = np.select([values == 1, values == 0], [POSITIVE, NEGATIVE], UNCERTAIN).astype(np.int8)
    return states


def _contradiction(image: str, name: str, one: str, other: str, count: int) -> DataError:
    return DataError(
        f"{one} and {other}: one says that {name!r} is present in {printable(image)}, the other not, or less so "
        f"({count} such labels); put it right, or choose what holds: data.duplicates first, unknown, majority or soft"
    )
