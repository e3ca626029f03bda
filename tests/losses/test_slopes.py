"""Losses whose derivatives are written out: equal to what autograd makes of the formula, and little to remember."""

import pytest
import torch
from torch import nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

import mlcv.losses
from mlcv.losses import (
    AsymmetricLoss,
    BCELoss,
    ClassBalancedLoss,
    DistributionBalancedLoss,
    FocalLoss,
    HillLoss,
    LogitAdjustedLoss,
    PartialBCELoss,
    SPLCLoss,
)
from mlcv.losses.base import ElementwiseLoss
from tests.losses.test_elementwise import random_case


def weighed(loss=None):
    loss = loss or BCELoss(pos_weight="auto")
    loss.on_labels(torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 0, -1, 0]]), "abcd")
    return loss


def correcting():
    loss = SPLCLoss()
    loss.start_epoch(1)
    return loss


LOSSES = {
    "bce": BCELoss, "weighed": weighed, "pos_weight": lambda: BCELoss(pos_weight=3.0),
    "an": lambda: BCELoss("negative"),
    "wan": lambda: BCELoss("weak_negative"), "smoothed": lambda: FocalLoss(unknown="smoothed"),
    "partial": PartialBCELoss,
    "focal": FocalLoss, "focal 0": lambda: FocalLoss(0), "focal 0.5": lambda: FocalLoss(0.5), "hill": HillLoss,
    "hill 4": lambda: HillLoss(2.0, 0.5, 4.0), "splc": SPLCLoss, "correcting": correcting, "asymmetric": AsymmetricLoss,
    "asymmetric 1 2": lambda: AsymmetricLoss(1, 2, 0.2), "no margin": lambda: AsymmetricLoss(0.5, 1, 0),
    "no focus": lambda: AsymmetricLoss(0, 0, 0.3),
    "adjusted": lambda: weighed(LogitAdjustedLoss(0.7)), "by class": lambda: weighed(ClassBalancedLoss()),
    "distribution": lambda: weighed(DistributionBalancedLoss()),
    "distribution 0": lambda: weighed(DistributionBalancedLoss(gamma=0.0)),
}  # fmt: skip


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]()


def by_formula(loss, logits, targets):
    logits = logits.detach().requires_grad_()
    filled, weights = loss.resolve(targets)
    total = (loss.elementwise(logits, filled) * weights).sum() / max(len(logits), 1)
    return total, *torch.autograd.grad(total, logits)


def as_written(loss, logits, targets):
    logits = logits.detach().requires_grad_()
    total = loss(logits, targets)
    assert "InOnePass" in str(total.grad_fn.next_functions[0][0])
    return total, *torch.autograd.grad(total, logits)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_values_and_slopes_are_those_of_the_formula(loss, scale, rng):
    logits, targets = random_case(rng, 7, 4)
    torch.testing.assert_close(as_written(loss, scale * logits, targets), by_formula(loss, scale * logits, targets))


def test_so_they_are_in_parts_of_many_images(rng, monkeypatch):
    monkeypatch.setattr("mlcv.losses.base._AT_ONCE", 9)  # of 23 images with 4 classes, two at a time
    for name, build in LOSSES.items():
        logits, targets = random_case(rng, 23, 4)
        found, expected = (way(build(), logits, targets) for way in (as_written, by_formula))
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_rounded_at_the_end(loss, dtype, rng):
    logits, targets = random_case(rng, 5, 4)
    value, slopes = as_written(loss, logits.to(dtype), targets.float())
    exact, exact_slopes = by_formula(loss, logits.to(dtype).double(), targets)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact.float())
    torch.testing.assert_close(slopes, exact_slopes.to(dtype), atol=1e-6, rtol=2 * torch.finfo(dtype).eps + 1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (1, 4)])
def test_empty_batches_and_single_images(loss, shape, rng):
    logits = torch.randn(shape, generator=rng, requires_grad=True)
    value = loss(logits, torch.zeros(shape)) if shape[1] else FocalLoss()(logits, torch.zeros(shape))
    value.backward()
    assert value.isfinite()
    assert logits.grad.shape == shape
    assert logits.grad.isfinite().all()


