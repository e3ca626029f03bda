"""In which order images are seen."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler[Any]):
    """A shuffle that depends on the seed and the epoch alone, so that a resumed run sees what a straight one would.

    Yields (epoch, position). Samples are dealt to the processes in turn.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())
