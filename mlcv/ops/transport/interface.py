"""Conditional transport (Zheng & Zhou, NeurIPS 2021, arXiv 2012.14100), as a cost between patches and labels."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize as unit

from mlcv.errors import ConfigError
from mlcv.numerics import at_least_float32, full_precision
from mlcv.ops.transport.reference import transport_cost


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
) -> Tensor:
    """What it costs to move patches to labels and labels to patches, each to where it is most similar.

    With s_nm the cosine of patch n and label m, c_nm = 1 - s_nm, and weights theta, beta of patches and labels:

        pi(m|n) = beta_m exp(s_nm / t) / sum_m' beta_m' exp(s_nm' / t)
        pi(n|m) = theta_n exp(s_nm / t) / sum_n' theta_n' exp(s_n'm / t)
        cost = rho sum_n theta_n sum_m pi(m|n) c_nm + (1 - rho) sum_m beta_m sum_n pi(n|m) c_nm

    Args:
        patches: embeddings.
        labels: embeddings, shared by all images or one set an image.
        patch_weights: theta, >= 0, normalised here to sum 1; 0 leaves a patch out. Uniform if None.
        label_weights: beta, likewise; an image whose weights are all 0 costs 0 and gets zero gradients.
        temperature: t > 0; may be a tensor that learns.
        rho: share of the forward direction, in [0, 1].
        normalize: scale embeddings to length 1 first; without it they must have it already.
        reduction: over images.

    Shape:
        patches (B, N, D), labels (C, D) or (B, C, D), patch_weights (B, N), label_weights (B, C); a scalar, or (B,)
        for "none". Computed in float32 (float64 for float64 inputs), whatever the inputs' types.

    Raises:
        ConfigError: for shapes that do not fit, or a rho outside [0, 1].
    """
    _check(patches, labels, patch_weights, label_weights, rho)
    with full_precision(patches):
        patches, labels = at_least_float32(patches), at_least_float32(labels)
        if normalize:
            patches, labels = unit(patches, dim=-1), unit(labels, dim=-1)
        batch, num_patches, _ = patches.shape
        theta = _simplex(patch_weights, patches.new_ones(batch, num_patches))
        beta = _simplex(label_weights, patches.new_ones(batch, labels.shape[-2]))
        cost = transport_cost(patches, labels, theta, beta, temperature, rho)  # (B,)
    if reduction == "none":
        return cost
    return cost.sum() / (max(batch, 1) if reduction == "mean" else 1)


def _simplex(weights: Tensor | None, uniform: Tensor) -> Tensor:
    given = uniform if weights is None else weights.to(uniform.dtype)
    total = given.sum(dim=-1, keepdim=True)
    return given / total.where(total > 0, total.new_ones(()))


def _check(
    patches: Tensor, labels: Tensor, patch_weights: Tensor | None, label_weights: Tensor | None, rho: float
) -> None:
    if patches.ndim != 3 or labels.ndim not in (2, 3) or labels.shape[-1] != patches.shape[-1]:
        raise ConfigError(
            f"patches are (B, N, D) and labels (C, D) or (B, C, D), got {tuple(patches.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if labels.ndim == 3 and len(labels) != len(patches):
        raise ConfigError(f"{len(labels)} sets of labels were given for {len(patches)} images")
    for name, weights, count in (
        ("patch_weights", patch_weights, patches.shape[1]),
        ("label_weights", label_weights, labels.shape[-2]),
    ):
        if weights is not None and weights.shape != (len(patches), count):
            raise ConfigError(f"{name} are {(len(patches), count)}, got {tuple(weights.shape)}")
    if not 0 <= rho <= 1:
        raise ConfigError(f"rho is a share, in [0, 1]; got {rho}")
