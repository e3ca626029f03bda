"""How often what is predicted with a probability is there: the numbers behind a reliability diagram."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from mlcv.labels.intervals import wilson
from mlcv.labels.states import NEGATIVE, POSITIVE, known

Array = NDArray[Any]
LEAST = 10
"""Positives, and negatives, that a class has at least whose diagram says anything."""


@dataclass(frozen=True)
class Bin:
    """Entries of like probability.

    Args:
        said: their mean probability.
        count: how many.
        there: how many are.
        low: of the 95 % interval of the part that is there (Wilson), as if entries were independent.
        high: likewise.
    """

    said: float
    count: int
    there: int
    low: float
    high: float


def entries(probs: Tensor, targets: Tensor) -> tuple[Array, Array]:
    """Probabilities and labels of all known entries, each (N,)."""
    rows = known(targets)
    return probs[rows].double().numpy(), (targets[rows] == POSITIVE).double().numpy()


def log_odds_bins(probs: Array, labels: Array, low: float, high: float, count: int = 12) -> list[Bin]:
    """Bins of equal width in log-odds, so that rare classes' probabilities are told apart; empty ones are left out.

    Args:
        probs: in [0, 1].
        labels: 0 or 1.
        low: probability at which the first bin begins; lower ones are in it, too.
        high: where the last one ends, likewise.
        count: of bins.

    Shape:
        probs and labels (N,).
    """
    inner = np.linspace(logit(low), logit(high), count + 1)[1:-1]
    place = np.digitize(logit(probs.clip(1e-12, 1 - 1e-12)), inner)
    found = []
    for n in range(count):
        rows = place == n
        if rows.any():
            there, in_all = int(labels[rows].sum()), int(rows.sum())
            found.append(Bin(float(probs[rows].mean()), in_all, there, *map(float, wilson(there / in_all, in_all))))
    return found


def isotonic(probs: Array, labels: Array) -> Array:
    """The rising function of the probability that fits the labels best, at each entry (pool adjacent violators).

    The curve of CORP diagrams (Dimitriadis, Gneiting and Jordan, PNAS 2021), which need no bins.

    Shape:
        probs and labels (N,); returns (N,).
    """
    regression: Any = IsotonicRegression
    fitted: Array = regression(y_min=0, y_max=1).fit_transform(probs, labels)
    return fitted


def miscalibration(probs: Tensor, targets: Tensor) -> Tensor:
    """How much of a class's Brier score is miscalibration, in parts of that of its base rate: (C,).

    CORP's MCB / UNC: what the score would lose by the isotonic curve in place of the probabilities. NaN for a class
    with fewer than `LEAST` positives or negatives.

    Shape:
        probs and targets (M, C).
    """
    parts = torch.full((targets.shape[1],), torch.nan, dtype=torch.float64)
    for c in range(len(parts)):
        if min(int((targets[:, c] == state).sum()) for state in (POSITIVE, NEGATIVE)) >= LEAST:
            said, there = entries(probs[:, c], targets[:, c])
            lost = np.mean((said - there) ** 2) - np.mean((isotonic(said, there) - there) ** 2)
            parts[c] = float(lost / there.var())
    return parts