def test_a_second_derivative_is_that_of_the_formula(rng):
    logits, targets = random_case(rng, 3, 4)
    for loss in (BCELoss(), FocalLoss(), HillLoss(), PartialBCELoss(), SPLCLoss()):
        assert torch.autograd.gradgradcheck(lambda z, loss=loss: loss(z, targets), logits.requires_grad_())


def test_a_function_transform_finds_the_gradient(rng):
    logits, targets = random_case(rng, 3, 4)
    expected = as_written(FocalLoss(), logits, targets)[1]
    torch.testing.assert_close(torch.func.grad(lambda z: FocalLoss()(z, targets))(logits), expected)


def test_the_gradient_is_scaled_with_what_follows(loss, rng):
    logits, targets = random_case(rng, 3, 4)
    scaled = torch.autograd.grad(1000 * loss(logits.requires_grad_(), targets), logits)[0]
    torch.testing.assert_close(scaled, 1000 * as_written(loss, logits, targets)[1])


def test_soft_targets_that_are_learnt_have_gradients(rng):
    logits, targets = random_case(rng, 3, 4)
    targets = targets.clamp(0, 1).requires_grad_()
    loss = BCELoss()(logits.requires_grad_(), targets)
    torch.testing.assert_close(torch.autograd.grad(loss, targets)[0], -logits / 3)


def test_no_more_than_two_arrays_are_kept_for_the_backward_pass(loss):
    logits, targets = torch.randn(64, 4, requires_grad=True), torch.zeros(64, 4)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(logits, targets)
    own = sum(size for at, size in kept.items() if at not in (logits.data_ptr(), targets.data_ptr()))
    assert 0 < own <= 2 * logits.nbytes


class Learnt(FocalLoss):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(1.5))


def test_a_number_of_the_formula_that_is_learnt_has_a_gradient(rng):
    logits, targets = random_case(rng, 3, 4)
    loss = Learnt()
    found = torch.autograd.grad(loss(logits.requires_grad_(), targets), [logits, loss.gamma])
    filled, weights = loss.resolve(targets)
    expected = torch.autograd.grad((loss.elementwise(logits, filled) * weights).sum() / 3, [logits, loss.gamma])
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:.*batching rule", "ignore:.*jit:FutureWarning")
def test_function_transforms_and_forward_differentiation_are_of_the_formula(rng):
    logits, targets = random_case(rng, 3, 4)
    expected = as_written(FocalLoss(), logits, targets)[1]
    found = torch.func.jacrev(lambda z: FocalLoss()(z, targets))(logits)
    torch.testing.assert_close(found, expected)
    of_images = torch.func.vmap(torch.func.grad(lambda z, y: FocalLoss()(z[None], y[None])))(logits, targets)
    torch.testing.assert_close(of_images, 3 * expected)
    curvature = torch.func.hessian(lambda z: FocalLoss()(z, targets))(logits)
    by_reverse = torch.autograd.functional.hessian(lambda z: FocalLoss()(z, targets), logits)
    torch.testing.assert_close(curvature, by_reverse)
    with dual_level():
        dual = make_dual(logits.requires_grad_(), torch.ones_like(logits))
        torch.testing.assert_close(unpack_dual(FocalLoss()(dual, targets)).tangent, expected.sum())


class Changed(FocalLoss):
    def elementwise(self, logits, targets):
        return 2 * super().elementwise(logits, targets)


class Again(Changed):
    pass


class Twice:
    def elementwise(self, logits, targets):
        return 2 * super().elementwise(logits, targets)


class Mixed(Twice, FocalLoss):
    pass


@pytest.mark.parametrize("kind", [Changed, Again, Mixed])
def test_who_changes_the_formula_inherits_no_slopes(kind, rng):
    logits, targets = random_case(rng, 3, 4)
    value, slopes = as_written(FocalLoss(), logits, targets)
    found = kind()(logits.requires_grad_(), targets)
    torch.testing.assert_close((found, torch.autograd.grad(found, logits)[0]), (2 * value, 2 * slopes))


def test_every_loss_of_entries_has_slopes():
    classes = [getattr(mlcv.losses, name) for name in mlcv.losses.__all__]
    kinds = {kind for kind in classes if isinstance(kind, type) and issubclass(kind, ElementwiseLoss)}
    assert {kind for kind in kinds if not kind._has_slopes} <= {ElementwiseLoss}
    assert issubclass(ElementwiseLoss, nn.Module)
