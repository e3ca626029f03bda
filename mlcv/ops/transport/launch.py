"""How the Triton kernels are called: block sizes, grids, buffers. Any number of patches and labels, any dimension.

Between two kernels lies no synchronisation with the host, so calls can be captured in a CUDA graph; sums are taken in a
fixed order, so equal inputs give equal bits. Up to `FEW_LABELS`, the dot products are kept for the backward pass,
(B, N, C) in float32; beyond, each pass computes them for as many images at a time as `STORED` entries hold. Beyond
`few_labels`, the library's own products spread their gradient over patches and labels.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from mlcv.ops.transport.blocked import Statistics
from mlcv.ops.transport.custom_op import FEW_LABELS, few_labels, stored_width
from mlcv.ops.transport.kernels import (
    combine_kernel,
    dots_kernel,
    gather_kernel,
    gradient_kernel,
    labels_kernel,
    length_kernel,
    patches_kernel,
    statistics_kernel,
)
from mlcv.ops.transport.reference import used

# Dot products at a time, beyond: 128 MiB.
STORED = 2**25
# Programs that fill a large GPU (132 processors on an H200) twice.
WAVES = 264

TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
# float32 as three products of TF32 is off by about 1e-6. float16 is exact in TF32, and its gradients need the range.
PRODUCTS = {torch.float32: "tf32x3", torch.float16: "tf32", torch.bfloat16: "tf32"}

# Block sizes: the fastest on an H200 of those that spill no registers.
Blocks = dict[str, int]
LENGTH_BLOCKS: Blocks = {"BLOCK_R": 16, "BLOCK_D": 64, "num_warps": 4}


def dots_blocks(dtype: torch.dtype, num_labels: int) -> Blocks:
    """Block sizes of the dot products."""
    step = 32 if dtype == torch.float32 else 64
    return {"BLOCK_N": 64, "BLOCK_C": _labels(num_labels), "BLOCK_D": step, "num_warps": 4}


def statistics_blocks(num_labels: int) -> Blocks:
    """Block sizes of the statistics of patches and labels."""
    rows, warps = (32, 1) if num_labels <= 32 else (16, 2)
    return {"BLOCK_N": rows, "BLOCK_C": _labels(num_labels), "num_warps": warps}


def combine_blocks(num_labels: int) -> Blocks:
    """Block sizes of the pass that combines the tiles' statistics."""
    return {"BLOCK_N": 1024, "BLOCK_C": _labels(num_labels), "BLOCK_T": 32, "num_warps": 4}


def gradient_blocks(num_labels: int) -> Blocks:
    """Block sizes of the gradient of the dot products."""
    rows, warps = (32, 1) if num_labels <= 32 else (16, 4)
    return {"BLOCK_N": rows, "BLOCK_C": _labels(num_labels), "num_warps": warps}


def patches_blocks(dtype: torch.dtype, num_labels: int) -> Blocks:
    """Block sizes of the gradient of the patches."""
    rows, step = 32 if num_labels <= 32 else 64, 128 if dtype == torch.bfloat16 else 64
    return {"BLOCK_N": rows, "BLOCK_C": _labels(num_labels), "BLOCK_G": step, "num_warps": 4}


def labels_blocks(dtype: torch.dtype, num_labels: int, weighs_patches: bool) -> Blocks:
    """Block sizes of the gradient of the labels."""
    rows, step = (64, 128) if dtype == torch.bfloat16 else (32, 64)
    stages = 5 if weighs_patches else 3  # both hold three blocks at a time: patches wait two stages for their weights
    return {"BLOCK_R": rows, "BLOCK_C": _labels(num_labels), "BLOCK_G": step, "num_warps": 4, "num_stages": stages}


def gather_blocks(dim: int) -> Blocks:
    """Block sizes of the sum of the parts of the labels' gradient."""
    return {"BLOCK_P": 32 if dim <= 512 else 8, "BLOCK_D": _power_of_2(dim), "num_warps": 4}


def _labels(number: int) -> int:
    """Labels in a block, as many in all kernels."""
    return min(max(_power_of_2(number), 16), FEW_LABELS)


