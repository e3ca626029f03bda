"""What the other labels of an image say about a class, learned out of fold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from mlcv.labels.states import NEGATIVE, POSITIVE, States, known

Array = NDArray[Any]

FOLDS = 5
_OWN_SCALE = 3.0
_PENALTY = 20.0
_MOST = 30_000
"""Images of either given value that a class's weights are fitted to; a draw of more moves no weight by much."""


def deal(count: int, groups: Array | None, seed: int) -> Array:
    """A fold for each of N images, at random, those of one group (such as a patient) in one: (N,) ints below `FOLDS`.

    Args:
        count: N.
        groups: (N,) of any kind that can be told apart, or None.
        seed: of the deal.
    """
    group = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    order = np.random.default_rng(seed).permutation(int(group.max(initial=-1)) + 1)
    return np.asarray(order[group] % FOLDS)


def stack(logits: Array, states: States, folds: Array, seed: int = 0) -> Array:
    """Logits (N, C) of a ridge logistic regression of each given label on the logits of all classes and other labels.

    The inputs are the standardised logits, the class's own three times as large, so that the penalty hardly holds it,
    and the other given labels, standardised, 0 where they are not known. A class's own given label is none of them. An
    image's logits come of weights fitted to the other folds. A class that there has fewer than two known positives or
    negatives keeps its logits.

    Args:
        logits: (N, C), of models that did not see the image.
        states: (N, C), label states; also unknown entries get a logit.
        folds: (N,).
        seed: of the draw where a given value has more than 30,000 images.
    """
    if not len(logits):
        return logits
    inputs = _inputs(logits, states)
    count = logits.shape[1]
    stacked = logits.astype(np.float64)
    rng = np.random.default_rng(seed)
    regression: Any = LogisticRegression
    for c in range(count):
        scale = np.ones(2 * count, np.float32)
        scale[c], scale[count + c] = _OWN_SCALE, 0
        # Each fold's search begins at the weights of the one before, and ends at its own, to the fourth digit.
        model = regression(C=1 / (2 * _PENALTY), solver="newton-cholesky", tol=1e-5, warm_start=True)
        for fold in np.unique(folds):
            tested = np.flatnonzero(folds == fold)
            drawn = [_draw(np.flatnonzero((states[:, c] == value) & (folds != fold)), rng) for value in (0, 1)]
            if min(len(rows) for rows, _ in drawn) < 2:
                continue
            rows = np.concatenate([rows for rows, _ in drawn])
            weight = np.concatenate([np.full(len(rows), weight) for rows, weight in drawn])
            model.fit(inputs[rows] * scale, states[rows, c], sample_weight=weight)
            stacked[tested, c] = inputs[tested] @ (scale * model.coef_[0]).astype(np.float32) + model.intercept_[0]
    return stacked


def _inputs(logits: Array, states: States) -> Array:
    """Standardised logits, then standardised given labels: float32 (N, 2 C)."""
    count = logits.shape[1]
    inputs = np.empty((len(logits), 2 * count), np.float32)
    for c in range(count):
        z = logits[:, c].astype(np.float64)
        spread = z.std()
        inputs[:, c] = (z - z.mean()) / (spread if spread > 0 else 1.0)
        n = states[:, c]
        positive, negative = (n == POSITIVE).sum(), (n == NEGATIVE).sum()
        rate = positive / max(positive + negative, 1)
        deviation = np.sqrt(rate * (1 - rate))
        inputs[:, count + c] = np.where(known(n), n - rate, 0) / (deviation if deviation > 0 else 1.0)
    return inputs


def _draw(rows: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """At most `_MOST` of the rows, and how many each of them stands for."""
    if len(rows) <= _MOST:
        return rows, 1.0
    return rng.choice(rows, _MOST, replace=False), len(rows) / _MOST
