"""`mlcv::transport` and its gradient as operators of torch, so that `torch.compile` sees two opaque calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mlcv.numerics import full_precision
from mlcv.ops.transport import blocked


# The most labels that one program of the Triton kernels takes at once, and whose dot products are kept for backward.
FEW_LABELS = 128


def few_labels(dtype: torch.dtype) -> int:
    """The most labels over which the kernels spread gradients faster than the library's matrix products."""
    return 32 if dtype == torch.float32 else FEW_LABELS


def stored_width(num_labels: int) -> int:
    """Columns of stored dot products, so that rows begin at multiples of 64 bytes."""
    return -(-num_labels // 16) * 16


@torch.library.custom_op("mlcv::transport", mutates_args=())
def transport(
    patches: Tensor,
    labels: Tensor,
    theta: Tensor,
    beta: Tensor,
    temperature: Tensor,
    rho: float,
    normalize: bool,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cost of each image, and the statistics that its gradient needs.

    Args:
        patches: embeddings.
        labels: embeddings.
        theta: weights of any scale.
        beta: weights of any scale.
        temperature: t > 0.
        rho: share of the forward direction.
        normalize: whether embeddings are scaled to length 1.
        implementation: `blocked` or `triton`.

    Shape:
        patches (B, N, D), labels (C, D) or (B, C, D), theta (B, N), beta (B, C), temperature (); returns the cost (B,),
        `blocked.Statistics`; what is read of none of them, for a weight of 0, is any number.
    """
    weights = theta.contiguous(), beta.contiguous()
    with _where(patches):
        cost, statistics = _backend(implementation).forward(patches, labels, *weights, temperature, rho, normalize)
    return cost, *statistics


@transport.register_fake
def _(patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, *options: Any) -> tuple[Tensor, ...]:
    shapes = (theta.shape, theta.shape, beta.shape, beta.shape, theta.shape, labels.shape[:-1])
    shares = theta.new_empty((len(theta), 4))
    dots = theta.new_empty(0)
    if options[-1] == "triton" and labels.shape[-2] <= FEW_LABELS:
        dots = theta.new_empty((*theta.shape, stored_width(labels.shape[-2])))
    return theta.new_empty(len(theta)), shares, *(theta.new_empty(shape) for shape in shapes), dots


@torch.library.custom_op("mlcv::transport_backward", mutates_args=())
def transport_backward(
    grad_cost: Tensor,
    patches: Tensor,
    labels: Tensor,
    theta: Tensor,
    beta: Tensor,
    temperature: Tensor,
    shares: Tensor,
    patch_lse: Tensor,
    patch_cost: Tensor,
    label_lse: Tensor,
    label_cost: Tensor,
    patch_scale: Tensor,
    label_scale: Tensor,
    dots: Tensor,
    rho: float,
    normalize: bool,
    implementation: str,
    with_labels: bool,
    with_weights: bool,
    with_temperature: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of patches, labels, theta, beta and temperature, each in its own dtype; empty if not asked for."""
    statistics = (shares, patch_lse, patch_cost, label_lse, label_cost, patch_scale, label_scale, dots)
    weights = theta.contiguous(), beta.contiguous()
    with _where(patches):  # a backward pass may be called under autocast
        of_patches, *others = _backend(implementation).backward(
            grad_cost, patches, labels, *weights, temperature, statistics, rho, normalize,
            with_labels, with_weights, with_temperature,
        )  # fmt: skip
    of_labels, of_theta, of_beta, of_temperature = (theta.new_empty(0) if one is None else one for one in others)
    return of_patches, of_labels, of_theta, of_beta, of_temperature


@transport_backward.register_fake
def _(_grad_cost: Tensor, patches: Tensor, *tensors_and_options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *others, with_labels, with_weights, with_temperature = tensors_and_options
    asked = (with_labels, with_weights, with_weights, with_temperature)
    of_labels, of_theta, of_beta, of_temperature = (
        other.new_empty(other.shape) if is_asked else others[1].new_empty(0)
        for other, is_asked in zip(others, asked, strict=False)
    )
    return patches.new_empty(patches.shape), of_labels, of_theta, of_beta, of_temperature


@contextmanager
def _where(patches: Tensor) -> Iterator[None]:
    """On the tensor's device, with autocast off."""
    with full_precision(patches), torch.cuda.device_of(patches):  # type: ignore[no-untyped-call]
        yield


def _backend(implementation: str) -> Any:
    if implementation == "triton":
        # Triton is an import of its own, which the CPU need not have.
        from mlcv.ops.transport import launch  # noqa: PLC0415

        return launch
    return blocked


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.rho, ctx.normalize, ctx.implementation = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.set_materialize_grads(False)  # or zeros are made for each of the statistics


def _backward(ctx: Any, grad_cost: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_cost is None:
        return (None,) * 8
    _, with_labels, with_theta, with_beta, with_temperature = ctx.needs_input_grad[:5]
    gradients = transport_backward(
        grad_cost, *ctx.saved_tensors, ctx.rho, ctx.normalize, ctx.implementation,
        with_labels, with_theta or with_beta, with_temperature,
    )  # fmt: skip
    # Autograd asks for the shape of what it does not need, too.
    needed = zip(gradients, ctx.needs_input_grad, strict=False)
    return *(gradient if is_needed else None for gradient, is_needed in needed), None, None, None


transport.register_autograd(_backward, setup_context=_setup_context)
