"""Whether parts of a data set differ by more than chance: label rates, sizes, brightness; and what a label follows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, expit, kolmogorov, logit, ndtri
from scipy.stats import fisher_exact, ks_2samp, rankdata

SURE = 0.01
"""A difference is one if its p, corrected for all comparisons by Holm's rule, is below this,"""
_ODDS, _SHIFT, _FOLLOWS = 1.25, 0.1, 0.65
"""and if it matters: a ratio of odds; a distance of two distributions in [0, 1]; an AUROC's nearer end."""
_EXACT = 100
"""Images of the larger part up to which the distribution of the distance is the exact one."""
FEWEST = 10
"""Images on either side of an AUROC, and groups, below which its interval would be a guess."""
_SMALL = 5.0
"""Expected counts below which Fisher's exact test is taken in place of chi-squared."""


@dataclass(frozen=True)
class Gap:
    """A class's label rate in two parts.

    Args:
        column: of the class.
        parts: numbers of the two.
        rates: in each, in [0, 1].
        p: of a test that they are the same, corrected for all classes and pairs of parts.
        odds: their ratio of odds, of the larger to the smaller, with half an image more of each kind.
    """

    column: int
    parts: tuple[int, int]
    rates: tuple[float, float]
    p: float
    odds: float

    @property
    def is_one(self) -> bool:
        """Whether it is more than chance, and large enough to matter."""
        return self.p < SURE and self.odds >= _ODDS


@dataclass(frozen=True)
class Shift:
    """A quantity in two parts.

    Args:
        parts: numbers of the two.
        medians: in each.
        distance: largest difference of the two distribution functions (Kolmogorov-Smirnov).
        p: of a test that they are the same, corrected for all pairs of parts and all quantities.
    """

    parts: tuple[int, int]
    medians: tuple[float, float]
    distance: float
    p: float

    @property
    def is_one(self) -> bool:
        """Whether it is more than chance, and large enough to matter."""
        return self.p < SURE and self.distance >= _SHIFT


