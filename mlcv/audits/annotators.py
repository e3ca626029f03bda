"""What is true where several people have answered: their vote, or what is likely given how good each of them is.

Dawid and Skene, Applied Statistics 28 (1979) 20-28: of an item with the hidden truth l, annotator j answers k with
probability C_j[l, k]; truth and C are estimated in turn (EM). Raykar et al., JMLR 11 (2010) 1297-1322: likewise, but
before anybody answers a model says how likely the item is; here the model is given and is not trained again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, States

Array = NDArray[Any]

NO, MAYBE, YES = 0, 1, 2

_Z = 1.959964
_TAIL = 0.002
"""A prior is never nearer to 0 or 1, so that a model alone does not outvote everybody."""
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Votes:
    """Answers of people; an item is what is asked about, such as an image and a class.

    Args:
        item: (V,), place of the item of each vote.
        annotator: (V,), place of who gave it.
        answer: (V,), `NO`, `MAYBE` or `YES`.
        num_items: N.
        num_annotators: J.

    Raises:
        DataError: for another answer or place, or two votes of one annotator on an item.
    """

    item: Array
    annotator: Array
    answer: Array
    num_items: int
    num_annotators: int

    def __post_init__(self) -> None:
        for name, places, count in (("item", self.item, self.num_items), ("annotator", self.annotator,
                                    self.num_annotators), ("answer", self.answer, 3)):  # fmt: skip
            if len(places) != len(self.item) or (len(places) and not 0 <= places.min() <= places.max() < count):
                raise DataError(f"votes: {name} is a whole number from 0 to {count - 1} for each of the votes")
        if (place := self.again()) is not None:
            raise DataError(f"votes: annotator {self.annotator[place]} answers twice on item {self.item[place]}")

    def again(self) -> int | None:
        """Place of the first vote on an item that its annotator has voted on already."""
        key = self.item.astype(np.int64) * self.num_annotators + self.annotator
        order = np.argsort(key, kind="stable")
        repeated = order[1:][np.diff(key[order]) == 0]
        return int(repeated.min()) if len(repeated) else None

    @property
    def num_answers(self) -> int:
        """Three if anybody says maybe, else two."""
        return 3 if (self.answer == MAYBE).any() else 2

    @property
    def count(self) -> Array:
        """Votes on each item, (N,)."""
        return np.bincount(self.item, minlength=self.num_items)

    @property
    def share(self) -> Array:
        """Part of each item's votes that say yes, a maybe counting half: (N,); NaN without votes."""
        total = np.bincount(self.item, self.answer / 2, self.num_items)
        count = self.count
        return np.asarray(np.divide(total, count, out=np.full(self.num_items, np.nan), where=count > 0))

    @property
    def share_of_others(self) -> Array:
        """The same for each vote, of the others on its item: (V,); NaN of the only one."""
        others = self.count[self.item] - 1
        total = np.bincount(self.item, self.answer / 2, self.num_items)[self.item] - self.answer / 2
        return np.asarray(np.divide(total, others, out=np.full(len(self.item), np.nan), where=others > 0))

    def select(self, votes: Array) -> "Votes":
        """Some of the votes, on the same items and of the same people."""
        return Votes(self.item[votes], self.annotator[votes], self.answer[votes], self.num_items, self.num_annotators)


