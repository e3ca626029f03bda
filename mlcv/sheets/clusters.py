"""How much less images of one group, such as a patient, say than as many images of different ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

_END = 0.975
"""Of a distribution, where an interval that holds in 95 % ends."""


def numbered(groups: NDArray[Any]) -> NDArray[np.intp] | None:
    """Groups (M,) as numbers from 0; None if each image is a group of its own."""
    names, numbers = np.unique(groups, return_inverse=True)
    return None if len(names) == len(groups) else numbers.reshape(-1)


def design_effects(
    columns: Sequence[NDArray[Any]],
    groups: NDArray[np.intp] | None,
    parts: Sequence[NDArray[np.intp]],
    numbers: Callable[[NDArray[Any]], NDArray[np.float64]] = np.asarray,
) -> NDArray[np.float64]:
    """`design_effect` of each column (M,), whose NaN are left out, in each of these parts.

    Args:
        columns: C of them.
        groups: as `numbered`; None says 1 of all.
        parts: positions of the images of each of S.
        numbers: what a column is to be before; of single images nothing has to be.

    Returns:
        (S, C).
    """
    if groups is None:
        return np.ones((len(parts), len(columns)))
    rows, part = np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts)))
    # A group in two parts is two: in each it is as alike.
    own = np.unique(part * (int(groups.max(initial=0)) + 1) + groups[rows], return_inverse=True)[1].reshape(-1)
    found = []
    for column in map(numbers, columns):
        values = column[rows]
        there = ~np.isnan(values)
        found.append(design_effect(values[there], own[there], part[there], len(parts)))
    return np.stack(found, axis=1) if found else np.ones((len(parts), 0))


def design_effect(
    values: NDArray[np.float64], groups: NDArray[np.intp], parts: NDArray[np.intp], count: int
) -> NDArray[np.float64]:
    """The variance of a part's mean over that of as many single images: 1 and more.

    A test takes the number of images over it for the number of independent ones (Rao and Scott, Biometrics 48, 1992).
    How alike images of a group are (intraclass correlation, from an analysis of variance) is estimated of all parts
    together, as a part of a few groups cannot tell; what follows from that for a part is of its groups' sizes (Donner
    and Klar, 2000). Of few groups as much more is asked as Student's t does.

    Args:
        values: (M,), such as 0 and 1 where a label is absent and present.
        groups: (M,) numbers from 0, each within one part; some may have no image.
        parts: (M,) numbers from 0.
        count: of the parts, S.

    Returns:
        (S,), at most as if a group said as much as one image: the mean size of an image's group, which it is of a part
        of one group.
    """
    if not len(values):
        return np.ones(count)
    images, sizes = np.bincount(parts, minlength=count), np.bincount(groups).astype(np.float64)
    whose = np.zeros(len(sizes), np.intp)
    whose[groups] = parts
    clusters = np.bincount(whose[sizes > 0], minlength=count)
    total, means = int(clusters.sum()), int(np.count_nonzero(images))
    most = np.maximum(np.bincount(whose, sizes**2, minlength=count) / np.maximum(images, 1), 1)
    if total <= means:
        return most
    by_group = np.bincount(groups, values) / np.maximum(sizes, 1)
    by_part = np.bincount(parts, values, minlength=count) / np.maximum(images, 1)
    between = float(sizes @ (by_group - by_part[whose]) ** 2) / (total - means)
    within = float(((values - by_group[groups]) ** 2).sum()) / max(len(values) - total, 1)
    size = (len(values) - float(most[images > 0].sum())) / (total - means)  # of a usual group
    both = between + (size - 1) * within
    alike = min(max((between - within) / both, 0.0), 1.0) if both > 0 else 0.0
    asked = (stdtrit(np.maximum(clusters - 1, 1), _END) / ndtri(_END)) ** 2
    effects: NDArray[np.float64] = np.where(clusters > 1, np.minimum((1 + alike * (most - 1)) * asked, most), most)
    return effects
