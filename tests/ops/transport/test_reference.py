import math

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.ops import conditional_transport, transport_plans

E = torch.tensor([[[1, 0, 0.5], [0.2, -1, 0.3], [0, 0.4, 1]]], dtype=torch.float64)
L = torch.tensor([[0.5, 0.5, 0], [1, -1, 0.2]], dtype=torch.float64)
THETA = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
BETA = torch.tensor([[0.6, 0.4]], dtype=torch.float64)


def loops(patches, labels, theta, beta, temperature, rho):
    """The equations for one image, point by point."""
    n, m = range(len(theta)), range(len(beta))
    s = [[torch.nn.functional.cosine_similarity(patches[i], labels[j], dim=0).item() for j in m] for i in n]
    e = [[math.exp(s[i][j] / temperature) for j in m] for i in n]
    total = 0.0
    for i in n:
        z = sum(beta[k] * e[i][k] for k in m)
        total += rho * theta[i] * sum(beta[j] * e[i][j] / z * (1 - s[i][j]) for j in m)
    for j in m:
        z = sum(theta[k] * e[k][j] for k in n)
        total += (1 - rho) * beta[j] * sum(theta[i] * e[i][j] / z * (1 - s[i][j]) for i in n)
    return total


def case(rng, batch=3, n=5, c=4, d=6):
    patches = torch.randn(batch, n, d, generator=rng, dtype=torch.float64)
    labels = torch.randn(c, d, generator=rng, dtype=torch.float64)
    theta = torch.rand(batch, n, generator=rng, dtype=torch.float64)
    beta = torch.rand(batch, c, generator=rng, dtype=torch.float64)
    beta[0, 1:] = 0
    return patches, labels, theta, beta


@pytest.mark.parametrize(("rho", "expected"), [(1.0, 0.508416), (0.0, 0.486341)])
def test_equals_the_check_values(rho, expected):
    assert conditional_transport(E, L, THETA, BETA, rho=rho).item() == pytest.approx(expected, abs=1e-6)


def test_plans_equal_the_check_values():
    forward, backward = transport_plans(E, L, THETA, BETA, normalize=False)
    assert forward[0, 0].tolist() == pytest.approx([0.451519, 0.548481], abs=1e-6)
    assert backward[0, :, 0].tolist() == pytest.approx([0.649237, 0.158376, 0.192387], abs=1e-6)


def test_plans_are_distributions_over_what_has_weight(rng):
    patches, labels, theta, beta = case(rng)
    theta[2] = 0
    forward, backward = transport_plans(patches, labels, theta, beta, temperature=0.05)
    assert (forward[0, :, 1:] == 0).all()
    torch.testing.assert_close(forward.sum(dim=2), torch.ones_like(theta))
    torch.testing.assert_close(backward[:2].sum(dim=1), torch.ones_like(beta[:2]))
    assert (backward[2] == 0).all()


def test_equals_the_equations_point_by_point(rng):
    patches, labels, theta, beta = case(rng)
    costs = conditional_transport(patches, labels, theta, beta, temperature=0.3, rho=0.7, reduction="none")
    for b, cost in enumerate(costs.tolist()):
        t, w = (theta[b] / theta[b].sum()).tolist(), (beta[b] / beta[b].sum()).tolist()
        assert cost == pytest.approx(loops(patches[b], labels, t, w, 0.3, 0.7))


@pytest.mark.parametrize("implementation", ["reference", "blocked"])
def test_gradients_pass_gradcheck(implementation, rng):
    patches, labels, theta, beta = case(rng)
    temperature = torch.tensor(0.5, dtype=torch.float64)
    inputs = tuple(x.requires_grad_() for x in (patches, labels, theta, temperature))

    def cost(p, q, w, t):
        return conditional_transport(p, q, w, beta, temperature=t, implementation=implementation)

    assert torch.autograd.gradcheck(cost, inputs)
    # Of label weights, those above 0: below, they are left out.
    weights = torch.rand(3, 4, generator=rng, dtype=torch.float64).add_(0.1).requires_grad_()
    fixed = patches.detach(), labels.detach(), None
    assert torch.autograd.gradcheck(lambda w: conditional_transport(*fixed, w, implementation=implementation), weights)