@dataclass(frozen=True, eq=False)
class Rates:
    """How each of J annotators answers, in each of G classes, or in all together (G = 1).

    Args:
        votes: (G, J), number.
        sensitivity: (G, J), P(yes | present); NaN without votes. A maybe is neither right nor wrong, and not yes.
        sensitivity_interval: (G, J, 2), 95 %.
        specificity: (G, J), P(no | absent), likewise.
        specificity_interval: (G, J, 2).
    """

    votes: Array
    sensitivity: Array
    sensitivity_interval: Array
    specificity: Array
    specificity_interval: Array

    @classmethod
    def of(cls, votes: Votes, present: Array, classes: Array | None = None) -> "Rates":
        """From P(present) at each vote (V,), NaN where nothing is known.

        The interval is Wilson's, for sum of p^2 cases rather than sum of p: what a case tells about a rate is the
        square of its score, so cases of which the truth is doubtful count less.
        """
        num_groups = _num_groups(classes)
        rows = _groups(votes, classes) * votes.num_annotators + votes.annotator
        shape = (num_groups, votes.num_annotators)
        count = np.bincount(rows, minlength=num_groups * votes.num_annotators).reshape(shape)
        p = np.nan_to_num(present)
        absent = np.nan_to_num(1 - present)
        found = []
        for weight, right in ((p, votes.answer == YES), (absent, votes.answer == NO)):
            cases, hits, cases_2 = (
                np.bincount(rows, some, count.size).reshape(shape) for some in (weight, weight * right, weight**2)
            )
            rate = np.divide(hits, cases, out=np.full(shape, np.nan), where=cases > 0)
            found += [rate, wilson(rate, cases_2)]
        return cls(count, *found)


@dataclass(frozen=True, eq=False)
class Consensus:
    """What annotators say together.

    Args:
        probability: (N,), that the answer is yes; NaN without votes.
        rates: of the annotators.
        iterations: of EM; 0 of other methods.
        log_likelihood: of the votes; NaN of other methods.
        weight: (G, J), of annotators, where the method has some.
        model_weight: (G,), likewise.
    """

    probability: Array
    rates: Rates
    iterations: int = 0
    log_likelihood: float = np.nan
    weight: Array | None = None
    model_weight: Array | None = None

    def states(self, least: float = 0.5) -> States:
        """Labels (N,): of items whose label has more than this probability (from .5 on); else unknown."""
        p = np.nan_to_num(self.probability, nan=0.5)
        states = np.where(p > least, POSITIVE, np.where(1 - p > least, NEGATIVE, UNKNOWN))
        return states.astype(np.int8)


def majority(votes: Votes, classes: Array | None = None) -> Consensus:
    """The vote; annotators are judged by that of the others."""
    return Consensus(votes.share, Rates.of(votes, votes.share_of_others, classes))


def dawid_skene(
    votes: Votes,
    classes: Array | None = None,
    *,
    smoothing: float = 1.0,
    tolerance: float = 1e-7,
    most: int = 200,
) -> Consensus:
    """The truth as Dawid and Skene estimate it, from the votes alone.

    Args:
        votes: with some items that several have answered, or nothing tells how good anybody is.
        classes: (N,), class of each item: each has annotators' rates and a share of yes of its own. None: all share
            them, which is better where an annotator has few votes a class.
        smoothing: added to each count, so that nobody is thought to be infallible.
        tolerance: change of the log-likelihood for each vote at which it stops.
        most: iterations.

    Raises:
        DataError: if no item has answers of two annotators.
    """
    if not (votes.count > 1).any():
        raise DataError("no two annotators have answered on the same entry, so nothing tells how good each of them is")
    return _estimate(votes, None, classes, smoothing, tolerance, most)


def raykar(
    votes: Votes,
    prior: Array,
    classes: Array | None = None,
    *,
    smoothing: float = 1.0,
    tolerance: float = 1e-7,
    most: int = 200,
) -> Consensus:
    """As `dawid_skene`, with what a model says before anybody answers.

    Args:
        votes: of any number of annotators.
        prior: (N,), calibrated probability of yes by a model that did not learn from these votes, see `calibrated`.
        classes: (N,), see `dawid_skene`.
        smoothing: likewise.
        tolerance: likewise.
        most: likewise.
    """
    return _estimate(votes, np.asarray(prior, np.float64), classes, smoothing, tolerance, most)


