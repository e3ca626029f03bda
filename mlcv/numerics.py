"""Precision rules that losses, metrics and operators share, and the numbers that losses are made of."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

# PyTorch's log1p and expm1 choose their result for -0 with a masked load of a constant. Until somebody has touched the
# constant's page, each such load costs an exception that is suppressed: eight times the time of the whole function on
# a CPU with AVX-512 (tools/benchmarks/losses.py shows it). This touches the page.
torch.full((64,), -0.0).log1p()


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """Switches autocast off on the tensor's device.

    Under autocast a matrix product of two float32 tensors comes out in bfloat16, so `.float()` alone
    does not keep a loss in float32.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if that is what it has (so that `gradcheck` works)."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def log_sigmoids(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of p and 1 - p, for p = sigmoid(logits), exact for logits of any size; not for autograd.

    Shape:
        any; returns two tensors of the same shape.
    """
    both = logits.abs().neg_().exp_().log1p_()
    return logits.clamp(max=0).sub_(both), logits.clamp(min=0).add_(both).neg_()


def power(base: Tensor, exponent: float) -> Tensor:
    """base^exponent for base >= 0 and exponent >= 0; two squares for 4, since a general power is a logarithm."""
    return base.square().square_() if exponent == 4 else base.pow(exponent)
