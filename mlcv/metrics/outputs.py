"""Collects what a network says of every sample of a split, on all processes, each sample once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Outputs:
    """Everything an evaluation needs, sorted by the sample's position: index (M,), logits and targets (M, C)."""

    index: Tensor
    logits: Tensor
    targets: Tensor


class EvaluationOutputs(Metric):
    """Gathers logits and targets over batches and processes.

    Distributed samplers repeat samples so that every process gets as many; by their index such copies are dropped.
    """

    full_state_update = False
    index: list[Tensor]
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("index", "logits", "targets"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Adds a batch: index (B,), logits (B, C) of any float type, targets (B, C)."""
        self.index.append(index)
        self.logits.append(logits.detach().float())
        self.targets.append(targets.float())

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Everything that was added on all processes, in no order; see `gather`."""
        return joined(self.index), joined(self.logits), joined(self.targets)

    def gather(self) -> Outputs:
        """All samples seen on all processes since the last reset, once each, in the order of their index.

        Those of a negative index, which fill batches that nothing else is in, are left out.
        """
        index, logits, targets = self.compute()
        index = index.reshape(-1)  # torchmetrics squeezes what has one element
        logits, targets = (x.reshape(len(index), -1) for x in (logits, targets))
        rows = rows_of_samples(index)
        rows = rows[index[rows] >= 0]
        return Outputs(index[rows], logits[rows], targets[rows])


def rows_of_samples(index: Tensor) -> Tensor:
    """Where each sample of `index` (B,) comes first, in the order of the samples: (M,), M <= B."""
    ordered, order = index.sort(stable=True)
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def joined(state: Any) -> Tensor:
    """A list state is a list before it was synchronised, and a tensor after."""
    return state if isinstance(state, Tensor) else torch.cat(state)
