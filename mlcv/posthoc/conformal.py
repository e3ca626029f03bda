"""Prediction sets with a guarantee: at most so many labels missed, or the whole label set among those predicted.

Both take predictions on data that the model has not seen, exchangeable with those to come, and hold for any model.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import POSITIVE, known

POWERS = (1.0, 2.0, 4.0, 8.0)
"""Of the distance between labels and probabilities, to choose from."""


def control_missed(probs: Tensor, targets: Tensor, risk: float) -> float:
    """The highest threshold at which the expected part of an image's labels that is missed is at most `risk`.

    Conformal risk control (Angelopoulos et al., ICLR 2024, arXiv 2208.02814, eq. 4) of the false negative proportion: a
    set of all classes with probability >= threshold misses, on average over calibration sets and new images, at most
    this part. An image without a known positive misses nothing.

    Args:
        probs: of the calibration images.
        targets: in {0, 1}, or -1 where unknown.
        risk: in (0, 1).

    Shape:
        probs and targets (M, C).

    Returns:
        A threshold; 0 where so few images can promise nothing else, and sets then hold every class.

    Raises:
        ConfigError: for a risk that is no probability.
    """
    _check_part("risk", risk)
    positive = targets == POSITIVE
    share = (positive / positive.sum(dim=1, keepdim=True).clamp(min=1)).double()[positive]
    budget = risk * (len(probs) + 1) - 1  # of missed shares, summed over the images
    if budget < 0:
        return 0.0
    scores, order = probs.double()[positive].sort()
    missed = share[order].cumsum(dim=0)  # if the threshold is just above a score
    # A threshold equal to a score keeps it and all its equals, so what counts is how much lies strictly below.
    below = torch.searchsorted(scores, scores)
    lost = torch.where(below > 0, missed[(below - 1).clamp(min=0)], 0.0)
    allowed = scores[lost <= budget + 1e-9]
    return float(allowed.max()) if len(allowed) else 1.0


@dataclass(frozen=True)
class Powerset:
    """Inductive conformal prediction over sets of labels (Papadopoulos, 2014), exact without trying all 2^C.

    A label set Y of an image with probabilities o is as strange as A(Y, o) = sum_c |Y_c - o_c|^power. The prediction is
    all label sets whose p-value exceeds `epsilon`; it holds the true one with probability 1 - epsilon at least. The
    least strange set is Y* = [o > 1/2], and flipping class c of it costs d_c = | |1 - o_c|^power - o_c^power |, so the
    prediction is Y* with every set of flips that the bound can pay: sorted costs prune the search (Maltoudoglou et al.,
    2023, arXiv 2312.09304, prune likewise).

    Args:
        bound: strangest value that is let in; infinite where so few images can promise nothing else.
        power: of the distance, > 0.
        epsilon: probability of error that is allowed, in (0, 1).
    """

    bound: float
    power: float
    epsilon: float

    @classmethod
    def calibrate(cls, probs: Tensor, targets: Tensor, epsilon: float, power: float = 1.0) -> "Powerset":
        """From images whose labels are all known; others are left out.

        Args:
            probs: (M, C).
            targets: (M, C) in {0, 1, -1}.
            epsilon: in (0, 1).
            power: > 0.

        Raises:
            ConfigError: for numbers out of range, or if no image has all its labels known.
        """
        _check_part("epsilon", epsilon)
        if power <= 0:
            raise ConfigError(f"power is above 0, got {power}")
        whole = known(targets).all(dim=1)
        if not whole.any():
            raise ConfigError("conformal sets of labels need images whose labels are all known; there is none")
        strange = _strangeness(probs[whole], targets[whole], power).sort(descending=True).values
        # The p-value, one more than those as strange by q + 1, exceeds epsilon if at least so many are.
        needed = math.floor(epsilon * (len(strange) + 1))
        return cls(float(strange[needed - 1]) if needed else math.inf, power, epsilon)

    def holds(self, probs: Tensor, targets: Tensor) -> Tensor:
        """Whether each image's label set is in its prediction: (M,) bool."""
        return _strangeness(probs, targets, self.power) <= self.bound + 1e-12

    def certain(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """The classes that every predicted label set has, and those that any has: two bool (M, C).

        Exact, however many sets there are. An image with an empty prediction has all classes in the first, none in the
        second.
        """
        best, spare, flips = self._parts(probs)
        is_empty = (spare < -1e-12)[:, None]
        can_flip = flips <= spare[:, None] + 1e-12
        return is_empty | (best & ~can_flip), ~is_empty & (best | can_flip)

    def sets(self, probs: Tensor, limit: int | None = None) -> list[Tensor]:
        """The label sets predicted for each image, least strange sets of flips first by their largest cost.

        Args:
            probs: (M, C).
            limit: give up after so many for one image, since there may be 2^C.

        Returns:
            For each image bool (K, C); at most `limit` rows.
        """
        best, spare, flips = self._parts(probs)
        predicted = []
        for row in range(len(probs)):
            costs, order = flips[row].sort()
            found = []
            for subset in _subsets(costs.tolist(), float(spare[row]) + 1e-12):
                chosen = best[row].clone()
                chosen[order[subset]] ^= True
                found.append(chosen)
                if limit is not None and len(found) == limit:
                    break
            predicted.append(torch.stack(found) if found else best[:0])
        return predicted

    def _parts(self, probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The least strange label set, what its image may spend on flips, and each flip's cost."""
        probs = probs.double()
        present, absent = (1 - probs).abs() ** self.power, probs.abs() ** self.power
        return probs > 0.5, self.bound - torch.minimum(present, absent).sum(dim=1), (present - absent).abs()


def choose_power(probs: Tensor, targets: Tensor, epsilon: float) -> float:
    """The power of `POWERS` that leaves the fewest classes of an image undecided.

    The higher it is, the less many small doubts weigh against one mistake; with 100 classes that decides whether sets
    are of use. Choose on other images than those that calibrate, whose promise else is not exact.

    Args:
        probs: (M, C).
        targets: (M, C) in {0, 1, -1}; only images whose labels are all known count.
        epsilon: as for `Powerset`.
    """
    whole = known(targets).all(dim=1)

    def undecided(power: float) -> int:
        every, some = Powerset.calibrate(probs[whole], targets[whole], epsilon, power).certain(probs[whole])
        return int((some & ~every).sum())

    return min(POWERS, key=undecided)


def _strangeness(probs: Tensor, targets: Tensor, power: float) -> Tensor:
    return ((targets.double() - probs.double()).abs() ** power).sum(dim=1)


def _subsets(costs: list[float], spare: float) -> Iterator[list[int]]:
    """All index sets whose costs sum to at most `spare`; costs rise, so that a too dear one ends its branch."""
    if spare < 0:
        return
    stack: list[tuple[list[int], int, float]] = [([], 0, spare)]
    while stack:
        chosen, start, left = stack.pop()
        yield chosen
        for place in range(start, len(costs)):
            if costs[place] > left:
                break
            stack.append(([*chosen, place], place + 1, left - costs[place]))


def _check_part(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} lies between 0 and 1, got {value}")
