"""Probabilities that mean what they say: a temperature, or slope and offset, from validation data, where they help."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from mlcv.errors import check_choice
from mlcv.labels.states import NEGATIVE, POSITIVE, evaluable, known

Method = Literal["none", "temperature", "platt"]
By = Literal["own", "shared", "none"]
Array = NDArray[Any]

LEAST = 10
"""Images that have a class, and images that lack it, below which it gets no scaling of its own.

In simulations of right probabilities (100 to 1000 images, 10 classes of 5 positives) scalings that chance let through
cost new images five times the calibration error if 2 were enough, and twice if 5 were.
"""
FOLDS = 5
CHANCE = 2.0
"""Standard errors by which a scaling must lower the loss on images it was not fitted to; chance does in 2 %."""
SLOPES = (float(np.exp(-5)), float(np.exp(5)))
"""Rising, whatever the data say: a scaling never turns the order of images round."""
EPS = 1e-12
"""Probabilities nearer to 0 or 1 count as this near: up to there float64 tells the logit of one to 4 digits."""


@dataclass(frozen=True)
class Scaling:
    """sigmoid(slope * logit + offset), class by class.

    Args:
        slope: (C,), > 0; 1 / temperature.
        offset: (C,), 0 for a temperature.
        scaled_by: what each class's numbers were fitted to: its `own` labels, those of all classes (`shared`), or
            nothing (`none`: 1 and 0).
    """

    slope: Tensor
    offset: Tensor
    scaled_by: tuple[By, ...] = ()

    def __call__(self, probs: Tensor) -> Tensor:
        """Calibrated probabilities, float64 (M, C); those of a class with slope 1 and offset 0 as they are."""
        as_it_is = (self.slope == 1) & (self.offset == 0)
        return torch.where(as_it_is, probs.double(), self.on(logits_of(probs)))

    def on(self, logits: Tensor) -> Tensor:
        """The same from logits, in their own precision."""
        return (self.slope * logits + self.offset).sigmoid()


def fit_scaling(probs: Tensor, targets: Tensor, method: Method, seed: int = 0) -> Scaling:
    """For each class the scaling that is likeliest to help: its own, one that all classes share, or none.

    Each minimises cross-entropy over known entries, with Platt's smoothed targets, so that few positives do not make it
    extreme, and is judged on images that it is not fitted to, in `FOLDS` parts. The shared one is accepted if it lowers
    the loss of all classes together by more than chance and does not raise their calibration error; a class's own if it
    does so to the class. A class that has labels enough for its own keeps its probabilities if the shared scaling would
    raise their loss. Fewer than `LEAST` images that have a class, or that lack it, are too few for its own.

    Args:
        probs: (M, C) in [0, 1].
        targets: (M, C) in {0, 1, -1}; unknown entries, and images without any known label, change nothing.
        method: `temperature` (Guo et al., ICML 2017), `platt` (Platt, 1999: slope and offset), or `none`.
        seed: of the parts.

    Returns:
        A class without a known positive or without a known negative is left as it is.
    """
    check_choice("method", method, get_args(Method))
    judged = known(targets).any(dim=1)
    logits, labels = logits_of(probs[judged]).numpy(), targets[judged].numpy()
    slope, offset = np.ones(labels.shape[1]), np.zeros(labels.shape[1])
    scaled_by: list[By] = ["none"] * labels.shape[1]
    classes = evaluable(targets).nonzero().flatten().tolist()
    enough = [c for c in classes if _is_enough(labels[:, [c]])]
    base = logits.copy()  # as it would be without a scaling of its own, for images that none was fitted to
    if method != "none" and _is_enough(labels[:, classes]):
        shared = _held_out(logits, labels, method, [classes], seed)
        if _is_better(shared[:, classes], logits[:, classes], labels[:, classes]):
            of_all = _fit(logits[:, classes], labels[:, classes], method)
            for c in classes:
                as_it_is, scaled = (_losses(some[:, [c]], labels[:, [c]]).sum() for some in (logits, shared))
                if c not in enough or scaled <= as_it_is:
                    base[:, c], scaled_by[c] = shared[:, c], "shared"
                    slope[c], offset[c] = of_all
        own = _held_out(logits, labels, method, [[c] for c in enough], seed)
        for c in enough:
            if _is_better(own[:, [c]], base[:, [c]], labels[:, [c]]):
                scaled_by[c] = "own"
                slope[c], offset[c] = _fit(logits[:, [c]], labels[:, [c]], method)
    return Scaling(torch.from_numpy(slope), torch.from_numpy(offset), tuple(scaled_by))


def classwise_calibration_error(probs: Tensor, targets: Tensor, bins: int = 15) -> Tensor:
    """Classwise ECE (Kull et al., NeurIPS 2019), over bins of equal mass, of known entries: (C,), NaN without any.

    Bins of equal width, as those of `ECE`, are mostly empty for rare classes.

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


