"""How the Triton kernels are called: block sizes, grids, buffers. Any number of patches and labels, any dimension.

Between two kernels lies no synchronisation with the host, so calls can be captured in a CUDA graph; sums are taken in a
fixed order, so equal inputs give equal bits. The gradient of the dot products is stored, (B, N, C) in 16 bits for
bfloat16 and in 32 otherwise; beyond `few_labels` for as many images at a time as `STORED` entries hold.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mlcv.ops.transport.blocked import Statistics
from mlcv.ops.transport.custom_op import few_labels
from mlcv.ops.transport.kernels import combine_kernel, dots_kernel, forward_kernel, length_kernel, points_kernel

# Entries of the dot products' gradient at a time, beyond: 256 MiB in float32.
STORED = 2**26
# Programs that fill a large GPU (132 processors on an H200) twice.
WAVES = 264

TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
# float32 as three products of TF32 is off by about 1e-6. float16 is exact in TF32, and its gradients need the range.
PRODUCTS = {torch.float32: "tf32x3", torch.float16: "tf32", torch.bfloat16: "tf32"}
LENGTH_BLOCKS = {"BLOCK_R": 16, "BLOCK_D": 64, "num_warps": 4}


def forward_blocks(dtype: torch.dtype, num_labels: int) -> dict[str, int]:
    """Block sizes of the forward pass; like all here, the fastest on an H200 of those that spill few registers."""
    return {"BLOCK_N": 64, **_pair_blocks(dtype, num_labels)}


def combine_blocks(num_labels: int) -> dict[str, int]:
    """Block sizes of the pass that combines the tiles' statistics."""
    return {"BLOCK_N": 256, "BLOCK_C": _between(num_labels, 16, 128), "BLOCK_T": 16, "num_warps": 4}


def dots_blocks(dtype: torch.dtype, num_labels: int) -> dict[str, int]:
    """Block sizes of the gradient of the dot products."""
    return {"BLOCK_N": 64 if num_labels <= 32 or dtype == torch.float32 else 32, **_pair_blocks(dtype, num_labels)}


def _pair_blocks(dtype: torch.dtype, num_labels: int) -> dict[str, int]:
    most, step = (32, 32) if dtype == torch.float32 else (128, 64)
    return {"BLOCK_C": _between(num_labels, 16, most), "BLOCK_D": step, "num_warps": 4}


