"""What people decided on some entries, and what that says of all others."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from mlcv.audits.judge import Judgement
from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, States

Array = NDArray[Any]
Review = tuple[int, int, bool]
"""Row, column, and whether the given label is wrong."""

_TOP = 0.4
_PRIOR_SD = 1.5
_CHI2 = 3.841
_EDGE = 1e-12


def to_review(judgement: Judgement, states: States, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Entries from which `revise` can tell whether probabilities are right: rows and columns, kind by kind.

    Half are called present and half absent. Of each kind 40 % are the most suspicious, and the rest are drawn from the
    others with probability in proportion to theirs, so that the decisions also reach the many entries of small ones.

    Args:
        judgement: of the states.
        states: (N, C), label states.
        n: how many; fewer if there are not so many known ones, or of one kind.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for given, share in ((NEGATIVE, (n + 1) // 2), (POSITIVE, n // 2)):
        entries = np.argwhere(states == given)
        w = judgement.wrong[states == given]
        best = np.argsort(-w, kind="stable")
        top = int(np.ceil(_TOP * share))
        rest = best[top:]
        # The largest of log w plus Gumbel noise: a draw without replacement, one after another in proportion to w.
        noisy = np.log(np.maximum(w[rest], _EDGE)) + rng.gumbel(size=len(rest))
        drawn = rest[np.argsort(-noisy, kind="stable")[: max(share - top, 0)]]
        chosen.append(entries[np.concatenate([best[:top], drawn])])
    rows, columns = np.concatenate(chosen).T
    return rows, columns


def revise(judgement: Judgement, states: States, reviews: Sequence[Review]) -> Judgement:
    """The judgement after people have looked at some entries: theirs are decided, the others' probabilities shifted.

    The log odds of all entries of a kind (called absent; called present) move by the d that maximises the likelihood of
    the decisions with d ~ N(0, 1.5^2), if a likelihood-ratio test at 5 % says that they do not fit as they are; else
    chance would move what was right. It mends the count where noise depends on the image, and cannot be seen in logits.
    Rates and intervals stay as they were estimated.

    Args:
        judgement: of the states, before any review.
        states: (N, C), label states.
        reviews: of known entries; about a hundred that `to_review` chose.

    Raises:
        DataError: for an entry that is not known, or is decided twice in two ways.
    """
    decided: dict[tuple[int, int], bool] = {}
    for row, column, is_wrong in reviews:
        if np.isnan(judgement.wrong[row, column]):
            raise DataError(f"image {row}, class {column} has no known label that could be right or wrong")
        if decided.setdefault((row, column), is_wrong) != is_wrong:
            raise DataError(f"image {row}, class {column} is decided twice, once as right and once as wrong")
    revised = judgement.wrong.copy()
    for given in (NEGATIVE, POSITIVE):
        of_kind = [place for place in decided if states[place] == given]
        odds = logit(np.clip([judgement.wrong[place] for place in of_kind], _EDGE, 1 - _EDGE))
        shift = _shift(odds, np.array([decided[place] for place in of_kind], bool))
        if shift:
            entries = states == given
            revised[entries] = expit(logit(np.clip(revised[entries], _EDGE, 1 - _EDGE)) + shift)
    for place, is_wrong in decided.items():
        revised[place] = float(is_wrong)
    present = np.where(np.isnan(revised), judgement.present, np.where(states == POSITIVE, 1 - revised, revised))
    return replace(judgement, wrong=revised, present=present)


def _shift(odds: Array, is_wrong: Array) -> float:
    """By how much log odds are to move so that they fit decisions (M,); 0 where they may fit as they are."""
    if not len(odds):
        return 0.0
    sign = np.where(is_wrong, 1.0, -1.0)

    def loss(d: float) -> float:
        return float(np.logaddexp(0, -sign * (odds + d)).sum())

    def with_prior(d: float) -> float:
        return loss(d) + 0.5 * (d / _PRIOR_SD) ** 2

    found: Any = minimize_scalar(with_prior, bounds=(-15, 15), method="bounded")  # type: ignore[no-untyped-call]
    best = float(found.x)
    return best if 2 * (loss(0) - loss(best)) > _CHI2 else 0.0
