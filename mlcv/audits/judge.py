"""Which given labels of a multi-label data set are wrong, from what a model says that did not see them.

The steps: learn what the other labels say about each class; calibrate with a curve that knows of wrong labels; weigh
the given label against it by Bayes' rule. See `mlcv.audits.stacking` and `mlcv.audits.rates`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import rankdata

from mlcv.audits.rates import Curve, Points, expected_rates, fit_own, fit_shared, intervals, wrong
from mlcv.audits.stacking import FOLDS, deal, stack
from mlcv.errors import DataError, check_choice
from mlcv.labels.states import NEGATIVE, POSITIVE, States, known

Array = NDArray[Any]
By = Literal["errors", "mean_ap"]

_FAR = np.log(1.5)
"""Log odds by which a class's mean probability may miss its prevalence."""
_FEWEST, _Z = 5, 1.96
"""Labels of either kind by which one can tell whether a class's logits mean anything; of a two-sided test at 5 %."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is thought of each entry, and how often each kind of error happens.

    Args:
        wrong: (N, C), probability that the given label is wrong; NaN where none is known.
        present: (N, C), probability that the class is truly there: of known entries from logit, other labels and the
            given label; of others from the logit alone, as other labels do not help to find rare classes there.
        missing: (C,), estimated P(given absent | present). Classes share it unless `has_own_rates`.
        false: (C,), estimated P(given present | absent).
        missing_interval: (C, 2), 95 % by profile likelihood, widened to hold the estimate where that is a floor; it
            takes entries as independent, and noise as the same for all images.
        false_interval: (C, 2), likewise.
        mean_probability: (C,), of known entries by the raw logits; NaN without any.
        prevalence: (C,), share of given positives among known entries; NaN without any.
        is_trusted: (C,), whether these two agree: within 1.5 in odds, or three standard errors. Where they do not, a
            caller warns, and ranks rather than counts: the rates below come of a curve fitted to whatever was given.
        is_informed: (C,), whether the raw logits tell given positives from given negatives better than chance, either
            way up (a rank sum beyond 1.96 standard errors); True where fewer than five of one kind could not show it.
            Where they do not, neither order nor number means anything.
        is_stacked: whether other labels were used, which made the given ones likelier.
        has_own_rates: whether classes have rates of their own, as the data asked for.
    """

    wrong: Array
    present: Array
    missing: Array
    false: Array
    missing_interval: Array
    false_interval: Array
    mean_probability: Array
    prevalence: Array
    is_trusted: Array
    is_informed: Array
    is_stacked: bool
    has_own_rates: bool

    @property
    def expected_wrong(self) -> Array:
        """Number of known entries whose label is wrong, (C,): a lower bound where noise depends on the image."""
        return np.asarray(np.nansum(self.wrong, axis=0))

    @property
    def class_health(self) -> Array:
        """Expected share of each class's known entries whose label is right: (C,), NaN without any."""
        count = (~np.isnan(self.wrong)).sum(axis=0)
        return np.asarray(1 - np.where(count > 0, self.expected_wrong, np.nan) / np.maximum(count, 1))

    @property
    def health(self) -> float:
        """Expected share of all known entries whose label is right; NaN without any.

        A mean over entries: more classes of the same quality leave it as it is, where a share of images without any
        error would fall.
        """
        count = (~np.isnan(self.wrong)).sum()
        return float(1 - self.expected_wrong.sum() / count) if count else float("nan")


