"""Label protocols: pure, seeded functions that make training labels worse in a controlled way.

They run in one fixed order, the order in which real labels go wrong: annotators err (flips), annotate a part
(of the images, of the entries), name one thing (single positive), or only what they see (positives only).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.errors import ConfigError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, States

Rate = float | list[float]


@dataclass(frozen=True)
class Protocol:
    """What is done to the training labels, and only to them, before training sees them.

    Args:
        flip_positives: probability that a positive is recorded as negative, in [0, 1]; one number for all
            classes, or a list with one for each (class-dependent noise).
        flip_negatives: probability that a negative is recorded as positive, likewise. The same number in both
            is uniform (symmetric) noise.
        known_fraction: each entry stays known with this probability, independently, in (0, 1].
        single_positive: keep one positive of each image, drawn uniformly; everything else becomes unknown.
        positives_only: every negative becomes unknown.
        seed: of the random numbers of all steps.
        image_fraction: the labels of each image stay known with this probability, independently, in (0, 1]; of the
            others nothing is.
    """

    flip_positives: Rate = 0.0
    flip_negatives: Rate = 0.0
    known_fraction: float = 1.0
    single_positive: bool = False
    positives_only: bool = False
    seed: int = 0
    image_fraction: float = 1.0

    def __post_init__(self) -> None:
        for name in ("flip_positives", "flip_negatives"):
            rates = np.atleast_1d(getattr(self, name))
            if not ((rates >= 0) & (rates <= 1)).all():
                raise ConfigError(f"protocol.{name} is a probability (or a list of them), got {getattr(self, name)}")
        for name in ("image_fraction", "known_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"protocol.{name} lies in (0, 1], got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"protocol.seed is at least 0, got {self.seed}")

    def apply(self, states: States) -> States:
        """The worsened copy of `states` (M, C); the argument is left alone.

        Raises:
            ConfigError: for a list of flip rates of another length than C.
        """
        worse = flip(states, self.flip_positives, self.flip_negatives, self.seed)
        worse = keep_images(worse, self.image_fraction, self.seed)
        worse = keep_known_fraction(worse, self.known_fraction, self.seed)
        if self.single_positive:
            worse = keep_single_positive(worse, self.seed)
        if self.positives_only:
            worse = drop_negatives(worse)
        return worse


def flip(states: States, positives: Rate, negatives: Rate, seed: int) -> States:
    """Turns positives into negatives and negatives into positives, each entry independently.

    Args:
        states: (M, C); unknown and uncertain entries stay.
        positives: rate for positives, one number or C of them.
        negatives: rate for negatives, likewise.
        seed: of the draws.
    """
    draws = np.random.default_rng([seed, 1]).random(states.shape)
    rate_up, rate_down = (
        _per_class(negatives, states, "flip_negatives"),
        _per_class(positives, states, "flip_positives"),
    )
    flipped = np.where((states == POSITIVE) & (draws < rate_down), NEGATIVE, states)
    return np.where((states == NEGATIVE) & (draws < rate_up), POSITIVE, flipped).astype(np.int8)


def keep_images(states: States, fraction: float, seed: int) -> States:
    """Keeps the labels of each image with probability `fraction`; of the others nothing stays known."""
    if fraction == 1:
        return states.copy()
    keep = np.random.default_rng([seed, 3]).random((len(states), 1)) < fraction
    return np.where(keep, states, UNKNOWN).astype(np.int8)


def keep_known_fraction(states: States, fraction: float, seed: int) -> States:
    """Keeps each entry with probability `fraction`; the others become unknown.

    With seed 0 and the same order of images, the mask is that of the partial-label literature (SST, SARB, HST,
    PU-MLC): one uniform draw an entry, row by row, from the Mersenne Twister.
    """
    if fraction == 1:
        return states.copy()
    keep = np.random.RandomState(seed).random_sample(states.shape) < fraction
    return np.where(keep, states, UNKNOWN).astype(np.int8)


def keep_single_positive(states: States, seed: int) -> States:
    """Keeps one uniformly drawn positive of each image and nothing else (Cole et al., CVPR 2021)."""
    draws = np.random.default_rng([seed, 2]).random(states.shape)
    draws[states != POSITIVE] = -1
    chosen = draws.argmax(axis=1)
    single = np.full_like(states, UNKNOWN)
    rows = np.flatnonzero((states == POSITIVE).any(axis=1))
    single[rows, chosen[rows]] = POSITIVE
    return single


def drop_negatives(states: States) -> States:
    """Makes every negative unknown: positive and unlabeled data."""
    return np.where(states == NEGATIVE, UNKNOWN, states).astype(np.int8)


def fingerprint(states: NDArray[Any], soft: NDArray[np.float32] | None = None) -> str:
    """Twelve hexadecimal digits that identify a label matrix, of states or targets, for logs and results.

    Soft labels, NaN for none, count where there are any; without them it is that of the states.
    """
    if soft is not None:
        states = np.where(np.isnan(soft), states, soft).astype(np.float32)
    digest = hashlib.sha256(repr(states.shape).encode() + np.ascontiguousarray(states).tobytes())
    return digest.hexdigest()[:12]


def _per_class(rate: float | Sequence[float], states: States, name: str) -> np.ndarray:
    rates = np.atleast_1d(np.asarray(rate, dtype=np.float64))
    if len(rates) not in (1, states.shape[1]):
        raise ConfigError(
            f"protocol.{name} has {len(rates)} rates for {states.shape[1]} classes: give one, or one a class"
        )
    return rates
