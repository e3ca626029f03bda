"""Policies: from label states to the targets that training sees. Uncertain entries are resolved here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import UNCERTAIN, UNKNOWN, States

UncertainAs = Literal["ignore", "zeros", "ones", "smoothed_zeros", "smoothed_ones"]


@dataclass(frozen=True)
class Policy:
    """What an annotator's "maybe" means (Irvin et al., AAAI 2019, section 3: U-Ignore, U-Zeros, U-Ones).

    Args:
        uncertain: `ignore` makes such entries unknown, `zeros` negative, `ones` positive; `smoothed_zeros` and
            `smoothed_ones` draw a soft target from the ranges below, once for each entry.
        by_class: the same choice for single classes, by name; it goes before `uncertain`.
        zeros_range: of `smoothed_zeros`, in [0, 1].
        ones_range: of `smoothed_ones`, in [0, 1].
        seed: of the draws.
    """

    uncertain: UncertainAs = "ignore"
    by_class: dict[str, UncertainAs] = field(default_factory=dict)
    zeros_range: tuple[float, float] = (0.0, 0.3)
    ones_range: tuple[float, float] = (0.55, 0.85)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("zeros_range", "ones_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise ConfigError(f"policy.{name} is two rising probabilities, got {[low, high]}")

    def resolve(self, states: States, class_names: Sequence[str]) -> Tensor:
        """Targets float32 (M, C) in [0, 1], or -1 where unknown, from states (M, C).

        Raises:
            ConfigError: if `by_class` names a class that does not exist.
        """
        strangers = sorted(set(self.by_class) - set(class_names))
        if strangers:
            raise ConfigError(f"policy.by_class names {strangers[0]!r}; the classes are {', '.join(class_names)}")
        targets = states.astype(np.float32)
        rows, columns = np.nonzero(states == UNCERTAIN)
        draws = np.random.default_rng(self.seed).random(len(rows), dtype=np.float32)
        choices = np.array([self.by_class.get(name, self.uncertain) for name in class_names])[columns]
        for choice, (low, high) in self._ranges().items():
            chosen = choices == choice
            targets[rows[chosen], columns[chosen]] = low + (high - low) * draws[chosen]
        return torch.from_numpy(targets)

    def _ranges(self) -> dict[UncertainAs, tuple[float, float]]:
        return {
            "ignore": (UNKNOWN, UNKNOWN),
            "zeros": (0.0, 0.0),
            "ones": (1.0, 1.0),
            "smoothed_zeros": self.zeros_range,
            "smoothed_ones": self.ones_range,
        }
