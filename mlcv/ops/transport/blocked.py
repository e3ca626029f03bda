"""Conditional transport on the CPU: image by image, over labels that have weight, never all pairs at once.

The gradient is computed from the statistics that the forward pass keeps, O(B (N + C)); similarities are recomputed.
With F_n and G_m the costs of a patch and of a label, and g the gradient of the image's cost:

    d cost / d s_nm = rho theta_n pi(m|n) ((c_nm - F_n) / t - 1) + (1 - rho) beta_m pi(n|m) ((c_nm - G_m) / t - 1)
    d cost / d t = sum_nm (rho theta_n pi(m|n) (c_nm - F_n)^2 + (1 - rho) beta_m pi(n|m) (c_nm - G_m)^2) / t^2
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mlcv.ops.transport.reference import inverse_length, simplex

# Pairs of patch and label at a time: with its few temporaries, what a core's caches hold.
PAIRS = 2**18

Statistics = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""What backward needs of forward.

Of images (B, 4) the sums of theta and of beta and both directions' part in the cost; log-normalisers and costs of
patches (B, N) twice and of labels (B, C) twice; inverse lengths (B, N), (C,) or (B, C); dot products (B, N, C or a
little more), or nothing. The kernels fill the first and the last three; here these are found again.
"""


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
    theta = beta.new_ones(patches.shape[:2]) if theta is None else theta
    (theta, total), (beta, total_beta) = simplex(theta), simplex(beta)
    cost = torch.where((total.isfinite() & total_beta.isfinite())[:, 0], 0.0, torch.nan).to(theta.dtype)
    patch_lse, patch_cost = torch.zeros_like(theta), torch.zeros_like(theta)
    label_lse, label_cost = torch.zeros_like(beta), torch.zeros_like(beta)
    for b, kept, present in _images(theta, beta):
        x, y = (
            _unit(patches[b][kept], normalize, theta.dtype)[0],
            _unit(_of_image(labels, b)[present], normalize, theta.dtype)[0],
        )
        log_theta, log_beta = theta[b, kept, None].log(), beta[b, present].log()
        lse, mean = x.new_empty(len(x)), x.new_empty(len(x))
        top, total, mass = x.new_full((len(y),), -torch.inf), x.new_zeros(len(y)), x.new_zeros(len(y))
        for rows in _blocks(len(x), len(y)):
            similarity = x[rows] @ y.T
            score = similarity / temperature
            forward_score = score + log_beta
            lse[rows] = forward_score.logsumexp(dim=1)
            plan = (forward_score - lse[rows, None]).exp()
            mean[rows] = (plan * similarity).sum(dim=1) / plan.sum(dim=1)  # 1 but for rounding, which 1 / t enlarges
            backward_score = score + log_theta[rows]
            new_top = torch.maximum(top, backward_score.amax(dim=0))
            share = (backward_score - new_top).exp()
            decay = (top - new_top).exp()
            total = total * decay + share.sum(dim=0)
            mass = mass * decay + (share * similarity).sum(dim=0)
            top = new_top
        patch_lse[b, kept], patch_cost[b, kept] = lse, 1 - mean
        label_lse[b, present], label_cost[b, present] = top + total.log(), 1 - mass / total
        cost[b] = rho * (theta[b] * patch_cost[b]).sum() + (1 - rho) * (beta[b] * label_cost[b]).sum()
    lengths = torch.ones_like(theta), theta.new_ones(labels.shape[:-1])
    return cost, (
        theta.new_zeros(len(theta), 4),
        patch_lse,
        patch_cost,
        label_lse,
        label_cost,
        *lengths,
        theta.new_empty(0),
    )


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
    theta = beta.new_ones(patches.shape[:2]) if theta is None else theta
    (theta, total), (beta, total_beta) = simplex(theta), simplex(beta)
    grad_patches, grad_labels = patches.new_zeros(patches.shape), theta.new_zeros(labels.shape)
    grad_theta, grad_beta = theta.new_zeros(theta.shape), beta.new_zeros(beta.shape)
    grad_temperature = torch.zeros_like(temperature)
    for b, kept, present in _images(theta, beta):
        x, x_scale = _unit(patches[b][kept], normalize, theta.dtype)
        y, y_scale = _unit(_of_image(labels, b)[present], normalize, theta.dtype)
        weight_n, weight_m = theta[b, kept], beta[b, present]
        lse_n, cost_n = (values[b, kept, None] for values in statistics[1:3])
        lse_m, cost_m = (values[b, present] for values in statistics[3:5])
        grad_x, grad_y = torch.empty_like(x), torch.zeros_like(y)
        drift_n, drift_m, grad_t = torch.empty_like(weight_n), torch.zeros_like(weight_m), torch.zeros_like(temperature)
        for rows in _blocks(len(x), len(y)):
            similarity = x[rows] @ y.T
            score = similarity / temperature
            there = (score + weight_m.log() - lse_n[rows]).exp() * (rho * weight_n[rows, None])
            back = (score + weight_n[rows, None].log() - lse_m).exp() * ((1 - rho) * weight_m)
            pull = there + back
            off_n, off_m = 1 - similarity - cost_n[rows], 1 - similarity - cost_m
            there, back = there * off_n, back * off_m
            drift_n[rows], drift_m = back.sum(dim=1), drift_m + there.sum(dim=0)
            grad_t = grad_t + (there * off_n + back * off_m).sum() / temperature**2
            grad_similarity = (there + back) / temperature - pull
            grad_x[rows] = grad_similarity @ y
            if with_labels:
                grad_y += grad_similarity.T @ x[rows]
        g = grad_cost[b]
        grad_patches[b, kept] = (g * _through_unit(grad_x, x, x_scale)).to(patches.dtype)
        _of_image(grad_labels, b)[present] += g * _through_unit(grad_y, y, y_scale)
        grad_theta[b, kept] = g * (rho * cost_n[:, 0] + drift_n / weight_n)
        grad_beta[b, present] = g * ((1 - rho) * cost_m + drift_m / weight_m)
        grad_temperature += g * grad_t
    return (
        grad_patches,
        grad_labels.to(labels.dtype) if with_labels else None,
        _through_simplex(grad_theta, theta, total) if with_weights else None,
        _through_simplex(grad_beta, beta, total_beta) if with_weights else None,
        grad_temperature if with_temperature else None,
    )


