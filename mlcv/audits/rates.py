"""How often given labels are wrong: a logistic curve with a floor for each of the two kinds of error.

Of an entry (image, class) with logit z the given label n is present with p = a + (1 - m - a) sigmoid(e^u z + b):
m is the rate of missing labels, P(n = 0 | y = 1), a that of false ones, P(n = 1 | y = 0), y the true label. Slope and
offset are each class's own, the slopes shrunk to a common one; the rates are shared, as few classes have positives
enough for rates of their own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from mlcv.labels.states import POSITIVE, States, known

Array = NDArray[Any]

MOST_MISSING, MOST_FALSE = 0.6, 0.3
"""Above these a label says too little for the curve to be told from one that is turned round."""
_SPREAD, _RIDGE = 0.3, 5e-4
_POOLED = np.array([[0.4, 3.6], [1.0, 99.0]])
"""Pseudo-counts (wrong, right) of the shared rates, of missing and of false labels."""
_OWN = np.array([30.0, 1000.0])
"""Pseudo-counts with which a class's own rates are held at the shared ones."""
_TAIL = 0.002
_STEPS = 250
"""Logits are counted in steps of this part of their spread: 3 million entries become 15,000 points."""
_CHI2 = 3.841
_FAR, _FINE = 16.0, 0.02
"""Log odds of a rate where an interval ends at the latest, and the part of its width to which its end is sought."""


@dataclass(frozen=True)
class Points:
    """Known entries, those alike counted together.

    Args:
        z, present, count, column: (P,) logit in units of `scale`, given label 0 or 1, how many, class.
        scale: spread of all logits; 1 if they are all the same.
        num_classes: C.
    """

    z: Array
    present: Array
    count: Array
    column: Array
    scale: float
    num_classes: int

    @classmethod
    def of(cls, logits: Array, states: States) -> "Points":
        """The known entries of logits (N, C) with label states (N, C)."""
        is_known = known(states)
        values = logits[is_known]
        scale = float(values.std(dtype=np.float64)) if len(values) else 0.0
        scale = scale if scale > 0 else 1.0
        parts = []
        for c in range(states.shape[1]):
            for present in (0, 1):
                z = logits[:, c][states[:, c] == present].astype(np.float64) / scale
                _, place = np.unique(np.round(z * _STEPS), return_inverse=True)
                count = np.bincount(place)
                mean = np.bincount(place, z) / count
                parts.append((mean, np.full(len(count), present), count, np.full(len(count), c)))
        z, present_, count_, column = (np.concatenate(some) for some in zip(*parts, strict=True))
        return cls(z, present_, count_.astype(np.float64), column, scale, states.shape[1])

    def of_class(self, c: int) -> "Points":
        """Those of one class; the others have none."""
        rows = self.column == c
        one = (self.z[rows], self.present[rows], self.count[rows], self.column[rows])
        return Points(*one, self.scale, self.num_classes)

    def sums(self, values: Array) -> Array:
        """Of values (P,) the sum of each class: (C,)."""
        return np.bincount(self.column, values, self.num_classes)


@dataclass(frozen=True)
class Curve:
    """p(n = 1 | z) = false + (1 - missing - false) sigmoid(slope z + offset), class by class.

    Args:
        slope, offset: (C,), of logits as they were given.
        missing, false: (C,), rates of the two kinds of error.
        log_likelihood: of the known entries, without the priors.
        parameters: as they were fitted: transformed rates, log slopes, offsets, and what the log slopes are shrunk to.
        prior: (2, 2) pseudo-counts (wrong, right) of missing and of false rates.
    """

    slope: Array
    offset: Array
    missing: Array
    false: Array
    log_likelihood: float
    parameters: Array
    prior: Array

    def present(self, logits: Array) -> Array:
        """P(y = 1 | z), never nearer to 0 or 1 than `_TAIL`, as no curve is right so far out: (N, C)."""
        there: Array = expit(self.slope * logits + self.offset)
        return _TAIL + (1 - 2 * _TAIL) * there


def wrong(present: Array, states: States, missing: Array, false: Array) -> Array:
    """P(y != n | z, n), by Bayes' rule; NaN where the label is not known.

    Args:
        present: (N, C), P(y = 1 | z) before the given label is looked at.
        states: (N, C), label states.
        missing: (C,), rates.
        false: (C,), rates.
    """
    absent = 1 - present
    of_absent = present * missing / (present * missing + absent * (1 - false))
    of_present = absent * false / (absent * false + present * (1 - missing))
    return np.where(known(states), np.where(states == POSITIVE, of_present, of_absent), np.nan)


