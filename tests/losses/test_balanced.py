"""Losses for unequal classes against their formulas, an entry at a time, and what each does to its optimum."""

import math

import pytest
import torch
from torch import nn

from mlcv import Classifier
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.labels.states import log_odds
from mlcv.losses import BCELoss, ClassBalancedLoss, DistributionBalancedLoss, LogitAdjustedLoss
from tests.losses.oracles import bce, over, sigmoid

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.float64)
LOSSES = [ClassBalancedLoss, DistributionBalancedLoss, LogitAdjustedLoss]


def labels(*positives, images=200):
    """With so many positives of each class."""
    rows = torch.arange(images)[:, None]
    return (rows < torch.tensor(positives)).float()


def shown(loss, targets):
    loss.on_labels(targets, [str(c) for c in range(targets.shape[1])])
    return loss


def case(rng, images=40, classes=5):
    rates = torch.tensor([0.5, 0.05, 0.9, 0.1, 0.3])[:classes]
    targets = (torch.rand(images, classes, generator=rng) < rates).float()
    targets[torch.rand(images, classes, generator=rng) < 0.3] = -1
    return 2 * torch.randn(images, classes, generator=rng, dtype=torch.float64), targets


def known_and_positive(targets):
    known = [sum(t != -1 for t in column) for column in targets.T.tolist()]
    return known, [sum(t == 1 for t in column) for column in targets.T.tolist()]


def balanced(logits, targets, known, positives, alpha, beta, mu, lam, kappa, gamma):
    total = 0.0
    for zs, ts in zip(logits.tolist(), targets.tolist(), strict=True):
        shown = sum(1 / n for n, t in zip(positives, ts, strict=True) if t == 1)
        for z, t, n, images in zip(zs, ts, positives, known, strict=True):
            r = (1 / n) / shown if shown else 0.0
            weight = alpha + sigmoid(beta * (r - mu))
            moved = z - kappa / lam * math.log(images / n - 1)
            p, q = sigmoid(moved), sigmoid(lam * moved)
            if t == 1:
                total -= 2 * weight * (1 - p) ** gamma * math.log(p)
            elif t == 0:
                total -= 2 * weight / lam * q**gamma * math.log(1 - q)
    return total / len(logits)


def test_gives_known_values():
    """Of independent evaluations, means over entries, for 100, 20 and 5 positives of 200 images."""
    seen = labels(100, 20, 5)
    assert shown(DistributionBalancedLoss(), seen)(LOGITS, TARGETS).item() / 3 == pytest.approx(0.124496, abs=1e-6)
    plain = shown(DistributionBalancedLoss(gamma=0), seen)
    assert plain(LOGITS, TARGETS).item() / 6 == pytest.approx(0.266242, abs=1e-6)
    weights = plain._weights(TARGETS, plain.of_classes[0].double())
    assert weights[2].tolist() == pytest.approx([0.267982, 0.6, 1.097527], abs=1e-6)
    weights = shown(ClassBalancedLoss(0.99), seen).of_classes[0]
    assert weights.tolist() == pytest.approx([0.172245, 0.599681, 2.228074], abs=1e-6)
    parts = torch.zeros(8, 3)
    parts[0] = torch.tensor([0.5, 0.5, 0])
    parts[1:5, 0], parts[1, 1] = 1, 1  # (positives + 0.5) / (known + 2) is 0.5, 0.2, 0.05
    assert shown(LogitAdjustedLoss(), parts)(LOGITS, TARGETS).item() / 3 == pytest.approx(0.547475, abs=1e-6)


@pytest.mark.parametrize("settings", [(0.1, 10.0, 0.2, 2.0, 0.05, 2.0), (0.3, 4.0, 0.5, 5.0, 0.8, 0.0)])
def test_distribution_balanced_loss_equals_its_formula(rng, settings):
    logits, targets = case(rng)
    targets[:2] = torch.tensor([[1.0], [0]])  # none is without positives or negatives
    known, positives = known_and_positive(targets)
    expected = balanced(logits, targets, known, positives, *settings)
    assert shown(DistributionBalancedLoss(*settings), targets)(logits, targets).item() == pytest.approx(expected, 1e-5)


def test_a_soft_target_is_no_positive_of_its_image():
    loss = shown(DistributionBalancedLoss(), labels(100, 20, 5))
    positives = loss.of_classes[0]
    weights = loss._weights(torch.tensor([[1.0, 0, 0], [1, 0, 0.9], [1, 0, 1]]), positives)
    assert torch.equal(weights[0], weights[1])
    assert weights[1, 2] > weights[2, 2]