def _blocks(number: int, size: int) -> int:
    """Blocks of that size that hold so many. Triton's own function of this takes the host as long as an allocation."""
    return -(-number // size)


def _power_of_2(number: int) -> int:
    """The next."""
    return 1 << (number - 1).bit_length()


def forward(
    patches: Tensor,
    labels: Tensor,
    theta: Tensor | None,
    beta: Tensor,
    temperature: Tensor,
    rho: float,
    normalize: bool,
) -> tuple[Tensor, Statistics]:
    """Cost (B,) of each image, and what `backward` needs."""
    patches, labels = _rows(patches), _rows(labels)
    batch, num_patches = patches.shape[:2]
    num_labels = labels.shape[-2]
    is_few = num_labels <= FEW_LABELS
    blocks, combine = statistics_blocks(num_labels), combine_blocks(num_labels)
    tiles, columns = _blocks(num_patches, blocks["BLOCK_N"]), _blocks(num_labels, combine["BLOCK_C"])
    patch_lse, patch_cost = (allocate(beta, batch, num_patches) for _ in range(2))
    label_lse, label_cost = (allocate(beta, batch, num_labels) for _ in range(2))
    parts = [allocate(beta, batch, tiles, num_labels) for _ in range(3)]
    cost, shares = allocate(beta, batch, columns), allocate(beta, batch, columns, 4)
    patch_scale, label_scale = _scales(patches, labels, beta, normalize, is_measured=is_few)
    dots = beta.new_empty(0)
    for some in _images(batch, num_patches, num_labels):
        own, weights = slice(None) if labels.ndim == 2 else some, (_some(theta, some), _some(beta, some))
        measured = patch_scale if is_few and normalize else None
        dots = _dots(_some(patches, some), _some(labels, own), *weights, measured)
        statistics_kernel[(tiles, len(dots))](
            dots, _some(patch_scale, some), _some(label_scale, own), *weights, temperature,
            *(_some(part, some) for part in (patch_lse, patch_cost, *parts)),
            num_patches, num_labels, dots.shape[2], _stride(label_scale), FEW=is_few, **blocks,
        )  # fmt: skip
    if batch:
        combine_kernel[(columns, batch)](
            theta, beta, temperature, patch_cost, *parts, label_lse, label_cost, cost, shares,
            num_patches, num_labels, tiles, rho, **combine,
        )  # fmt: skip
    statistics = (_total(shares, 1), patch_lse, patch_cost, label_lse, label_cost, patch_scale, label_scale)
    return _total(cost, 1), (*statistics, dots if is_few else beta.new_empty(0))


def backward(
    grad_cost: Tensor,
    patches: Tensor,
    labels: Tensor,
    theta: Tensor | None,
    beta: Tensor,
    temperature: Tensor,
    statistics: Statistics,
    rho: float,
    normalize: bool,
    with_labels: bool,
    with_weights: bool,
    with_temperature: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of patches, labels, theta, beta and temperature, the last four if asked for."""
    patches, labels = _rows(patches), _rows(labels)
    if not len(patches):
        zeros = [
            tensor.new_zeros(tensor.shape) for tensor in (labels, beta.new_empty(patches.shape[:2]), beta, temperature)
        ]
        return patches.new_empty(patches.shape), zeros[0], zeros[1], zeros[2], zeros[3]
    batch, num_patches = patches.shape[:2]
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    is_few, by_kernels = num_labels <= FEW_LABELS, num_labels <= few_labels(dtype)
    sizes = gradient_blocks(num_labels)
    tiles, blocks = _blocks(num_patches, sizes["BLOCK_N"]), _blocks(num_labels, sizes["BLOCK_C"])
    pull = allocate(beta, batch, blocks, num_patches)
    of_theta: Tensor | None = allocate(beta, batch, blocks, num_patches) if with_weights else None
    of_beta: Tensor | None = allocate(beta, batch, tiles, num_labels) if with_weights else None
    of_temperature: Tensor | None = allocate(beta, batch, blocks, tiles) if with_temperature else None
    sums = pull, of_theta, of_beta, of_temperature
    of_patches: list[Tensor] = []
    of_labels: Tensor | None = beta.new_zeros(labels.shape) if with_labels and not by_kernels else None
    usable = None if by_kernels else used(labels, beta)
    *of_points, label_scale, dots = statistics
    for some in _images(batch, num_patches, num_labels):
        own, weights = slice(None) if labels.ndim == 2 else some, (_some(theta, some), _some(beta, some))
        x, y = _some(patches, some), _some(labels, own)
        if not is_few:
            dots = _dots(x, y, *weights)
        # Dot products that are not kept may be overwritten by a gradient of their type.
        overwrites = not is_few and _stored(dtype) == dots.dtype
        e = dots if overwrites else allocate(dots, *dots.shape, dtype=_stored(dtype))
        gradient_kernel[(blocks, tiles, len(x))](
            dots, *weights, *(_some(part, some) for part in of_points), _some(label_scale, own), _some(grad_cost, some),
            temperature, e, *(_some(part, some) for part in sums),
            num_patches, num_labels, dots.shape[2], _stride(label_scale), grad_cost.stride(0), rho,
            FEW=is_few, WITH_WEIGHTS=with_weights, WITH_TEMPERATURE=with_temperature, **sizes,
        )  # fmt: skip
        if by_kernels:
            of_patches.append(_of_few_patches(e, x, y, *weights, pull, normalize))
            of_labels = _of_few_labels(e, x, y, weights[0], label_scale, normalize) if with_labels else None
        else:
            x = x if theta is None else used(x, weights[0])
            of_patches.append(
                _of_many(e, x, _some(usable, own), _some(pull, some) if normalize else None, _some(of_labels, own))
            )
    if of_labels is not None and usable is not None and normalize:
        of_labels = _without_own(of_labels, usable, label_scale)
    return (
        of_patches[0] if len(of_patches) == 1 else torch.cat(of_patches),
        None if of_labels is None else of_labels.to(labels.dtype),
        None if of_theta is None else _total(of_theta, 1),
        None if of_beta is None else _total(of_beta, 1),
        None if of_temperature is None else of_temperature.sum(),
    )


def _some(tensor: Tensor | None, images: slice) -> Any:
    """The part of some images; a view of all costs the host as much as some launches."""
    return tensor if tensor is None or images == slice(None) else tensor[images]


def _images(batch: int, num_patches: int, num_labels: int) -> Iterator[slice]:
    """Images whose dot products are held at a time."""
    step = batch if num_labels <= FEW_LABELS else max(1, STORED // (num_patches * num_labels))
    for start in range(0, batch, max(step, 1)):
        yield slice(None) if step >= batch else slice(start, start + step)


def _dots(
    patches: Tensor,
    labels: Tensor,
    theta: Tensor | None,
    beta: Tensor,
    patch_scale: Tensor | None = None,
) -> Tensor:
    """Dot products (B, N, C or a little more); the patches' inverse lengths are written where they are asked for."""
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    sizes = dots_blocks(dtype, num_labels)
    dots = allocate(beta, batch, num_patches, stored_width(num_labels))
    grid = _blocks(num_labels, sizes["BLOCK_C"]), _blocks(num_patches, sizes["BLOCK_N"]), batch
    dots_kernel[grid](
        patches, labels, theta, beta, dots, patch_scale,
        num_patches, num_labels, dim, dots.shape[2], *_strides(patches), *_strides(labels),
        FEW=num_labels <= sizes["BLOCK_C"], MEASURE=patch_scale is not None, EVEN=dim % sizes["BLOCK_D"] == 0,
        DTYPE=TYPES[dtype], TF32=PRODUCTS[dtype], **sizes,
    )  # fmt: skip
    return dots


def _of_few_patches(
    e: Tensor, patches: Tensor, labels: Tensor, theta: Tensor | None, beta: Tensor, pull: Tensor, normalize: bool
) -> Tensor:
    """The gradient of patches from that of their dot products with labels that are all in one block."""
    batch, num_patches, dim = patches.shape
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    sizes = patches_blocks(dtype, labels.shape[-2])
    of_patches = allocate(patches, *patches.shape)
    grid = _blocks(dim, sizes["BLOCK_G"]), _blocks(num_patches, sizes["BLOCK_N"]), batch
    patches_kernel[grid](
        e, patches, labels, theta, beta, pull, of_patches,
        num_patches, labels.shape[-2], dim, e.shape[2], *_strides(patches), *_strides(labels),
        NORMALIZE=normalize, EVEN=dim % sizes["BLOCK_G"] == 0, DTYPE=TYPES[e.dtype], TF32=PRODUCTS[dtype], **sizes,
    )  # fmt: skip
    return of_patches


def _of_few_labels(
    e: Tensor, patches: Tensor, labels: Tensor, theta: Tensor | None, label_scale: Tensor, normalize: bool
) -> Tensor:
    """The gradient of labels that are all in one block."""
    batch, num_patches, dim = patches.shape
    num_labels = labels.shape[-2]
    dtype = torch.promote_types(patches.dtype, labels.dtype)
    sizes = labels_blocks(dtype, num_labels, theta is not None)
    # Images that share labels are one group if their patches follow upon each other.
    is_one = labels.ndim == 2 and patches.stride(0) == num_patches * patches.stride(1)
    groups, rows = (1, batch * num_patches) if is_one else (batch, num_patches)
    steps, columns = _blocks(rows, sizes["BLOCK_R"]), _blocks(dim, sizes["BLOCK_G"])
    span = sizes["BLOCK_R"] * _blocks(steps, max(1, min(steps, WAVES // (groups * columns))))
    parts = _blocks(rows, span)
    part_labels = allocate(label_scale, groups * parts, num_labels, dim)
    labels_kernel[(columns, parts, groups)](
        e, patches, theta, part_labels, rows, num_labels, dim, e.shape[2], span, *_strides(patches),
        EVEN=dim % sizes["BLOCK_G"] == 0, DTYPE=TYPES[e.dtype], TF32=PRODUCTS[dtype], **sizes,
    )  # fmt: skip
    of_labels = allocate(labels, *labels.shape)
    sets = 1 if labels.ndim == 2 else batch
    gather_kernel[(num_labels, sets)](
        part_labels, labels, label_scale, of_labels, num_labels, dim, groups * parts // sets, *_strides(labels),
        _stride(label_scale), NORMALIZE=normalize, **gather_blocks(dim),
    )  # fmt: skip
    return of_labels


def _of_many(e: Tensor, x: Tensor, y: Tensor, pull: Tensor | None, of_labels: Tensor | None) -> Tensor:
    """The gradient of patches (in their type); adds to that of the labels all but what is along themselves."""
    # With rows of zeros the product's inner dimension is a multiple of 16.
    of_patches = e @ pad(y.to(e.dtype), (0, 0, 0, e.shape[2] - y.shape[-2]))
    if pull is not None:
        of_patches = of_patches.to(pull.dtype).addcmul_(pull.sum(dim=1)[..., None], x.to(pull.dtype), value=-1)
    if of_labels is not None:
        wide = x.to(e.dtype)
        sums = e.flatten(0, 1).T @ wide.flatten(0, 1) if y.ndim == 2 else e.transpose(1, 2) @ wide
        of_labels += sums[..., : y.shape[-2], :]
    return of_patches.to(x.dtype)


def _without_own(gradient: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """The labels' gradient without its part along themselves."""
    along = (gradient * y).sum(dim=-1) * torch.where(scale > 0, scale * scale, 0.0)
    return gradient - along[..., None] * y


def _scales(patches: Tensor, labels: Tensor, like: Tensor, normalize: bool, is_measured: bool) -> tuple[Tensor, Tensor]:
    """Inverse lengths of patches, which may be measured with the dot products, and of labels."""
    if not normalize:
        return like.new_ones(patches.shape[:2]), like.new_ones(labels.shape[:-1])
    of_patches = allocate(like, *patches.shape[:2]) if is_measured else _inverse_lengths(patches, like)
    return of_patches, _inverse_lengths(labels, like)


def _inverse_lengths(points: Tensor, like: Tensor) -> Tensor:
    lengths = allocate(like, *points.shape[:-1])
    grid = _blocks(points.shape[-2], LENGTH_BLOCKS["BLOCK_R"]), lengths.numel() // points.shape[-2]
    if lengths.numel():
        length_kernel[grid](
            points,
            lengths,
            *points.shape[-2:],
            *_strides(points),
            EVEN=points.shape[-1] % LENGTH_BLOCKS["BLOCK_D"] == 0,
            **LENGTH_BLOCKS,
        )
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