def test_an_image_without_labels_costs_nothing_and_gets_zero_gradients(rng):
    patches, labels, theta, beta = case(rng)
    beta[1] = 0
    patches.requires_grad_()
    costs = conditional_transport(patches, labels, theta, beta, temperature=0.01, reduction="none")
    assert costs[1] == 0
    (gradient,) = torch.autograd.grad(costs.sum(), patches)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()


def test_known_answers(rng):
    patches, labels, theta, beta = case(rng)
    one = conditional_transport(patches[:, :1], labels[:1], reduction="none")
    torch.testing.assert_close(one, 1 - torch.cosine_similarity(patches[:, 0], labels[:1], dim=-1))
    order = torch.randperm(5, generator=rng)
    torch.testing.assert_close(
        conditional_transport(patches[:, order], labels, theta[:, order], beta),
        conditional_transport(patches, labels, theta, beta),
    )
    same = labels[:1].expand(1, 4, -1)
    torch.testing.assert_close(conditional_transport(same, labels[:1]), torch.zeros((), dtype=torch.float64))
    hot = conditional_transport(patches, labels, theta, beta, temperature=1e8)
    mean = 1 - torch.nn.functional.cosine_similarity(patches[:, :, None], labels, dim=-1)
    theta, beta = theta / theta.sum(dim=1, keepdim=True), beta / beta.sum(dim=1, keepdim=True)
    torch.testing.assert_close(hot, torch.einsum("bnc,bn,bc->b", mean, theta, beta).mean())
    cold = conditional_transport(patches, labels, temperature=1e-5, rho=1.0, reduction="none")
    nearest = 1 - torch.nn.functional.cosine_similarity(patches[:, :, None], labels, dim=-1).amax(dim=2)
    # Another label that is further by d adds d exp(-d / t) at most, and that t / e.
    torch.testing.assert_close(cold, nearest.mean(dim=1), rtol=0, atol=1e-5 * len(labels) / 2.7)


def test_bfloat16_under_autocast_is_computed_in_float32(rng):
    patches, labels, theta, beta = (x.bfloat16() for x in case(rng))
    with torch.autocast("cpu", torch.bfloat16):
        inside = conditional_transport(patches, labels, theta, beta)
    assert inside.dtype == torch.float32
    exact = conditional_transport(*(x.double() for x in (patches, labels, theta, beta)))
    torch.testing.assert_close(inside.double(), exact, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_costs_nothing():
    assert conditional_transport(torch.zeros(0, 3, 4), torch.ones(2, 4)) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((torch.ones(1, 2, 3), torch.ones(2, 4)), "patches are"),
        ((torch.ones(1, 2, 3), torch.ones(2, 5, 3)), "2 sets"),
        ((torch.ones(1, 0, 3), torch.ones(2, 3)), "only the batch may be empty"),
        ((torch.ones(1, 2, 3, dtype=torch.long), torch.ones(2, 3)), "floating point"),
        ((torch.ones(1, 2, 3), torch.ones(2, 3), torch.ones(1, 3)), "patch_weights are"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        conditional_transport(*arguments)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rho": 1.5}, "rho is a share"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"temperature": torch.ones(2)}, "one number"),
        ({"max_labels": 0}, "at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, problem):
    with pytest.raises(ConfigError, match=problem):
        conditional_transport(torch.ones(1, 2, 3), torch.ones(2, 3), **options)


def test_weights_that_are_not_numbers_stay_visible():
    weights = torch.tensor([[1.0, torch.nan], [1.0, 0.0]])
    for implementation in ("reference", "blocked"):
        options = {"label_weights": weights, "reduction": "none", "implementation": implementation}
        costs = conditional_transport(torch.ones(2, 2, 3), torch.ones(2, 3), **options)
        assert costs.isnan().tolist() == [True, False]
