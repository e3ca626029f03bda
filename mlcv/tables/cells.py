"""What the cells of label columns mean."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States
from mlcv.tables.table import Table

Spelling = str | bool | int | float | None
Spellings = Spelling | tuple[Spelling, ...]
"""As YAML may understand it: `[yes]` arrives as (True,), `1` as 1, `[null]` as (None,)."""

EMPTY = ("", "nan", "na", "n/a", "<na>", "#n/a", "null", "none")
"""A cell without content, and what programs write for one, in any case."""

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
    """

    positive: Spellings = ("1", "true", "yes", "y", "t", "present", "positive", "pos")
    negative: Spellings = ("0", "false", "no", "n", "f", "absent", "negative", "neg")
    uncertain: Spellings = ()
    unknown: Spellings = ("unknown", "?")
    blank: Literal["unknown", "negative"] = "unknown"

    def __post_init__(self) -> None:
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
                if (given if is_given else usual).setdefault(spelling, state) != state and is_given:
                    raise ConfigError(f"data.codes give {spelling!r} two meanings")
        return usual | given


def column_states(table: Table, columns: Sequence[str], codes: Codes, option: str = "") -> States:
    """Label states (M, C) from a column a class.

    Args:
        table: M rows.
        columns: C headers.
        codes: what the cells mean.
        option: the command line's name for `codes`, for errors; none if it has none.

    Raises:
        DataError: naming the row and column of a cell that `codes` do not know.
    """
    meaning = codes.table()
    states = np.empty((len(table), len(columns)), np.int8)
    for number, name in enumerate(columns):
        # Few spellings stand in many cells: each is understood once.
        spelled = table.spelled(name)
        found = [meaning.get(_normal(cell)) for cell in spelled.cells]
        if None in found:
            row = min(int(spelled.first[place]) for place, state in enumerate(found) if state is None)
            raise DataError(_strange_cell(table, row, name, columns, meaning, option))
        states[:, number] = np.array(found, np.int8)[spelled.codes]
    return states


def is_empty(cell: str) -> bool:
    """Whether a cell has no content, or the word that a program writes then."""
    return cell.strip().lower() in EMPTY


def _strange_cell(
    table: Table, row: int, name: str, columns: Sequence[str], meaning: dict[str, int], option: str
) -> str:
    cell = table.column(name)[row]
    words = {key: [word for word in meaning if meaning[word] == state] for key, state in _STATES.items()}
    known = [f"{key} ({_some(words[key])})" for key in reversed(_STATES) if words[key]]
    message = f"{table.where(row)}: column {name!r} holds {cell!r}, no word for {', '.join(known[:-1])} or {known[-1]}"
    if not option:
        return message
    if re.search(r"[\[\],;|]", cell):
        return f"{message}. If it lists the classes of an image, name the column in data.labels_column"
    # A word that a given list has replaced is meant as before. Of others the cells around say what is likely: "-1"
    # beside 0 is no second word for absent.
    usual = Codes().table().get(_normal(cell))
    found = {meaning.get(_normal(other)) for column in columns for other in table.spelled(column).cells}
    likely = "uncertain" if NEGATIVE in found else "negative"
    state = next((key for key in _STATES if _STATES[key] == usual), likely)
    listed = [*(words[state] if state == "uncertain" or usual is not None else []), cell.strip()]
    return (
        f"{message}. If it is a code for {state}, give --{option}.{state} {shlex.quote(json.dumps(listed))} ({option} "
        "has a list for each state; counts and probabilities are none); if the column holds no labels, name those that "
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