def logits_of(probs: Tensor) -> Tensor:
    """float64 logits of probabilities, finite for 0 and 1."""
    return probs.double().logit(eps=EPS)


def _is_enough(labels: Array) -> bool:
    """Whether enough images have one of the classes, and enough lack one."""
    return all((labels == state).any(axis=1).sum() >= LEAST for state in (POSITIVE, NEGATIVE))


def _held_out(logits: Array, labels: Array, method: Method, groups: list[list[int]], seed: int) -> Array:
    """Each image's scaled logits by what was fitted to the other parts' images, for each group of classes together."""
    scaled, part = logits.copy(), _parts(labels, seed)
    for held_out in range(FOLDS):
        fitted, tested = part != held_out, part == held_out
        for group in groups:
            slope, offset = _fit(logits[fitted][:, group], labels[fitted][:, group], method)
            scaled[np.ix_(tested, group)] = slope * logits[np.ix_(tested, group)] + offset
    return scaled


def _parts(labels: Array, seed: int) -> Array:
    """The part of each image, as many as possible of its rarest class in each."""
    positive = labels == POSITIVE
    rarity = np.where(positive, positive.sum(axis=0), len(labels) + 1)
    rarest = np.where(positive.any(axis=1), rarity.argmin(axis=1), -1)
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[rarest[order].argsort(kind="stable")]
    part = np.empty(len(labels), dtype=int)
    part[order] = np.arange(len(labels)) % FOLDS
    return part


def _fit(logits: Array, labels: Array, method: Method) -> tuple[float, float]:
    """Slope and offset with the smallest cross-entropy over the known entries of (M, K)."""
    entries = known(labels)
    z, y = logits[entries], labels[entries] == POSITIVE
    soft = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def cost(at: Array) -> tuple[float, Array]:
        scaled = at[0] * z + at[1]
        slant = expit(scaled) - soft
        return float((np.logaddexp(0, scaled) - soft * scaled).mean()), np.array([(slant * z).mean(), slant.mean()])

    offsets = (0, 0) if method == "temperature" else (None, None)
    found: Any = minimize(cost, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=[SLOPES, offsets])  # type: ignore[no-untyped-call]
    return float(found.x[0]), float(found.x[1])


def _is_better(candidate: Array, base: Array, labels: Array) -> bool:
    """Whether logits (M, K) have a loss below the base's by more than chance, and no greater calibration error."""
    gain = _losses(base, labels) - _losses(candidate, labels)
    gain = gain[known(labels).any(axis=1)]
    if gain.mean() <= CHANCE * gain.std(ddof=1) / np.sqrt(len(gain)):
        return False
    entries = known(labels)
    true = torch.from_numpy(labels[entries])[:, None]
    before, after = (
        classwise_calibration_error(torch.from_numpy(expit(logits[entries]))[:, None], true)
        for logits in (base, candidate)
    )
    return bool(after <= before)


def _losses(logits: Array, labels: Array) -> Array:
    """Cross-entropy of each image's known entries, summed: (M,) from (M, K)."""
    losses = np.logaddexp(0, logits) - (labels == POSITIVE) * logits
    losses[~known(labels)] = 0
    total: Array = losses.sum(axis=1)
    return total
