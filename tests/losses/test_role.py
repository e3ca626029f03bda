"""EPR and ROLE against their formulas, an entry at a time, and an estimator that torch's own Adam moves."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy as bce_of_probabilities

from mlcv.errors import ConfigError
from mlcv.losses import EPRLoss, ROLELoss
from tests.losses.oracles import bce, sigmoid

# Four images, three classes, one positive each; the values are the authors' (means over entries), whose logarithms
# have an addend of 1e-5.
LOGITS = torch.tensor([[2.0, -1, 0.5], [0.3, 0.8, -2], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
SINGLE = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]])
ESTIMATES = torch.tensor([[0.9, 0.2, 0.3], [0.4, 0.8, 0.1], [0.2, 0.6, 0.7], [0.7, 0.3, 0.2]], dtype=torch.float64)


def epr(logits, targets, k, trust=True):
    images, total, positives = len(logits), 0.0, 0.0
    for row, labels in zip(logits.tolist(), targets.tolist(), strict=True):
        for z, t in zip(row, labels, strict=True):
            total += bce(z, t) if t > 0 or (t == 0 and trust) else 0.0
            positives += sigmoid(z)
    return total / images + (positives / images - k) ** 2 / logits.shape[1]


def shown(loss, targets):
    loss.on_labels(targets, [str(c) for c in range(targets.shape[1])])
    return loss


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5)])
def test_epr_equals_its_formula(rng, shape, trust):
    logits = torch.randn(*shape, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, shape, generator=rng)
    loss = EPRLoss(1.7, trust)
    assert loss(logits, targets).item() == pytest.approx(epr(logits, targets, 1.7, trust), rel=1e-6)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits)


def test_known_values():
    assert EPRLoss(1.5)(LOGITS, SINGLE).item() / 3 == pytest.approx(0.128850, abs=2e-5)
    loss = shown(ROLELoss(1.5), SINGLE)
    loss.memory["z"].copy_(ESTIMATES.logit())
    assert loss(LOGITS, SINGLE, torch.arange(4)).item() / 3 == pytest.approx(0.711593, abs=4e-5)


def test_what_is_expected_comes_from_the_labels_and_goes_into_the_weights(rng):
    logits, targets = (
        torch.randn(4, 3, generator=rng, dtype=torch.float64),
        torch.tensor([[1, 0, -1]] * 3 + [[0, 1, 1]]),
    )
    loss = EPRLoss()
    with pytest.raises(ConfigError, match=r"expected_positives auto needs.*on_labels"):
        loss(logits, targets)
    without = loss.eval()(logits, targets).item()
    assert without == pytest.approx(epr(logits, targets, sum(map(sigmoid, logits.flatten().tolist())) / 4))
    shown(loss, targets)
    assert loss(logits, targets).item() == pytest.approx(epr(logits, targets, 3 / 4 + 1 / 4 + 1))
    other = EPRLoss().eval()
    other.load_state_dict(loss.state_dict())
    assert other(logits, targets) == loss(logits, targets)
    assert not EPRLoss(2.0).state_dict()


@pytest.mark.parametrize("where", ["device", "cpu"])
@pytest.mark.parametrize("trust", [True, False])
def test_estimates_move_as_torchs_adam_moves_them(rng, where, trust):
    """All of them in each step, those of other images by their momentum; the network's loss has them before it."""
    targets = torch.randint(-1, 2, (9, 4), generator=rng).double()
    loss = shown(ROLELoss(1.2, 0.2, trust, where), targets)
    z = loss.memory["z"].clone().double().requires_grad_()
    adam = torch.optim.Adam([z], lr=0.2)
    observed = (targets >= 0) if trust else targets > 0
    for _ in range(3):
        for order in torch.randperm(9, generator=rng)[:6].split(3):
            index = torch.cat([order, order[:1]])  # one image twice
            logits = torch.randn(4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
            p, t, y, known = logits.sigmoid(), z[index].sigmoid(), targets[index], observed[index]
            agreement = [bce_of_probabilities(p, t.detach(), reduction="sum")]
            agreement += [bce_of_probabilities(t, p.detach(), reduction="sum")]
            total = sum(agreement) / 4
            for q in (p, t):
                fit = torch.where(known, -(y * q.log() + (1 - y) * (1 - q).log()), 0.0)
                total = total + fit.sum() / 4 + (q.sum() / 4 - 1.2) ** 2 / 4
            adam.zero_grad()
            (expected,) = torch.autograd.grad(total / 2, logits, retain_graph=True)
            (total / 2).backward(inputs=[z])
            value = loss(logits, y, index)
            assert value.item() == pytest.approx(total.item() / 2, rel=1e-5)
            torch.testing.assert_close(torch.autograd.grad(value, logits)[0], expected, atol=1e-5, rtol=1e-5)
            adam.step()
            torch.testing.assert_close(loss.memory["z"].double(), z.detach(), atol=1e-4, rtol=1e-4)


def test_estimates_begin_between_their_bounds_and_observed_ones_near_their_label():
    targets = torch.tensor([[1.0, 0, -1]]).repeat(500, 1)
    begun = shown(ROLELoss(), targets).memory["z"].sigmoid()
    assert begun[0, :2].tolist() == pytest.approx([0.995, 0.005])
    assert 0.4 < begun[:, 2].min() < 0.41 < 0.59 < begun[:, 2].max() < 0.6
    assert torch.equal(begun, shown(ROLELoss(), targets).memory["z"].sigmoid())
    begun = shown(ROLELoss(trust_negatives=False), targets).memory["z"].sigmoid()
    assert begun[:, 1].min() > 0.4


def test_evaluation_and_images_that_could_not_be_read_move_no_image(rng):
    targets = torch.full((4, 3), -1.0)
    loss = shown(ROLELoss(2.0), targets)
    before = loss.memory["z"].clone()
    logits = torch.randn(2, 3, generator=rng)
    loss(logits, targets[:2], torch.tensor([-1, -1]))
    loss.eval()(logits, targets[:2], torch.tensor([0, 1]))
    assert torch.equal(loss.memory["z"], before)
    assert loss(logits, targets[:2]) == EPRLoss(2.0)(logits, targets[:2])


def test_no_images_are_no_loss():
    targets, nothing = torch.ones(3, 2), torch.zeros(0, 2)
    assert EPRLoss(2.0)(nothing, nothing) == 0
    assert shown(ROLELoss(2.0), targets)(nothing, nothing, torch.zeros(0, dtype=torch.long)) == 0


@pytest.mark.parametrize("wrong", [{"expected_positives": 0}, {"expected_positives": math.inf}, {"estimate_lr": 0}])
def test_settings_that_make_no_sense_are_told(wrong):
    with pytest.raises(ConfigError, match=f"loss.{next(iter(wrong))}"):
        ROLELoss(**wrong)
