"""Probabilities that mean what they say: a temperature, or slope and offset, for each class, from validation data."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mlcv.labels.states import evaluable, known

Method = Literal["none", "temperature", "platt"]


@dataclass(frozen=True)
class Scaling:
    """sigmoid(slope * logit + offset), class by class.

    Args:
        slope: (C,), > 0 for a temperature 1 / slope.
        offset: (C,), 0 for a temperature.
    """

    slope: Tensor
    offset: Tensor

    def __call__(self, probs: Tensor) -> Tensor:
        """Calibrated probabilities, float64 (M, C)."""
        return self.on(logits_of(probs))

    def on(self, logits: Tensor) -> Tensor:
        """The same from logits, in their own precision."""
        return (self.slope * logits + self.offset).sigmoid()


def fit_scaling(probs: Tensor, targets: Tensor, method: Method) -> Scaling:
    """The scaling with the smallest cross-entropy over known entries.

    Args:
        probs: (M, C) in [0, 1].
        targets: (M, C) in {0, 1, -1}.
        method: `temperature` (Guo et al., ICML 2017; here one a class), `platt` (Platt, 1999: slope and offset, with
            his smoothed targets, so that few positives do not make them extreme), or `none`.

    Returns:
        A class without a known positive or without a known negative is left as it is.
    """
    slope, offset = (torch.full((probs.shape[1],), value, dtype=torch.float64) for value in (1.0, 0.0))
    if method != "none":
        logits = logits_of(probs)
        for c in evaluable(targets).nonzero().flatten().tolist():
            rows = known(targets[:, c])
            if method == "temperature":
                slope[c] = _temperature(logits[rows, c], targets[rows, c].double())
            else:
                slope[c], offset[c] = _platt(logits[rows, c].numpy(), targets[rows, c].numpy())
    return Scaling(slope, offset)


def calibration_error(probs: Tensor, targets: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error of each class over bins of equal mass, on known entries: (C,), NaN without any.

    torchmetrics has it for one binary problem, and with bins of equal width, most of which are empty for rare classes.

    Shape:
        probs (M, C) in [0, 1], targets (M, C) in {0, 1, -1}.
    """
    errors = torch.full((probs.shape[1],), torch.nan, dtype=torch.float64)
    for c in range(probs.shape[1]):
        rows = known(targets[:, c])
        if rows.any():
            order = probs[rows, c].argsort(stable=True)
            said, true = probs[rows, c].double()[order], targets[rows, c].double()[order]
            parts = zip(said.tensor_split(bins), true.tensor_split(bins), strict=True)
            gaps = [len(p) * abs(p.mean() - t.mean()) for p, t in parts if len(p)]
            errors[c] = torch.stack(gaps).sum() / len(said)
    return errors


EPS = 1e-7
"""Probabilities nearer to 0 or 1 count as this near."""


def logits_of(probs: Tensor) -> Tensor:
    """float64 logits of probabilities, finite for 0 and 1."""
    return probs.double().logit(eps=EPS)


def _temperature(logits: Tensor, targets: Tensor) -> float:
    def cost(log_slope: float) -> float:
        return float(binary_cross_entropy_with_logits(np.exp(log_slope) * logits, targets))

    found: Any = minimize_scalar(cost, bounds=(-5, 5), method="bounded")  # type: ignore[no-untyped-call]
    return float(np.exp(found.x))


def _platt(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    positives = int((targets == 1).sum())
    negatives = len(targets) - positives
    soft = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A soft target is the entry twice, once of each kind, with its weight.
    twice, labels = np.concatenate([logits, logits])[:, None], np.repeat([1, 0], len(logits))
    model: Any = LogisticRegression(C=np.inf)  # type: ignore[no-untyped-call]
    model.fit(twice, labels, sample_weight=np.concatenate([soft, 1 - soft]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])
