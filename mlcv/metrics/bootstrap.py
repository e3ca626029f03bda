"""Areas under the ROC and precision-recall curves, with confidence intervals by bootstrap over groups (patients)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE, evaluable, known

_DRAWN, _ENTRIES = 2**28, 2**21
"""Bytes of draws held at a time, and weights in rising order: as many as a processor's cache holds."""


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
    resamples are sums over weights: whole numbers, so exact, and read at the positives alone. Ties count half in the
    ROC curve and are one step of the precision-recall curve.
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
    number = torch.from_numpy(np.unique(names[judged.numpy()], return_inverse=True)[1])
    scores, targets = scores[judged], targets[judged]
    count = int(number.max()) + 1 if len(number) else 0
    whole = weighted_areas(scores, targets, torch.ones(1, len(scores), dtype=torch.float64))
    resampled = whole.new_full((resamples if count > 1 else 0, 2, scores.shape[1]), torch.nan)
    random = np.random.default_rng(seed)
    at_once = max(_DRAWN // max(count, 1), 1)
    for start in range(0, len(resampled), at_once):
        block = slice(start, min(start + at_once, len(resampled)))
        drawn = torch.stack([_draw(random, count) for _ in range(block.start, block.stop)])
        for c in evaluable(targets).nonzero().flatten().tolist():
            steps = _Steps.of(scores[:, c], targets[:, c])
            owners = number[steps.order]
            rows = max(_ENTRIES // len(owners), 1)
            parts = [steps.areas(part[:, owners]) for part in torch.split(drawn, rows)]
            resampled[block, :, c] = torch.cat(parts)
    return Areas(whole[0], resampled)


def _draw(random: np.random.Generator, count: int) -> Tensor:
    """How often each of so many groups is drawn; a byte holds more than any."""
    return torch.from_numpy(np.bincount(random.integers(count, size=count), minlength=count)).to(torch.uint8)


def weighted_areas(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """AUROC and average precision of each class for each set of weights: (R, 2, C) from (M, C), (M, C) and (R, M)."""
    areas = torch.full((len(weights), 2, scores.shape[1]), torch.nan, dtype=torch.float64)
    for c in evaluable(targets).nonzero().flatten().tolist():
        steps = _Steps.of(scores[:, c], targets[:, c])
        areas[:, :, c] = steps.areas(weights[:, steps.order])
    return areas


@dataclass(frozen=True)
class _Steps:
    """A class's K known samples in the order of their scores, where equal ones are one step.

    Args:
        order: (K,), the samples from the lowest score to the highest.
        positives: (P,), places of the positives in that order.
        begins: (P,), where each positive's step begins.
        ends: (P,), the place behind its end.
    """

    order: Tensor
    positives: Tensor
    begins: Tensor
    ends: Tensor

    @classmethod
    def of(cls, scores: Tensor, targets: Tensor) -> "_Steps":
        rows = known(targets).nonzero().flatten()
        ordered, place = scores[rows].sort()
        order = rows[place]
        positives = (targets[order] == POSITIVE).nonzero().flatten()
        values = ordered[positives]
        begins, ends = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
        return cls(order, positives, begins, ends)

    def areas(self, weights: Tensor) -> Tensor:
        """AUROC and average precision (R, 2) for weights (R, K) in this order; NaN without positives or negatives."""
        up = weights[:, self.positives].double()
        kind = weights.dtype if weights.is_floating_point() else torch.int32
        below = _before(weights.cumsum(dim=1, dtype=kind))  # of all samples before each place, and of all
        up_below = _before(up.cumsum(dim=1))
        of_begin, of_end = (torch.searchsorted(self.positives, edge) for edge in (self.begins, self.ends))
        all_up, total = up_below[:, -1], below[:, -1].double()
        all_down = total - all_up
        under, through = below[:, self.begins].double(), below[:, self.ends].double()
        up_under, up_through = up_below[:, of_begin], up_below[:, of_end]
        down_under, down_through = under - up_under, through - up_through
        both = (all_up > 0) & (all_down > 0)
        auroc = (up * (down_under + down_through)).sum(dim=1) / (2 * all_up * all_down)
        precision = (all_up[:, None] - up_under) / (total[:, None] - under).clamp_min(1e-12)
        precision = (up * precision).sum(dim=1) / all_up
        return torch.stack([torch.where(both, area, torch.nan) for area in (auroc, precision)], dim=1)


def _before(sums: Tensor) -> Tensor:
    """Cumulative sums (R, K) as sums of what stands before each of K + 1 places."""
    return torch.nn.functional.pad(sums, (1, 0))