def calibrated(logits: Array, share: Array, classes: Array | None = None, seed: int = 0) -> Array:
    """A model's probabilities of yes, as its logits and others' votes tell it: (N,); Platt's, class by class.

    Each item's comes from votes on other items, or they would count twice.

    Args:
        logits: (N,), of any scale.
        share: (N,), part of the votes that say yes; NaN where there are none.
        classes: (N,), class of each item; None if it is one.
        seed: of the parts into which items are dealt.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # half a second

    fold = np.random.default_rng(seed).permutation(len(logits)) % _FOLDS
    found = np.empty(len(logits))
    groups = np.zeros(len(logits), np.intp) if classes is None else classes
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        z = np.asarray(logits, np.float64)[rows]
        z = (z - z.mean()) / (z.std() or 1.0)
        has_votes = ~np.isnan(share[rows])
        for part in range(_FOLDS):
            learnt, told = has_votes & (fold[rows] != part), fold[rows] == part
            if not told.any():
                continue
            if not learnt.any():
                found[rows[told]] = 0.5
                continue
            yes = share[rows[learnt]]
            weight = np.concatenate([yes, 1 - yes]) + 0.5 / learnt.sum()  # half a case of each, so that there are both
            model: Any = LogisticRegression(C=10.0, solver="newton-cholesky")  # type: ignore[no-untyped-call]
            model.fit(np.tile(z[learnt], 2)[:, None], np.repeat([1, 0], learnt.sum()), weight)
            found[rows[told]] = model.predict_proba(z[told, None])[:, 1]
    return found


def wilson(rate: Array, cases: Array) -> Array:
    """95 % of a share (...,) of so many cases, which need not be whole: (..., 2); from 0 to 1 of none."""
    rate, cases = np.nan_to_num(rate, nan=0.5), np.asarray(cases, np.float64)
    middle = cases * rate + _Z**2 / 2
    half = _Z * np.sqrt(cases * rate * (1 - rate) + _Z**2 / 4)
    ends = np.stack([middle - half, middle + half], axis=-1) / (cases + _Z**2)[..., None]
    return np.clip(ends, 0.0, 1.0)


def _num_groups(classes: Array | None) -> int:
    return 1 if classes is None else int(classes.max()) + 1


def _groups(votes: Votes, classes: Array | None) -> Array:
    """Class of each vote."""
    return np.zeros(len(votes.item), np.intp) if classes is None else classes[votes.item]


def _estimate(
    votes: Votes, prior: Array | None, classes: Array | None, smoothing: float, tolerance: float, most: int
) -> Consensus:
    """EM: P(yes) of each item from the tables of annotators, and these from it, in turn."""
    answers = votes.num_answers
    code = votes.answer if answers == 3 else votes.answer // 2
    cell = (_groups(votes, classes) * votes.num_annotators + votes.annotator) * answers + code
    num_cells = _num_groups(classes) * votes.num_annotators * answers
    total = np.bincount(cell, minlength=num_cells)
    has_votes = votes.count > 0
    group = np.zeros(votes.num_items, np.intp) if classes is None else classes
    asked = np.bincount(group[has_votes], minlength=_num_groups(classes))
    if prior is not None:
        prior = prior.clip(_TAIL, 1 - _TAIL)
    share, p = votes.share, np.where(has_votes, np.nan_to_num(votes.share), 0.0)
    before, log_likelihood, iterations = -np.inf, -np.inf, 0
    while iterations < most:
        iterations += 1
        yes = np.bincount(cell, p[votes.item], num_cells)
        pi = prior
        if pi is None:
            pi = ((np.bincount(group, p, len(asked)) + smoothing) / (asked + 2 * smoothing))[group]
        log_yes = np.log(pi) + np.bincount(votes.item, _log_table(yes, answers, smoothing)[cell], votes.num_items)
        log_no = np.log1p(-pi) + np.bincount(
            votes.item, _log_table(total - yes, answers, smoothing)[cell], votes.num_items
        )
        p = np.where(has_votes, expit(log_yes - log_no), 0.0)
        before, log_likelihood = log_likelihood, float(np.logaddexp(log_yes, log_no)[has_votes].sum())
        if abs(log_likelihood - before) <= tolerance * len(votes.item):
            break
    p = np.where(np.isnan(share), np.nan, p)
    return Consensus(p, Rates.of(votes, p[votes.item], classes), iterations, log_likelihood)


def _log_table(counts: Array, answers: int, smoothing: float) -> Array:
    """Logs of answers' probabilities, from their counts; flat, `answers` of an annotator together."""
    smooth = counts.reshape(-1, answers) + smoothing
    flat: Array = np.log(smooth / smooth.sum(axis=1, keepdims=True)).ravel()
    return flat
