"""In which order images are seen, and how often."""

import logging
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from torch.utils.data import DistributedSampler

from mlcv.errors import ConfigError
from mlcv.labels.states import is_positive

logger = logging.getLogger(__name__)

Sampling = Literal["uniform", "class_aware"]

_REPEAT = 2**32
"""What a repeated visit adds to the epoch that it is named by; no training has as many."""


class EpochSampler(DistributedSampler[Any]):
    """A shuffle that depends on the seed and the epoch alone, so that a resumed run sees what a straight one would.

    Yields (epoch, position). Samples are dealt to the processes in turn.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


class ClassAwareSampler(DistributedSampler[Any]):
    """Each time a class, all with the same probability, then the next of its positives (Shen et al., ECCV 2016).

    Only classes with a positive are drawn; each has its positives in a shuffled order, and in another when it has been
    through. An epoch has as many images as there are in the split, so that it means what it does without: mmdetection's
    has the largest number of positives for every class, which is many times as long where classes are unequal. Images
    without positives are never seen, and an image is seen for each of its positives: the frequencies of the classes are
    no longer those of the labels.

    Depends on the seed and the epoch alone. Yields (epoch, position), but for an image's further visits in an epoch a
    number above all epochs stands in place of it: augmentation is drawn by it, and is to differ. Samples are dealt to
    the processes in turn.

    Args:
        dataset: with `targets` (M, C).
        given: see `torch.utils.data.DistributedSampler`.

    Raises:
        ConfigError: if there is no positive.
    """

    def __init__(self, dataset: Any, **given: Any) -> None:
        super().__init__(dataset, **given)
        shows = is_positive(dataset.targets).numpy()
        self.images = [np.flatnonzero(column) for column in shows.T if column.any()]
        if not self.images:
            raise ConfigError(
                "data.sampling class_aware: no training image has a positive label, so there is nothing to draw; "
                "leave it out"
            )
        never, absent = int((~shows.any(axis=1)).sum()), shows.shape[1] - len(self.images)
        logger.info(
            "data.sampling class_aware: %d of %d images have no positive and are never seen%s",
            never, len(shows), f"; no image shows {absent} of {shows.shape[1]} classes" if absent else "",
        )  # fmt: skip

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        classes = random.integers(len(self.images), size=self.total_size)
        order = np.empty(self.total_size, np.int64)
        for number, images in enumerate(self.images):
            places = np.flatnonzero(classes == number)
            rounds = -(-len(places) // len(images))
            turns = [random.permutation(images) for _ in range(rounds)]
            order[places] = np.concatenate([*turns, images[:0]])[: len(places)]
        visits: dict[int, int] = {}
        for place, index in enumerate(order.tolist()):
            visit = visits[index] = visits.get(index, -1) + 1
            if place % self.num_replicas == self.rank:
                yield self.epoch + visit * _REPEAT, index


SAMPLERS = {"uniform": EpochSampler, "class_aware": ClassAwareSampler}
