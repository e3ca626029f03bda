"""The definition of conditional transport, one line an equation."""

import torch
from torch import Tensor
from torch.nn.functional import relu


def transport_cost(
    patches: Tensor, labels: Tensor, theta: Tensor, beta: Tensor, temperature: float | Tensor, rho: float
) -> Tensor:
    """Cost of each image; see `mlcv.ops.conditional_transport`.

    Shape:
        patches (B, N, D), labels (C, D) or (B, C, D), of length 1; theta (B, N), beta (B, C); returns (B,).
    """
    similarity = patches @ labels.transpose(-1, -2)  # (B, N, C)
    cost = 1 - similarity
    forward, backward = navigators(similarity, theta, beta, temperature)
    there = (theta * (forward * cost).sum(dim=2)).sum(dim=1)
    back = (beta * (backward * cost).sum(dim=1)).sum(dim=1)
    is_labeled = (beta > 0).any(dim=1) & (theta > 0).any(dim=1)
    return torch.where(is_labeled, rho * there + (1 - rho) * back, 0.0)


def navigators(similarity: Tensor, theta: Tensor, beta: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """The plans pi(m|n) and pi(n|m).

    Shape:
        similarity (B, N, C), theta (B, N), beta (B, C); returns two (B, N, C): the first sums to 1 over labels, the
        second over patches.
    """
    score = similarity / temperature
    return _plan(score, beta[:, None, :], dim=2), _plan(score, theta[:, :, None], dim=1)


def simplex(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights scaled to sum 1, those not above 0 left out, and their sum before; NaN stays NaN.

    Shape:
        weights (B, P); returns (B, P) and (B, 1).
    """
    given = relu(weights)
    total = given.sum(dim=1, keepdim=True)
    return given / total.masked_fill(total == 0, 1.0), total


def used(points: Tensor, weights: Tensor) -> Tensor:
    """Points with zeros for those of weight 0, whatever they hold; of shared ones, of weight 0 in all images.

    Shape:
        points (B, P, D) or (P, D), weights (B, P); returns the points' shape.
    """
    is_used = weights > 0 if points.ndim == 3 else (weights > 0).any(dim=0)
    return torch.where(is_used[..., None], points, 0.0)


def inverse_length(points: Tensor) -> Tensor:
    """1 / length of each vector; 0 for a vector of zeros, so that it is similar to nothing and gets no gradient.

    Shape:
        points (..., D); returns (..., 1).
    """
    least = torch.finfo(points.dtype).tiny
    # Divided by the largest entry, for the square of a length may be too large or too small for the dtype.
    largest = points.detach().abs().amax(dim=-1, keepdim=True)
    is_zero = largest < least
    largest = largest.masked_fill(is_zero, 1.0)
    # Clamped, for `where` would pass the gradient NaN of the branch that it does not take.
    squares = (points / largest).square().sum(dim=-1, keepdim=True).clamp(min=least)
    return (squares.rsqrt() / largest).masked_fill(is_zero, 0.0)


def _plan(score: Tensor, weight: Tensor, dim: int) -> Tensor:
    """Weighted softmax over the points of positive weight; 0 everywhere if there is none."""
    included = weight > 0
    top = score.masked_fill(~included, -torch.inf).amax(dim=dim, keepdim=True)
    # The shift cancels, so it needs no gradient; where nothing is included it must not be infinite.
    shifted = score - top.detach().nan_to_num(neginf=0.0)
    mass = weight * shifted.masked_fill(~included, 0.0).exp()
    total = mass.sum(dim=dim, keepdim=True)
    return mass / total.where(total > 0, total.new_ones(()))
