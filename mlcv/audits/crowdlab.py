"""CROWDLAB (Goh, Tkachenko and Mueller, arXiv 2210.06812) for answers yes and no: a weighted mean of people and model.

It equals cleanlab 2.9.0. On a rare class almost everybody agrees with the commonest answer, and whoever does not do
better than that answer gets no weight: on CheXpert's test set all radiologists, in three of five classes. What is left
is the model. `Consensus.weight` tells.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.audits.annotators import Consensus
from mlcv.audits.votes import MAYBE, YES, Rates, Votes, class_of_votes, together
from mlcv.errors import DataError

Array = NDArray[Any]

LEAST_WEIGHT = 1e-6
"""Of an annotator, or a model, who does no better than the commonest answer."""


def crowdlab(votes: Votes, prior: Array, classes: Array | None = None) -> Consensus:
    """Probabilities, and weights of annotators and model, class by class.

    Args:
        votes: of which a maybe counts as none.
        prior: (N,), a model's probability of yes.
        classes: (N,), class of each item; None if all are one.

    Raises:
        DataError: if no item of a class has answers of two annotators.
    """
    clear = votes.select(votes.answer != MAYBE)
    num_groups, group = class_of_votes(clear, classes)
    probability = np.full(votes.num_items, np.nan)
    weight, model_weight = np.full((num_groups, votes.num_annotators), np.nan), np.full(num_groups, np.nan)
    for places in together(group):
        g = group[places[0]]
        items, item = np.unique(clear.item[places], return_inverse=True)
        people, person = np.unique(clear.annotator[places], return_inverse=True)
        own = Votes(item, person, clear.answer[places], len(items), len(people))
        if not (own.count > 1).any():
            raise DataError("crowdlab: a class has no entry that two annotators have answered with yes or no")
        probability[items], weight[g, people], model_weight[g] = _of_class(own, prior[items])
    rates = Rates.of(votes, votes.share_of_others, classes)
    return Consensus(probability, rates, weight=weight, model_weight=model_weight)


def _of_class(votes: Votes, prior: Array) -> tuple[Array, Array, float]:
    """Probability (N,), weight of each annotator (J,) and of the model."""
    several = votes.count > 1
    share = votes.share
    # Ties are the model's; if it does not know, those of the answer that is given less often.
    tie = np.where(prior == 0.5, (votes.answer == YES).mean() < 0.5, prior > 0.5)
    consensus = np.where(share == 0.5, tie, share > 0.5)
    agreement = _agreement(votes)
    for _ in range(2):  # from the vote, then from what comes out
        error = max((consensus[several] != (consensus[several].mean() > 0.5)).mean(), LEAST_WEIGHT)
        annotators = np.maximum(1 - (1 - agreement) / error, LEAST_WEIGHT)
        wrong = ((prior > 0.5) != consensus)[several].mean()
        model = max(1 - wrong / error, LEAST_WEIGHT) * np.sqrt(votes.count.mean())
        likely = np.where(consensus, share, 1 - share)[several].mean()
        each = annotators[votes.annotator]
        said = np.bincount(votes.item, each * np.where(votes.answer == YES, likely, 1 - likely), votes.num_items)
        total = model + np.bincount(votes.item, each, votes.num_items)
        probability = (model * prior + said) / total
        consensus = probability > 0.5
    return probability, annotators, float(model)


def _agreement(votes: Votes) -> Array:
    """How often each annotator and another one agree on an item, over all pairs; of who met nobody the mean: (J,)."""
    others = votes.count[votes.item] - 1
    of_others = np.nan_to_num(votes.share_of_others)
    agreed = np.where(votes.answer == YES, of_others, 1 - of_others) * others
    pairs = np.bincount(votes.annotator, others, votes.num_annotators)
    found = np.bincount(votes.annotator, agreed, votes.num_annotators)
    found = np.divide(found, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    everybody: Array = np.where(np.isnan(found), np.nanmean(found), found)
    return everybody
