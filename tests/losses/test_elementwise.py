"""Every element-wise loss against its formula, and against values computed with the authors' own modules."""

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import (
    AsymmetricLoss,
    AUCMarginLoss,
    BCELoss,
    ELRLoss,
    FocalLoss,
    HillLoss,
    PartialBCELoss,
    SPLCLoss,
    TwoWayLoss,
)
from tests.losses import oracles

X = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
Y = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.float64)
PARTIAL = torch.tensor([[1.0, 0, -1], [-1, 1, 0], [0, -1, 1], [1, -1, 0]], dtype=torch.float64)
SINGLE = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]], dtype=torch.float64)
MISSING = torch.where(Y == 1, 1.0, -1.0).double()

FORMULAS = [
    (BCELoss(), oracles.bce),
    (FocalLoss(1.5), lambda z, t: oracles.focal(z, t, 1.5)),
    (AsymmetricLoss(1, 4, 0.05), lambda z, t: oracles.asymmetric(z, t, 1, 4, 0.05)),
    (AsymmetricLoss(0, 2, 0), lambda z, t: oracles.asymmetric(z, t, 0, 2, 0)),
    (HillLoss(), lambda z, t: oracles.hill(z, t, 1.5, 1.0, 2.0)),
]


def random_case(rng, batch, classes):
    logits = 3 * torch.randn(batch, classes, generator=rng, dtype=torch.float64)
    hard = torch.randint(-1, 2, (batch, classes), generator=rng).double()
    soft = torch.rand(batch, classes, generator=rng, dtype=torch.float64)
    return logits, torch.where(torch.rand(batch, classes, generator=rng) < 0.2, soft, hard)


@pytest.mark.parametrize(("loss", "formula"), FORMULAS)
@pytest.mark.parametrize(("batch", "classes"), [(1, 1), (3, 80), (16, 5)])
def test_equals_the_formula(loss, formula, batch, classes, rng):
    logits, targets = random_case(rng, batch, classes)
    torch.testing.assert_close(loss(logits, targets).item(), oracles.over(formula, logits, targets))


@pytest.mark.parametrize(
    ("loss", "targets", "factor", "official"),
    [
        (BCELoss(), Y, 4, 5.133098),
        (FocalLoss(), Y, 4, 1.043000),
        (AsymmetricLoss(gamma_pos=1), Y, 4, 0.762558),
        (AsymmetricLoss(), Y, 4, 1.902775),
        (HillLoss(), Y, 4, 2.340965),
        (SPLCLoss(), MISSING, 4, 2.049816),
        (BCELoss(), PARTIAL, 4 / 8, 0.323780),
    ],
)
def test_equals_the_official_code(loss, targets, factor, official):
    assert loss(X, targets).item() * factor == pytest.approx(official, abs=1e-6)


@pytest.mark.parametrize(("unknown", "official"), [("negative", 0.552739), ("weak_negative", 0.340767)])
def test_assume_negative_baselines_equal_the_official_code(unknown, official):
    # Their logarithms add 1e-5 inside, hence the tolerance.
    assert BCELoss(unknown)(X, SINGLE).item() / 3 == pytest.approx(official, abs=4e-5)


def test_smoothed_unknowns_are_soft_targets():
    soft = torch.where(SINGLE == -1, 0.2, SINGLE)
    torch.testing.assert_close(BCELoss("smoothed", 0.2)(X, SINGLE), BCELoss()(X, soft))


@pytest.mark.parametrize("loss", [BCELoss(), FocalLoss(), HillLoss(), PartialBCELoss(), SPLCLoss()])
def test_gradients_pass_gradcheck(loss, rng):
    logits, targets = random_case(rng, 3, 4)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits.requires_grad_())


def test_asymmetric_gradient_is_that_of_a_loss_with_constant_focus(rng):
    logits, targets = random_case(rng, 4, 3)
    logits = logits.clamp(-4, 4).requires_grad_()
    p = logits.sigmoid()
    focus_positive, focus_negative = (1 - p).detach(), (p - 0.05).clamp(min=0).detach() ** 4
    t = targets.clamp(min=0)
    entries = -t * focus_positive * p.log() - (1 - t) * focus_negative * (1 - (p - 0.05).clamp(min=0)).log()
    expected = torch.autograd.grad((entries * (targets >= 0)).sum() / 4, logits)[0]
    actual = torch.autograd.grad(AsymmetricLoss(1, 4, 0.05)(logits, targets), logits)[0]
    torch.testing.assert_close(actual, expected)


def test_partial_bce_weighs_up_images_with_few_labels(rng):
    logits = torch.randn(2, 10, generator=rng, dtype=torch.float64)
    targets = torch.zeros(2, 10, dtype=torch.float64)
    targets[1, 1:] = -1  # one label of ten: g(0.1) = 5
    full, tenth = oracles.over(oracles.bce, logits[:1], targets[:1]), oracles.over(oracles.bce, logits[1:], targets[1:])
    assert PartialBCELoss()(logits, targets).item() == pytest.approx((full + 5 * tenth) / 2)


def test_partial_bce_equals_bce_when_all_is_known():
    torch.testing.assert_close(PartialBCELoss()(X, Y), BCELoss()(X, Y))


def test_splc_corrects_confident_missing_labels_after_the_first_epoch():
    loss = SPLCLoss()
    loss.start_epoch(1)
    assert loss(X, MISSING).item() * 4 == pytest.approx(1.739978, abs=1e-6)


def test_splc_never_corrects_a_known_negative():
    loss = SPLCLoss()
    confident = torch.full((1, 1), 4.0)
    before = loss(confident, torch.zeros(1, 1)).item()
    loss.start_epoch(5)
    assert loss(confident, torch.zeros(1, 1)).item() == before
    assert loss(confident, -torch.ones(1, 1)).item() < before


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: AsymmetricLoss(margin=1.0), "margin"),
        (lambda: AsymmetricLoss(gamma_neg=-1), "gamma_neg"),
        (lambda: FocalLoss(-1), "gamma"),
        (lambda: HillLoss(lamb=0.5), "lamb"),
        (lambda: SPLCLoss(threshold=1.0), "threshold"),
        (lambda: PartialBCELoss(gamma=0), "gamma"),
    ],
)
def test_impossible_options_are_refused(build, word):
    with pytest.raises(ConfigError, match=word):
        build()


@pytest.mark.parametrize("loss", [BCELoss, AsymmetricLoss, HillLoss, FocalLoss, TwoWayLoss, AUCMarginLoss, ELRLoss])
def test_who_leaves_unknown_entries_out_refuses_labels_without_a_negative(loss):
    only = torch.tensor([[1.0, -1], [-1, 1]])
    with pytest.raises(ConfigError, match="learn that everything is present"):
        loss().on_labels(only, "ab")
    loss(unknown="negative").on_labels(only, "ab")
    for labels in (torch.tensor([[1.0, -1], [-1, 0]]), torch.tensor([[1.0, -1], [0.4, 1]]), torch.ones(2, 2)):
        loss().on_labels(labels, "ab")
