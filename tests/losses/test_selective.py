"""P-ASL against its formula, an entry at a time, its authors' values, and priors that follow training."""

import math

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import SelectiveLoss
from tests.losses.oracles import sigmoid

LOGITS = torch.tensor([[2.0, -1, 0.5], [0.3, 0.8, -2], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
PARTIAL = torch.tensor([[1.0, 0, -1], [-1, 1, 0], [0, -1, 1], [1, -1, 0]], dtype=torch.float64)
PRIORS = [0.5, 0.04, 0.2]


def oracle(logits, targets, gammas, k, threshold, priors):
    """A sum over entries; `k` of the unannotated are left out."""
    total, rows = 0.0, logits.tolist()
    unannotated = [(i, c) for i in range(len(rows)) for c in range(len(priors)) if targets[i, c] == -1]
    likely = set(sorted(unannotated, key=lambda at: -rows[at[0]][at[1]])[:k])
    for i, row in enumerate(rows):
        for c, z in enumerate(row):
            p, t = sigmoid(z), targets[i, c].item()
            if t == -1:
                if priors[c] <= threshold and (i, c) not in likely:
                    total -= p ** gammas[2] * math.log(1 - p)
            else:
                total -= t * (1 - p) ** gammas[0] * math.log(p) + (1 - t) * p ** gammas[1] * math.log(1 - p)
    return total


@pytest.mark.parametrize(
    ("gammas", "k", "threshold", "value"),
    [
        ((0, 1, 2), 0, math.inf, 3.683774),
        ((0, 1, 2), 0, 0.3, 3.401851),
        ((0, 1, 2), 1, math.inf, 2.546502),
        ((0, 1, 4), 1, 0.3, 1.964081),
        ((0, 3, 4), 1, 0.5, 1.815991),
        ((0, 1, 4), 0, 0.05, 2.578036),
    ],
)
def test_gives_the_values_of_the_authors_code(gammas, k, threshold, value):
    loss = SelectiveLoss(*gammas, topk=k / 4, threshold=threshold, priors=PRIORS)
    assert loss(LOGITS, PARTIAL).item() * 4 == pytest.approx(value, abs=1e-6)


def test_follows_its_formula_and_the_means_of_the_epoch_before(rng):
    targets = torch.randint(-1, 2, (12, 4), generator=rng).double()
    loss = SelectiveLoss(1.5, 1, 2, topk=0.5, threshold=0.55)
    loss.on_labels(targets, "abcd")
    priors, is_split = [math.inf] * 4, False
    for epoch in range(3):
        loss.start_epoch(epoch)
        seen = []
        for index in torch.randperm(12, generator=rng).split(6):
            logits = torch.randn(6, 4, generator=rng, dtype=torch.float64) + torch.tensor([-1, 1, -1, 1])
            expected = oracle(logits, targets[index], (1.5, 1, 2), 3, 0.55, priors) / 6
            assert loss(logits, targets[index]).item() == pytest.approx(expected)
            loss.eval()(logits + 5, targets[index])
            loss.train()
            seen += logits.sigmoid().tolist()
        priors = [sum(column) / 12 for column in zip(*seen, strict=True)]
        is_split |= min(priors) < 0.55 < max(priors)
    assert is_split
    resumed = SelectiveLoss()
    resumed.load_state_dict(loss.state_dict())
    resumed.start_epoch(3)
    assert resumed.class_priors.tolist() == pytest.approx(priors)


def test_gradients_are_right_but_for_the_focus(rng):
    logits = torch.randn(5, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (5, 3), generator=rng)
    loss = SelectiveLoss(0, 0, 0, topk=0.4, threshold=0.1, priors=PRIORS)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits)
    focused = SelectiveLoss(0, 1, 2, topk=0, priors=[0.0] * 3)
    (gradient,) = torch.autograd.grad(focused(logits, targets), logits)
    p = logits.detach().sigmoid()
    expected = torch.where(targets == 1, p - 1, torch.where(targets == 0, p**2, p**3))
    torch.testing.assert_close(gradient, expected / 5)


def test_odd_batches_are_finite():
    loss = SelectiveLoss(priors=[0.0, 0.0, 0.9])
    for shape, fill in (((0, 3), -1), ((4, 3), -1), ((4, 3), 1), ((4, 3), 0)):
        logits = torch.full(shape, 1e4, dtype=torch.bfloat16, requires_grad=True)
        loss(logits, torch.full(shape, float(fill))).backward()
        assert logits.grad.isfinite().all()


def test_settings_that_make_no_sense_are_told():
    for wrong in ({"gamma_pos": -1}, {"topk": -1}, {"priors": [2.0]}):
        with pytest.raises(ConfigError, match=f"loss.{next(iter(wrong))}"):
            SelectiveLoss(**wrong)
    with pytest.raises(ConfigError, match="3 numbers for 2 classes"):
        SelectiveLoss(priors=PRIORS).on_labels(torch.zeros(1, 2), "ab")
    with pytest.raises(ConfigError, match=r"no negative.*loss\.priors"):
        SelectiveLoss().on_labels(torch.tensor([[1.0, -1]]), "ab")
    with pytest.raises(ConfigError, match="on_labels"):
        SelectiveLoss().start_epoch(0)
