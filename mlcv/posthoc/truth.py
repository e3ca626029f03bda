"""Files of truth: CSV tables of labels, a row an image or study, with what else is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlcv.errors import DataError
from mlcv.labels.states import UNCERTAIN, UNKNOWN, States, count_states, evaluable
from mlcv.posthoc.columns import class_column, name_column, read_ids
from mlcv.posthoc.studies import patient_of
from mlcv.tables import OUR_COLUMNS, TRUTH, Codes, Table, column_labels, read_table

TRUTH_CODES = Codes(uncertain=("-1",), fractions="raise")
"""What the cells of a truth mean, where nobody says otherwise."""


@dataclass(frozen=True)
class Truth:
    """Labels of M rows.

    Args:
        ids: M names.
        targets: int64 (M, C) in {0, 1}, or -1 where unknown or uncertain.
        about: every other column of the table, M cells each.
        groups: whose each row is, such as a patient's; if None, the patient that its name tells, else its own.
        unit: what given groups are, for titles.
    """

    ids: tuple[str, ...]
    targets: Tensor
    about: dict[str, tuple[str, ...]]
    groups: tuple[str, ...] | None = None
    unit: str = "groups"

    @property
    def owners(self) -> tuple[tuple[str, ...], str]:
        """Whose each row is, and what these are called."""
        if self.groups is not None:
            return self.groups, self.unit
        patients = [patient_of(name) for name in self.ids]
        unit = "patients" if all(patients) else "patients and other rows" if any(patients) else "rows"
        return tuple(patient or name for patient, name in zip(patients, self.ids, strict=True)), unit

    def select(self, rows: Sequence[int]) -> "Truth":
        """Of these rows, in this order."""
        about = {name: tuple(column[row] for row in rows) for name, column in self.about.items()}
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        return Truth(tuple(self.ids[row] for row in rows), self.targets[list(rows)], about, groups, self.unit)


@dataclass(frozen=True)
class TruthFile:
    """Where labels to judge by are, and how they are read.

    Args:
        path: CSV; None if the first file of predictions holds them.
        classes: their names, or `tasks`, which are CheXpert's five; None for all columns that the files share.
        ids: header of the column that names the rows, if unusual.
        group: header of the column with whose rows are resampled together, such as a patient's; `group` if None.
        codes: what the cells mean.
    """

    path: Path | None = None
    classes: tuple[str, ...] | None = None
    ids: str | None = None
    group: str | None = None
    codes: Codes = TRUTH_CODES

    @classmethod
    def of(cls, given: "TruthFile | Path | str | None") -> "TruthFile":
        """Of a path, or as it is."""
        return given if isinstance(given, TruthFile) else cls(None if given is None else Path(given))


def label_states(table: Table, class_names: Sequence[str], codes: Codes) -> States:
    """States (M, C) of a table's labels, uncertain ones apart; with predictions they have columns of their own."""
    has_both = any(header.startswith(TRUTH) for header in table.names)
    columns = [TRUTH + name if has_both else class_column(table, name) for name in class_names]
    return column_labels(table, columns, codes, of_fractions="fractions").states


def read_truth(
    path: Path,
    class_names: Sequence[str],
    codes: Codes = TRUTH_CODES,
    names: str | None = None,
) -> Truth:
    """Reads the columns of some classes; an uncertain label judges nobody.

    Args:
        path: CSV, plain or gzipped, with a header; a file of `mlcv test` has columns of its own for the truth.
        class_names: C headers.
        codes: what the cells mean.
        names: header of the column with the rows' names, if it has one of its own; see `mlcv.posthoc.columns`.

    Raises:
        DataError: naming the file, row and column of what is missing or has no meaning; or if no class has a positive
            and a negative, as where absence is written otherwise.
    """
    table = read_table(path)
    ids = read_ids(table, names)
    states = label_states(table, class_names, codes)
    targets = torch.from_numpy(np.where(states == UNCERTAIN, UNKNOWN, states)).long()
    if not evaluable(targets).any():
        counts = ", ".join(f"{count} as {state}" for state, count in count_states(states).items())
        raise DataError(
            f"{path}: no class has a positive and a negative, so there is nothing to judge by; its cells are read "
            f"{counts}. Say what they mean with --positive, --negative, --uncertain, --blank and --fractions"
        )
    own = name_column(table.names, path, names)
    rest = [h for h in table.names if h not in (own, *class_names, *OUR_COLUMNS) and not h.startswith(TRUTH)]
    return Truth(ids, targets, {header: tuple(table.column(header)) for header in rest})
