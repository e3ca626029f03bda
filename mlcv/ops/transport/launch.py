"""How the Triton kernels are called: block sizes, grids, buffers. Any number of patches and labels, any dimension.

Between two kernels lie no tensor of all pairs and no synchronisation with the host, so calls can be captured in a
CUDA graph; sums are taken in a fixed order, so equal inputs give equal bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mlcv.ops.transport.blocked import Statistics
from mlcv.ops.transport.kernels import combine_kernel, forward_kernel, gradient_kernel, reduce_kernel

# Up to so many labels, one block, the gradient pass over the patches yields the labels' gradient too.
EMIT_LABELS = 16
# Blocks of labels in flight that fill a large GPU (132 processors on an H200) twice.
WAVES = 264

TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
REDUCE_BLOCKS = {"BLOCK_G": 256, "num_warps": 4}


def forward_blocks(dtype: torch.dtype, num_labels: int) -> dict[str, int]:
    """Block sizes of the forward pass; like all here, the greatest at which no register spills (sm_80 to sm_100)."""
    most, block_d = (16, 32) if dtype == torch.float32 else (64, 64)
    return {"BLOCK_N": 64, "BLOCK_C": _between(num_labels, 16, most), "BLOCK_D": block_d, "num_warps": 4}


def combine_blocks(num_labels: int) -> dict[str, int]:
    """Block sizes of the pass that combines the tiles' statistics."""
    return {"BLOCK_N": 256, "BLOCK_C": _between(num_labels, 16, 128), "num_warps": 4}


def gradient_blocks(dtype: torch.dtype, dim: int, emit: bool) -> dict[str, int]:
    """Block sizes of the gradient; `emit` says whether the labels' part comes with it."""
    most = {torch.float32: 64, torch.float16: 128, torch.bfloat16: 256}[dtype]
    if dtype == torch.float32:
        block = {"BLOCK_R": 32 if emit else 64, "BLOCK_C": EMIT_LABELS, "BLOCK_D": 32}
    else:
        block = {"BLOCK_R": 32, "BLOCK_C": EMIT_LABELS if emit else 32, "BLOCK_D": 64}
    return {"EMIT": emit, "BLOCK_G": _between(dim, 16, most), **block, "num_warps": 8}


def _between(number: int, low: int, high: int) -> int:
    power: int = triton.next_power_of_2(number)
    return min(max(power, low), high)


def forward(
    patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, temperature: Tensor, rho: float, normalize: bool
) -> tuple[Tensor, Statistics]:
    """Cost (B,) of each image, and what `backward` needs."""
    patches, labels = _rows(patches), _rows(labels)
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    blocks = forward_blocks(dtype, num_labels)
    tiles = triton.cdiv(num_patches, blocks["BLOCK_N"])
    patch_lse, patch_cost = (allocate(theta, batch, num_patches) for _ in range(2))
    label_lse, label_cost = (allocate(theta, batch, num_labels) for _ in range(2))
    parts = [allocate(theta, batch, tiles, num_labels) for _ in range(3)]
    cost = allocate(theta, batch)
    if batch:
        forward_kernel[(tiles, batch)](
            patches, labels, theta, beta, temperature, patch_lse, patch_cost, *parts, num_patches, num_labels, dim,
            *_strides(patches), *_strides(labels), NORMALIZE=normalize, DTYPE=TYPES[dtype], **blocks,
        )  # fmt: skip
        combine_kernel[(batch,)](
            theta, beta, patch_cost, *parts, label_lse, label_cost, cost, num_patches, num_labels, tiles, rho,
            **combine_blocks(num_labels),
        )  # fmt: skip
    return cost, (patch_lse, patch_cost, label_lse, label_cost)


