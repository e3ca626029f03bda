"""STORM: the virtual step against autograd through a real one, who learns by which term, and what weights sum to."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import dropout

from mlcv.errors import ConfigError
from mlcv.labels.states import log_odds
from mlcv.methods import MetaRescaling
from mlcv.methods.meta_rescaling import virtual_logits

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)


def method(**settings):
    """In float64, with a head and an Omega that say something."""
    built = MetaRescaling("test_resnet", 3, **settings).double()
    nn.init.normal_(built.head.classifier.weight, std=0.3)
    nn.init.normal_(built.head.classifier.bias)
    return built


def case(built, rng, images=9):
    """Stored features in place of images."""
    width = built.backbone.pooled_features
    targets = torch.randint(-1, 2, (images, 3), generator=rng).double()
    return {"image": torch.randn(images, width, generator=rng, dtype=torch.float64), "target": targets}


def slopes_of(loss, module):
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(module.parameters(), found, strict=True)]


def test_one_step_has_known_values():
    """Of an implementation of its own: two images for the step, two after it, weights sigmoid(o0 l + o1)."""
    theta = torch.tensor([[0.1], [-0.2], [0.3]], dtype=torch.float64)
    omega = torch.tensor([-1, 0.5], dtype=torch.float64, requires_grad=True)
    y, y_meta = torch.tensor([[1.0], [0]]).double(), torch.tensor([[0.0], [1]]).double()
    logits = LOGITS @ theta
    losses = cross_entropy(logits[:2], y, reduction="none")
    weights = (omega[0] * losses + omega[1]).sigmoid()
    assert losses.flatten().tolist() == pytest.approx([0.455492, 0.393331], abs=1e-6)
    slopes = weights * (logits[:2].sigmoid() - y)
    basis = torch.eye(3, dtype=torch.float64)  # logits of which are Theta' itself
    moved = virtual_logits(theta, basis, LOGITS[:2], slopes, 0.5)
    assert moved.flatten().tolist() == pytest.approx([0.180657, -0.281003, 0.409006], abs=1e-6)
    after = cross_entropy(virtual_logits(logits[2:], LOGITS[2:], LOGITS[:2], slopes, 0.5), y_meta, reduction="none")
    later = (omega[0] * after.detach() + omega[1]).sigmoid()
    meta = (later * after).mean()
    assert meta.item() == pytest.approx(0.278398, abs=1e-6)
    (both,) = torch.autograd.grad(meta, omega, retain_graph=True)
    (indirect,) = torch.autograd.grad((later.detach() * after).mean(), omega)
    assert both.tolist() == pytest.approx([0.090771, 0.139305], abs=1e-6)
    assert indirect.tolist() == pytest.approx([-0.004200, -0.008841], abs=1e-6)


def normalized(weights, targets, is_used, kind):
    """A class at a time; entries that are not used have any weight."""
    found = weights.clone()
    for c in range(3):
        groups = [[0, 1]] if kind == "class" else [[0], [1]]
        for group in groups if kind != "none" else []:
            rows = [i for i in range(len(weights)) if is_used[i, c] and targets[i, c] in group]
            mean = sum(weights[i, c] for i in rows) / max(len(rows), 1)
            for i in rows:
                found[i, c] = weights[i, c] / mean
    return found


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("kind", ["class", "class_and_value", "none"])
def test_equals_autograd_through_a_step_of_the_head(rng, seed, direct, kind):
    built = method(direct=direct, normalize=kind, inner_lr=0.7)
    batch = case(built, rng)
    torch.manual_seed(seed)
    loss, parts = built.objective(batch)
    ours = slopes_of(loss, built.rescaler), slopes_of(loss, built.head)

    torch.manual_seed(seed)
    f, is_used = batch["image"], batch["target"] >= 0
    y = batch["target"].clamp(min=0)
    dropped = dropout(f.expand(3, -1, -1), 0.3)
    order = torch.randperm(9)
    s, m = order[:5], order[4:]
    lr = 0.7 / (f.square().sum(dim=1) + 1).mean()
    theta = [p.detach().clone().requires_grad_() for p in built.head.parameters()]

    def linear(x, theta):
        return x @ theta[0].T + theta[1]

    def weigh(said, rows):
        return normalized(built.rescale(said.detach(), y[rows]), y[rows], is_used[rows], kind)

    weights = weigh(linear(dropped, theta), torch.arange(9))
    losses = cross_entropy(linear(f, theta), y, reduction="none") * is_used
    step = torch.autograd.grad((weights[s] * losses[s]).sum() / 5, theta, create_graph=True)
    moved = [p.detach() - lr * g for p, g in zip(theta, step, strict=True)]
    later = weigh(linear(dropped[:, m], moved), m)
    later = later if direct else later.detach()
    meta = (later * is_used[m] * cross_entropy(linear(f[m], moved), y[m], reduction="none")).sum() / 5
    learnt = (weights.detach() * losses).sum() / 9
    torch.testing.assert_close(parts["loss_meta"], meta)
    torch.testing.assert_close(loss, learnt + meta)
    torch.testing.assert_close(ours[0], slopes_of(meta, built.rescaler))
    assert any(slope.any() for slope in ours[0])
    torch.testing.assert_close(ours[1], list(torch.autograd.grad(learnt, theta)))


@pytest.mark.parametrize("kind", ["class", "class_and_value", "none"])
def test_equal_weights_are_plain_cross_entropy_and_raw_ones_are_logged(rng, kind):
    built = method(normalize=kind)
    for parameter in built.rescaler.parameters():
        nn.init.zeros_(parameter)
    batch = case(built, rng)
    _, parts = built.objective(batch)
    plain = built.loss(built.head(batch["image"]), batch["target"])
    torch.testing.assert_close(parts["loss_learnt"], plain * (0.5 if kind == "none" else 1))
    assert parts["weight_positive"].item() == parts["weight_negative"].item() == 0.5


def test_what_is_logged_is_of_known_positives_and_negatives_apart(rng):
    built = method()
    batch, raw = case(built, rng, 30), torch.rand(30, 3, generator=rng, dtype=torch.float64)
    built.rescale = lambda said, targets: raw[: len(targets)]
    _, parts = built.objective(batch)
    for name, label in (("weight_positive", 1), ("weight_negative", 0)):
        torch.testing.assert_close(parts[name], raw[batch["target"] == label].mean())


def test_the_backbone_learns_by_the_first_term_alone(rng, seed):
    built = method()
    batch = {"image": torch.randn(6, 3, 32, 32, generator=rng).double(), "target": case(built, rng, 6)["target"]}
    loss, parts = built.objective(batch)
    for ours, theirs in zip(*(slopes_of(x, built.backbone) for x in (loss, parts["loss_learnt"])), strict=True):
        assert torch.equal(ours, theirs)


def test_priors_come_from_the_training_labels(rng):
    built, targets = method(), torch.randint(-1, 2, (50, 3), generator=rng).float()
    built.on_labels(targets)
    torch.testing.assert_close(built.log_prior, log_odds(targets).sigmoid().log())
    again = method()
    again.load_state_dict(built.state_dict())
    assert torch.equal(again.log_prior, built.log_prior)


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("label", [-1.0, 0.0, 1.0])
def test_small_and_unlabeled_batches_are_finite(rng, images, label):
    built = method()
    batch = {"image": 1e3 * case(built, rng, images)["image"], "target": torch.full((images, 3), label)}
    loss, _ = built.objective(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.parameters())
    assert label >= 0 or loss == 0


@pytest.mark.parametrize("wrong", [{"inner_lr": 0.0}, {"passes": 1}, {"dropout": 1.0}, {"normalize": "mean"}])
def test_settings_that_make_no_sense_are_told(wrong):
    with pytest.raises(ConfigError, match=f"model.{next(iter(wrong))}"):
        MetaRescaling("test_resnet", 3, **wrong)
