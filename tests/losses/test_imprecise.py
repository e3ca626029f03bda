"""Imprecise labels against the equations of EM, an entry at a time."""

import math

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import BCELoss, ImpreciseLoss
from tests.losses.oracles import sigmoid

# Four images with all labels, three classes; values of an implementation of its own.
LOGITS = torch.tensor([[2.0, -1, 0.5], [0.3, 0.8, -2], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]])
MISSED, FALSE = [0.1, 0.2, 0.3], [0.05, 0.1, 0.15]


def with_rates(loss, missed=MISSED, false=FALSE):
    loss.on_labels(LABELS, "abc")
    loss.sums = torch.tensor([missed, [1.0] * 3, false, [1.0] * 3], dtype=torch.float64)
    return loss


def test_known_values():
    loss = with_rates(ImpreciseLoss(strength=1e-12, momentum=0))
    assert loss(LOGITS, LABELS).item() / 3 == pytest.approx(0.469390, abs=1e-6)
    missed, false = loss.rates()
    assert missed.tolist() == pytest.approx([0.073152, 0.096579, 0.391513], abs=1e-6)
    assert false.tolist() == pytest.approx([0.018258, 0.042832, 0.061904], abs=1e-6)


def test_the_gradient_is_what_the_network_says_less_what_is_believed():
    logits = LOGITS.clone().requires_grad_()
    (with_rates(ImpreciseLoss(strength=1e-12))(logits, LABELS) * 4).backward()
    believed = (logits.sigmoid() - logits.grad).detach()
    assert believed[0].tolist() == pytest.approx([0.992537, 0.075573, 0.367849], abs=1e-6)
    assert believed[2].tolist() == pytest.approx([0.030730, 0.972866, 0.837595], abs=1e-6)


@pytest.mark.parametrize("unknown", ["latent", "negative"])
def test_each_step_equals_the_equations(rng, unknown):
    loss, sums = ImpreciseLoss(0.2, 0.1, unknown, strength=3, momentum=0.8), [[0.0] * 4 for _ in range(2)]
    loss.on_labels(torch.zeros(1, 2), "ab")
    for _ in range(4):
        logits = 2 * torch.randn(6, 2, generator=rng, dtype=torch.float64)
        targets = torch.randint(-1, 2, (6, 2), generator=rng).double()
        expected = 0.0
        for c, (missed, present, false, absent) in enumerate(sums):
            r, s = min((missed + 0.6) / (present + 3), 0.45), min((false + 0.3) / (absent + 3), 0.45)
            new = [0.8 * value for value in sums[c]]
            for z, t in zip(logits[:, c].tolist(), targets[:, c].tolist(), strict=True):
                if t == -1 and unknown == "latent":
                    continue
                p = sigmoid(z)
                q = p * (1 - r) + (1 - p) * s
                expected -= math.log(q if t == 1 else 1 - q)
                e = p * (1 - r) / q if t == 1 else p * r / (1 - q)
                y = max(t, 0)
                for at, value in enumerate((e * (1 - y), e, (1 - e) * y, 1 - e)):
                    new[at] += value
            sums[c] = new
        assert loss(logits, targets).item() == pytest.approx(expected / 6, rel=1e-5)
        torch.testing.assert_close(loss.sums.T, torch.tensor(sums))
        loss.eval()(logits, targets)
        loss.train()


@pytest.mark.parametrize("rates", [{"miss_rate": 0, "false_rate": 0}, {}], ids=["trusted", "doubted"])
def test_gradients_are_right_and_trusted_labels_are_cross_entropy(rng, rates):
    targets = torch.randint(-1, 2, (8, 3), generator=rng)
    logits = torch.randn(8, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    loss = ImpreciseLoss(**rates)
    loss.on_labels(targets, "abc")
    loss(logits, targets)
    if rates:
        torch.testing.assert_close(loss(logits, targets), BCELoss()(logits, targets))
        assert loss.rates()[0].eq(0).all()
        assert loss.rates()[1].eq(0).all()
    assert torch.autograd.gradcheck(lambda z: loss.eval()(z, targets), logits)


def test_what_unknown_means_follows_the_labels_and_comes_back():
    positives = torch.where(LABELS == 1, 1.0, -1.0)
    for shown, expected in ((LABELS, LABELS), (positives, LABELS)):
        loss = ImpreciseLoss()
        loss.on_labels(shown, "abc")
        again = ImpreciseLoss()
        again.load_state_dict(loss.state_dict())
        assert again(LOGITS, shown) == loss(LOGITS, expected)
    loss = ImpreciseLoss()
    loss.on_labels(torch.where(LABELS == 1, -1.0, LABELS), "abc")
    assert loss(LOGITS, torch.full((4, 3), -1.0)) == 0


def test_no_rate_leaves_its_bound_and_huge_logits_are_finite():
    loss = ImpreciseLoss(momentum=0)
    loss.on_labels(LABELS, "abc")
    for value in (1e4, -1e4):
        logits = torch.full((400, 3), value, dtype=torch.bfloat16, requires_grad=True)
        loss(logits, torch.full((400, 3), float(value < 0))).backward()
        assert logits.grad.isfinite().all()
        assert loss.rates()[value < 0].tolist() == pytest.approx([0.45] * 3)
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


@pytest.mark.parametrize("wrong", [{"miss_rate": 0.5}, {"false_rate": -1}, {"unknown": "ignore"}, {"strength": 0}])
def test_settings_that_make_no_sense_are_told(wrong):
    with pytest.raises(ConfigError, match=f"loss.{next(iter(wrong))}"):
        ImpreciseLoss(**wrong)
