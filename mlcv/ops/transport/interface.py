"""Conditional transport (Zheng & Zhou, NeurIPS 2021, arXiv 2012.14100), as a cost between patches and labels."""

import os
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding

from mlcv.errors import ConfigError
from mlcv.numerics import full_precision
from mlcv.ops.transport.custom_op import Transport, few_labels, transport
from mlcv.ops.transport.reference import inverse_length, navigators, simplex, transport_cost, used

Implementation = Literal["auto", "reference", "blocked", "triton"]

HAS_TRITON = find_spec("triton") is not None
# Triton reads it when it is imported, and so does this module.
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Where a CPU is faster image by image, and where all pairs of patch and label take too much memory to be held at once
# (docs/benchmarks). A compiled formula over all pairs is faster than either.
MANY_PATCHES, MOST_PAIRS = 512, 2**24
# A CUDA grid has no more along the axis of the images.
MOST_IMAGES = 2**16 - 1


def conditional_transport(
    patches: Tensor,
    labels: Tensor,
    patch_weights: Tensor | None = None,
    label_weights: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    rho: float = 0.5,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    max_labels: int | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """What it costs to move patches to labels and labels to patches, each to where it is most similar.

    With s_nm the cosine of patch n and label m, c_nm = 1 - s_nm, and weights theta, beta of patches and labels:

        pi(m|n) = beta_m exp(s_nm / t) / sum_m' beta_m' exp(s_nm' / t)
        pi(n|m) = theta_n exp(s_nm / t) / sum_n' theta_n' exp(s_n'm / t)
        cost = rho sum_n theta_n sum_m pi(m|n) c_nm + (1 - rho) sum_m beta_m sum_n pi(n|m) c_nm

    Args:
        patches: embeddings.
        labels: embeddings, shared by all images or one set an image.
        patch_weights: theta, normalised here to sum 1; uniform if None. What is not above 0 is left out, whatever its
            embedding holds, and gets no gradient; NaN or infinity (of their sum, too) makes the image's cost NaN.
        label_weights: beta, likewise; an image whose weights are all 0 costs 0 and gets zero gradients.
        temperature: t > 0; may be a tensor that learns (its value is not checked, the host would have to wait).
        rho: share of the forward direction, in [0, 1].
        normalize: divide embeddings by their lengths; without it they must have length 1. A vector of zeros is similar
            to nothing and gets no gradient. `triton` takes those shorter than 1e-18 for zeros, and where one is longer
            than 1e19 costs NaN.
        reduction: over images.
        max_labels: the most labels with weight that any image has. Then work and memory follow it instead of C; an
            image that has more is an error on the CPU and costs NaN on a GPU, which cannot ask the host. The CPU counts
            for itself if None.
        implementation: `reference` (plain PyTorch; differentiable twice), `blocked` (image by image, recomputing in
            backward: O(B (N + C)) memory beside inputs and gradients), `triton` (fused kernels for CUDA, float16 to
            float32, which keep one float32 a pair of patch and label for backward, up to 128 labels; beyond, both
            passes hold 2^25 at a time; also for the CPU in Triton's interpreter, with TRITON_INTERPRET=1), or the best
            of them here.

    Shape:
        patches (B, N, D), labels (C, D) or (B, C, D), patch_weights (B, N), label_weights (B, C); a scalar, or (B,)
        for "none". Computed in float32 (float64 for float64 inputs), whatever the inputs' types; gradients have them.

    Raises:
        ConfigError: for shapes that do not fit, numbers out of range, or an implementation that cannot run here.
    """
    _check(patches, labels, patch_weights, label_weights)
    _check_numbers(temperature, rho, max_labels)
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"reduction is mean, sum or none; got {reduction!r}")
    chosen = _choose(implementation, patches, labels)
    with full_precision(patches):
        dtype = torch.promote_types(torch.promote_types(patches.dtype, labels.dtype), torch.float32)
        like = patches.new_empty(0, dtype=dtype)
        theta = None if patch_weights is None else patch_weights.to(dtype)
        beta = _weights(label_weights, (len(patches), labels.shape[-2]), like)
        t = _scalar(temperature, like)
        if max_labels is None and chosen == "reference" and patches.device.type == "cpu":
            max_labels = _most_labels(beta)
        if max_labels is not None and max_labels < labels.shape[-2]:
            is_over = (beta > 0).sum(dim=1) > max_labels
            _check_count(is_over, max_labels)
            beta = beta.masked_fill(is_over[:, None], torch.nan)
            # So few labels cost the kernels less than to choose among them.
            if chosen != "triton" or labels.shape[-2] > few_labels(torch.promote_types(patches.dtype, labels.dtype)):
                labels, beta = _pack(labels, beta, max_labels)
        if chosen == "reference":
            theta = _weights(patch_weights, patches.shape[:2], like)
            x, y = (_unit(used(*points), dtype, normalize) for points in ((patches, theta), (labels, beta)))
            (theta, total), (beta, total_beta) = simplex(theta), simplex(beta)
            is_finite = (total.isfinite() & total_beta.isfinite())[:, 0]
            cost = torch.where(is_finite, transport_cost(x, y, theta, beta, t, rho), torch.nan)
        else:
            inputs = patches, labels, theta, beta, t, rho, normalize, chosen
            cost = transport(*inputs)[0] if torch.compiler.is_compiling() else Transport.apply(*inputs)
        if reduction == "none":
            return cost
        return cost.mean() if reduction == "mean" and len(cost) else cost.sum()


