"""How much less images of one group, such as a patient, say than as many images of different ones."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbered(groups: NDArray[Any]) -> NDArray[np.intp] | None:
    """Groups (M,) as numbers from 0; None if each image is a group of its own."""
    names, numbers = np.unique(groups, return_inverse=True)
    return None if len(names) == len(groups) else numbers.reshape(-1)


def design_effects(
    columns: Iterable[NDArray[np.float64]], groups: NDArray[np.intp] | None, parts: Sequence[NDArray[np.intp]]
) -> NDArray[np.float64]:
    """`design_effect` of each column (M,), whose NaN are left out, over the images of these parts.

    Args:
        columns: C of them.
        groups: as `numbered`; None says 1 of all.
        parts: positions of the images of each.
    """
    if groups is None:
        return np.array([1.0 for _ in columns])
    rows, part = np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts)))
    # A group in two parts is two: in each it is as alike.
    own = np.unique(part * (int(groups.max(initial=0)) + 1) + groups[rows], return_inverse=True)[1].reshape(-1)
    found = []
    for column in columns:
        there = ~np.isnan(column[rows])
        found.append(design_effect(column[rows][there], own[there], part[there]))
    return np.array(found)


def design_effect(values: NDArray[np.float64], groups: NDArray[np.intp], parts: NDArray[np.intp]) -> float:
    """The variance of a mean, estimated by groups, over that of as many single images: at least 1.

    A test takes the number of images over it for the number of independent ones (Rao and Scott, Biometrics 48, 1992).

    Args:
        values: (M,), such as 0 and 1 where a label is absent and present; compared with the mean of their part.
        groups: (M,) numbers from 0, each within one part.
        parts: (M,) numbers from 0.

    Returns:
        at most the size of the largest group, which is what it is where each part is one group.
    """
    if not len(values):
        return 1.0
    counts, sizes = np.bincount(parts), np.bincount(groups)
    rest = values - (np.bincount(parts, values) / np.maximum(counts, 1))[parts]
    images, clusters, means = len(values), int(np.count_nonzero(sizes)), int(np.count_nonzero(counts))
    if clusters <= means:
        return float(sizes.max())
    by_image = float(rest @ rest) * images / max(images - means, 1)
    by_group = float((np.bincount(groups, rest) ** 2).sum()) * clusters / (clusters - means)
    return float(np.clip(by_group / by_image, 1.0, sizes.max())) if by_image > 0 else 1.0
