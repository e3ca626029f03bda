"""`mlcv::transport` and its gradient as operators of torch, so that `torch.compile` sees two opaque calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mlcv.numerics import full_precision
from mlcv.ops.transport import blocked


def few_labels(dtype: torch.dtype) -> int:
    """The most labels that one program of the Triton kernels spreads the gradient over."""
    return 128 if dtype == torch.bfloat16 else 32


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cost of each image, and the statistics that its gradient needs.

    Args:
        patches: embeddings.
        labels: embeddings.
        theta: weights on the simplex.
        beta: weights on the simplex.
        temperature: t > 0.
        rho: share of the forward direction.
        normalize: whether embeddings are scaled to length 1.
        implementation: `blocked` or `triton`.

    Shape:
        patches (B, N, D), labels (C, D) or (B, C, D), theta (B, N), beta (B, C), temperature (); returns the cost (B,),
        log-normaliser and cost of each patch (B, N) twice and of each label (B, C) twice, and the inverse lengths of
        patches (B, N) and labels (C,) or (B, C); what is read of none of them, for a weight of 0, is any number.
    """
    weights = theta.contiguous(), beta.contiguous()
    with _where(patches):
        cost, statistics = _backend(implementation).forward(patches, labels, *weights, temperature, rho, normalize)
    return cost, *statistics


@transport.register_fake
def _(_patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, *_: Any) -> tuple[Tensor, ...]:
    shapes = (theta.shape[:1], theta.shape, theta.shape, beta.shape, beta.shape, theta.shape, labels.shape[:-1])
    return tuple(theta.new_empty(shape) for shape in shapes)


@torch.library.custom_op("mlcv::transport_backward", mutates_args=())
def transport_backward(
    grad_cost: Tensor,
    patches: Tensor,
    labels: Tensor,
    theta: Tensor,
    beta: Tensor,
    temperature: Tensor,
    patch_lse: Tensor,
    patch_cost: Tensor,
    label_lse: Tensor,
    label_cost: Tensor,
    patch_scale: Tensor,
    label_scale: Tensor,
    rho: float,
    normalize: bool,
    implementation: str,
    with_labels: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of patches, labels, theta, beta and temperature, each in its own dtype.

    Without `with_labels` those of labels and beta are zeros, and nothing is spent on them.
    """
    statistics = (patch_lse, patch_cost, label_lse, label_cost, patch_scale, label_scale)
    weights = theta.contiguous(), beta.contiguous()
    with _where(patches):  # a backward pass may be called under autocast
        gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _backend(implementation).backward(
            grad_cost, patches, labels, *weights, temperature, statistics, rho, normalize, with_labels
        )
    return gradients


@transport_backward.register_fake
def _(
    _grad_cost: Tensor, patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, temperature: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_patches, grad_labels = patches.new_empty(patches.shape), labels.new_empty(labels.shape)
    grad_theta, grad_beta = theta.new_empty(theta.shape), beta.new_empty(beta.shape)
    return grad_patches, grad_labels, grad_theta, grad_beta, temperature.new_empty(())


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


def _backward(ctx: Any, grad_cost: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    with_labels = ctx.needs_input_grad[1] or ctx.needs_input_grad[3]
    gradients = transport_backward(
        grad_cost, *ctx.saved_tensors, ctx.rho, ctx.normalize, ctx.implementation, with_labels
    )
    return *gradients, None, None, None


transport.register_autograd(_backward, setup_context=_setup_context)
