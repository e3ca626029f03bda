"""What `mlcv calibrate` found out about a model, as a file, and how predictions are changed by it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import write_text
from mlcv.posthoc.calibration import Scaling
from mlcv.posthoc.conformal import Powerset

FORMAT = "mlcv calibration 1"
FILE_NAME = "calibration.json"
"""Where a run keeps it, beside its configuration."""


@dataclass(frozen=True)
class Calibration:
    """Of one model.

    Args:
        class_names: C names.
        slope: of the scaling of logits, C numbers; see `Scaling`.
        offset: likewise.
        thresholds: C numbers; a class is predicted from there.
        goal: for which they were chosen, in words.
        missed_threshold: from which classes are in the set that misses few labels.
        missed_risk: how many, a part of an image's labels on average.
        powerset: bound, power and epsilon of conformal sets of labels; None if no image had all its labels known.
        images: of the validation data.
        model: fingerprint of the weights whose predictions these were; None if they did not say.
    """

    class_names: tuple[str, ...]
    slope: tuple[float, ...]
    offset: tuple[float, ...]
    thresholds: tuple[float, ...]
    goal: str
    missed_threshold: float
    missed_risk: float
    powerset: dict[str, float] | None
    images: int
    model: str | None = None

    def probabilities(self, probs: Tensor) -> Tensor:
        """Calibrated, float64 (M, C), from those of the model."""
        slope, offset = (torch.tensor(values, dtype=torch.float64) for values in (self.slope, self.offset))
        return Scaling(slope, offset)(probs)

    def chosen(self, calibrated: Tensor) -> Tensor:
        """Classes at or above their thresholds: bool (M, C)."""
        return calibrated >= torch.tensor(self.thresholds, dtype=torch.float64)

    def decide(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated probabilities of those of the model, and the classes that they choose."""
        calibrated = self.probabilities(probs)
        return calibrated, self.chosen(calibrated)

    def covering(self, calibrated: Tensor) -> Tensor:
        """Sets that miss at most `missed_risk` of an image's labels on average: bool (M, C)."""
        return calibrated >= self.missed_threshold

    def label_sets(self) -> Powerset | None:
        """The conformal predictor of whole label sets."""
        return Powerset(**self.powerset) if self.powerset is not None else None

    def save(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all; an earlier one is kept under another name."""
        write_text(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", keep=True)

    @classmethod
    def load(cls, path: Path, class_names: tuple[str, ...] | None = None) -> "Calibration":
        """Reads it.

        Args:
            path: of the file.
            class_names: those of the model, which must be the file's; None if nobody knows.

        Raises:
            ConfigError: if the file is absent, damaged, of another kind or of other classes.
        """
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format", None) != FORMAT:
                raise ConfigError(
                    f"{path} is no calibration: it lacks the mark {FORMAT!r}; make it with mlcv calibrate"
                )
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            calibration = cls(**values)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(f"{path} is no readable calibration ({error}); make it with mlcv calibrate") from error
        if class_names is not None and calibration.class_names != tuple(class_names):
            raise ConfigError(f"{path} is of other classes than the model; make it again with mlcv calibrate")
        return calibration
