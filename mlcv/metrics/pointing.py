"""The pointing game (Zhang et al., ECCV 2016, arXiv 1608.00507): does a heat map point at what it is of?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from mlcv.labels.states import is_positive
from mlcv.metrics.outputs import joined, rows_of_samples


class PointingGame(Metric):
    """Share of present labels whose heat map has its greatest value inside one of their boxes, without tolerance.

    Samples that a distributed sampler repeats count once.
    """

    full_state_update = False
    counts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, maps: Tensor, boxes: Sequence[Tensor], targets: Tensor) -> None:
        """Adds a batch.

        Args:
            index: (B,), places of the images in their split.
            maps: (B, C, h, w), a grid over the input.
            boxes: one (K, 5) an image: class, x, y, width and height, as parts of the input.
            targets: (B, C); labels that are 1 are asked for, if they have a box.
        """
        height, width = maps.shape[-2:]
        top = maps.flatten(2).argmax(dim=2)  # (B, C)
        x, y = (top % width + 0.5) / width, (top // width + 0.5) / height  # the middle of a place in the grid
        counts = torch.zeros(len(index), 3, dtype=torch.long, device=maps.device)  # index, hits, labels asked for
        counts[:, 0] = index
        for image, rows in enumerate(boxes):
            classes = rows[:, 0].long()
            low, high = rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]
            point = torch.stack([x[image, classes], y[image, classes]], dim=1)
            is_inside = ((low <= point) & (point <= high)).all(dim=1)
            has_box, is_hit = (torch.zeros_like(targets[image], dtype=torch.bool) for _ in range(2))
            has_box[classes] = True
            is_hit[classes[is_inside]] = True
            is_asked = has_box & is_positive(targets[image])
            counts[image, 1], counts[image, 2] = (is_hit & is_asked).sum(), is_asked.sum()
        self.counts.append(counts)

    def compute(self) -> Tensor:
        """Hits over labels asked for, all classes together; NaN if there was none."""
        counts = joined(self.counts).reshape(-1, 3)
        hits, asked = counts[rows_of_samples(counts[:, 0]), 1:].sum(dim=0).unbind()
        return hits / asked
