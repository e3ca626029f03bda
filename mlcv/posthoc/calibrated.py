"""What `mlcv calibrate` found out about a model, as a file, and how predictions are changed by it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.files import read_json, write_text
from mlcv.labels.states import evaluable, known
from mlcv.plain_config import arguments, construct
from mlcv.posthoc.calibration import Method, Scaling, fit_scaling
from mlcv.posthoc.conformal import Powerset, choose_power, control_missed, only_positives
from mlcv.posthoc.thresholds import Goal, choose_class_thresholds

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
        fitted_to: the file of predictions; None if nobody knows.
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
    fitted_to: str | None = None

    @classmethod
    def fit(
        cls,
        probs: Tensor,
        targets: Tensor,
        class_names: Sequence[str],
        *,
        method: Method = "platt",
        goal: Goal = "f1",
        level: float = 0.9,
        risk: float = 0.1,
        epsilon: float = 0.1,
        seed: int = 0,
        model: str | None = None,
    ) -> "Calibration":
        """Everything from one set of validation predictions.

        A drawn half of the images fits the scaling and the kind of sets, the other half their sizes, whose guarantees
        need images that nothing else was fitted to; thresholds are chosen on all. Images without any known label are
        left out before anything is drawn.

        Args:
            probs: of the model.
            targets: in {0, 1, -1}.
            class_names: C names.
            method: of the scaling; see `fit_scaling`.
            goal: of the thresholds; see `choose_class_thresholds`.
            level: of precision or recall.
            risk: part of an image's labels that sets may miss, on average.
            epsilon: how often the true label set may be left out.
            seed: of the halves, and of the parts that judge scalings.
            model: fingerprint of the weights.

        Shape:
            probs and targets (M, C).

        Raises:
            ConfigError: if no class has a known positive and a known negative, so that nothing can be calibrated.
        """
        probs, targets = labelled(probs, targets)
        if not evaluable(targets).any():
            raise ConfigError(
                "0 classes could be calibrated: none has both a known positive and a known negative label; give "
                "--truth with more labels, or --blank negative if blank cells mean absent"
            )
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(probs)))
        first, second = order.tensor_split(2)
        scaling = fit_scaling(probs[first], targets[first], method, seed)
        calibrated = scaling(probs)
        thresholds = choose_class_thresholds(calibrated, targets, goal, level)
        fresh, labels = calibrated[second], targets[second]
        few_missed = control_missed(fresh, labels, risk)
        powerset, no_powerset = None, _why_no_powerset(targets, first, second, class_names)
        if not no_powerset:
            power = choose_power(calibrated[first], targets[first], epsilon)
            powerset = Powerset.calibrate(fresh, labels, epsilon, power)
        return cls(
            tuple(class_names),
            tuple(scaling.slope.tolist()),
            tuple(scaling.offset.tolist()),
            scaling.scaled_by,
            tuple(thresholds.tolist()),
            goal if goal == "f1" else f"{goal} of {level:g}",
            few_missed.threshold,
            risk,
            {name: reason for name, reason in zip(class_names, few_missed.why_not, strict=True) if reason},
            None
            if powerset is None
            else {"bound": powerset.bound, "power": powerset.power, "epsilon": powerset.epsilon},
            no_powerset,
            len(probs),
            model,
        )

    def about(self) -> str:
        """What was fitted, and to what, in words."""
        scaled = sum(by != "none" for by in self.scaled_by)
        of = f" of {self.fitted_to}" if self.fitted_to else ""
        return (
            f"the probabilities of {scaled} of {len(self.class_names)} classes are scaled and thresholds are chosen "
            f"for {self.goal}, by {self.images} images{of}"
        )

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


def labelled(probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Images with any known label."""
    rows = known(targets).any(dim=1)
    return probs[rows], targets[rows]


def _why_no_powerset(targets: Tensor, first: Tensor, second: Tensor, class_names: Sequence[str]) -> str:
    """Why whole label sets cannot be promised from these halves; empty if they can."""
    odd = only_positives(targets) | only_positives(targets[second])
    if odd.any():
        those = ", ".join(name for name, is_odd in zip(class_names, odd.tolist(), strict=True) if is_odd)
        return f"only positive labels of {those} are known, so that images known whole are those that have them"
    if not all(known(targets[part]).all(dim=1).any() for part in (first, second)):
        return "no image, or just one, has all its labels known"
    return ""
