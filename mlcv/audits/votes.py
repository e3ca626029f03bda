"""Answers of several people, and how good each of them is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from mlcv.errors import DataError
from mlcv.labels.intervals import wilson

Array = NDArray[Any]

NO, MAYBE, YES = 0, 1, 2


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
        found: Array = np.bincount(self.item, minlength=self.num_items)
        return found

    @property
    def share(self) -> Array:
        """Part of each item's votes that say yes, a maybe counting half: (N,); NaN without votes."""
        total = np.bincount(self.item, self.answer / 2, self.num_items)
        count = self.count
        found: Array = np.divide(total, count, out=np.full(self.num_items, np.nan), where=count > 0)
        return found

    @property
    def share_of_others(self) -> Array:
        """The same for each vote, of the others on its item: (V,); NaN of the only one."""
        others = self.count[self.item] - 1
        total = np.bincount(self.item, self.answer / 2, self.num_items)[self.item] - self.answer / 2
        found: Array = np.divide(total, others, out=np.full(len(self.item), np.nan), where=others > 0)
        return found

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
    def of(cls, votes: Votes, present: Array, classes: Array | None = None, cases: Array | None = None) -> "Rates":
        """From P(present) at each vote (V,), NaN where nothing is known.

        The interval is Wilson's, for as many `cases` (2, G, J) of present and of absent; by default those that there
        are.
        """
        num_groups, rows = _rows(votes, classes)
        shape = (num_groups, votes.num_annotators)
        size = num_groups * votes.num_annotators
        found: list[Array] = []
        for kind, (weight, right) in enumerate(_kinds(votes, present)):
            total, hits = (np.bincount(rows, some, size).reshape(shape) for some in (weight, weight * right))
            rate = np.divide(hits, total, out=np.full(shape, np.nan), where=total > 0)
            found += [rate, wilson(rate, total if cases is None else cases[kind])]
        return cls(np.bincount(rows, minlength=size).reshape(shape), *found)


def told_cases(votes: Votes, present: Array, classes: Array | None = None, is_share_known: bool = False) -> Array:
    """To how many cases of known truth the votes amount, for sensitivities and specificities: (2, G, J).

    Where the truth is estimated with the rates, votes tell less. The variance of all rates of a class, and of its share
    of present items, is the inverse of the sum over items of the outer product of their scores (on the logit scale);
    a rate r of variance v there is known as well as from 1 / (v r (1 - r)) cases.

    Args:
        votes: of which the rates were estimated.
        present: (N,), P(present) of each item given its votes; NaN without any.
        classes: (N,), see `Rates`.
        is_share_known: whether a prior is given, so that there is no share to estimate.
    """
    num_groups, rows = _rows(votes, classes)
    p = np.nan_to_num(present)
    found = np.zeros((2, num_groups, votes.num_annotators))
    for places in together(rows // votes.num_annotators):
        group = rows[places[0]] // votes.num_annotators
        people, person = np.unique(votes.annotator[places], return_inverse=True)
        items, item = np.unique(votes.item[places], return_inverse=True)
        own = Votes(item, person, votes.answer[places], len(items), len(people))
        found[:, group, people] = _told_cases(own, p[items], is_share_known)
    return found


def _told_cases(votes: Votes, p: Array, is_share_known: bool) -> Array:
    """Of one class: (2, J)."""
    scores, columns, rates = [], [], []
    for kind, (weight, right) in enumerate(_kinds(votes, p[votes.item])):
        total, hits = (np.bincount(votes.annotator, some, votes.num_annotators) for some in (weight, weight * right))
        rate = (hits + 1) / (total + 2)
        scores.append(weight * (right - rate[votes.annotator]))
        columns.append(votes.annotator + kind * votes.num_annotators)
        rates.append(rate)
    items = [votes.item, votes.item]
    if not is_share_known:
        scores.append(p - p.mean())
        columns.append(np.full(len(p), 2 * votes.num_annotators))
        items.append(np.arange(len(p)))
    sparse: Any = coo_array
    table = sparse((np.concatenate(scores), (np.concatenate(items), np.concatenate(columns))))
    information = (table.T @ table).toarray()
    rate = np.concatenate(rates)
    spread = rate * (1 - rate)
    # Each rate has two cases besides, one right and one wrong.
    information[np.diag_indices(len(rate))] += 2 * spread
    information[np.diag_indices(len(information))] += 1e-9
    variance = np.diag(np.linalg.inv(information))[: len(rate)]
    cases: Array = (1 / (variance * spread)).reshape(2, -1)
    return cases


def class_of_votes(votes: Votes, classes: Array | None) -> tuple[int, Array]:
    """How many classes there are, and that of each vote."""
    if classes is None:
        return 1, np.zeros(len(votes.item), np.intp)
    return int(classes.max(initial=-1)) + 1, classes[votes.item].astype(np.intp)


def _rows(votes: Votes, classes: Array | None) -> tuple[int, Array]:
    """How many classes, and the place of each vote's class and annotator among all pairs of them."""
    num_groups, group = class_of_votes(votes, classes)
    return num_groups, group * votes.num_annotators + votes.annotator


def _kinds(votes: Votes, present: Array) -> Iterator[tuple[Array, Array]]:
    """Of present and of absent items the weight of each vote, and whether it is right."""
    yield np.nan_to_num(present), votes.answer == YES
    yield np.nan_to_num(1 - present), votes.answer == NO


def together(groups: Array) -> Iterator[Array]:
    """Places of each group."""
    order = np.argsort(groups, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
