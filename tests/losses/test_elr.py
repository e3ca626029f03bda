"""Early-learning regularisation against its equations, epoch by epoch, an entry at a time."""

import math

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import BCELoss, ELRLoss
from tests.losses.oracles import bce, over, sigmoid

# Inputs and values of an independent implementation: four images, three classes.
LOGITS = torch.tensor([[2.0, -1, 0.5], [-0.5, 1, -2], [0, 3, 1], [1.5, -3, -0.2]], dtype=torch.float64)


def pull(remembered, p, one_sided):
    agreement = remembered * p if one_sided else remembered * p + (1 - remembered) * (1 - p)
    return math.log(1 - agreement)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("where", ["device", "cpu"])
def test_each_visit_equals_the_equations(rng, one_sided, where):
    targets = torch.randint(-1, 2, (9, 3), generator=rng).double()
    loss = ELRLoss(lam=1.5, beta=0.6, one_sided=one_sided, warmup_epochs=1, memory_on=where)
    loss.on_labels(targets, "abc")
    t, visits = [[0.0] * 3 for _ in range(9)], [0] * 9
    for epoch in range(3):
        loss.start_epoch(epoch)
        for index in torch.randperm(9, generator=rng)[:8].split(4):
            logits = 2 * torch.randn(4, 3, generator=rng, dtype=torch.float64)
            expected = over(bce, logits, targets[index])
            for i, row in zip(index.tolist(), logits.tolist(), strict=True):
                visits[i] += 1
                for c, z in enumerate(row):
                    t[i][c] = 0.6 * t[i][c] + 0.4 * sigmoid(z)
                    corrected = t[i][c] / (1 - 0.6 ** visits[i])
                    expected += 1.5 * pull(corrected, sigmoid(z), one_sided) / 4 if epoch else 0
            # Half precision of what is remembered is the only difference.
            assert loss(logits, targets[index], index).item() == pytest.approx(expected, abs=5e-3)


def test_known_values():
    """Of an implementation of its own: first visits, mean over entries, without division and with it."""
    loss, index = ELRLoss(lam=1.0, beta=0.7), torch.arange(4)
    p = LOGITS.sigmoid()
    loss.on_labels(torch.zeros(4, 3), "abc")
    pulled = loss(LOGITS, torch.full((4, 3), -1.0), index).item()
    expected = sum(pull(x, x, False) for x in p.flatten().tolist())
    assert pulled == pytest.approx(expected / 4, rel=1e-3)
    assert loss.memory["mean"].double().sub(p).abs().max() < 1e-3


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.7, 0.8, 0.9, 0.97, 0.99, 0.999])
@pytest.mark.parametrize("one_sided", [False, True])
def test_however_often_an_entry_is_visited_loss_and_gradient_are_finite_and_the_mean_is_right(rng, beta, one_sided):
    """Networks become sure, and then what is remembered is rounded at the edge of what a logarithm takes."""
    loss, index = ELRLoss(beta=beta, one_sided=one_sided, lam=1.0), torch.arange(16)
    loss.on_labels(torch.zeros(16, 4), "abcd")
    sign = torch.randn(16, 4, generator=rng).sign()
    t, clamp = torch.zeros(16, 4, dtype=torch.float64), 1e-4
    for visit in range(1, 301):
        logits = (sign * (3 + 17 * torch.rand(16, 4, generator=rng))).requires_grad_()
        value = loss(logits, torch.zeros(16, 4), index)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()
        t = beta * t + (1 - beta) * logits.detach().double().sigmoid().clamp(clamp, 1 - clamp)
        assert loss.memory["mean"].double().sub(t / (1 - beta**visit)).abs().max() < 3e-3


def test_gradients_are_right_and_none_flows_through_what_is_remembered(rng):
    targets = torch.randint(-1, 2, (5, 3), generator=rng).double()
    logits = torch.randn(5, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    loss, index = ELRLoss(lam=2.0), torch.arange(5)

    def fresh(logits):
        loss.on_labels(targets, "abc")
        loss(torch.zeros(5, 3), targets, index)  # t = p = 0.5
        return loss(logits, targets, index)

    (gradient,) = torch.autograd.grad(fresh(logits), logits)
    p = logits.detach().sigmoid()
    t = (0.7 * 0.3 * 0.5 + 0.3 * p) / (1 - 0.7**2)
    agreement = t * p + (1 - t) * (1 - p)
    expected = torch.where(targets >= 0, p - targets, 0) + 2 * (1 - 2 * t) * p * (1 - p) / (1 - agreement)
    torch.testing.assert_close(gradient, expected / 5, atol=2e-3, rtol=0)


def test_without_indices_it_is_cross_entropy(rng):
    logits, targets = torch.randn(5, 3, generator=rng), torch.randint(-1, 2, (5, 3), generator=rng).float()
    assert ELRLoss(unknown="negative")(logits, targets) == BCELoss("negative")(logits, targets)


def test_confident_entries_stay_finite_and_an_empty_batch_is_nothing():
    loss = ELRLoss()
    loss.on_labels(torch.ones(2, 3), "abc")
    logits = torch.tensor([[1e4, -1e4, 0], [60, -60, 1]], requires_grad=True)
    for _ in range(300):
        value = loss(logits, torch.ones(2, 3), torch.arange(2))
    value.backward()
    assert logits.grad.isfinite().all()
    assert value.isfinite()
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == 0


@pytest.mark.parametrize("wrong", [{"lam": -1}, {"beta": 1.0}, {"memory_on": "disk"}])
def test_settings_that_make_no_sense_are_told(wrong):
    with pytest.raises(ConfigError):
        ELRLoss(**wrong)