def transport_plans(
    patches: Tensor,
    labels: Tensor,
    patch_weights: Tensor | None = None,
    label_weights: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """The navigators of `conditional_transport`, for pictures: pi(m|n), then pi(n|m).

    The second, shaped as the patches' grid, is the heat map of label m.

    Shape:
        as there; returns two (B, N, C) in float32 or float64. The first sums to 1 over labels, the second over patches,
        the first is 0 where a label's weight is, the second where a patch's is.

    Raises:
        ConfigError: for shapes that do not fit, or a temperature of 0 or less.
    """
    _check(patches, labels, patch_weights, label_weights)
    _check_numbers(temperature)
    with full_precision(patches):
        dtype = torch.promote_types(torch.promote_types(patches.dtype, labels.dtype), torch.float32)
        like = patches.new_empty(0, dtype=dtype)
        theta = simplex(_weights(patch_weights, patches.shape[:2], like))[0]
        beta = simplex(_weights(label_weights, (len(patches), labels.shape[-2]), like))[0]
        x, y = _unit(used(patches, theta), dtype, normalize), _unit(used(labels, beta), dtype, normalize)
        similarity = x @ y.transpose(-1, -2)
        return navigators(similarity, theta, beta, _scalar(temperature, similarity))


def _choose(implementation: Implementation, patches: Tensor, labels: Tensor) -> str:
    """By facts that do not change between calls, so that `torch.compile` can trace it."""
    is_double = torch.float64 in (patches.dtype, labels.dtype)
    device = patches.device.type
    obstacle = None
    if not HAS_TRITON:
        obstacle = "Triton is not installed"
    elif device != "cuda" and not (device == "cpu" and IS_INTERPRETED):
        obstacle = f"the tensors are on {device}; its kernels run on CUDA, or in its interpreter (TRITON_INTERPRET=1)"
    elif is_double:
        obstacle = "its kernels know no float64"
    elif len(patches) > MOST_IMAGES:
        obstacle = (
            f"{len(patches):,} images are more than the {MOST_IMAGES:,} that a grid has room for; split the batch"
        )
    if implementation == "auto":
        if device == "cuda" and obstacle is None:
            return "triton"
        if device != "cpu":
            return "reference"
        is_large = patches.shape[0] * patches.shape[1] * labels.shape[-2] > MOST_PAIRS
        is_long = patches.shape[1] >= MANY_PATCHES and not torch.compiler.is_compiling()
        return "blocked" if is_large or is_long else "reference"
    if implementation == "triton" and obstacle is not None:
        raise ConfigError(f"conditional_transport: implementation 'triton' is not available here: {obstacle}")
    if implementation not in ("reference", "blocked", "triton"):
        raise ConfigError(
            f"conditional_transport: no implementation {implementation!r}: auto, reference, blocked, triton"
        )
    return implementation


def _most_labels(beta: Tensor) -> int | None:
    """The most labels with weight in any image; not asked while compiling, which knows no values."""
    if torch.compiler.is_compiling() or not beta.numel():
        return None
    return max(int((beta > 0).sum(dim=1).max()), 1)


def _check_count(is_over: Tensor, max_labels: int) -> None:
    if is_over.device.type == "cpu" and not torch.compiler.is_compiling() and bool(is_over.any()):
        raise ConfigError(f"conditional_transport: an image has more labels with weight than max_labels = {max_labels}")


def _pack(labels: Tensor, beta: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The labels of most weight of each image (B, count, D) and their weights (B, count), without asking the host."""
    weights, index = beta.topk(count, dim=1, sorted=False)
    if labels.ndim == 2:  # in float32 at least, in which its gradient is summed over images
        wide = torch.promote_types(labels.dtype, torch.float32)
        return embedding(index, labels.to(wide)).to(labels.dtype), weights
    return labels.take_along_dim(index[:, :, None], dim=1), weights


def _unit(points: Tensor, dtype: torch.dtype, normalize: bool) -> Tensor:
    points = points.to(dtype)
    return points * inverse_length(points) if normalize else points


def _scalar(number: float | Tensor, like: Tensor) -> Tensor:
    """A number as a tensor on the device, filled there: a copy from the host would wait, and no CUDA graph takes it."""
    return number.reshape(()).to(like) if isinstance(number, Tensor) else like.new_full((), number)


def _weights(weights: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return like.new_full(shape, 1.0) if weights is None else weights.to(like.dtype)


def _check(patches: Tensor, labels: Tensor, patch_weights: Tensor | None, label_weights: Tensor | None) -> None:
    if patches.ndim != 3 or labels.ndim not in (2, 3) or labels.shape[-1] != patches.shape[-1]:
        raise ConfigError(
            f"patches are (B, N, D) and labels (C, D) or (B, C, D), got {tuple(patches.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if labels.ndim == 3 and len(labels) != len(patches):
        raise ConfigError(f"{len(labels)} sets of labels were given for {len(patches)} images")
    if not (patches.is_floating_point() and labels.is_floating_point()):
        raise ConfigError(f"embeddings are floating point, got {patches.dtype} and {labels.dtype}")
    if 0 in (*patches.shape[1:], labels.shape[-2]):
        raise ConfigError(
            f"patches {tuple(patches.shape)} and labels {tuple(labels.shape)}: only the batch may be empty"
        )
    for name, weights, count in (
        ("patch_weights", patch_weights, patches.shape[1]),
        ("label_weights", label_weights, labels.shape[-2]),
    ):
        if weights is not None and weights.shape != (len(patches), count):
            raise ConfigError(f"{name} are {(len(patches), count)}, got {tuple(weights.shape)}")


def _check_numbers(temperature: float | Tensor, rho: float = 0.5, max_labels: int | None = None) -> None:
    if not 0 <= rho <= 1:
        raise ConfigError(f"rho is a share, in [0, 1]; got {rho}")
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1:
            raise ConfigError(f"temperature is one number, got a tensor of shape {tuple(temperature.shape)}")
    elif not temperature > 0:
        raise ConfigError(f"temperature is above 0, got {temperature}")
    if max_labels is not None and max_labels < 1:
        raise ConfigError(f"max_labels is at least 1, got {max_labels}")
