"""What `mlcv calibrate` found out about a model, as a file, and how predictions are changed by it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import read_json, write_text
from mlcv.plain_config import arguments, construct
from mlcv.posthoc.calibration import Scaling
from mlcv.posthoc.conformal import Powerset

FORMAT = "mlcv calibration 2"
FILE_NAME = "calibration.json"
"""Where a run keeps it, beside its configuration."""
_SOME = 5
"""Classes that a sentence names."""


@dataclass(frozen=True)
class Calibration:
    """Of one model.

    Args:
        class_names: C names.
        slope: of the scaling of logits, C numbers above 0; see `Scaling`.
        offset: likewise.
        scaled_by: what they were fitted to, C words; see `Scaling`.
        thresholds: C numbers; a class is predicted from there.
        goal: for which they were chosen, in words.
        missed_threshold: from which classes are in the set that misses few labels; None if nothing can be promised.
        missed_risk: how many, a part of an image's labels on average.
        not_promised: classes whose labels are in no such promise, and why.
        powerset: bound, power and epsilon of conformal sets of labels; None if they cannot be promised.
        no_powerset: why not; empty where they can.
        images: of the validation data, with any known label.
        model: fingerprint of the weights; None if nobody knows.
    """

    class_names: tuple[str, ...]
    slope: tuple[float, ...]
    offset: tuple[float, ...]
    scaled_by: tuple[str, ...]
    thresholds: tuple[float, ...]
    goal: str
    missed_threshold: float | None
    missed_risk: float
    not_promised: dict[str, str]
    powerset: dict[str, float] | None
    no_powerset: str
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
        """Sets that miss at most `missed_risk` of an image's labels on average, but `not_promised`: bool (M, C).

        Raises:
            ConfigError: if nothing can be promised.
        """
        if self.missed_threshold is None:
            raise ConfigError(f"sets that miss few labels {self.cannot_promise()}")
        return calibrated >= self.missed_threshold

    def cannot_promise(self) -> str:
        """That few labels missed cannot be promised for some classes, and why; empty if they can for all."""
        classes: dict[str, list[str]] = {}
        for name, reason in self.not_promised.items():
            classes.setdefault(reason, []).append(name)
        parts = []
        for reason, names in classes.items():
            more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
            is_all = len(names) == len(self.class_names)
            parts.append(f"because {reason}" + ("" if is_all else f" ({', '.join(names[:_SOME])}{more})"))
        return f"cannot be promised, {', and '.join(parts)}" if parts else ""

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
        content = read_json(path, "calibration; make it with mlcv calibrate")
        mark = content.pop("format", None) if isinstance(content, dict) else None
        if mark != FORMAT:
            is_older = isinstance(mark, str) and mark.startswith(FORMAT.rpartition(" ")[0])
            what = f"of another version ({mark!r})" if is_older else "no calibration"
            raise ConfigError(f"{path} is {what}: it lacks the mark {FORMAT!r}; make it again with mlcv calibrate")
        powerset = content.pop("powerset", None)  # whose bound may be infinite
        where = f"{path} is no readable calibration (make it again with mlcv calibrate)"
        calibration: Calibration = construct(cls, arguments(cls, content, where), powerset=powerset)
        count = len(calibration.class_names)
        lengths = {len(getattr(calibration, name)) for name in ("slope", "offset", "scaled_by", "thresholds")}
        has_sets = isinstance(powerset, dict) and {"bound", "power", "epsilon"} == set(powerset)
        is_sound = lengths == {count} and all(0 < slope < 1e6 for slope in calibration.slope)
        if not is_sound or not (powerset is None or (has_sets and all(type(n) is float for n in powerset.values()))):
            raise ConfigError(f"{path} contradicts itself; make it again with mlcv calibrate")
        if class_names is not None and calibration.class_names != tuple(class_names):
            theirs, ours = (", ".join(names[:4]) for names in (calibration.class_names, class_names))
            raise ConfigError(
                f"{path} is of other classes ({theirs}, ...) than those asked for ({ours}, ...), or in another order. "
                "Use the data set that the model was trained on, make the calibration again, or go without: "
                "--calibration none"
            )
        return calibration
