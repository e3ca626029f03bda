"""Random inputs of conditional transport, and how far an implementation is from the float64 reference on them."""

from dataclasses import dataclass

import torch

from mlcv.ops import conditional_transport

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    """Sizes off every tile, kinds of weights; `positives` of an image are drawn up to that number, and may be none."""

    batch: int
    patches: int
    labels: int
    dim: int
    shared: bool = True
    positives: int | None = None
    all_patches: bool = False
    temperature: float = 0.2
    rho: float = 0.5
    length: float = 1.0
    normalize: bool = True


CASES = [
    Case(16, 1, 1, 20),
    Case(32, 1, 7, 5, shared=False),
    Case(2, 70, 1, 20),
    Case(3, 70, 20, 33, rho=0.7),
    Case(3, 65, 20, 48, shared=False, positives=0),
    Case(3, 33, 50, 70, positives=1),
    Case(2, 131, 17, 300, positives=3, rho=1.0),
    Case(2, 40, 16, 64, positives=16, rho=0.0, all_patches=True),
    Case(2, 37, 90, 24, shared=False, all_patches=True),
    Case(5, 20, 130, 16, positives=4),
    Case(2, 66, 9, 40, temperature=3e-3),
    Case(2, 66, 9, 40, temperature=1e3),
    Case(2, 30, 9, 40, length=30.0),
    Case(2, 30, 9, 40, length=1e-2, shared=False),
    Case(2, 30, 9, 40, temperature=150.0, length=5.0, normalize=False),
]


def inputs(case, dtype, rng):
    """Embeddings rounded to `dtype`, weights in float32 with zeros among them, a temperature."""
    shape = (case.labels, case.dim) if case.shared else (case.batch, case.labels, case.dim)
    patches = torch.randn(case.batch, case.patches, case.dim, generator=rng) * case.length
    labels = torch.randn(shape, generator=rng) * case.length
    theta = torch.rand(case.batch, case.patches, generator=rng) + 0.1
    beta = torch.rand(case.batch, case.labels, generator=rng) + 0.1
    if not case.all_patches and case.patches > 1:
        theta[:, torch.rand(case.patches, generator=rng) < 0.3] = 0
    if case.positives is not None:
        for row, order in zip(beta, torch.rand(beta.shape, generator=rng).argsort(dim=1), strict=True):
            row[order[int(torch.randint(case.positives + 1, (), generator=rng)) :]] = 0
    tensors = [patches.to(dtype), labels.to(dtype), theta, beta, torch.tensor(case.temperature)]
    return [tensor.to(DEVICE) for tensor in tensors]


def results(case, tensors, **options):
    """Costs, then gradients of patches, labels, both weights and the temperature, for an uneven upstream gradient."""
    *tensors, temperature = (tensor.detach().requires_grad_() for tensor in tensors)  # with the strides that they have
    costs = conditional_transport(
        *tensors, temperature=temperature, rho=case.rho, normalize=case.normalize, reduction="none", **options
    )
    upstream = torch.linspace(1, 2, len(costs), device=costs.device, dtype=costs.dtype)
    return costs.detach(), *torch.autograd.grad((costs * upstream).sum(), [*tensors, temperature])


NAMES = ("cost", "patches", "labels", "patch weights", "label weights", "temperature")


def errors(case, got, exact):
    """RMS(difference) / RMS(exact) by name.

    Gradients of weights on the simplex cancel (with one label exactly), so theirs is over a tenth of a typical cost at
    least; so does that of the temperature, over a tenth of the terms of its sum.
    """
    spread = 1 / case.dim**0.5 if case.normalize else case.length**2 * case.dim**0.5  # of similarities
    ratio = spread / case.temperature
    weights = 0.1 * max(1.0, spread)
    least = {"patch weights": weights, "label weights": weights, "temperature": 0.1 * min(ratio**2, ratio)}
    found = {}
    for name, mine, true in zip(NAMES, got, exact, strict=True):
        assert mine.isfinite().all(), name
        size = true.double().square().mean().sqrt().item()
        difference = (mine.double() - true).square().mean().sqrt().item()
        found[name] = difference / max(size, least.get(name, 1e-30))
    return found
