"""PU-MLC's loss and regulariser against their formulas, the authors' code's values, and two processes against one."""

import math

import pytest
import torch
from torch import nn

from mlcv.errors import ConfigError
from mlcv.losses import PUMixup, PUMLCLoss
from tests.losses.oracles import sigmoid

# Expected numbers for these: what the authors' module gives in float64.
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0, 0, -1], [-1, 1, 0], [0, -1, 1], [1, -1, 0]], dtype=torch.float64)


def oracle(logits, targets, gamma, alpha, eps=1e-10):
    """The formula, one class at a time."""
    total, (images, classes) = 0.0, logits.shape
    for c in range(classes):
        z = logits[:, c].tolist()
        mean = sum(z) / images
        std = math.sqrt(sum((value - mean) ** 2 for value in z) / images)
        t = min(1.0, alpha * std)
        s = [sigmoid(value / t) for value in z]
        u = sum(s) / images
        total += u**gamma * math.log(u + eps)
        positives = [math.log(s[x] + eps) for x in range(images) if targets[x, c] == 1]
        total -= sum(positives) / len(positives) if positives else 0.0
    return total


@pytest.mark.parametrize(
    ("gamma", "alpha", "value"),
    [(0.55, 1.0, -0.119762), (0.85, 2.0, 0.157049), (0.0, 1e9, -0.801593), (1.0, 1e9, 0.270348)],
)
def test_gives_the_values_of_the_authors_code(gamma, alpha, value):
    assert PUMLCLoss(gamma, alpha)(LOGITS, TARGETS).item() == pytest.approx(value, abs=1e-6)


def test_gives_the_gradient_of_the_authors_code():
    logits = LOGITS.clone().requires_grad_()
    PUMLCLoss(0.55, 1.0)(logits, TARGETS).backward()
    assert logits.grad[0].tolist() == pytest.approx([-0.026286, 0.065262, 0.092677], abs=1e-6)


@pytest.mark.parametrize(("images", "classes"), [(2, 1), (7, 5), (32, 20)])
@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, 1.0), (0.55, 0.3), (1.5, 4.0)])
def test_equals_the_formula(images, classes, gamma, alpha, rng):
    logits = 3 * torch.randn(images, classes, generator=rng, dtype=torch.float64)
    targets = torch.randint(-1, 2, (images, classes), generator=rng)
    value = PUMLCLoss(gamma, alpha)(logits, targets)
    assert value.item() == pytest.approx(oracle(logits, targets, gamma, alpha), rel=1e-10)


def test_gradients_pass_gradcheck_where_temperature_and_factor_are_constant(rng):
    # Finite differences see what carries no gradient; gamma 0 makes the factor 1, a large alpha the temperature.
    logits = torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (6, 4), generator=rng)
    assert torch.autograd.gradcheck(lambda z: PUMLCLoss(0.0, 1e6)(z, targets), logits)


def test_temperature_and_factor_carry_no_gradient(rng):
    logits = torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (6, 4), generator=rng)
    loss = PUMLCLoss(0.55, 0.5)
    (ours,) = torch.autograd.grad(loss(logits, targets), logits)
    t = (0.5 * logits.detach().std(dim=0, correction=0)).clamp(max=1)
    s = (logits / t).sigmoid()
    u, positive = s.mean(dim=0), (targets == 1).double()
    terms = u.detach() ** 0.55 * (u + 1e-10).log()
    terms -= (positive * (s + 1e-10).log()).sum(dim=0) / positive.sum(dim=0).clamp(min=1)
    (theirs,) = torch.autograd.grad(terms.sum(), logits)
    torch.testing.assert_close(ours, theirs)


def test_which_code_a_nonpositive_entry_has_does_not_matter(rng):
    logits = torch.randn(8, 5, generator=rng)
    targets = torch.randint(-1, 2, (8, 5), generator=rng).float()
    values = [PUMLCLoss()(logits, torch.where(targets == 1, targets, code)) for code in (0.0, -1.0, 0.5)]
    assert values[0] == values[1] == values[2] == PUMLCLoss()(logits, targets)


