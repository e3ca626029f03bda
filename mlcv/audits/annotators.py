"""What is true where several people have answered: their vote, or what is likely given how good each of them is.

Dawid and Skene, Applied Statistics 28 (1979) 20-28: of an item with the hidden truth l, annotator j answers k with
probability C_j[l, k]; truth and C are estimated in turn (EM). Raykar et al., JMLR 11 (2010) 1297-1322: likewise, but
before anybody answers a model says how likely the item is; here the model is given and is not trained again.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mlcv.audits.votes import Rates, Votes, class_of_votes, together, told_cases
from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, States

Array = NDArray[Any]

_TAIL = 0.002
"""A prior is never nearer to 0 or 1, so that a model alone does not outvote everybody."""
_FOLDS = 5
POOLING = 8.0
"""Of simulated annotators with 2 to 100 answers each, the estimate is as good as their vote from here on; with 1 added
to each count instead, everything was called absent below 8 answers. On real ones nothing is lost by it."""


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
    pooling: float = POOLING,
    tolerance: float = 1e-7,
    most: int = 200,
) -> Consensus:
    """The truth as Dawid and Skene estimate it, from the votes alone.

    Args:
        votes: with some items that several have answered, or nothing tells how good anybody is.
        classes: (N,), class of each item: each has annotators' rates and a share of yes of its own. None: all share
            them, which is better where an annotator has few votes a class.
        pooling: answers that are added to each annotator's own, in the shares of all annotators' together, so that who
            has few is taken to be as good as all.
        tolerance: change of the log-likelihood for each vote at which it stops.
        most: iterations.

    Raises:
        DataError: if no item has answers of two annotators.
    """
    if not (votes.count > 1).any():
        raise DataError("no two annotators have answered on the same entry, so nothing tells how good each of them is")
    return _estimate(votes, None, classes, pooling, tolerance, most)


def raykar(
    votes: Votes,
    prior: Array,
    classes: Array | None = None,
    *,
    pooling: float = POOLING,
    tolerance: float = 1e-7,
    most: int = 200,
) -> Consensus:
    """As `dawid_skene`, with what a model says before anybody answers.

    Args:
        votes: of any number of annotators.
        prior: (N,), calibrated probability of yes by a model that did not learn from these votes, see `calibrated`.
        classes: (N,), see `dawid_skene`.
        pooling: likewise.
        tolerance: likewise.
        most: likewise.
    """
    return _estimate(votes, np.asarray(prior, np.float64), classes, pooling, tolerance, most)


def calibrated(logits: Array, share: Array, classes: Array | None = None, seed: int = 0) -> Array:
    """A model's probabilities of yes, as its logits and others' votes tell it: (N,); Platt's, class by class.

    Each item's comes from votes on other items, or they would count twice.

    Args:
        logits: (N,), of any scale.
        share: (N,), part of the votes that say yes; NaN where there are none.
        classes: (N,), class of each item; None if it is one.
        seed: of the parts into which items are dealt.
    """
    regression: Any = LogisticRegression
    fold = np.random.default_rng(seed).permutation(len(logits)) % _FOLDS
    found = np.empty(len(logits))
    groups = np.zeros(len(logits), np.intp) if classes is None else classes
    for rows in together(groups):
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
            model = regression(C=10.0, solver="newton-cholesky").fit(
                np.tile(z[learnt], 2)[:, None], np.repeat([1, 0], learnt.sum()), weight
            )
            found[rows[told]] = model.predict_proba(z[told, None])[:, 1]
    return found


def _estimate(
    votes: Votes, prior: Array | None, classes: Array | None, pooling: float, tolerance: float, most: int
) -> Consensus:
    """EM: P(yes) of each item from the tables of annotators, and these from it, in turn."""
    answers = votes.num_answers
    code = votes.answer if answers == 3 else votes.answer // 2
    num_groups, group_of_vote = class_of_votes(votes, classes)
    cell = (group_of_vote * votes.num_annotators + votes.annotator) * answers + code
    shape = num_groups, votes.num_annotators, answers
    num_cells = math.prod(shape)
    total = np.bincount(cell, minlength=num_cells)
    has_votes = votes.count > 0
    group = np.zeros(votes.num_items, np.intp) if classes is None else classes
    asked = np.bincount(group[has_votes], minlength=num_groups)
    if prior is not None:
        prior = prior.clip(_TAIL, 1 - _TAIL)
    share, p = votes.share, np.where(has_votes, np.nan_to_num(votes.share), 0.0)
    before, log_likelihood, iterations = -np.inf, -np.inf, 0
    while iterations < most:
        iterations += 1
        yes = np.bincount(cell, p[votes.item], num_cells)
        pi = prior
        if pi is None:
            pi = ((np.bincount(group, p, num_groups) + 1) / (asked + 2))[group]
        for_yes, for_no = (_log_table(counts.reshape(shape), pooling)[cell] for counts in (yes, total - yes))
        log_yes = np.log(pi) + np.bincount(votes.item, for_yes, votes.num_items)
        log_no = np.log1p(-pi) + np.bincount(votes.item, for_no, votes.num_items)
        p = np.where(has_votes, expit(log_yes - log_no), 0.0)
        before, log_likelihood = log_likelihood, float(np.logaddexp(log_yes, log_no)[has_votes].sum())
        if abs(log_likelihood - before) <= tolerance * len(votes.item):
            break
    p = np.where(np.isnan(share), np.nan, p)
    cases = told_cases(votes, p, classes, is_share_known=prior is not None)
    return Consensus(p, Rates.of(votes, p[votes.item], classes, cases), iterations, log_likelihood)


def _log_table(counts: Array, pooling: float) -> Array:
    """Logs of answers' probabilities, flat, from their counts (G, J, answers)."""
    everybody = counts.sum(axis=1, keepdims=True) + 1.0
    own = counts + pooling * everybody / everybody.sum(axis=2, keepdims=True)
    flat: Array = np.log(own / own.sum(axis=2, keepdims=True)).ravel()
    return flat
