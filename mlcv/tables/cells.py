"""What the cells of label columns mean."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlcv.errors import ConfigError, DataError, check_choice
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States
from mlcv.tables.table import Table

Spelling = str | bool | int | float | None
Spellings = Spelling | tuple[Spelling, ...]
"""As YAML may understand it: `[yes]` arrives as (True,), `1` as 1, `[null]` as (None,)."""

EMPTY = ("", "nan", "na", "n/a", "<na>", "#n/a", "null", "none")
"""A cell without content, and what programs write for one, in any case."""

Fractions = Literal["soft", "majority", "unknown", "raise"]

_COUNTS = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII)
_YAML_WORDS = {True: ("true", "yes", "on"), False: ("false", "no", "off"), None: ("null",)}
_STATES = {"unknown": UNKNOWN, "uncertain": UNCERTAIN, "negative": NEGATIVE, "positive": POSITIVE}


@dataclass(frozen=True)
class Codes:
    """How a cell of a label column says what it says, in any case; `1`, `1.0` and `1.` are the same.

    A list that is given replaces the spellings of its own state, and goes before those of the others: with `unknown:
    [no]`, "no" is unknown, and "0" stays negative. YAML's words are taken as they were written: `[yes]` stands for all
    words that YAML takes for true, `[1]` for "1".

    Args:
        positive: cells that mean present.
        negative: cells that mean absent. Not -1, nor any number but 0: that must be said.
        uncertain: cells that mean maybe.
        unknown: cells that mean that nobody said, besides empty ones.
        blank: what an empty cell means; `nan`, `na`, `n/a`, `null` and `none` are empty, too.
        fractions: what a probability between 0 and 1 means, and a count of annotators such as `3/5`: `soft` keeps it as
            a target of training that judges nobody, `majority` makes it present above a half, absent below and
            uncertain at it, `unknown` takes it for nothing said, `raise` refuses it. `0/5` and `5/5` are definite.
    """

    positive: Spellings = ("1", "true", "yes", "y", "t", "present", "positive", "pos")
    negative: Spellings = ("0", "false", "no", "n", "f", "absent", "negative", "neg")
    uncertain: Spellings = ("uncertain",)
    unknown: Spellings = ("unknown", "unmentioned", "not mentioned", "?")
    blank: Literal["unknown", "negative"] = "unknown"
    fractions: Fractions = "soft"

    def __post_init__(self) -> None:
        check_choice("data.codes.fractions", self.fractions, get_args(Fractions))
        for name in _STATES:
            object.__setattr__(self, name, _spelled(getattr(self, name)))

    def words(self, state: str) -> tuple[str, ...]:
        """The spellings of a state, by its name, in small letters."""
        return tuple(_normal(word) for word in getattr(self, state))

    def table(self) -> dict[str, int]:
        """State of each spelling.

        Raises:
            ConfigError: if two given lists claim one.
        """
        own = {field.name: field.default for field in fields(self)}
        usual: dict[str, int] = dict.fromkeys(EMPTY, UNKNOWN if self.blank == "unknown" else NEGATIVE)
        given: dict[str, int] = {}
        for name, state in _STATES.items():
            is_given = getattr(self, name) != own[name]
            for spelling in self.words(name):
                before = (given if is_given else usual).setdefault(spelling, state)
                if before != state and is_given:
                    other = next(key for key, value in _STATES.items() if value == before)
                    raise ConfigError(
                        f"data.codes give {spelling!r} two meanings, {other} and {name}: give each of the two its list"
                    )
        return usual | given


@dataclass(frozen=True)
class Labels:
    """What the cells of a table say.

    Args:
        states: label states (M, C); uncertain where only a soft label says more.
        soft: soft labels float32 (M, C) in [0, 1], NaN where there is none; None if there is none at all.
    """

    states: States
    soft: NDArray[np.float32] | None = None


def column_states(table: Table, columns: Sequence[str], codes: Codes, option: str = "") -> States:
    """Label states (M, C) from a column a class, as `column_labels`; probabilities and counts are refused."""
    return column_labels(table, columns, replace(codes, fractions="raise"), option).states


def column_labels(
    table: Table, columns: Sequence[str], codes: Codes, option: str = "", of_fractions: str = ""
) -> Labels:
    """Labels of M images and C classes from a column a class.

    Args:
        table: M rows.
        columns: C headers.
        codes: what the cells mean.
        option: the command line's name for `codes`, for errors; none if it has none.
        of_fractions: likewise, for `codes.fractions`; that of `option` if there is one.

    Raises:
        DataError: naming the row and column of a cell that `codes` do not know.
    """
    meaning = codes.table()
    states = np.empty((len(table), len(columns)), np.int8)
    soft: NDArray[np.float32] | None = None
    for number, name in enumerate(columns):
        # Few spellings stand in many cells: each is understood once.
        spelled = table.spelled(name)
        found = [_understood(cell, meaning, codes.fractions) for cell in spelled.cells]
        if None in found:
            row = min(int(spelled.first[place]) for place, one in enumerate(found) if one is None)
            raise DataError(_strange_cell(table, row, name, columns, meaning, option, of_fractions))
        states[:, number] = np.array([one and one[0] for one in found], np.int8)[spelled.codes]
        values = np.array([one and one[1] for one in found], np.float32)
        if not np.isnan(values).all():
            soft = np.full(states.shape, np.nan, np.float32) if soft is None else soft
            soft[:, number] = values[spelled.codes]
    return Labels(states, soft)


def minus_one(table: Table, columns: Sequence[str], codes: Codes) -> Codes:
    """What -1 means, where `codes` do not say it and the other cells of the label columns leave one reading.

    Beside present alone it is absent (CelebA's attributes); beside present, absent and blank, which is not mentioned,
    it is uncertain (CheXpert's). Where it may be either (0 may be "difficult", as in VOC's lists; blank may be unknown
    or absent), codes stay as they are, so that the cell is refused.
    """
    meaning = codes.table()
    words = set()
    for name in columns:
        own = {_normal(cell) for cell in table.spelled(name).cells}
        if all(_understood(word, meaning, codes.fractions) for word in own - {"-1"}):  # others are refused when read
            words |= own
    if "-1" not in words or "-1" in meaning:
        return codes
    found = {meaning.get(word) for word in words - {"-1"}}
    if found == {POSITIVE}:
        return replace(codes, negative=(*codes.words("negative"), "-1"))
    if {POSITIVE, NEGATIVE} <= found <= {POSITIVE, NEGATIVE, UNKNOWN} and words & set(EMPTY):
        return replace(codes, uncertain=(*codes.words("uncertain"), "-1"))
    return codes


def _understood(cell: str, meaning: dict[str, int], fractions: Fractions) -> tuple[int, float] | None:
    """State and soft label of a cell, NaN for none; None for a cell that means nothing."""
    word = _normal(cell)
    state = meaning.get(word)
    value = None if state is not None or fractions == "raise" else _fraction(word)
    if value in (0, 1):
        return (POSITIVE if value else NEGATIVE), np.nan
    if value is None:
        return None if state is None else (state, np.nan)
    if fractions == "soft":
        return UNCERTAIN, value
    if fractions == "unknown":
        return UNKNOWN, np.nan
    return POSITIVE if value > 0.5 else NEGATIVE if value < 0.5 else UNCERTAIN, np.nan


def _fraction(word: str) -> float | None:
    """A probability, or a count of annotators among all of them."""
    if match := _COUNTS.fullmatch(word):
        part, whole = int(match[1]), int(match[2])
        return part / whole if 0 < whole >= part else None
    return float(word) if _NUMBER.fullmatch(word) and 0 < float(word) < 1 else None


def is_empty(cell: str) -> bool:
    """Whether a cell has no content, or the word that a program writes then."""
    return cell.strip().lower() in EMPTY


def _strange_cell(
    table: Table, row: int, name: str, columns: Sequence[str], meaning: dict[str, int], option: str, of_fractions: str
) -> str:
    cell = table.column(name)[row]
    words = {key: [word for word in meaning if meaning[word] == state] for key, state in _STATES.items()}
    known = [f"{key} ({_some(words[key])})" for key in reversed(_STATES) if words[key]]
    message = f"{table.where(row)}: column {name!r} holds {cell!r}, no word for {', '.join(known[:-1])} or {known[-1]}"
    of_fractions = of_fractions or (f"{option}.fractions" if option else "")
    if of_fractions and _fraction(_normal(cell)) is not None:
        return (
            f"{message}. A probability or a count of annotators is a label with --{of_fractions} majority, and none "
            f"with --{of_fractions} unknown"
        )
    if not option:
        return message
    if re.search(r"[\[\],;|]", cell):
        return f"{message}. If it lists the classes of an image, name the column in data.labels_column"
    if _normal(cell) == "-1":
        minus = shlex.quote(json.dumps([cell.strip()]))
        return (
            f"{message}. Elsewhere -1 is absent (CelebA), uncertain (CheXpert) or unknown, and the other cells leave "
            f"more than one of these: give --{option}.uncertain {minus} or --{option}.unknown {minus}, or for absent "
            f"--{option}.negative {shlex.quote(json.dumps(['0', cell.strip()]))}"
        )
    # A word that a given list has replaced is meant as before. Of others the cells around say what is likely: "-1"
    # beside 0 is no second word for absent.
    usual = Codes().table().get(_normal(cell))
    found = {meaning.get(_normal(other)) for column in columns for other in table.spelled(column).cells}
    likely = "uncertain" if NEGATIVE in found else "negative"
    state = next((key for key in _STATES if _STATES[key] == usual), likely)
    listed = [*(words[state] if state == "uncertain" or usual is not None else []), cell.strip()]
    return (
        f"{message}. If it is a code for {state}, give --{option}.{state} {shlex.quote(json.dumps(listed))} ({option} "
        "has a list for each state); if the column holds no labels, name those that "
        "do in data.label_columns"
    )


def _some(words: Sequence[str]) -> str:
    """The first of many words."""
    return ", ".join([repr(word) if word else "blank" for word in words[:3]] + ["..."] * (len(words) > 3))


def _spelled(value: Spellings | list[Spelling]) -> tuple[str, ...]:
    """Plain words, from whatever YAML has made of them."""
    if isinstance(value, (tuple, list)):
        return tuple(word for one in value for word in (_spelled(one) if _is_list(one) else _word(one)))
    return (
        tuple(word.strip().strip("'\"") for word in value.strip("[] ").split(","))
        if isinstance(value, str)
        else _word(value)
    )


def _is_list(value: Spelling) -> bool:
    """A text that YAML could not read as the list it is, such as `[?]`."""
    return isinstance(value, str) and value.startswith("[") and value.endswith("]")


def _word(value: Spelling) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return _YAML_WORDS[value] if value is None or isinstance(value, bool) else (repr(value),)


def _normal(cell: str) -> str:
    """`1`, `1.0` and ` 1 ` are one spelling."""
    text = cell.strip().lower()
    if _NUMBER.fullmatch(text) is None:
        return text
    number = float(text) + 0.0  # -0 is 0
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