def test_a_class_without_positives_has_its_first_term_only(rng):
    logits = torch.randn(8, 1, generator=rng, dtype=torch.float64)
    t = min(1.0, logits.std(correction=0).item())
    u = sum(sigmoid(z / t) for z in logits.flatten().tolist()) / 8
    value = PUMLCLoss(0.55, 1.0)(logits, torch.zeros(8, 1))
    assert value.item() == pytest.approx(u**0.55 * math.log(u + 1e-10))


@pytest.mark.parametrize("logit", [0.3, -7.1, 0.0, 1e4])
@pytest.mark.parametrize("images", [1, 3, 1000])
def test_equal_logits_have_temperature_one(logit, images):
    logits = torch.full((images, 2), logit, requires_grad=True)
    assert PUMLCLoss().terms(logits, torch.zeros(images, 2)).temperature.tolist() == [1.0, 1.0]
    value = PUMLCLoss(0.55, 1.0)(logits, torch.tensor([[1.0, 0.0]]).expand(images, 2))
    s = sigmoid(logit) if logit < 100 else 1.0
    assert value.item() == pytest.approx(2 * s**0.55 * math.log(s + 1e-10) - math.log(s + 1e-10), abs=1e-5)
    value.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("arguments", [{"gamma": -1.0}, {"alpha": 0.0}, {"eps": 0.0}])
def test_refuses_impossible_constants(arguments):
    with pytest.raises(ConfigError, match="are needed"):
        PUMLCLoss(**arguments)


class Fixed:
    """A linear network that remembers what it was shown."""

    def __init__(self, weight):
        self.weight, self.seen = weight, []

    def __call__(self, image):
        self.seen.append(image)
        return image @ self.weight


def test_mixup_gives_the_value_of_the_authors_code(monkeypatch):
    monkeypatch.setattr("mlcv.losses.pu.Beta.sample", lambda self: torch.tensor(0.3, dtype=torch.float64))
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    image = torch.tensor([[1.0, 0], [0, 1], [2, -1], [-1, 1]], dtype=torch.float64)
    network = Fixed(torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.4, -0.6]], dtype=torch.float64))
    assert PUMixup()(network, image, network(image), TARGETS).item() == pytest.approx(0.238405, abs=1e-6)


@pytest.mark.parametrize("images", [1, 2, 5, 8])
def test_mixup_equals_its_formula_and_uses_every_image(images, rng, seed):
    image = torch.randn(images, 3, generator=rng, dtype=torch.float64)
    targets = torch.randint(-1, 2, (images, 4), generator=rng)
    network = Fixed(torch.randn(3, 4, generator=rng, dtype=torch.float64))
    logits = network(image)
    torch.manual_seed(seed)
    value = PUMixup()(network, image, logits, targets)
    torch.manual_seed(seed)
    weight = torch.distributions.Beta(0.3, 0.3).sample().item()
    half = math.ceil(images / 2)
    order = torch.randperm(half).tolist()
    total, used = 0.0, set()
    for place in range(half):
        a, b = order[place], images - half + place
        used |= {a, b}
        mixed = (weight * image[a] + (1 - weight) * image[b]) @ network.weight
        for c in range(4):
            q = [1.0 if targets[x, c] == 1 else sigmoid(logits[x, c].item()) for x in (a, b)]
            target = math.log(weight * q[0] + (1 - weight) * q[1] + 1e-10)
            total += (target - math.log(sigmoid(mixed[c].item()) + 1e-10)) ** 2
    assert used == set(range(images))
    assert value.item() == pytest.approx(total / half, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(network.seen[-1].shape, torch.Size([half, 3]))


def test_mixups_targets_carry_gradient(rng):
    image = torch.randn(4, 3, generator=rng)
    logits = torch.randn(4, 2, generator=rng, requires_grad=True)
    PUMixup()(nn.Linear(3, 2), image, logits, torch.zeros(4, 2)).backward()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixup_is_finite_at_huge_logits(dtype):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
    network = nn.Linear(2, 2)
    value = PUMixup()(lambda x: 1e4 * network(x).to(dtype), torch.randn(2, 2), logits, torch.eye(2))
    value.backward()
    assert value.isfinite()
    assert value.dtype == torch.float32
    assert logits.grad.isfinite().all()
    assert network.weight.grad.isfinite().all()


def test_mixup_of_an_empty_batch_is_zero():
    assert PUMixup()(nn.Linear(3, 2), torch.zeros(0, 3), torch.zeros(0, 2), torch.zeros(0, 2)) == 0