def judge(
    logits: Array,
    states: States,
    *,
    groups: Array | None = None,
    folds: Array | None = None,
    seed: int = 0,
    other_labels: bool = True,
) -> Judgement:
    """Judges the given labels by logits of models that did not see them.

    They must be out of fold: a model has learned its own training labels, wrong ones too, and nothing done here
    brings back what it would have said otherwise. Scale and offset do not matter; those of several models, or of
    several views, are averaged before.

    Args:
        logits: (N, C), finite.
        states: (N, C), label states; only positive and negative ones are judged.
        groups: (N,), images of one group (a patient) share a fold, in which other labels' weights are not learned.
        folds: (N,) ints, in place of a deal at random.
        seed: of the deal.
        other_labels: whether the other given labels of an image may help, if they make the given ones likelier.

    Raises:
        DataError: if shapes differ, or a logit is not finite.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape != states.shape:
        raise DataError(f"logits have shape {logits.shape}, label states {states.shape}; both are (images, classes)")
    if not np.isfinite(logits).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(logits))[0])
        raise DataError(f"the logit of image {row}, class {column} is {logits[row, column]}; give finite ones")
    points = Points.of(logits, states)
    alone = curve = fit_shared(points)
    used = logits
    if other_labels and logits.shape[1] > 1:
        stacked = stack(logits, states, deal(len(logits), groups, seed) if folds is None else np.asarray(folds), seed)
        stacked_points = Points.of(stacked, states)
        stacked_curve = fit_shared(stacked_points)
        if stacked_curve.log_likelihood > alone.log_likelihood:
            used, points, curve = stacked, stacked_points, stacked_curve
    own = fit_own(points, curve)
    has_own_rates = 2 * (own.log_likelihood - curve.log_likelihood) > 2 * logits.shape[1]
    if has_own_rates:
        curve = own
    missing, false, of_missing, of_false = _with_floors(points, curve)
    posterior = wrong(curve.present(used), states, missing, false)
    present = np.where(states == POSITIVE, 1 - posterior, posterior)
    nobody_said = ~known(states)
    present[nobody_said] = alone.present(logits)[nobody_said]
    mean, prevalence, is_trusted = _in_the_large(logits, states)
    return Judgement(
        posterior, present, missing, false, of_missing, of_false, mean, prevalence, is_trusted,
        _informed(logits, states), used is not logits, has_own_rates,
    )  # fmt: skip


def too_few(states: States, class_names: Sequence[str], least: int = 2, folds: int = FOLDS) -> list[str]:
    """Classes with fewer than so many known positives, or negatives, a fold: each with its counts, in words.

    They are judged with what the other classes teach; a caller that wants models of them out of fold refuses.
    """
    found = []
    for name, n in zip(class_names, states.T, strict=True):
        positive, negative = int((n == POSITIVE).sum()), int((n == NEGATIVE).sum())
        if min(positive, negative) < least * folds:
            found.append(f"{name!r} ({positive} known positive, {negative} known negative)")
    return found


def order(judgement: Judgement, states: States, by: By = "errors") -> tuple[Array, Array]:
    """Rows and columns of all known entries, most suspicious first; those alike as they stand in the table.

    Args:
        judgement: of the states.
        states: (N, C), label states.
        by: `errors` finds most wrong labels a look; `mean_ap` divides by the square root of how many known images are
            expected to show the class, so that rare classes, which count as much in a mean over classes, come earlier.

    Raises:
        ConfigError: for another order.
    """
    rows, columns = np.nonzero(known(states))
    best = np.argsort(-suspicion(judgement, states, by)[rows, columns], kind="stable")
    return rows[best], columns[best]


def suspicion(judgement: Judgement, states: States, by: By = "errors") -> Array:
    """By what `order` sorts: (N, C), NaN where nothing is known.

    Raises:
        ConfigError: for another order.
    """
    check_choice("by", by, get_args(By))
    if by == "errors":
        return judgement.wrong
    expected = np.where(known(states), judgement.present, 0).sum(axis=0)
    return np.asarray(judgement.wrong / np.sqrt(np.maximum(expected, 1e-12)))


def _with_floors(points: Points, curve: Curve) -> tuple[Array, Array, Array, Array]:
    """Missing and false rates (C,) not below those of the second estimator, and their intervals (C, 2)."""
    rates = []
    for rate, floor, interval in zip(
        (curve.missing, curve.false), expected_rates(points), intervals(points, curve), strict=True
    ):
        final = np.maximum(rate, floor)
        rates.append((final, np.column_stack([interval[:, 0], np.maximum(interval[:, 1], final)])))
    (missing, of_missing), (false, of_false) = rates
    return missing, false, of_missing, of_false


def _in_the_large(logits: Array, states: States) -> tuple[Array, Array, Array]:
    """Mean probability and prevalence of each class's known entries, and whether they agree: each (C,)."""
    is_known = known(states)
    count = is_known.sum(axis=0)
    at_least_one = np.maximum(count, 1)
    mean = np.array([expit(z[rows].astype(np.float64)).sum() for z, rows in zip(logits.T, is_known.T, strict=True)])
    mean, prevalence = mean / at_least_one, (states == POSITIVE).sum(axis=0) / at_least_one
    error = np.sqrt(prevalence * (1 - prevalence) / at_least_one)
    inside = np.clip([mean, prevalence], 1e-9, 1 - 1e-9)
    near = (np.abs(logit(inside[0]) - logit(inside[1])) <= _FAR) | (np.abs(mean - prevalence) <= 3 * error)
    nothing = count == 0
    mean[nothing], prevalence[nothing] = np.nan, np.nan
    return mean, prevalence, near & ~nothing


def _informed(logits: Array, states: States) -> Array:
    """Whether a class's logits order its given labels at all (C,), by the rank sum with its variance of ties."""
    found = np.ones(logits.shape[1], bool)
    for c, (z, labels) in enumerate(zip(logits.T, states.T, strict=True)):
        above, below = z[labels == POSITIVE], z[labels == NEGATIVE]
        if min(len(above), len(below)) < _FEWEST:
            continue
        ranks = rankdata(np.concatenate([above, below]))
        total, ties = len(ranks), np.unique(ranks, return_counts=True)[1].astype(np.float64)
        variance = len(above) * len(below) / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
        excess = ranks[: len(above)].sum() - len(above) * (total + 1) / 2
        found[c] = abs(excess) > _Z * np.sqrt(variance)
    return found