def test_logit_adjusted_loss_equals_its_formula(rng):
    logits, targets = case(rng)
    odds = [math.log((n + 0.5) / (k - n + 1.5)) for k, n in zip(*known_and_positive(targets), strict=True)]
    moved = logits + 0.7 * torch.tensor(odds, dtype=torch.float64)
    loss = shown(LogitAdjustedLoss(0.7), targets)
    assert loss(logits, targets).item() == pytest.approx(over(bce, moved, targets), rel=1e-6)
    torch.testing.assert_close(loss.undo(logits), moved, rtol=1e-6, atol=1e-6)


def test_class_balanced_loss_equals_its_formula(rng):
    logits, targets = case(rng)
    weights = [(1 - 0.9) / (1 - 0.9 ** max(n, 1)) for n in known_and_positive(targets)[1]]
    columns = (over(bce, logits[:, [c]], targets[:, [c]]) * w for c, w in enumerate(weights))
    value = shown(ClassBalancedLoss(0.9), targets)(logits, targets).item()
    assert value == pytest.approx(sum(columns) * 5 / sum(weights), rel=1e-6)


def test_training_on_moved_logits_is_cross_entropy_from_a_moved_bias(rng):
    """Each step of a linear head, with Adam."""
    _, targets = case(rng)
    image = torch.randn(40, 6, generator=rng)
    losses, heads = (shown(LogitAdjustedLoss(), targets), BCELoss()), (nn.Linear(6, 5), nn.Linear(6, 5))
    heads[1].load_state_dict(heads[0].state_dict())
    heads[1].bias.data += log_odds(targets).float()
    for loss, head in zip(losses, heads, strict=True):
        optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
        for _ in range(20):
            optimizer.zero_grad()
            loss(head(image), targets).backward()
            optimizer.step()
    torch.testing.assert_close(losses[0].undo(heads[0](image)), heads[1](image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("seen", [labels(0, 200, 3), -labels(0, 200, 3), torch.zeros(0, 3), -torch.ones(5, 3)])
def test_classes_of_which_nothing_is_known_stay_finite(cls, seen, rng):
    logits = torch.randn(4, 3, generator=rng, requires_grad=True)
    value = shown(cls(), seen)(logits, TARGETS)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("cls", LOSSES)
def test_gradients_pass_gradcheck(cls, rng):
    logits, targets = case(rng, 8, 3)
    loss = shown(cls(), targets)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits.requires_grad_())


@pytest.mark.parametrize("cls", LOSSES)
def test_labels_that_were_never_seen_are_asked_for_in_training_alone(cls):
    with pytest.raises(ConfigError, match=rf"{cls.__name__} needs the training labels.*call on_labels"):
        cls()(LOGITS, TARGETS)
    assert cls().eval()(LOGITS, TARGETS).isfinite()


def test_without_labels_all_classes_are_alike():
    expected = BCELoss()(LOGITS, TARGETS)
    for cls in (LogitAdjustedLoss, ClassBalancedLoss):
        torch.testing.assert_close(cls().eval()(LOGITS, TARGETS), expected)
    alike = shown(DistributionBalancedLoss(), labels(100, 100, 100))
    torch.testing.assert_close(DistributionBalancedLoss().eval()(LOGITS, TARGETS), alike(LOGITS, TARGETS))


@pytest.mark.parametrize("cls", LOSSES)
def test_a_checkpoint_brings_what_was_counted(cls, rng):
    logits, targets = case(rng)
    loss, again = shown(cls(), targets), cls()
    again.load_state_dict(loss.state_dict())
    assert again(logits, targets) == loss(logits, targets)


def test_probabilities_are_the_labels_frequencies(tmp_path):
    run = [
        "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=16", "--data.num_test=16",
        "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
        "--model.backbone=test_resnet", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        "--model.loss=LogitAdjustedLoss", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1",
    ]  # fmt: skip
    assert main(["fit", *run, f"--run_dir={tmp_path}"]) == 0
    method = Classifier.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    odds = method.loss.of_classes[0]
    assert (odds < -0.5).all()
    logits = torch.randn(3, 10)
    torch.testing.assert_close(method.probabilities(logits), (logits + odds).sigmoid())


@pytest.mark.parametrize(
    "wrong", [(LogitAdjustedLoss, "tau", -1), (ClassBalancedLoss, "beta", 1.0), (DistributionBalancedLoss, "lam", 0)]
)
def test_settings_that_make_no_sense_are_told(wrong):
    cls, name, value = wrong
    with pytest.raises(ConfigError, match=f"loss.{name}"):
        cls(**{name: value})
