"""Batch normalisation whose statistics stay what they are."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def keep_batch_statistics(module: nn.Module) -> None:
    """All batch normalisations in it use their running mean and variance and leave them; scale and shift may learn."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()
