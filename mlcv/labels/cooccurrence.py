"""How often labels occur together, from positive labels alone."""

import torch
from torch import Tensor

from mlcv.labels.states import POSITIVE


def cooccurrence(targets: Tensor) -> Tensor:
    """A_ij, the part of the images known to show class i that are also known to show class j.

    A class that never occurs co-occurs with itself alone: its row is that of the identity (published code divides
    0 by 0 there).

    Shape:
        targets (M, C), 1 where positive; returns float32 (C, C) in [0, 1] with ones on the diagonal.
    """
    positive = (targets == POSITIVE).float()
    together = positive.T @ positive
    occurs = together.diagonal()[:, None]
    return torch.where(occurs > 0, together / occurs.clamp(min=1), torch.eye(targets.shape[1]))
