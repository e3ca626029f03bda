"""Label states, and the only arithmetic on them.

A data set stores what its annotators said about an image and a class as one `int8`. Training and
evaluation see *targets* instead: float32, in [0, 1] where known (soft targets allowed), -1 where unknown.
Training for three classes keeps -2 where uncertain, which for everything else is unknown, too.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcv.errors import ConfigError, DataError

POSITIVE = 1
"""Annotated present."""
NEGATIVE = 0
"""Annotated absent."""
UNKNOWN = -1
"""Nobody said."""
UNCERTAIN = -2
"""The annotator said "maybe"."""

STATE_NAMES = {POSITIVE: "positive", NEGATIVE: "negative", UNKNOWN: "unknown", UNCERTAIN: "uncertain"}

States = NDArray[np.int8]
UnknownAs = Literal["ignore", "negative", "weak_negative", "smoothed"]

ArrayOrTensor = TypeVar("ArrayOrTensor", NDArray[Any], Tensor)


def known(targets: ArrayOrTensor) -> ArrayOrTensor:
    """True where somebody said something definite: states or targets that are not negative numbers."""
    return targets >= 0


def is_uncertain(targets: Tensor) -> Tensor:
    """Where somebody said "maybe" and the policy `third_class` kept it: bool (B, C)."""
    return targets == UNCERTAIN


def is_positive(targets: Tensor) -> Tensor:
    """Where somebody said that the class is present: bool (B, C). Not zeros, unknown or soft targets."""
    return targets == POSITIVE


def evaluable(targets: Tensor) -> Tensor:
    """Classes that a ranking metric can judge: at least one known positive and one known negative.

    Shape:
        targets (M, C) in {0, 1, -1}; returns bool (C,).
    """
    return (targets == POSITIVE).any(dim=0) & (targets == NEGATIVE).any(dim=0)


def count_known(targets: Tensor) -> tuple[Tensor, Tensor]:
    """How many images are known to show each class, and not to; a soft label is a part of each.

    Shape:
        targets (M, C), see `mlcv.labels`; returns two float64 tensors (C,).
    """
    is_known = known(targets)
    positive = torch.where(is_known, targets.double(), 0.0).sum(dim=0)
    return positive, is_known.double().sum(dim=0) - positive


def prior_counts(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of each class the positives, and the images that they are among: those of which it is known.

    Where no negative of any class is known, all images that are not positive count as such.

    Shape:
        targets (M, C), see `mlcv.labels`; returns two float64 tensors (C,).
    """
    positive, negative = count_known(targets)
    return positive, positive + negative if negative.any() else torch.full_like(positive, len(targets))


def log_odds(targets: Tensor) -> Tensor:
    """Of each class: p = (positives + 0.5) / (count + 2), by which neither end is infinite; see `prior_counts`.

    Shape:
        targets (M, C), see `mlcv.labels`; returns float64 (C,).
    """
    positive, count = prior_counts(targets)
    return ((positive + 0.5) / (count + 2)).logit()


def mix_targets(first: Tensor, second: Tensor, weight: float | Tensor) -> Tensor:
    """`weight * first + (1 - weight) * second` where both are known, unknown elsewhere (mixup, CutMix)."""
    mixed = weight * first + (1 - weight) * second
    return torch.where(known(first) & known(second), mixed, UNKNOWN)


def resolve_unknown(targets: Tensor, unknown: UnknownAs, smoothing: float = 0.1) -> tuple[Tensor, Tensor]:
    """Targets without -1, and the weight of each entry: what a loss does with what nobody said.

    Args:
        targets: in [0, 1], or -1 where unknown.
        unknown: `ignore` weighs such entries 0; `negative` takes them as absent ("assume negative");
            `weak_negative` likewise, with weight 1 / (C - 1) (WAN of Cole et al., CVPR 2021);
            `smoothed` takes them as present with probability `smoothing`.
        smoothing: in [0, 1], for `smoothed`.

    Shape:
        targets (B, C); returns two tensors (B, C) of the targets' type.
    """
    if unknown == "smoothed" or targets.requires_grad:
        filled = torch.where(known(targets), targets, smoothing if unknown == "smoothed" else 0.0)
    else:
        filled = targets.clamp(min=0)  # a third of the time on a CPU, but a target of 0 has no gradient
    is_known = (targets.detach() + 1).clamp_(0, 1)  # there is nothing between -1 and 0
    match unknown:
        case "ignore":
            return filled, is_known
        case "weak_negative":
            return filled, is_known.clamp(min=1 / max(targets.shape[1] - 1, 1))
        case "negative" | "smoothed":
            return filled, torch.ones_like(targets)
        case _:
            raise ConfigError(f"unknown is one of ignore, negative, weak_negative, smoothed; got {unknown!r}")


def check_states(states: States, class_names: Sequence[str], source: str) -> States:
    """Returns the states unchanged, or says which row and class holds what is no label state.

    Raises:
        DataError: for a wrong shape, a wrong number type, or a value other than 1, 0, -1, -2.
    """
    if states.ndim != 2 or states.shape[1] != len(class_names):
        raise DataError(f"{source}: label states have shape {states.shape}, expected (M, {len(class_names)})")
    if states.dtype != np.int8:
        raise DataError(f"{source}: label states are int8, got {states.dtype}; translate them where they are read")
    wrong = (states > POSITIVE) | (states < UNCERTAIN)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"{source}: sample {row}, class {class_names[column]!r} holds {states[row, column]}; a label state is "
            "1 (positive), 0 (negative), -1 (unknown) or -2 (uncertain)"
        )
    return states


def count_states(states: States) -> dict[str, int]:
    """How many entries are positive, negative, unknown and uncertain."""
    return {name: int((states == value).sum()) for value, name in STATE_NAMES.items()}
