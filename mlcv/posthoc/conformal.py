"""Prediction sets with a guarantee: at most so many labels missed, or the whole label set among those predicted.

Both take predictions on data that the model has not seen, exchangeable with those to come, and hold for any model.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import NEGATIVE, POSITIVE, known

POWERS = (1.0, 2.0, 4.0, 8.0)
"""Of the distance between labels and probabilities, to choose from."""


@dataclass(frozen=True)
class FewMissed:
    """Sets of all classes at or above a threshold, and whose labels they miss few of.

    Args:
        threshold: 0 where so few images can promise nothing else, and sets then hold every class; None where nothing
            can be promised.
        why_not: C sentences on why a class's labels are in no promise; empty for the others.
    """

    threshold: float | None
    why_not: tuple[str, ...]


def control_missed(probs: Tensor, targets: Tensor, risk: float) -> FewMissed:
    """The highest threshold at which the expected part of an image's labels that is missed is at most `risk`.

    Conformal risk control (Angelopoulos et al., ICLR 2024, arXiv 2208.02814, eq. 4) of the false negative proportion: a
    set of all classes with probability >= threshold misses, on average over calibration sets and new images, at most
    this part of what is there, known or not. An image without any label misses nothing.

    Where labels are unknown this asks that which of an image's labels are known depends neither on what they are nor on
    its scores; classes may be known at different rates, and in any company. Images without any known label are left
    out. With q_c the rate of class c among the others and S the known positives of an image, what it misses counts as

        L(t) = 1 / |S| sum_{c in S} [score_c < t] / q_c.

    Of an image's k labels each is in S with probability q_c, and then |S| <= k, so that L is on average no less than
    the missed part of all k: the bound holds and is tight for one label an image. L is at most 1 / min q, which takes
    the place of 1 in the equation; the rates are those of the images themselves. With all labels known nothing changes.

    Nothing can be promised about a class that is never known, or so rarely that 1 / q_c would take half of the risk; or
    whose known labels are all positive though others are unknown, since then what a label is decides whether it is
    known. It takes no part.

    Args:
        probs: of the calibration images.
        targets: in {0, 1}, or -1 where unknown.
        risk: in (0, 1).

    Shape:
        probs and targets (M, C).

    Raises:
        ConfigError: for a risk that is no probability.
    """
    _check_part("risk", risk)
    why_not = _not_promised(targets, risk)
    promised = torch.tensor([not reason for reason in why_not], dtype=torch.bool)
    if not promised.any():
        return FewMissed(None, why_not)
    judged = known(targets[:, promised]).any(dim=1)
    probs, targets = probs[judged][:, promised].double(), targets[judged][:, promised]
    rates = known(targets).double().mean(dim=0)
    positive = targets == POSITIVE
    share = (positive / (positive.sum(dim=1, keepdim=True).clamp(min=1) * rates))[positive]
    budget = risk * (len(probs) + 1) - 1 / float(rates.min())  # of missed shares, summed over the images
    if budget < 0:
        return FewMissed(0.0, why_not)
    scores, order = probs[positive].sort()
    missed = share[order].cumsum(dim=0)  # if the threshold is just above a score
    # A threshold equal to a score keeps it and all its equals, so what counts is how much lies strictly below.
    below = torch.searchsorted(scores, scores)
    lost = torch.where(below > 0, missed[(below - 1).clamp(min=0)], 0.0)
    allowed = scores[lost <= budget + 1e-9]
    return FewMissed(float(allowed.max()) if len(allowed) else 1.0, why_not)


def only_positives(targets: Tensor) -> Tensor:
    """Classes of which some labels are unknown and none is known to be absent: bool (C,).

    What such a label is decides whether it is known, so that what is known promises nothing. All classes are such where
    no label at all is known to be absent and some are unknown. Images without any known label do not count.
    """
    is_known = known(targets)
    is_whole = is_known[is_known.any(dim=1)].all(dim=0)
    negative = (targets == NEGATIVE).any(dim=0)
    if not negative.any() and not is_whole.all():
        return torch.ones_like(negative)
    return ~negative & ~is_whole & is_known.any(dim=0)


def _not_promised(targets: Tensor, risk: float) -> tuple[str, ...]:
    """Why each class's labels are in no promise of `control_missed`, or nothing."""
    is_known = known(targets)
    images, counts = int(is_known.any(dim=1).sum()), is_known.sum(dim=0).tolist()
    needed = 2 * images / (risk * (images + 1))
    reasons = []
    for count, is_odd in zip(counts, only_positives(targets).tolist(), strict=True):
        if count == 0:
            reasons.append("no label is known")
        elif is_odd:
            reasons.append("only positive labels are known, so what a label is decides whether it is known")
        elif count < images and count < needed:
            reasons.append(f"only {count} labels are known, and {math.ceil(needed)} are needed")
        else:
            reasons.append("")
    return tuple(reasons)


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

        What is promised holds for new images if which images have all their labels known does not depend on what the
        labels are, nor on the scores.

        Args:
            probs: (M, C).
            targets: (M, C) in {0, 1, -1}.
            epsilon: in (0, 1).
            power: > 0.

        Raises:
            ConfigError: for numbers out of range, if no image has all its labels known, or if a class is known only
                where it is positive: then only images that have it are known whole.
        """
        _check_part("epsilon", epsilon)
        if power <= 0:
            raise ConfigError(f"power is above 0, got {power}")
        whole = known(targets).all(dim=1)
        if not whole.any():
            raise ConfigError("conformal sets of labels need images whose labels are all known; there is none")
        if only_positives(targets).any():
            raise ConfigError("conformal sets of labels need known negatives; of a class only positive ones are known")
        strange = _strangeness(probs[whole], targets[whole], power).sort(descending=True).values
        # The p-value, one more than those as strange by q + 1, exceeds epsilon if at least so many are.
        needed = math.floor(epsilon * (len(strange) + 1))
        return cls(float(strange[needed - 1]) if needed else math.inf, power, epsilon)

    def holds(self, probs: Tensor, targets: Tensor) -> Tensor:
        """Whether each image's label set, or any that agrees with what is known of it, is predicted: (M,) bool."""
        likeliest = torch.where(known(targets), targets, (probs > 0.5).to(targets.dtype))
        return _strangeness(probs, likeliest, self.power) <= self.bound + 1e-12

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
        """The label sets predicted for each image, the least strange first.

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
    """All index sets whose costs sum to at most `spare`, the cheapest first.

    Args:
        costs: rising, so that of a set the next ones are with one index more, or with the last one moved up.
        spare: none if it is negative.
    """
    if spare < 0:
        return
    yield []
    waiting = [(costs[0], [0])] if costs else []
    while waiting:
        total, chosen = heapq.heappop(waiting)
        if total > spare:
            return
        yield chosen
        following = chosen[-1] + 1
        if following < len(costs):
            for one in ([*chosen, following], [*chosen[:-1], following]):
                heapq.heappush(waiting, (math.fsum(costs[place] for place in one), one))


def _check_part(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} lies between 0 and 1, got {value}")
