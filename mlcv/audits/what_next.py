"""Which images, or entries, to label next: greedy choices that keep classes balanced.

`balanced` is the maximum-entropy sampler for labels that are known: each step adds the image after which the labels of
the sample are spread over the classes as evenly as can be, H(n) = log T - (1 / T) sum_c n_c log n_c, with n the labels
of each class and T their number.

`what_next` is for labels that are not known. An entry that shows the class with probability p is worth its entropy in
bits: 1 where p = .5, nothing where the answer is known before. Bits take the place of labels, and T (1 + H) that of H:

    F(n) = sum_c n_c (1 + log(T / n_c)),    dF / dn_c = 1 + log(T / n_c) >= 1.

So each bit counts, and counts more the rarer its class is among what was labelled: informative and balanced at once,
without a factor between the two to choose. H alone would not do: it is no larger for an image that says much of the
commonest class than for one that says nothing, and the same for all if there is one class. Where all images are worth
the same, F and H choose alike.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, xlogy

from mlcv.errors import check_choice
from mlcv.labels.states import POSITIVE, States, known

Array = NDArray[Any]
Unit = Literal["images", "entries"]

_DIGITS = 9
"""To which scores are rounded before they are compared, so that ties are ties, which go to the first."""


def balanced(labels: Array, n: int) -> tuple[Array, Array]:
    """An order of images by which labels are spread over classes as evenly as can be, and H in nats after each.

    Args:
        labels: (N, C), numbers >= 0; a step takes time in proportion to those above 0.
        n: how many images; those without labels, which change nothing, come last, as they stand.

    Returns:
        (K,) rows and (K,) entropies, K = min(n, N).
    """
    labels = np.asarray(labels, np.float64)
    chosen = _greedy(labels, n, np.zeros(labels.shape[1]), is_weighted=False)
    chosen = np.concatenate([chosen, np.flatnonzero(~(labels > 0).any(axis=1))])[:n]
    counts = np.cumsum(labels[chosen], axis=0)
    total = np.maximum(counts.sum(axis=1), 1e-300)
    return chosen, np.log(total) - xlogy(counts, counts).sum(axis=1) / total


def what_next(present: Array, states: States, n: int, unit: Unit = "images") -> tuple[Array, Array]:
    """What to label next, first the most useful: rows and columns of entries that are not known.

    Known positives count as labels that are there already, one more for each class.

    Args:
        present: (N, C), probability that the class is there, as `Judgement.present`.
        states: (N, C), label states; unknown and uncertain entries are what can be labelled.
        n: budget, in images, all of whose entries are then asked, or in entries.
        unit: of the budget. By images one with many doubtful entries comes first, as one look answers them all; by
            entries each is weighed by itself.

    Returns:
        Of all asked entries the rows and columns, those of an image together, its most doubtful first. Images whose
        entries are all known, or certain, are never asked.

    Raises:
        ConfigError: for another unit.
    """
    check_choice("unit", unit, get_args(Unit))
    bits = np.where(known(states), 0.0, entr(present) + entr(1 - present)) / np.log(2)
    have = (states == POSITIVE).sum(axis=0) + 1.0
    if unit == "entries":
        return _entries(bits, have, n)
    asked = []
    for row in _greedy(bits, n, have, is_weighted=True):
        columns = np.flatnonzero(~known(states[row]))
        asked.append(
            np.column_stack([np.full(len(columns), row), columns[np.argsort(-bits[row, columns], kind="stable")]])
        )
    rows, columns = np.concatenate([np.empty((0, 2), np.intp), *asked]).T
    return rows, columns


def _greedy(worth: Array, n: int, have: Array, *, is_weighted: bool) -> Array:
    """At most n rows that are not all 0, each of which raises H, or F where weighted, the most."""
    row, column = np.nonzero(worth)
    value, sizes = worth[row, column], worth.sum(axis=1)
    first = np.searchsorted(row, np.arange(len(worth) + 1))
    counts, is_left = have.astype(np.float64), np.diff(first) > 0
    chosen = np.empty(min(n, int(is_left.sum())), np.intp)
    for step in range(len(chosen)):
        before = counts[column]
        after = before + value
        spread = xlogy(counts, counts).sum()
        spread = spread + np.bincount(row, xlogy(after, after) - xlogy(before, before), len(worth))
        total = np.maximum(counts.sum() + sizes, 1e-300)
        score = total + xlogy(total, total) - spread if is_weighted else np.log(total) - spread / total
        best = int(np.where(is_left, np.round(score, _DIGITS), -np.inf).argmax())
        chosen[step], is_left[best] = best, False
        mine = slice(first[best], first[best + 1])
        counts[column[mine]] += value[mine]
    return chosen


def _entries(bits: Array, have: Array, n: int) -> tuple[Array, Array]:
    """The same of entries, of which only the most doubtful of each class can be the next."""
    counts = have.astype(np.float64)
    queues = [rows[np.argsort(-bits[rows, c], kind="stable")] for c, rows in enumerate(map(np.flatnonzero, bits.T > 0))]
    place = np.zeros(len(counts), int)
    chosen = []
    for _ in range(min(n, sum(map(len, queues)))):
        head = np.array(
            [bits[q[i], c] if i < len(q) else 0 for c, (q, i) in enumerate(zip(queues, place, strict=True))]
        )
        total = counts.sum()
        gain = head + xlogy(total + head, total + head) - xlogy(total, total)
        gain -= xlogy(counts + head, counts + head) - xlogy(counts, counts)
        best = int(np.where(head > 0, np.round(gain, _DIGITS), -np.inf).argmax())
        chosen.append((queues[best][place[best]], best))
        counts[best] += head[best]
        place[best] += 1
    rows, columns = np.array(chosen, np.intp).reshape(-1, 2).T
    return rows, columns
