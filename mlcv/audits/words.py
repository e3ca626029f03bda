"""A judgement in counts and words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.audits.judge import Judgement
from mlcv.labels.states import NEGATIVE, POSITIVE, States

Array = NDArray[Any]
_CALLED = {NEGATIVE: "absent", POSITIVE: "present"}


@dataclass(frozen=True)
class ClassRow:
    """What is suggested for one class's entries of one given value.

    Args:
        class_name: of the class.
        given, suggested: `present` or `absent`, the one other than the other.
        count: entries that are more likely wrong than right.
        share: of `count` in all entries of the class with that given value; NaN without any.
        expected: number of these that are wrong, by the sum of all probabilities.
    """

    class_name: str
    given: str
    suggested: str
    count: int
    share: float
    expected: float


def class_table(judgement: Judgement, states: States, class_names: Sequence[str]) -> list[ClassRow]:
    """For each class a row of those called absent, then one of those called present."""
    rows = []
    for c, name in enumerate(class_names):
        for given, other in ((NEGATIVE, POSITIVE), (POSITIVE, NEGATIVE)):
            w = judgement.wrong[states[:, c] == given, c]
            count = int((w > 0.5).sum())
            share = count / len(w) if len(w) else float("nan")
            rows.append(ClassRow(name, _CALLED[given], _CALLED[other], count, share, float(w.sum())))
    return rows


def reasons(judgement: Judgement, states: States, rows: Array, columns: Array) -> list[str]:
    """Why each of some known entries stands where it does: what it is called, and how many such there are.

    Args:
        judgement: of the states.
        states: (N, C), label states.
        rows: (M,), of the entries.
        columns: (M,), likewise.
    """
    rows, columns = np.asarray(rows), np.asarray(columns)
    alike, wrong_of_them = np.zeros(len(rows), int), np.zeros(len(rows))
    for c in np.unique(columns):
        for given in (NEGATIVE, POSITIVE):
            here = np.flatnonzero((columns == c) & (states[rows, columns] == given))
            w = np.sort(judgement.wrong[states[:, c] == given, c])
            # Counted from the end, where the most suspicious are.
            place = np.searchsorted(w, judgement.wrong[rows[here], c], side="left")
            alike[here] = len(w) - place
            wrong_of_them[here] = np.append(np.cumsum(w[::-1])[::-1], 0.0)[place]
    return [
        _reason(states[row, column], judgement.wrong[row, column], int(count), expected)
        + ("" if judgement.is_informed[column] else "; but nothing shows that the models know the class")
        for row, column, count, expected in zip(rows, columns, alike, wrong_of_them, strict=True)
    ]


def _reason(given: int, w: float, count: int, expected: float) -> str:
    truth = "is there" if given == NEGATIVE else "is not there"
    such = f"; of the {count} entries of the class as suspicious, {expected:.0f} are expected to be wrong"
    return f"called {_CALLED[given]}, probability {w:.2f} that it {truth}{such if count > 1 else ''}"
