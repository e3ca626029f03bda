"""What a class looks like, for whoever decides on its labels: typical, confusing and doubtful images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.labels.states import NEGATIVE, POSITIVE, States, known

MOST = 5000
"""Images of a class of which clusters are made; of more, as many are drawn."""
_DOUBT = 0.5
"""Probability of being wrong from which on a label is no example."""


@dataclass(frozen=True)
class Shown:
    """Rows of images, the first to be shown first.

    Args:
        typical: present; the medoids of clusters, the largest first.
        confusing: absent; those nearest to the typical ones.
        doubtful: given either way, and most likely wrong.
    """

    typical: NDArray[np.intp]
    confusing: NDArray[np.intp]
    doubtful: NDArray[np.intp]


def examples_of_class(
    features: NDArray[Any], states: States, wrong: NDArray[Any], count: int = 4, seed: int = 0
) -> Shown:
    """Chooses a class's examples by features, of which only directions count.

    Clusters are those of k-means with `count` centres; a cluster's medoid is the image nearest to its centre. Labels
    that are more likely wrong than right are neither typical nor confusing.

    Args:
        features: (N, D), such as a frozen backbone's, finite.
        states: int8 (N,), of the class, see `mlcv.labels`.
        wrong: (N,) probability that each known label is wrong; not looked at where nothing is known, NaN for 0.
        count: of each kind, at most.
        seed: of the clusters.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415  # half a second

    doubt = np.where(known(states), np.nan_to_num(wrong), 0.0)
    trusted = doubt < _DOUBT
    units = _units(features)
    present, absent = (np.flatnonzero(trusted & (states == state)) for state in (POSITIVE, NEGATIVE))
    if len(present) > MOST:
        present = np.sort(np.random.default_rng(seed).choice(present, MOST, replace=False))
    typical = present
    if len(present) > count:
        clusters: Any = KMeans  # it has no types
        found = clusters(count, n_init=3, random_state=seed).fit(units[present])
        far = np.linalg.norm(units[present] - found.cluster_centers_[found.labels_], axis=1)
        numbers, sizes = np.unique(found.labels_, return_counts=True)
        medoids = [np.flatnonzero(found.labels_ == c)[far[found.labels_ == c].argmin()] for c in numbers]
        typical = present[np.array(medoids)[np.argsort(-sizes, kind="stable")]]
    confusing = absent[np.argsort(-_likeness(units[absent], units[typical]), kind="stable")[:count]]
    suspects = np.flatnonzero(known(states) & (doubt > 0))
    doubtful = suspects[np.argsort(-doubt[suspects], kind="stable")[:count]]
    return Shown(typical, confusing, doubtful)


def _units(features: NDArray[Any]) -> NDArray[Any]:
    rows: NDArray[Any] = np.asarray(features, np.float32)
    scale = np.abs(rows).max(axis=1, keepdims=True, initial=0)  # squares of large numbers are infinite
    rows = rows / np.where(scale > 0, scale, np.float32(1))
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, np.float32(1))


def _likeness(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Of each row the greatest cosine with any of the others."""
    likeness: NDArray[Any] = (rows @ others.T).max(axis=1, initial=-1.0)
    return likeness