@dataclass(frozen=True)
class Area:
    """How well a quantity alone tells whether a label is there.

    Args:
        value: AUROC in [0, 1]; NaN if fewer images than `FEWEST` are known to have the label, or to lack it, or if all
            are of fewer groups.
        low: lower end of its interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def follows(self) -> bool:
        """Whether the label follows the quantity, up or down, with all of the interval."""
        return self.low > _FOLLOWS or self.high < 1 - _FOLLOWS


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corrected for as many comparisons as there are: Holm, Scandinavian Journal of Statistics 6 (1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1)
    return out


def rates_apart(
    positive: NDArray[np.int64], total: NDArray[np.int64], effects: NDArray[np.float64] | None = None
) -> list[Gap]:
    """Compares the label rates of each two parts, least likely to be chance first.

    Args:
        positive: (S, C), images that show a class.
        total: (S, C), images of which it is known.
        effects: (S, C), see `mlcv.sheets.clusters`; None if images are independent.
    """
    effects = np.ones(total.shape) if effects is None else effects
    positives, totals = positive / effects, total / effects
    found = [
        (c, (one, other))
        for one, other in combinations(range(len(total)), 2)
        for c in np.flatnonzero((total[one] > 0) & (total[other] > 0)).tolist()
    ]
    p = holm(np.array([_same_rate(positives[list(parts), c], totals[list(parts), c]) for c, parts in found]))
    gaps = []
    for (c, parts), value in zip(found, p, strict=True):
        hits, count = positive[list(parts), c], total[list(parts), c]
        odds = (hits + 0.5) / (count - hits + 0.5)
        rates = hits / count
        # Where both are all, or none, of a few and of many, half an image more would look like a difference.
        ratio = 1.0 if rates[0] == rates[1] else float(max(odds) / min(odds))
        gaps.append(Gap(c, parts, (float(rates[0]), float(rates[1])), float(value), ratio))
    return sorted(gaps, key=lambda gap: (gap.p, -gap.odds))


def _same_rate(hits: NDArray[np.float64], count: NDArray[np.float64]) -> float:
    table = np.stack([hits, count - hits])
    if not table.sum(axis=1).all():
        return 1.0
    expected = np.outer(table.sum(axis=1), count) / count.sum()
    if expected.min() < _SMALL:
        return float(fisher_exact(np.rint(table).astype(np.int64)).pvalue)
    return float(chdtrc(1, ((table - expected) ** 2 / expected).sum()))


def values_apart(
    quantities: Mapping[str, Sequence[NDArray[np.float64]]], effects: Mapping[str, NDArray[np.float64]] | None = None
) -> dict[str, list[Shift]]:
    """Compares quantities in each two parts that have images, least likely to be chance first.

    Args:
        quantities: by name, one array a part.
        effects: by name, one a part, see `mlcv.sheets.clusters`; None if images are independent.
    """
    effects = effects or {name: np.ones(len(values)) for name, values in quantities.items()}
    tests = {
        (name, pair): _same_values(both[0], both[1], effects[name][list(pair)])
        for name, values in quantities.items()
        for pair in combinations(range(len(values)), 2)
        if all(map(len, both := [values[n] for n in pair]))
    }
    p = holm(np.array([p for _, p in tests.values()], np.float64))
    found: dict[str, list[Shift]] = {name: [] for name in quantities}
    for ((name, pair), (distance, _)), value in zip(tests.items(), p.tolist(), strict=True):
        one, other = (float(np.median(quantities[name][n])) for n in pair)
        found[name].append(Shift(pair, (one, other), distance, value))
    return {name: sorted(shifts, key=lambda shift: (shift.p, -shift.distance)) for name, shifts in found.items()}


def _same_values(
    one: NDArray[np.float64], other: NDArray[np.float64], effects: NDArray[np.float64]
) -> tuple[float, float]:
    """The distance of two samples, and p, as of so many times fewer images."""
    is_single = effects.max() == 1
    is_exact = is_single and max(len(one), len(other)) <= _EXACT
    test = ks_2samp(one, other, method="exact" if is_exact else "asymp")
    if is_single:
        return float(test.statistic), float(test.pvalue)
    images = 1 / (effects[0] / len(one) + effects[1] / len(other))
    return float(test.statistic), float(kolmogorov(math.sqrt(images) * test.statistic))


def area(
    values: NDArray[np.float64],
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    tests: int = 1,
    groups: NDArray[np.intp] | None = None,
) -> Area:
    """AUROC of a quantity with DeLong's variance (Biometrics 44, 1988), its interval made on the scale of log-odds.

    Where images are of groups, what each of them adds is summed up group by group, as Obuchowski does (Biometrics 53,
    1997), so that it is the groups that count as independent.

    Args:
        values: (M,).
        positive: images that show a class (M,).
        negative: images that do not.
        tests: intervals that are looked at together: all of them hold in 95 % (Bonferroni).
        groups: (M,) numbers from 0; None if images are independent.
    """
    there, absent = values[positive], values[negative]
    if min(len(there), len(absent)) < FEWEST:
        return Area(np.nan, np.nan, np.nan)
    own = None if groups is None else np.concatenate([groups[positive], groups[negative]])
    count = 0 if own is None else np.count_nonzero(np.bincount(own))
    if own is not None and count < FEWEST:
        return Area(np.nan, np.nan, np.nan)
    ranks, pairs = rankdata(np.concatenate([there, absent])), len(there) * len(absent)
    above = (ranks[: len(there)] - rankdata(there)) / len(absent)
    below = 1 - (ranks[len(there) :] - rankdata(absent)) / len(there)
    value = float(above.mean())
    inner = (value * pairs + 0.5) / (pairs + 1)  # at 0 and 1 log-odds would be infinite
    if own is None:
        variance = float(above.var(ddof=1)) / len(there) + float(below.var(ddof=1)) / len(absent)
    else:
        adds = np.concatenate([(above - value) / len(there), (below - value) / len(absent)])
        variance = float((np.bincount(own, adds) ** 2).sum()) * count / (count - 1)
    error = math.sqrt(max(variance, inner * (1 - inner) / pairs)) / (inner * (1 - inner))
    half = -float(ndtri(0.025 / max(tests, 1))) * error
    return Area(value, float(expit(logit(inner) - half)), float(expit(logit(inner) + half)))
