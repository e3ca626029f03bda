"""`mlcv::transport` and its gradient as operators of torch, so that `torch.compile` sees two opaque calls.

Eagerly they are called without torch.library, whose layers cost the host more time than it takes to launch the kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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


def _forward(
    patches: Tensor,
    labels: Tensor,
    theta: Tensor | None,
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
        theta: weights of any scale; None if all are alike.
        beta: weights of any scale.
        temperature: t > 0.
        rho: share of the forward direction.
        normalize: whether embeddings are scaled to length 1.
        implementation: `blocked` or `triton`.

    Shape:
        patches (B, N, D), labels (C, D) or (B, C, D), theta (B, N), beta (B, C), temperature (); returns the cost (B,),
        `blocked.Statistics`; what is read of none of them, for a weight of 0, is any number.
    """
    weights = None if theta is None else theta.contiguous(), beta.contiguous()
    with _where(patches):
        cost, statistics = _backend(implementation).forward(patches, labels, *weights, temperature, rho, normalize)
    return cost, *statistics


def _gradients(
    grad_cost: Tensor,
    patches: Tensor,
    labels: Tensor,
    theta: Tensor | None,
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
    weights = None if theta is None else theta.contiguous(), beta.contiguous()
    with _where(patches):  # a backward pass may be called under autocast
        of_patches, *others = _backend(implementation).backward(
            grad_cost, patches, labels, *weights, temperature, statistics, rho, normalize,
            with_labels, with_weights, with_temperature,
        )  # fmt: skip
    of_labels, of_theta, of_beta, of_temperature = (beta.new_empty(0) if one is None else one for one in others)
    return of_patches, of_labels, of_theta, of_beta, of_temperature


transport = torch.library.custom_op("mlcv::transport", _forward, mutates_args=())
transport_backward = torch.library.custom_op("mlcv::transport_backward", _gradients, mutates_args=())


@transport.register_fake
def _(patches: Tensor, labels: Tensor, _theta: Tensor | None, beta: Tensor, *options: Any) -> tuple[Tensor, ...]:
    of_patches, num_labels = patches.shape[:2], labels.shape[-2]
    is_kept = options[-1] == "triton" and num_labels <= FEW_LABELS
    dots = (*of_patches, stored_width(num_labels)) if is_kept else (0,)
    shapes = of_patches, of_patches, beta.shape, beta.shape, of_patches, labels.shape[:-1], dots
    return tuple(beta.new_empty(shape) for shape in ((len(patches),), (len(patches), 4), *shapes))


@transport_backward.register_fake
def _(
    _grad_cost: Tensor, patches: Tensor, labels: Tensor, _theta: Tensor | None, beta: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *_, with_labels, with_weights, with_temperature = others
    return (
        patches.new_empty(patches.shape),
        labels.new_empty(labels.shape if with_labels else 0),
        beta.new_empty(patches.shape[:2] if with_weights else 0),
        beta.new_empty(beta.shape if with_weights else 0),
        beta.new_empty(() if with_temperature else 0),
    )


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


def _backward(ctx: Any, grad_cost: Tensor | None, *_: Tensor | None, gradients: Any = transport_backward) -> Any:
    if grad_cost is None:
        return (None,) * 8
    _, with_labels, with_theta, with_beta, with_temperature = ctx.needs_input_grad[:5]
    asked = with_labels, with_theta or with_beta, with_temperature
    found = gradients(grad_cost, *ctx.saved_tensors, ctx.rho, ctx.normalize, ctx.implementation, *asked)
    needed = zip(found, ctx.needs_input_grad, strict=False)
    return *(gradient if is_needed else None for gradient, is_needed in needed), None, None, None


transport.register_autograd(_backward, setup_context=_setup_context)


class Transport(torch.autograd.Function):
    """`transport`, of which it returns the cost alone, for where nothing is compiled."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """The cost (B,) of each image."""
        output = _forward(*inputs)
        _setup_context(ctx, inputs, output)
        return output[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_cost: Tensor | None) -> Any:
        """Gradients of the inputs that need one."""
        return _backward(ctx, grad_cost, gradients=_gradients)
