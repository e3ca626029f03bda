"""The pointing game (Zhang et al., ECCV 2016, arXiv 1608.00507): does a heat map point at what it is of?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class PointingGame(Metric):
    """Share of present labels whose heat map has its greatest value inside one of their boxes, without tolerance.

    Samples that a distributed sampler repeats count twice.
    """

    full_state_update = False
    hits: Tensor
    total: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for state in ("hits", "total"):
            self.add_state(state, default=torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, maps: Tensor, boxes: Sequence[Tensor], targets: Tensor) -> None:
        """Adds a batch.

        Args:
            maps: (B, C, h, w), a grid over the input.
            boxes: one (K, 5) an image: class, x, y, width and height, as parts of the input.
            targets: (B, C); labels that are 1 are asked for, if they have a box.
        """
        height, width = maps.shape[-2:]
        top = maps.flatten(2).argmax(dim=2)  # (B, C)
        x, y = (top % width + 0.5) / width, (top // width + 0.5) / height  # the middle of a place in the grid
        for image, rows in enumerate(boxes):
            classes = rows[:, 0].long()
            low, high = rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]
            point = torch.stack([x[image, classes], y[image, classes]], dim=1)
            is_inside = ((low <= point) & (point <= high)).all(dim=1)
            has_box, is_hit = (torch.zeros_like(targets[image], dtype=torch.bool) for _ in range(2))
            has_box[classes] = True
            is_hit[classes[is_inside]] = True
            is_asked = has_box & (targets[image] == 1)
            self.total += is_asked
            self.hits += is_hit & is_asked

    def compute(self) -> Tensor:
        """Hits over labels asked for, all classes together; NaN if there was none."""
        return self.hits.sum() / self.total.sum()
