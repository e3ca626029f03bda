"""Which entries have the largest or smallest values: what losses that select them share."""

import torch
from torch import Tensor

from mlcv.distributed import gathered, own_rows
from mlcv.errors import ConfigError
from mlcv.labels.states import known


def is_observed(targets: Tensor, trust_negatives: bool) -> Tensor:
    """Entries whose label is believed: all known ones, or but those that are no zeros; bool (B, C)."""
    return known(targets) if trust_negatives else targets > 0


@torch.no_grad()
def largest_of_batch(values: Tensor, eligible: Tensor, count: Tensor, together: bool = True) -> Tensor:
    """Marks the `count` largest of the eligible entries, of equal ones the first; all if they are fewer.

    Args:
        values: (B, C).
        eligible: bool (B, C).
        count: a number without dimensions, the same on all processes.
        together: whether the batch is that of all processes.

    Returns:
        bool (B, C).
    """
    candidates = values.masked_fill(~eligible, -torch.inf)
    everyone = (gathered(candidates) if together else candidates).flatten()
    order = everyone.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(everyone, dtype=torch.bool)
    chosen[order] = torch.arange(len(everyone), device=values.device) < count
    chosen = chosen.view(-1, values.shape[1])
    return (own_rows(chosen, len(values)) if together else chosen) & eligible


def lowest_of_class(values: Tensor, eligible: Tensor, counts: Tensor) -> Tensor:
    """Marks, of each class, so many of the eligible entries, those with the smallest values; of equal ones the first.

    Shape:
        values (N, C), eligible bool (N, C), counts (C,); returns bool (N, C).
    """
    order = values.float().masked_fill(~eligible, torch.inf).argsort(dim=0, stable=True)
    chosen = torch.arange(len(values), device=values.device)[:, None] < counts
    return torch.zeros_like(eligible).scatter(0, order, chosen) & eligible


def check_epochs(epochs: int | None, argument: str) -> int:
    """How many epochs training has, as a Trainer says it; None and -1 are no number.

    Raises:
        ConfigError: naming the argument that needs to know.
    """
    if epochs is None or epochs < 0:
        raise ConfigError(
            f"loss.{argument} is spread over all epochs, so trainer.max_epochs must say how many they are; in a loop "
            "of your own, call plan_epochs(epochs) of the loss before training"
        )
    return epochs
