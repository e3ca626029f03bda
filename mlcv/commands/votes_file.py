"""Tables of several people's answers, in each of the ways in which they are kept."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.audits.votes import MAYBE, NO, YES, Votes
from mlcv.errors import DataError
from mlcv.files import unshielded
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, known
from mlcv.tables import (
    OUR_COLUMNS,
    Codes,
    Table,
    check_class_names,
    column_states,
    find_name_column,
    is_empty,
    printable,
    read_table,
)

logger = logging.getLogger(__name__)

Array = NDArray[Any]

_ANNOTATOR = ("annotator", "rater", "reader", "worker", "radiologist", "labeler", "expert")
_CLASS = ("class", "class_name", "finding", "category", "label_name")
_ANSWER = ("answer", "vote", "response", "rating", "label", "value")
_OTHERS = (*OUR_COLUMNS, "split", "date", "time", "timestamp", "comment")
"""Headers, in any case, that are no class and nobody's."""
_MAYBE = ("maybe", "unsure", "uncertain")


@dataclass(frozen=True)
class VotesFile:
    """Where answers are, and how they are read.

    Args:
        paths: one table, or several, each of one annotator, who is called as it is.
        image: header of the column that names images; found if None.
        annotator: header of the column that says who answered; found if None.
        class_column: header of the column that names classes; found if None.
        answer: header of the column of answers; found if None.
        classes: their names; all that there are if None.
        codes: what the cells mean; a blank one is no answer.
    """

    paths: tuple[Path, ...]
    image: str | None = None
    annotator: str | None = None
    class_column: str | None = None
    answer: str | None = None
    classes: tuple[str, ...] | None = None
    codes: Codes = Codes(uncertain=("-1",))  # noqa: RUF009  # frozen


@dataclass(frozen=True, eq=False)
class Answers:
    """Who said what.

    Args:
        images: M names.
        class_names: C names.
        annotators: J names.
        votes: on N pairs of image and class, those that anybody has answered.
        image: (N,), place of the image of each pair.
        column: (N,), place of its class.
    """

    images: list[str]
    class_names: list[str]
    annotators: list[str]
    votes: Votes
    image: Array
    column: Array


@dataclass
class _Column:
    """Texts as places among the distinct ones, over several tables."""

    names: dict[str, int]
    places: list[Array]

    def add(self, cells: Sequence[str], codes: Array) -> None:
        of_cell = np.array([self.names.setdefault(unshielded(cell), len(self.names)) for cell in cells], np.intp)
        self.places.append(of_cell[codes])

    def all(self) -> Array:
        return np.concatenate(self.places)


def read_votes(source: VotesFile) -> Answers:
    """Reads tables, and says in the log what was understood.

    Raises:
        DataError: naming the file and row of an answer that means nothing, or that its annotator gives twice; or if
            nobody has answered, or the columns cannot be told.
    """
    codes = source.codes
    if codes.uncertain == ("-1",):
        codes = replace(codes, uncertain=("-1", *_MAYBE))
    found = {name: _Column({}, []) for name in ("image", "class", "annotator")}
    answers: list[Array] = []
    rows: list[tuple[Table, Array]] = []
    for path in source.paths:
        table = read_table(path)
        if not len(table):
            raise DataError(f"{printable(path)}: there is no row below the header")
        states, row, name_of = _answers(table, source, codes, len(source.paths) > 1)
        given = (states == UNCERTAIN) | known(states)
        answers.append(np.select([states == POSITIVE, states == NEGATIVE], [YES, NO], MAYBE)[given])
        rows.append((table, row[given]))
        for what, (cells, places) in name_of.items():
            found[what].add(cells, places[given])
    image, column, annotator = (found[what].all() for what in ("image", "class", "annotator"))
    if not len(image):
        raise DataError(f"{printable(source.paths[0])}: nobody has answered: all cells are blank")
    class_names = list(found["class"].names)
    check_class_names(class_names, printable(source.paths[0]))
    _say_who_is_silent(list(found["annotator"].names), annotator)
    who, annotator = np.unique(annotator, return_inverse=True)
    pair, item = np.unique(image * len(class_names) + column, return_inverse=True)
    _check_once(item * len(who) + annotator, rows)
    names = list(found["annotator"].names)
    votes = Votes(item, annotator, np.concatenate(answers), len(pair), len(who))
    images = list(found["image"].names)
    return Answers(
        images, class_names, [names[place] for place in who], votes, *np.divmod(pair, len(class_names))
    )  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """How a table holds answers.

    Args:
        image: header of the column with images.
        annotator: header of the column with annotators; None if they are columns, or the table is one's.
        class_column: header of the column with classes; None if they are columns, or there is one.
        columns: with answers.
        has_classes: whether columns are classes; else they are annotators, or one is the answer.
    """

    image: str
    annotator: str | None
    class_column: str | None
    columns: list[str]
    has_classes: bool


