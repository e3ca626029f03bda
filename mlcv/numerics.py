"""Precision rules that losses, metrics and operators share."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """Switches autocast off on the tensor's device.

    Under autocast a matrix product of two float32 tensors comes out in bfloat16, so `.float()` alone
    does not keep a loss in float32.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if that is what it has (so that `gradcheck` works)."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
