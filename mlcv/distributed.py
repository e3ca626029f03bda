"""Sums over the processes of a DDP run through which gradients flow; on one process they change nothing."""

from typing import Any

import torch.distributed
from torch import Tensor
from torch.autograd import Function


def global_sum(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor of this shape, on each of them.

    Its gradient is summed likewise. A loss computed from global sums is the same on every process, and DDP averages the
    processes' gradients, so that the parameters get what one process would give them for the whole batch.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return tensor
    summed: Tensor = _Sum.apply(tensor)
    return summed


class _Sum(Function):
    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        summed: Tensor = _Sum.apply(gradient)
        return summed