def backward(
    grad_cost: Tensor,
    patches: Tensor,
    labels: Tensor,
    theta: Tensor,
    beta: Tensor,
    temperature: Tensor,
    statistics: Statistics,
    rho: float,
    normalize: bool,
    with_labels: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of patches, labels, theta, beta and temperature."""
    patches, labels, grad_cost = _rows(patches), _rows(labels), grad_cost.contiguous()
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    of_patches, of_labels = statistics[:2], statistics[2:]
    grad_patches = allocate(patches, batch, num_patches, dim)
    grad_theta, grad_beta = allocate(theta, batch, num_patches), allocate(theta, batch, num_labels)
    if not with_labels or not batch:
        grad_beta.zero_()
    emit = with_labels and num_labels <= EMIT_LABELS
    blocks = gradient_blocks(dtype, dim, emit)
    constants = {"NORMALIZE": normalize, "DTYPE": TYPES[dtype]}
    tiles = triton.cdiv(num_patches, blocks["BLOCK_R"])
    part_temperature = allocate(theta, batch, tiles)
    part_labels = allocate(theta, batch, tiles, num_labels, dim) if emit else grad_theta
    part_beta = allocate(theta, batch, tiles, num_labels) if emit else grad_theta
    if batch:
        gradient_kernel[(triton.cdiv(dim, blocks["BLOCK_G"]), tiles, batch)](
            patches, labels, theta, beta, *of_patches, *of_labels, grad_cost, temperature,
            grad_patches, grad_theta, part_temperature, part_labels, part_beta,
            batch, num_patches, num_labels, dim, *_strides(patches), *_strides(labels), num_patches * dim, 1, rho,
            **constants, **blocks,
        )  # fmt: skip
    grad_labels = labels.new_zeros(labels.shape)
    if emit and batch:
        grad_labels = allocate(theta, batch, num_labels, dim)
        reduce_kernel[(num_labels, batch)](
            part_labels, part_beta, beta, of_labels[1], grad_cost, grad_labels, grad_beta,
            num_labels, dim, tiles, 1 - rho, **REDUCE_BLOCKS,
        )  # fmt: skip
    elif with_labels and batch:
        grad_labels = _label_pass(
            patches, labels, theta, beta, of_patches, of_labels, grad_cost, temperature, grad_beta, rho,
            constants, gradient_blocks(dtype, dim, emit=False),
        )  # fmt: skip
    if labels.ndim == 2 and grad_labels.ndim == 3:
        grad_labels = grad_labels.sum(dim=0)
    return grad_patches, grad_labels.to(labels.dtype), grad_theta, grad_beta, part_temperature.sum()


def _label_pass(
    patches: Tensor,
    labels: Tensor,
    theta: Tensor,
    beta: Tensor,
    of_patches: tuple[Tensor, Tensor],
    of_labels: tuple[Tensor, Tensor],
    grad_cost: Tensor,
    temperature: Tensor,
    grad_beta: Tensor,
    rho: float,
    constants: dict[str, object],
    sizes: dict[str, int],
) -> Tensor:
    """Gradient of many labels by a pass of its own over the patches: (groups of images, C, D)."""
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    blocks = triton.cdiv(num_labels, sizes["BLOCK_R"])
    groups = batch if labels.ndim == 3 else min(batch, triton.cdiv(WAVES, blocks))
    images = triton.cdiv(batch, groups)
    groups = triton.cdiv(batch, images)
    grad_labels = allocate(theta, groups, num_labels, dim)
    unread = allocate(theta, groups, blocks)
    gradient_kernel[(triton.cdiv(dim, sizes["BLOCK_G"]), blocks, groups)](
        labels, patches, beta, theta, *of_labels, *of_patches, grad_cost, temperature,
        grad_labels, grad_beta, unread, unread, unread,
        batch, num_labels, num_patches, dim, *_strides(labels), *_strides(patches), num_labels * dim, images, 1 - rho,
        **constants, **sizes,
    )  # fmt: skip
    return grad_labels


def allocate(like: Tensor, *shape: int) -> Tensor:
    """Memory that a kernel writes; tests fill it with NaN, to see what is read before."""
    return like.new_empty(shape)


def _rows(points: Tensor) -> Tensor:
    return points if points.stride(-1) == 1 or points.shape[-1] == 1 else points.contiguous()


def _strides(points: Tensor) -> tuple[int, int]:
    """Steps from image to image, 0 if they share their points, and from point to point."""
    return (0, points.stride(0)) if points.ndim == 2 else (points.stride(0), points.stride(1))
