"""Drawing parts of a data set that keep groups together and have the same share of every label.

scikit-learn's `StratifiedGroupKFold` takes one label an image, iterative stratification (Sechidis et al., ECML 2011) no
groups: here whole groups are dealt as that deals images, and then moved and swapped while it helps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]

_ROUNDS, _PARTNERS, _LOOK = 6, 32, 64
"""Of improvement over all groups; groups that each may be swapped with; after so many whether more can be won."""
_LOST, _LEAST = 1e6, 1e-9
"""What a label costs that a part has not and could have; improvement that counts."""


def stratified_parts(
    groups: NDArray[np.intp], marks: NDArray[np.bool_], fractions: Sequence[float], seed: int
) -> NDArray[np.intp]:
    """Deals groups of images into parts, so that each part has its share of the images and of each label's marks.

    A label that is in as many groups as there are parts is in each of them.

    Args:
        groups: the number of each image's group (M,), from 0 on without a gap.
        marks: (M, L), what is to be spread evenly, such as which labels are positive.
        fractions: of the parts; their sum is 1.
        seed: of the draw.

    Returns:
        (M,) the part's number.
    """
    count = int(groups.max(initial=-1)) + 1
    if not count:
        return np.zeros(0, np.intp)
    counts = np.zeros((count, marks.shape[1] + 1))
    np.add.at(counts, groups, np.column_stack([marks, np.ones(len(groups))]))
    counts = counts[:, (counts > 0).any(axis=0)]  # labels that nobody has ask for nothing; the size is the last
    targets = _targets(counts, np.asarray(fractions, float))
    rng = np.random.default_rng(seed)
    parts = _dealt(counts, targets, rng)
    _improve(parts, counts, targets, rng)
    return parts[groups]


def _targets(counts: Counts, fractions: NDArray[np.float64]) -> Counts:
    """What each part is to have of each label (F, L): its share, and one at least of what enough groups have."""
    targets: Counts = fractions[:, None] * counts.sum(axis=0)
    largest = int(fractions.argmax())
    for label in np.flatnonzero(_is_for_all(counts, targets)):
        short = np.maximum(1 - targets[:, label], 0)
        short[largest] = 0
        targets[:, label] += short
        targets[largest, label] -= short.sum()
    return targets


def _is_for_all(counts: Counts, targets: Counts) -> NDArray[np.bool_]:
    """Labels that can be in every part (L,)."""
    found: NDArray[np.bool_] = (counts > 0).sum(axis=0) >= len(targets)
    return found


def _dealt(counts: Counts, targets: Counts, rng: np.random.Generator) -> NDArray[np.intp]:
    """The rarest label first: its groups, the heaviest first, each to the part that lacks it most.

    The last groups of a label go to parts that have none of it.
    """
    parts = np.full(len(counts), -1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    tie = rng.permutation(len(targets)) * 1e-9
    lacks, free, is_for_all = targets.copy(), counts.copy(), _is_for_all(counts, targets)
    held = np.zeros(targets.shape, int)

    def deal(group: int, wanted: Counts) -> None:
        part = int((wanted + tie).argmax())
        parts[group] = part
        lacks[part] -= counts[group]
        held[part] += counts[group] > 0

    while ((left := free[:, :-1].sum(axis=0)) > 0).any():
        label = int(np.where(left > 0, left, np.inf).argmin())
        own = order[free[order, label] > 0]
        for place, group in enumerate(own[np.argsort(-counts[own, label], kind="stable")]):
            wanted = lacks[:, label] + 1e-6 * lacks[:, -1] / len(counts)
            empty = held[:, label] == 0
            if is_for_all[label] and len(own) - place <= empty.sum():
                wanted = np.where(empty, wanted, -np.inf)
            deal(group, wanted)
        free[own] = 0
    for group in order[parts[order] < 0]:
        deal(group, lacks[:, -1])
    return parts


class _Dealing:
    """Groups in parts, and what the sum of (has - target)^2 / max(target, 1) changes by if one goes to another part.

    Before the sum counts in how many parts a label is that can be in all.
    """

    def __init__(self, parts: NDArray[np.intp], counts: Counts, targets: Counts) -> None:
        self.parts, self.counts, self.scale = parts, counts, 1 / np.maximum(targets, 1)
        self.needed = _is_for_all(counts, targets)
        self.has = (counts > 0).astype(int)
        self.off, self.held = -targets, np.zeros(targets.shape, int)
        np.add.at(self.off, parts, counts)
        np.add.at(self.held, parts, self.has)

    def change(self, part: Any, more: Counts, groups: NDArray[np.int_]) -> Counts:
        """Of the sum, for so much more in a part, and so many more groups that have each label; of many parts, too."""
        squares = ((more * more + 2 * more * self.off[part]) * self.scale[part]).sum(axis=-1)
        then, now = self.held[part] + groups <= 0, self.held[part] <= 0
        return np.asarray(squares + _LOST * ((then & self.needed).sum(axis=-1) - (now & self.needed).sum(axis=-1)))

    def put(self, group: int, part: int) -> None:
        """Takes a group out of its part and into another."""
        for place, sign in ((self.parts[group], -1), (part, 1)):
            self.off[place] += sign * self.counts[group]
            self.held[place] += sign * self.has[group]
        self.parts[group] = part

    def improve(self, group: int, others: NDArray[np.intp]) -> bool:
        """Moves a group to where it helps most, or else swaps it with the best of others; whether that helped."""
        own, has, here = self.counts[group], self.has[group], self.parts[group]
        worth = self.change(slice(None), own, has) + self.change(here, -own, -has)
        worth[here] = 0
        best = int(worth.argmin())
        if worth[best] < -_LEAST:
            self.put(group, best)
            return True
        others = others[self.parts[others] != here]
        if not len(others):
            return False
        there, more, groups = self.parts[others], own - self.counts[others], has - self.has[others]
        worth = self.change(here, -more, -groups) + self.change(there, more, groups)
        at = int(worth.argmin())
        if worth[at] >= -_LEAST:
            return False
        self.put(group, there[at])
        self.put(others[at], here)
        return True


def _improve(parts: NDArray[np.intp], counts: Counts, targets: Counts, rng: np.random.Generator) -> None:
    """Moves groups, or swaps two, while that helps; in place."""
    if len(targets) < 2:
        return
    dealing = _Dealing(parts, counts, targets)
    for _ in range(_ROUNDS):
        partners = rng.integers(len(counts), size=(len(counts), _PARTNERS))
        is_better = False
        for turn, group in enumerate(rng.permutation(len(counts))):
            if not turn % _LOOK and (np.abs(dealing.off) < 1).all():  # a whole image is the least that can be moved
                return
            is_better |= dealing.improve(group, partners[group])
        if not is_better:
            return
