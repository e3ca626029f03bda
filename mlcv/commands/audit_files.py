"""Tables of an audit: every known entry, suggestions for the others, what to label next, classes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlcv.audits.judge import By, Judgement, suspicion
from mlcv.audits.what_next import what_next
from mlcv.audits.words import class_table, reasons
from mlcv.data.items import Items
from mlcv.files import shielded, whole_file, write_table, write_text
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, States, known
from mlcv.tables import Spelled

_BLOCK = 300_000
"""Rows that are turned into text at once."""


@dataclass(frozen=True)
class Part:
    """Images that are judged by themselves: a split, or a file of predictions.

    Args:
        split: its name; empty of a file.
        names: of M images, as files of predictions have them: `printable`, and not once more.
        items: where their pixels are.
        class_names: C names.
        states: (M, C), as given.
        logits: (M, C), of models that did not see them.
        judgement: of the states.
        decided: rows and columns that somebody has looked at.
    """

    split: str
    names: Sequence[str]
    items: Items
    class_names: tuple[str, ...]
    states: States
    logits: NDArray[np.float64]
    judgement: Judgement
    decided: frozenset[tuple[int, int]] = frozenset()

    @cached_property
    def is_decided(self) -> NDArray[np.bool_]:
        """Which entries somebody has looked at: (M, C)."""
        found = np.zeros(self.states.shape, bool)
        for place in self.decided:
            found[place] = True
        return found


@dataclass(frozen=True)
class Entries:
    """Images and classes, the first to be looked at first; K each.

    Args:
        part: place of the part.
        row: in the part.
        column: class.
    """

    part: NDArray[np.intp]
    row: NDArray[np.intp]
    column: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: Any) -> "Entries":
        """Of these places, in this order."""
        return Entries(self.part[places], self.row[places], self.column[places])

    @staticmethod
    def of(found: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> "Entries":
        """Rows and columns of each part, one part after another."""
        part = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        rows, columns = zip(*found, strict=True)
        return Entries(part, np.concatenate(rows).astype(np.intp), np.concatenate(columns).astype(np.intp))


def ordered(parts: Sequence[Part], by: By) -> Entries:
    """All known entries, most suspicious first; those that somebody has decided last."""
    entries = Entries.of([_places(known(part.states)) for part in parts])
    scores = np.concatenate([suspicion(part.judgement, part.states, by)[known(part.states)] for part in parts])
    return entries.take(np.lexsort((-scores, _of(parts, entries, "is_decided"))))


def write_entries(path: Path, parts: Sequence[Part], entries: Entries, explained: int = 1000) -> None:
    """A row for each known entry; the first have a reason in words.

    Args:
        path: of the file.
        parts: that the entries are of.
        entries: in order.
        explained: how many have a reason.
    """
    from mlcv.tables.polars_columns import write_rows  # noqa: PLC0415  # polars takes 0.1 s

    images, classes = (_spelled([getattr(part, of) for part in parts]) for of in ("names", "class_names"))
    splits, decided = [part.split for part in parts], ["", "yes"]
    said = ["", *reasons_of(parts, entries.take(slice(explained)))]
    why = np.arange(1, len(entries) + 1)
    why[explained:] = 0
    with whole_file(path, "wb", keep=True) as file:
        file.write(b"image,split,class,given,suggested,probability,decided,reason\r\n")
        for start in range(0, len(entries), _BLOCK):
            block = entries.take(slice(start, start + _BLOCK))
            given = _of(parts, block, "states")
            write_rows(file, [
                images(block.part, block.row), Spelled(splits, block.part), classes(block.part, block.column),
                Spelled(["0", "1"], given), Spelled(["1", "0"], given), _of(parts, block, "wrong"),
                Spelled(decided, _of(parts, block, "is_decided").astype(np.int8)),
                Spelled(said, why[start : start + _BLOCK]),
            ])  # fmt: skip


def write_suggestions(path: Path, parts: Sequence[Part], least: float) -> int:
    """A row for each entry that is not known and is present, or absent, with at least so much probability.

    Returns:
        how many there are.
    """
    found = []
    for part in parts:
        present = part.judgement.present
        row, column = np.nonzero(~known(part.states) & (np.maximum(present, 1 - present) >= least))
        sure = np.abs(present[row, column] - 0.5)
        # Present ones first: absence of one class of many is seldom news.
        best = np.lexsort((-sure, present[row, column] < 0.5))
        found.append((row[best], column[best]))
    entries = Entries.of(found)
    present, states = _of(parts, entries, "present"), _of(parts, entries, "states")
    columns = (entries.part, entries.row, entries.column, states, present)
    rows = (
        [
            *_named(parts[part], row, column),
            "uncertain" if state == UNCERTAIN else "",
            int(p >= 0.5),
            f"{max(p, 1 - p):.4g}",
        ]
        for part, row, column, state, p in zip(*(one.tolist() for one in columns), strict=True)
    )
    write_table(path, ["image", "split", "class", "given", "suggested", "probability"], rows, keep=True)
    return len(entries)


def write_next(path: Path, part: Part, budget: int, unit: Literal["images", "entries"]) -> int:
    """What to label next, in order; how many entries that are."""
    rows, columns = what_next(part.judgement.present, part.states, budget, unit)
    cells = (
        [*_named(part, row, column), f"{part.judgement.present[row, column]:.4g}"]
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    )
    write_table(path, ["image", "split", "class", "probability"], cells, keep=True)
    return len(rows)


CLASS_COLUMNS = (
    "class", "split", "given", "suggested", "known", "count", "share", "expected", "rate_of", "rate", "low", "high",
    "prevalence", "mean_probability", "is_trusted", "is_informed",
)  # fmt: skip


def class_rows(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """For each class and given value: entries that are likelier wrong than right, and how often labels are missing."""
    found = []
    for part in parts:
        judged = part.judgement
        table = class_table(judged, part.states, part.class_names)
        for place, row in enumerate(table):
            c, is_missing = place // 2, row.given == "absent"
            rate, interval = (
                (judged.missing[c], judged.missing_interval[c])
                if is_missing
                else (judged.false[c], judged.false_interval[c])
            )
            found.append({
                "class": row.class_name, "split": part.split, "given": row.given, "suggested": row.suggested,
                "known": int((part.states[:, c] == (NEGATIVE if is_missing else POSITIVE)).sum()),
                "count": row.count, "share": row.share, "expected": row.expected,
                "rate_of": "missing positives" if is_missing else "false positives",
                "rate": float(rate), "low": float(interval[0]), "high": float(interval[1]),
                "prevalence": float(judged.prevalence[c]), "mean_probability": float(judged.mean_probability[c]),
                "is_trusted": "yes" if judged.is_trusted[c] else "no",
                "is_informed": "yes" if judged.is_informed[c] else "no",
            })  # fmt: skip
    return found


def write_classes(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """As `class_rows`."""
    cells = ([f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows)
    write_table(path, CLASS_COLUMNS, cells, keep=True)


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """As JSON."""
    write_text(path, json.dumps(summary, indent=1, default=float) + "\n", keep=True)


def reasons_of(parts: Sequence[Part], entries: Entries) -> list[str]:
    """In words, of each."""
    said = [""] * len(entries)
    for place, part in enumerate(parts):
        own = np.flatnonzero(entries.part == place)
        words = reasons(part.judgement, part.states, entries.row[own], entries.column[own])
        for at, text in zip(own.tolist(), words, strict=True):
            said[at] = text
    return said


def _named(part: Part, row: int, column: int) -> list[str]:
    return [part.names[row], part.split, part.class_names[column]]


def _places(chosen: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = np.nonzero(chosen)
    return rows, columns


def _of(parts: Sequence[Part], entries: Entries, what: str) -> NDArray[Any]:
    """States, or probabilities, of entries."""
    arrays = [getattr(part if hasattr(part, what) else part.judgement, what) for part in parts]
    found = np.empty(len(entries), arrays[0].dtype)
    for place, array in enumerate(arrays):
        own = entries.part == place
        found[own] = array[entries.row[own], entries.column[own]]
    return found


def _spelled(names: Sequence[Sequence[str]]) -> Callable[[NDArray[np.intp], NDArray[np.intp]], Spelled]:
    """Names that each part has, as tables have them, by part and place in it."""
    first = np.cumsum([0, *map(len, names)])
    cells = [shielded(name) for name in chain.from_iterable(names)]
    return lambda part, place: Spelled(cells, first[part] + place)