def _images(theta: Tensor, beta: Tensor) -> Iterator[tuple[int, Tensor | slice, Tensor | slice]]:
    """Images that have patches and labels of weight, and which those are."""
    for b, (has_patch, has_label) in enumerate(zip(theta > 0, beta > 0, strict=True)):
        if has_patch.any() and has_label.any():
            yield b, _where(has_patch), _where(has_label)


def _where(mask: Tensor) -> Tensor | slice:
    return slice(None) if mask.all() else mask.nonzero().squeeze(1)  # a slice copies nothing


def _blocks(num_patches: int, num_labels: int) -> Iterator[slice]:
    step = max(PAIRS // num_labels, 1)
    for start in range(0, num_patches, step):
        yield slice(start, start + step)


def _of_image(labels: Tensor, b: int) -> Tensor:
    return labels if labels.ndim == 2 else labels[b]


def _unit(points: Tensor, normalize: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    points = points.to(dtype)
    if not normalize:
        return points, None
    scale = inverse_length(points)
    return points * scale, scale


def _through_unit(gradient: Tensor, unit: Tensor, scale: Tensor | None) -> Tensor:
    """The gradient of vectors from that of their unit vectors."""
    if scale is None:
        return gradient
    return scale * (gradient - (gradient * unit).sum(dim=-1, keepdim=True) * unit)


def _through_simplex(gradient: Tensor, weights: Tensor, total: Tensor) -> Tensor:
    """The gradient of weights from that of the same scaled to sum 1."""
    mean = (gradient * weights).sum(dim=1, keepdim=True)
    return torch.where(weights > 0, (gradient - mean) / total, 0.0)
