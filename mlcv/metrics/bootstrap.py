"""Areas under the ROC and precision-recall curves, with confidence intervals by bootstrap over groups (patients)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE, evaluable, known

_ENTRIES = 2**24
"""Weights handled at once: 128 MiB."""


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with 95 % confidence, see `Areas.interval`; NaN where it cannot be judged."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return "-" if math.isnan(self.value) else f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}, {self.high:.3f})"


@dataclass(frozen=True)
class Areas:
    """Areas on the whole sample and on resamples.

    Args:
        value: (2, C), areas under ROC and precision-recall curve; NaN for a class that cannot be judged.
        resampled: (R, 2, C), NaN for a resample without positives or negatives.
    """

    value: Tensor
    resampled: Tensor

    def interval(self, kind: int, columns: Sequence[int]) -> Interval:
        """Of the mean over some classes: kind 0 is the ROC curve, 1 the precision-recall curve.

        Percentiles of the bootstrap, moved by as much as the resamples' mean is off the sample's value. A resample
        holds some positives twice, which lifts average precision, and the more so the fewer there are: as they are,
        percentiles lie too high. Of a resample that lacks a class the mean is over the others. It is an interval for
        what other samples of this size give; the docs have its coverage.
        """
        value = float(self.value[kind, list(columns)].mean())
        means = self.resampled[:, kind, list(columns)].nanmean(dim=1)
        samples = means[~means.isnan()].numpy()
        if not len(samples) or math.isnan(value):
            return Interval(value, math.nan, math.nan)
        low, high = np.percentile(samples, (2.5, 97.5)) - (samples.mean() - value)
        # No further than any resample: areas end at 0 and 1.
        return Interval(value, float(max(low, min(samples.min(), value))), float(min(high, max(samples.max(), value))))


def bootstrap_areas(
    scores: Tensor, targets: Tensor, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Areas:
    """AUROC and average precision of each class, on the sample and on resamples of its groups with replacement.

    Drawing a group several times is giving its samples a weight, so that scores are sorted once and the areas of all
    resamples are sums over weights. Ties count half in the ROC curve and are one step of the precision-recall curve.
    Samples without any known label are left out before anything is drawn.

    Args:
        scores: higher where a class is likelier; any scale.
        targets: in {0, 1}, or -1 where unknown.
        groups: of each sample, drawn as wholes; each sample is its own if None.
        resamples: R, 0 for none. Of less than two groups there is no interval.
        seed: of the draws.

    Shape:
        scores and targets (M, C), groups M.
    """
    judged = known(targets).any(dim=1)
    names = np.arange(len(scores)) if groups is None else np.array(groups)
    number = np.unique(names[judged.numpy()], return_inverse=True)[1]
    scores, targets = scores[judged], targets[judged]
    count = int(number.max(initial=-1)) + 1
    random = np.random.default_rng(seed)
    parts = []
    rows = max(_ENTRIES // max(len(scores), 1), 1)
    for start in range(0, resamples if count > 1 else 0, rows):
        drawn = random.multinomial(count, np.full(count, 1 / max(count, 1)), size=min(rows, resamples - start))
        parts.append(weighted_areas(scores, targets, torch.from_numpy(drawn[:, number]).double()))
    whole = weighted_areas(scores, targets, torch.ones(1, len(scores), dtype=torch.float64))
    resampled = torch.cat(parts) if parts else whole[:0]
    return Areas(whole[0], resampled)


def weighted_areas(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """AUROC and average precision of each class for each set of weights: (R, 2, C) from (M, C), (M, C) and (R, M)."""
    areas = torch.full((len(weights), 2, scores.shape[1]), torch.nan, dtype=torch.float64)
    for c in evaluable(targets).nonzero().flatten().tolist():
        rows = known(targets[:, c])
        _, step = torch.unique(scores[rows, c], return_inverse=True)  # equal scores are one step, in rising order
        weight, positive = weights[:, rows], targets[rows, c] == POSITIVE
        up, down = (_sums(weight * chosen, step) for chosen in (positive, ~positive))  # (R, steps)
        all_up, all_down = up.sum(dim=1), down.sum(dim=1)
        below = down.cumsum(dim=1) - down / 2
        areas[:, 0, c] = (up * below).sum(dim=1) / (all_up * all_down)
        true_above = all_up[:, None] - up.cumsum(dim=1) + up
        false_above = all_down[:, None] - down.cumsum(dim=1) + down
        precision = true_above / (true_above + false_above).clamp_min(1e-12)
        both = (all_up > 0) & (all_down > 0)
        areas[:, 1, c] = torch.where(both, (up * precision).sum(dim=1) / all_up, torch.nan)
    return areas


def _sums(weights: Tensor, step: Tensor) -> Tensor:
    sums = weights.new_zeros(len(weights), int(step.max()) + 1)
    return sums.index_add_(1, step, weights)
