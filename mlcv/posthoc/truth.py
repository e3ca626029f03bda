"""Files of truth: CSV tables of labels, a row an image or study, with what else is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlcv.labels.states import UNCERTAIN, UNKNOWN, States
from mlcv.posthoc.predictions import check_unique, id_column
from mlcv.tables import TRUTH, Codes, Table, column_states


@dataclass(frozen=True)
class Truth:
    """Labels of M rows.

    Args:
        ids: M names.
        targets: int64 (M, C) in {0, 1}, or -1 where unknown or uncertain.
        about: every other column of the table, M cells each.
    """

    ids: tuple[str, ...]
    targets: Tensor
    about: dict[str, tuple[str, ...]]


def label_states(table: Table, class_names: Sequence[str], codes: Codes) -> States:
    """States (M, C) of a table's labels, uncertain ones apart; with predictions they have columns of their own."""
    prefix = TRUTH if any(header.startswith(TRUTH) for header in table.names) else ""
    return column_states(table, [prefix + name for name in class_names], codes)


def read_truth(path: Path, class_names: Sequence[str], codes: Codes = Codes(uncertain=("-1",))) -> Truth:  # noqa: B008
    """Reads the columns of some classes; an uncertain label judges nobody.

    Args:
        path: CSV, plain or gzipped, with a header; a file of `mlcv test` has columns of its own for the truth.
        class_names: C headers.
        codes: what the cells mean.

    Raises:
        DataError: naming the file, row and column of what is missing or has no meaning.
    """
    table = Table(path)
    name = id_column(table)
    ids = tuple(table.column(name))
    check_unique(table, ids)
    states = label_states(table, class_names, codes)
    targets = torch.from_numpy(np.where(states == UNCERTAIN, UNKNOWN, states)).long()
    rest = [h for h in table.names if h not in (name, *class_names) and not h.startswith(TRUTH)]
    return Truth(ids, targets, {header: tuple(table.column(header)) for header in rest})
