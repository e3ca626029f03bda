"""What every loss in `mlcv.losses` must do; a new one is tested here from the moment it is exported."""

import pytest
import torch

import mlcv.losses

# PUMixup is a regulariser: it also needs the network and the images.
CLASSES = [getattr(mlcv.losses, name) for name in mlcv.losses.__all__ if name != "PUMixup"]
# Losses for which an unknown entry is a missing label that takes part.
USE_UNKNOWN = {"SPLCLoss", "PUMLCLoss"}
# Losses for which a soft target is no positive: they are neither sums over entries nor linear in the targets.
HARD_POSITIVES_ONLY = {"PUMLCLoss"}


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def loss(request):
    return request.param()


def case(rng, batch=6, classes=5, dtype=torch.float32):
    logits = (4 * torch.randn(batch, classes, generator=rng)).to(dtype)
    return logits.requires_grad_(), torch.randint(-1, 2, (batch, classes), generator=rng).float()


def test_unknown_entries_change_neither_value_nor_gradient(loss, rng):
    if type(loss).__name__ in USE_UNKNOWN:
        pytest.skip("its definition uses unknown entries")
    logits, targets = case(rng)
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    unknown = targets == -1
    assert (gradient[unknown] == 0).all()
    moved = torch.where(unknown, 50.0, logits)
    assert loss(moved, targets) == value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_finite_with_finite_gradients_at_huge_logits(loss, dtype):
    logits = torch.tensor([[1e4, -1e4, 1e4], [-1e4, 1e4, -1e4], [0.0, 1e-4, -1e-4]], dtype=dtype, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0], [1.0, 0.0, 1.0]])
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert value.dtype == torch.float32
    assert gradient.isfinite().all()
    assert gradient.dtype == dtype


def test_is_the_same_under_autocast(loss, rng):
    logits, targets = case(rng)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, targets)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(logits, targets))


def test_bfloat16_logits_give_the_value_of_the_same_numbers_in_float32(loss, rng):
    logits, targets = case(rng, dtype=torch.bfloat16)
    torch.testing.assert_close(loss(logits, targets), loss(logits.float(), targets))


def test_the_order_of_images_does_not_matter(loss, rng):
    logits, targets = case(rng)
    order = torch.randperm(len(logits), generator=rng)
    torch.testing.assert_close(loss(logits[order], targets[order]), loss(logits, targets))


def test_an_unlabeled_batch_costs_nothing(loss, rng):
    if type(loss).__name__ in USE_UNKNOWN:
        pytest.skip("its definition uses unknown entries")
    logits, targets = case(rng)
    value = loss(logits, torch.full_like(targets, -1))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 1)])
def test_small_batches_give_a_finite_scalar(loss, shape, rng):
    value = loss(torch.randn(*shape, generator=rng), torch.ones(shape))
    assert value.shape == ()
    assert value.isfinite()
    assert shape[0] > 0 or value == 0


def test_soft_targets_interpolate_between_the_hard_ones(loss):
    if type(loss).__name__ in HARD_POSITIVES_ONLY:
        pytest.skip("only a target of exactly 1 is a positive")
    logits = torch.tensor([[0.7]])
    absent, present, soft = (loss(logits, torch.tensor([[t]])) for t in (0.0, 1.0, 0.3))
    torch.testing.assert_close(soft, 0.7 * absent + 0.3 * present)


def test_a_checkpoint_can_build_it_again_from_its_own_attributes(loss):
    from mlcv.methods.base import plain_arguments

    spec = plain_arguments({"loss": loss})["loss"]
    again = type(loss)(**spec["init_args"])
    assert vars(again).keys() == vars(loss).keys()
    assert plain_arguments({"loss": again})["loss"] == spec