def _layout(table: Table, source: VotesFile, is_of_one: bool) -> _Layout:
    names = list(table.names)
    image = _header(table, source.image, (), "--id") or find_name_column(names) or names[0]
    annotator = _header(table, source.annotator, _ANNOTATOR, "--annotator")
    class_column = _header(table, source.class_column, _CLASS, "--class_column")
    told = (image, annotator, class_column)
    rest = [name for name in names if name not in told and name.lower() not in _OTHERS]
    is_told = annotator is not None or is_of_one
    if is_told and class_column is not None:
        answer = _header(table, source.answer, _ANSWER, "--answer") or (rest[0] if len(rest) == 1 else None)
        if answer is None:
            raise DataError(f"{printable(table.path)}: which of {', '.join(rest)} is the answer? Say it with --answer")
        rest = [answer]
    elif is_told and source.classes:
        if missing := [name for name in source.classes if name not in rest]:
            raise DataError(f"{printable(table.path)}: no column {missing[0]!r}; its classes are {', '.join(rest)}")
        rest = list(source.classes)
    if not rest:
        raise DataError(f"{printable(table.path)}: besides {', '.join(names)} there is no column of answers")
    return _Layout(image, annotator, class_column, rest, is_told and class_column is None)


def _answers(
    table: Table, source: VotesFile, codes: Codes, is_of_one: bool
) -> tuple[Array, Array, dict[str, tuple[Sequence[str], Array]]]:
    """States of all cells with answers (K,), the row of each, and its image, class and annotator."""
    layout = _layout(table, source, is_of_one)
    _say(table, layout, is_of_one)
    try:
        states = column_states(table, layout.columns, codes)
    except DataError as error:
        raise DataError(
            f"{error}. What cells mean is said with --positive, --negative and --uncertain, which columns are classes "
            "with --classes, and who answered with --annotator"
        ) from error
    row, place = (some.ravel() for some in np.indices(states.shape))
    flat = states.ravel()

    def cells_or(name: str | None, otherwise: tuple[Sequence[str], Array]) -> tuple[Sequence[str], Array]:
        return otherwise if name is None else _cells(table, name, row)

    columns, one = (layout.columns, place), np.zeros(len(row), np.intp)
    the_class = source.classes[0] if source.classes else "label"
    classes = cells_or(layout.class_column, columns if layout.has_classes else ([the_class], one))
    annotators = ([table.path.stem], one) if is_of_one else cells_or(layout.annotator, columns)
    if source.classes and layout.class_column is not None:
        is_asked = np.array([unshielded(cell) in source.classes for cell in classes[0]])
        flat = np.where(is_asked[classes[1]], flat, UNKNOWN)
    return flat, row, {"image": _cells(table, layout.image, row), "class": classes, "annotator": annotators}


def _header(table: Table, asked: str | None, usual: Sequence[str], option: str) -> str | None:
    """What was asked for, or the first usual header, in any case, with _id or without."""
    if asked is not None:
        if asked not in table.names:
            raise DataError(
                f"{printable(table.path)}: no column {asked!r} ({option}); its columns are {', '.join(table.names)}"
            )
        return asked
    return next((name for one in usual for name in table.names if name.lower().removesuffix("_id") == one), None)


def _cells(table: Table, name: str, row: Array) -> tuple[Sequence[str], Array]:
    """Distinct cells, and the place among them of each answer's."""
    spelled = table.spelled(name)
    for place, cell in enumerate(spelled.cells):
        if is_empty(cell):
            raise DataError(f"{table.where(spelled.first[place])}: column {name!r} is blank")
    return spelled.cells, np.asarray(spelled.codes)[row]


def _say(table: Table, layout: _Layout, is_of_one: bool) -> None:
    columns = layout.columns
    shown = ", ".join(columns[:8]) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
    said = [f"images in {layout.image!r}"]
    if is_of_one:
        said.append(f"all answers of {table.path.stem}")
    elif layout.annotator is not None:
        said.append(f"annotators in {layout.annotator!r}")
    if layout.class_column is not None:
        said.append(f"classes in {layout.class_column!r}")
    what = "a class" if layout.has_classes else "an annotator"
    has_answer = layout.class_column is not None and (is_of_one or layout.annotator is not None)
    said.append(f"answers in {columns[0]!r}" if has_answer else f"{what} a column ({shown})")
    logger.info("%s: %s", printable(table.path), ", ".join(said))


def _say_who_is_silent(names: Sequence[str], annotator: Array) -> None:
    if silent := [name for place, name in enumerate(names) if place not in set(annotator.tolist())]:
        logger.warning("no answer of %s, who is left out", ", ".join(silent))


def _check_once(key: Array, rows: Sequence[tuple[Table, Array]]) -> None:
    """Refuses a second answer of one annotator on one image and class."""
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(np.diff(key[order]) == 0)
    if not len(again):
        return
    pair = min(again, key=lambda at: order[at + 1])
    table_of = np.repeat(np.arange(len(rows)), [len(row) for _, row in rows])
    row_of = np.concatenate([row for _, row in rows])
    first, second = (rows[table_of[at]][0].where(row_of[at]) for at in (order[pair], order[pair + 1]))
    raise DataError(f"{second}: this annotator has answered on this image and class in {first} already; keep one")
