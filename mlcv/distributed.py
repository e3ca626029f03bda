"""What the processes of a DDP run know together; on one process nothing is changed."""

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


@torch.no_grad()
def gathered(tensor: Tensor) -> Tensor:
    """The rows of every process's tensor, one below the other, on each of them; without gradient.

    Shape:
        (B, ...), B may differ from one process to another; returns (sum of all B, ...).
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return tensor
    counts = [
        torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(torch.distributed.get_world_size())
    ]
    torch.distributed.all_gather(counts, torch.full_like(counts[0], len(tensor)))
    longest = int(max(counts))
    padded = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])]).contiguous()
    # As bytes: neither gloo nor NCCL carries every type (int16 is one).
    everyone = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather([rows.view(torch.uint8) for rows in everyone], padded.view(torch.uint8))
    return torch.cat([rows[: int(count)] for rows, count in zip(everyone, counts, strict=True)])


def own_rows(rows: Tensor, count: int) -> Tensor:
    """Of rows that came from `gathered`, or have their order, those of this process, which gave `count` of them."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return rows
    before = gathered(torch.full((1,), count, device=rows.device))
    first = int(before[: torch.distributed.get_rank()].sum())
    return rows[first : first + count]


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