def fit_shared(points: Points) -> Curve:
    """The curve whose rates all classes share, by penalised maximum likelihood."""
    start = np.concatenate([_to_free(0.1, 0.01), np.zeros(2 * points.num_classes + 1)])
    return _curve(points, _minimise(points, start, _POOLED), _POOLED)


def fit_own(points: Points, shared: Curve) -> Curve:
    """The curve with rates of each class, held at the shared ones by 30 and 1000 pseudo-counts."""
    first = np.array([[shared.missing[0]], [shared.false[0]]])
    prior = _OWN[:, None] * np.hstack([first, 1 - first])
    rates = np.repeat(shared.parameters[:2], points.num_classes)
    return _curve(points, _minimise(points, np.concatenate([rates, shared.parameters[2:]]), prior), prior)


def expected_rates(points: Points, rounds: int = 50) -> tuple[float, float]:
    """Missing and false rate by expectation-maximisation on P(n = 1 | z) of a logistic regression a class.

    It takes the rates out of the curve's errors everywhere, not out of its ends as `fit_shared` does, and so finds some
    where noise depends on the image.
    """
    regression: Any = LogisticRegression
    q = np.empty(len(points.z))
    for c in range(points.num_classes):
        rows = points.column == c
        z, n, count = points.z[rows, None], points.present[rows], points.count[rows]
        if len(np.unique(n)) == 2:
            q[rows] = regression(C=1e3, solver="newton-cholesky").fit(z, n, count).predict_proba(z)[:, 1]
        else:
            q[rows] = n
    m, a, n, weight = 0.1, 0.01, points.present, points.count
    for _ in range(rounds):
        y = np.clip((q - a) / (1 - m - a), 1e-4, 1 - 1e-4)
        of_present, of_absent = y * (1 - m), y * m
        r = np.where(n == 1, of_present / (of_present + (1 - y) * a), of_absent / (of_absent + (1 - y) * (1 - a)))
        there, absent = weight * r, weight * (1 - r)
        m = (there[n == 0].sum() + 2) / (there.sum() + 20)
        a = (absent[n == 1].sum() + 2) / (absent.sum() + 200)
    return min(m, MOST_MISSING), min(a, MOST_FALSE)


def intervals(points: Points, curve: Curve) -> tuple[Array, Array]:
    """95 % intervals of the missing and of the false rates of a curve: each (C, 2).

    By profile likelihood: the rates at which the penalised likelihood, all other parameters fitted anew (those of the
    class, where rates are its own), is worse by half of 3.84. Entries count as independent, so that intervals are too
    narrow where many images show the same patient, and know nothing of noise that depends on the image.
    """
    size = (len(curve.parameters) - 1) // 2 - points.num_classes
    if size == 1:
        every = np.arange(len(curve.parameters))
        found = [[_profile(points, curve, every, kind) for kind in (0, 1)]] * points.num_classes
    else:
        of_class = [np.arange(c, 4 * points.num_classes, points.num_classes) for c in range(points.num_classes)]
        found = [[_profile(points.of_class(c), curve, own, kind) for kind in (0, 1)] for c, own in enumerate(of_class)]
    both = np.array(found)
    return both[:, 0], both[:, 1]


def negative_log_likelihood(
    points: Points, missing: Array, false: Array, log_slope: Array, offset: Array
) -> tuple[float, tuple[Array, Array, Array, Array]]:
    """Of the given labels, and its gradient in (missing, false, log_slope, offset), each (C,); slopes in units of z."""
    column, weight, is_present = points.column, points.count, points.present == 1
    m, a, steep = missing[column], false[column], np.exp(log_slope)[column] * points.z
    there, absent = expit(steep + offset[column]), expit(-steep - offset[column])
    rest = 1 - m - a
    said = np.where(is_present, a + rest * there, m + rest * absent)  # 1 - p without a difference of near equals
    by_p = np.where(is_present, weight, -weight) / said
    by_x = by_p * rest * there * absent
    gradient = points.sums(-by_p * there), points.sums(by_p * absent), points.sums(by_x * steep), points.sums(by_x)
    return float(-(weight * np.log(said)).sum()), tuple(-part for part in gradient)  # type: ignore[return-value]


