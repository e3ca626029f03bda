"""Policies: from label states to the targets that training sees. Uncertain entries are resolved here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import read_array
from mlcv.labels.states import UNCERTAIN, UNKNOWN, States

UncertainAs = Literal["ignore", "zeros", "ones", "smoothed_zeros", "smoothed_ones", "self_trained", "third_class"]


@dataclass(frozen=True)
class Policy:
    """What an annotator's "maybe" means in training (Irvin et al., AAAI 2019, arXiv 1901.07031, section 3).

    Args:
        uncertain: `ignore` makes such entries unknown, `zeros` negative, `ones` positive; `smoothed_zeros` and
            `smoothed_ones` draw a soft target from the ranges below, once for each entry (Pham et al., 2021,
            arXiv 1911.06475); `self_trained` takes the probability from `soft_labels`; `third_class` keeps them for
            `mlcv.methods.UMultiClass`, and is no choice for single classes.
        by_class: the same choice for single classes, by name; it goes before `uncertain`.
        zeros_range: of `smoothed_zeros`, in [0, 1].
        ones_range: of `smoothed_ones`, in [0, 1].
        soft_labels: a .npy file (M, C) of a trained model's probabilities of the training images, which
            `mlcv predict --split train --predictions FILE.npy` writes; for `self_trained`.
        seed: of the draws.
    """

    uncertain: UncertainAs = "ignore"
    by_class: dict[str, UncertainAs] = field(default_factory=dict)
    zeros_range: tuple[float, float] = (0.0, 0.3)
    ones_range: tuple[float, float] = (0.55, 0.85)
    soft_labels: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {self.uncertain, *self.by_class.values()}
        if ("self_trained" in choices) != (self.soft_labels is not None):
            raise ConfigError(
                "policy.soft_labels (a .npy file from `mlcv predict --split train`) and policy.uncertain self_trained "
                "go together: give both or neither"
            )
        if "third_class" in choices and len(choices) > 1:
            raise ConfigError("policy.uncertain third_class is for all classes: leave policy.by_class out")
        for name in ("zeros_range", "ones_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise ConfigError(f"policy.{name} is two rising probabilities, got {[low, high]}")
        if self.seed < 0:
            raise ConfigError(f"policy.seed is at least 0, got {self.seed}")

    def resolve(self, states: States, class_names: Sequence[str], soft: NDArray[np.float32] | None = None) -> Tensor:
        """Targets float32 (M, C) in [0, 1], or -1 where unknown, from states (M, C).

        With `third_class` it is -2 where uncertain. Uncertain entries that have a soft label (M, C), NaN for none, take
        that in place of any choice.

        Raises:
            ConfigError: if `by_class` names a class that does not exist, or `soft_labels` is of other images.
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
        if self.soft_labels is not None:
            chosen = choices == "self_trained"
            predicted = _read_soft_labels(Path(self.soft_labels), states.shape)
            targets[rows[chosen], columns[chosen]] = predicted[rows[chosen], columns[chosen]]
        if soft is not None:
            np.copyto(targets, soft, where=(states == UNCERTAIN) & ~np.isnan(soft))
        return torch.from_numpy(targets)

    def _ranges(self) -> dict[UncertainAs, tuple[float, float]]:
        return {
            "ignore": (UNKNOWN, UNKNOWN),
            "zeros": (0.0, 0.0),
            "ones": (1.0, 1.0),
            "smoothed_zeros": self.zeros_range,
            "smoothed_ones": self.ones_range,
        }


def _read_soft_labels(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if not path.is_file():
        raise ConfigError(
            f"policy.soft_labels: no file {path}; make it with mlcv predict --ckpt_path CHECKPOINT --split train "
            f"--predictions {path}"
        )
    soft = read_array(path, "policy.soft_labels")
    if soft.shape != shape or not ((soft >= 0) & (soft <= 1)).all():
        raise ConfigError(
            f"policy.soft_labels: {path} has shape {soft.shape}; probabilities {shape} in [0, 1], a row for each "
            "training image, are needed. Make it again for these data"
        )
    return soft