def points_blocks(dtype: torch.dtype, num_labels: int, dim: int) -> dict[str, int]:
    """Block sizes of the gradient of the points."""
    labels = _between(num_labels, 16, few_labels(dtype))
    return {
        "BLOCK_N": 64 if dtype == torch.bfloat16 else 16,
        "BLOCK_C": labels,
        "BLOCK_G": _between(dim, 16, 64),
        "BLOCK_T": 16,
        "num_warps": 8 if labels == 64 else 4,
    }


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
    combine = combine_blocks(num_labels)
    part_cost = allocate(theta, batch, triton.cdiv(num_labels, combine["BLOCK_C"]))
    is_measured = normalize and num_labels <= blocks["BLOCK_C"]
    scales = _scales(patches, labels, theta, normalize, is_measured)
    if batch:
        forward_kernel[(tiles, batch)](
            patches, labels, *scales, theta, beta, temperature, patch_lse, patch_cost, *parts,
            num_patches, num_labels, dim, *_strides(patches), *_strides(labels), _stride(scales[1]),
            MEASURE=is_measured, DTYPE=TYPES[dtype], TF32=PRODUCTS[dtype], **blocks,
        )  # fmt: skip
        combine_kernel[(part_cost.shape[1], batch)](
            theta, beta, patch_cost, *parts, label_lse, label_cost, part_cost, num_patches, num_labels, tiles, rho,
            **combine,
        )  # fmt: skip
    return _total(part_cost, 1), (patch_lse, patch_cost, label_lse, label_cost, *scales)


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
    if not len(patches):
        zeros = [tensor.new_zeros(tensor.shape) for tensor in (patches, labels, theta, beta, temperature)]
        return zeros[0], zeros[1], zeros[2], zeros[3], zeros[4]
    num_labels = labels.shape[-2]
    are_few = num_labels <= few_labels(torch.promote_types(patches.dtype, labels.dtype))
    spread = _spread_few if are_few else _spread_many
    images = len(patches) if are_few else max(1, STORED // (patches.shape[1] * num_labels))
    parts = []
    grad_labels = labels.new_zeros(labels.shape)
    for start in range(0, len(patches), images):
        some = slice(start, start + images)
        x, y = patches[some], labels[some] if labels.ndim == 3 else labels
        weights = theta[some], beta[some]
        known = [statistic[some] for statistic in statistics[:5]]
        known.append(statistics[5][some] if labels.ndim == 3 else statistics[5])
        dots = _dots(grad_cost[some], x, y, *weights, temperature, known, rho)
        of_patches, of_labels, of_theta, of_beta = spread(dots, x, y, *weights, normalize, with_labels)
        parts.append((of_patches, of_theta, of_beta, dots.of_temperature))
        if of_labels is not None and labels.ndim == 3:
            grad_labels[some] = of_labels
        elif of_labels is not None:
            total = _total(of_labels, 0)
            grad_labels = total if start == 0 else grad_labels + total
    grad_patches, grad_theta, grad_beta, of_temperature = (
        part[0] if len(parts) == 1 else torch.cat(part) for part in zip(*parts, strict=True)
    )
    return grad_patches, grad_labels.to(labels.dtype), grad_theta, grad_beta, of_temperature.sum()


class _Dots(NamedTuple):
    """The gradient of the dot products (B, N, C or a little more), and what was summed over it.

    Of patches (B, blocks, N) and of labels (B, tiles, C): the gradients of their weights, and their pull, which is how
    much of themselves is to be taken from the gradients of the points.
    """

    gradient: Tensor
    of_theta: Tensor
    patch_pull: Tensor
    of_beta: Tensor
    label_pull: Tensor
    of_temperature: Tensor


def _dots(
    grad_cost: Tensor,
    patches: Tensor,
    labels: Tensor,
    theta: Tensor,
    beta: Tensor,
    temperature: Tensor,
    statistics: list[Tensor],
    rho: float,
) -> _Dots:
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    sizes = dots_blocks(dtype, num_labels)
    tiles, blocks = triton.cdiv(num_patches, sizes["BLOCK_N"]), triton.cdiv(num_labels, sizes["BLOCK_C"])
    width = 16 * triton.cdiv(num_labels, 16)  # so that rows begin at multiples of 16 bytes
    result = _Dots(
        allocate(theta, batch, num_patches, width, dtype=_stored(dtype)),
        allocate(theta, batch, blocks, num_patches),
        allocate(theta, batch, blocks, num_patches),
        allocate(theta, batch, tiles, num_labels),
        allocate(theta, batch, tiles, num_labels),
        allocate(theta, batch, blocks, tiles),
    )
    dots_kernel[(tiles, blocks, batch)](
        patches, labels, theta, beta, *statistics, grad_cost, temperature, *result,
        num_patches, num_labels, dim, width, *_strides(patches), *_strides(labels), _stride(statistics[5]), rho,
        DTYPE=TYPES[dtype], TF32=PRODUCTS[dtype], **sizes,
    )  # fmt: skip
    return result


def _spread_few(
    dots: _Dots, patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, normalize: bool, with_labels: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of patches, of each image's labels if asked, of theta and beta; all labels are in one block."""
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    sizes = points_blocks(dtype, num_labels, dim)
    steps, columns = triton.cdiv(num_patches, sizes["BLOCK_N"]), triton.cdiv(dim, sizes["BLOCK_G"])
    span = sizes["BLOCK_N"] * triton.cdiv(steps, max(1, min(steps, WAVES // (batch * columns))))
    parts = triton.cdiv(num_patches, span)
    of_patches = allocate(patches, batch, num_patches, dim)
    of_labels = allocate(theta, batch, parts, num_labels, dim) if with_labels else of_patches  # which is not written
    of_beta = allocate(beta, batch, num_labels) if with_labels else torch.zeros_like(beta)
    points_kernel[(columns, parts, batch)](
        dots.gradient, patches, labels, theta, beta, _total(dots.patch_pull, 1), dots.of_beta, dots.label_pull,
        of_patches, of_labels, of_beta,
        num_patches, num_labels, dim, dots.gradient.shape[2], dots.of_beta.shape[1], span,
        *_strides(patches), *_strides(labels),
        WITH_LABELS=with_labels, NORMALIZE=normalize, DTYPE=TYPES[_stored(dtype)], TF32=PRODUCTS[dtype], **sizes,
    )  # fmt: skip
    return of_patches, _total(of_labels, 1) if with_labels else None, _total(dots.of_theta, 1), of_beta


def _spread_many(
    dots: _Dots, patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, normalize: bool, with_labels: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """The same for any number of labels: here the products are large enough for the library's own."""
    e = dots.gradient[..., : labels.shape[-2]]
    # What is not finite has weight 0, or has made e NaN already.
    x, y = (torch.where(points.isfinite(), points, 0.0) for points in (patches, labels))
    of_patches = (e @ y.to(e.dtype)).to(theta.dtype)
    if normalize:
        of_patches -= dots.patch_pull.sum(dim=1)[..., None] * x
    of_patches, of_theta = of_patches.to(patches.dtype), dots.of_theta.sum(dim=1)
    if not with_labels:
        return of_patches, None, of_theta, torch.zeros_like(beta)
    pull, x = dots.label_pull.sum(dim=1), x.to(e.dtype)
    if labels.ndim == 2:  # summed over images at once
        of_labels, pull = (e.flatten(0, 1).T @ x.flatten(0, 1))[None], pull.sum(dim=0)
    else:
        of_labels = e.transpose(1, 2) @ x
    of_labels = of_labels.to(theta.dtype)
    if normalize:
        of_labels -= pull[..., None] * y
    return of_patches, of_labels, of_theta, dots.of_beta.sum(dim=1)


def _scales(
    patches: Tensor, labels: Tensor, theta: Tensor, normalize: bool, is_measured: bool
) -> tuple[Tensor, Tensor]:
    """Inverse lengths of patches, which the forward pass may have to write itself, and of labels."""
    if not normalize:
        return torch.ones_like(theta), theta.new_ones(labels.shape[:-1])
    of_patches = allocate(theta, *theta.shape) if is_measured else _inverse_lengths(patches, theta)
    return of_patches, _inverse_lengths(labels, theta)


def _inverse_lengths(points: Tensor, like: Tensor) -> Tensor:
    lengths = allocate(like, *points.shape[:-1])
    grid = triton.cdiv(points.shape[-2], LENGTH_BLOCKS["BLOCK_R"]), lengths.numel() // points.shape[-2]
    if lengths.numel():
        length_kernel[grid](points, lengths, *points.shape[-2:], *_strides(points), **LENGTH_BLOCKS)
    return lengths


def _stored(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def _total(parts: Tensor, dim: int) -> Tensor:
    """Their sum, which costs no launch if there is only one."""
    return parts.select(dim, 0) if parts.shape[dim] == 1 else parts.sum(dim=dim)


def allocate(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Memory that a kernel writes; tests fill it with NaN, to see what is read before."""
    return like.new_empty(shape, dtype=dtype)


def _rows(points: Tensor) -> Tensor:
    return points if points.stride(-1) == 1 or points.shape[-1] == 1 else points.contiguous()


def _strides(points: Tensor) -> tuple[int, int]:
    """Steps from image to image, 0 if they share their points, and from point to point."""
    return (0, points.stride(0)) if points.ndim == 2 else (points.stride(0), points.stride(1))


def _stride(label_scale: Tensor) -> int:
    return 0 if label_scale.ndim == 1 else label_scale.stride(0)