def objective(parameters: Array, points: Points, prior: Array) -> tuple[float, Array]:
    """What a fit minimises, and its gradient: the negative log-likelihood with the priors on all parameters.

    Args:
        parameters: rates, as `_to_free` makes them (2, or 2 C: first those of missing labels), C log slopes, C offsets,
            and what the log slopes are shrunk to.
        points: of C classes.
        prior: (2, 2) pseudo-counts (wrong, right) of missing and of false rates.
    """
    rates, log_slope, offset, centre = _parts(parameters, points.num_classes)
    m, a = (np.broadcast_to(rate, points.num_classes) for rate in _to_rates(rates))
    loss, (by_m, by_a, by_slope, by_offset) = negative_log_likelihood(points, m, a, log_slope, offset)
    away = (log_slope - centre) / _SPREAD
    loss += 0.5 * float(away @ away) + _RIDGE * float(offset @ offset)
    by_rates = []
    for rate, most, by_rate, (wrong_, right) in zip(
        _to_rates(rates), (MOST_MISSING, MOST_FALSE), (by_m, by_a), prior, strict=True
    ):
        loss -= float((wrong_ * np.log(rate) + right * np.log1p(-rate)).sum())
        by_rate = by_rate if len(rate) == len(by_rate) else by_rate.sum(keepdims=True)
        by_rates.append((by_rate - wrong_ / rate + right / (1 - rate)) * rate * (1 - rate / most))
    by_centre = -away.sum(keepdims=True) / _SPREAD
    return loss, np.concatenate([*by_rates, by_slope + away / _SPREAD, by_offset + 2 * _RIDGE * offset, by_centre])


def _parts(parameters: Array, num_classes: int) -> list[Array]:
    """Rates, log slopes, offsets, and what the log slopes are shrunk to."""
    rates = len(parameters) - 2 * num_classes - 1
    return np.split(parameters, [rates, rates + num_classes, rates + 2 * num_classes])


def _to_free(missing: float, false: float) -> Array:
    """Rates as numbers without bounds."""
    return logit(np.array([missing / MOST_MISSING, false / MOST_FALSE]))  # type: ignore[no-any-return]


def _to_rates(free: Array) -> tuple[Array, Array]:
    """Of missing and of false labels, each (1,) or (C,)."""
    missing, false = np.split(np.clip(expit(free), 1e-9, 1 - 1e-9), 2)
    return MOST_MISSING * missing, MOST_FALSE * false


def _minimise(points: Points, start: Array, prior: Array, free: Array | None = None, tolerance: float = 1e-13) -> Array:
    """Parameters at which `objective` is least, from a start; only some of them free if this is said."""
    some = np.arange(len(start)) if free is None else free
    total = max(points.count.sum(), 1.0)

    def scaled(values: Array) -> tuple[float, Array]:
        parameters = start.copy()
        parameters[some] = values
        loss, gradient = objective(parameters, points, prior)
        return loss / total, gradient[some] / total

    options = {"maxiter": 1000, "maxfun": 2000, "ftol": tolerance, "gtol": 1e-9, "maxcor": 30}
    found: Any = minimize(scaled, start[some], jac=True, method="L-BFGS-B", options=options)  # type: ignore[no-untyped-call]
    parameters = start.copy()
    parameters[some] = found.x
    return parameters


def _curve(points: Points, parameters: Array, prior: Array) -> Curve:
    rates, log_slope, offset, _ = _parts(parameters, points.num_classes)
    m, a = (np.array(np.broadcast_to(rate, points.num_classes)) for rate in _to_rates(rates))
    loss, _ = negative_log_likelihood(points, m, a, log_slope, offset)
    return Curve(np.exp(log_slope) / points.scale, offset, m, a, -loss, parameters, prior)


def _profile(points: Points, curve: Curve, own: Array, kind: int) -> tuple[float, float]:
    """The interval of a rate: the first (missing) or second (false) of the parameters `own`, which are fitted anew."""
    most = (MOST_MISSING, MOST_FALSE)[kind]
    place, others = own[kind], np.delete(own, kind)
    best, _ = objective(curve.parameters, points, curve.prior)

    def at(value: float, start: Array) -> tuple[bool, Array]:
        """Whether a value is too bad, and all parameters there."""
        parameters = start.copy()
        parameters[place] = value
        parameters = _minimise(points, parameters, curve.prior, others, tolerance=1e-9)
        return 2 * (objective(parameters, points, curve.prior)[0] - best) > _CHI2, parameters

    ends = []
    for sign in (-1, 1):
        parameters, near, step = curve.parameters, float(curve.parameters[place]), 0.1
        estimate, is_outside = near, False
        while (
            step > _FINE * abs(near - estimate) + 1e-4 and abs(near) < _FAR
        ):  # longer and longer steps, until one is too long; then shorter ones
            far = float(np.clip(near + sign * step, -_FAR, _FAR))
            is_too_far, there = at(far, parameters)
            is_outside |= is_too_far
            if not is_too_far:
                parameters, near = there, far
            step *= 0.5 if is_outside else 2
        ends.append(near)
    return tuple(float(most * expit(end)) for end in ends)  # type: ignore[return-value]
