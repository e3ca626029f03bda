"""What every loss in `mlcv.losses` must do; a new one is tested here from the moment it is exported."""

import sys
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.overrides import TorchFunctionMode

import mlcv.losses
from mlcv.losses.memory import MemoryLoss
from mlcv.losses.soft_labels import soft_label_loss
from mlcv.losses.three_way import three_way_loss
from mlcv.ops import conditional_transport

# PUMixup is a regulariser: it also needs the network and the images.
CLASSES = [getattr(mlcv.losses, name) for name in mlcv.losses.__all__ if name != "PUMixup"]
# Losses for which an unknown entry is a missing label that takes part.
USE_UNKNOWN = {"SPLCLoss", "PUMLCLoss", "ELRLoss in training", "LargeLoss", "LargeLoss in training", "EPRLoss"}
USE_UNKNOWN |= {"ROLELoss", "ROLELoss in training", "EMLoss", "EMLoss in training"}
# Losses that are not linear in the targets: for some a soft one is no positive.
HARD_POSITIVES_ONLY = {"AUCMarginLoss", "DistributionBalancedLoss", "PUMLCLoss", "ROLELoss in training", "TwoWayLoss"}
# Losses that remember numbers drawn at random for each image.
DRAW = {"ROLELoss in training"}
# Settings of losses that would else have them from the training labels.
SETTINGS = {"EPRLoss": {"expected_positives": 2.0}, "ROLELoss": {"expected_positives": 2.0}}


# Losses that remember entries, as a first step of training has them, with their indices.
REMEMBERING = [cls for cls in CLASSES if issubclass(cls, MemoryLoss)]


def in_training(cls):
    class InTraining(cls):
        def __call__(self, logits, targets):
            with torch.autocast("cpu", enabled=False):
                rest = torch.tensor([0.0, 1.0])[:, None].expand(2, targets.shape[1])  # other images of the data
                self.on_labels(torch.cat([targets, rest]), [str(n) for n in range(targets.shape[1])])
            return super().__call__(logits, targets, torch.arange(len(targets)))

    InTraining.__name__ = f"{cls.__name__} in training"
    return InTraining


def with_labels(cls):
    """A loss that learns from training labels before training; at each call it is shown those of its first batch."""
    if issubclass(cls, MemoryLoss) or not hasattr(cls, "on_labels"):
        return cls

    class WithLabels(cls):
        first = None

        def __call__(self, logits, targets):
            type(self).first = targets if self.first is None else self.first
            with torch.autocast("cpu", enabled=False):
                self.on_labels(self.first, [str(n) for n in range(targets.shape[1])])
            return super().__call__(logits, targets)

    WithLabels.__name__ = cls.__name__
    return WithLabels


@pytest.fixture(
    params=[*CLASSES, *map(in_training, REMEMBERING)],
    ids=lambda cls: cls.__name__,
)
def loss(request):
    return with_labels(request.param)(**SETTINGS.get(request.param.__name__.split()[0], {}))


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


class _LeftToAutocast(TorchFunctionMode):
    """Operations whose precision autocast may choose."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if torch.is_autocast_enabled("cpu") and isinstance(result, torch.Tensor) and result.is_floating_point():
            self.found.append(func.__name__)
        return result


def left_to_autocast(call):
    """Which operations of a call autocast may lower; its value must be float32 and the same as without."""
    with torch.autocast("cpu", torch.bfloat16), _LeftToAutocast() as mode:
        inside = call()
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, call())
    return mode.found


def test_leaves_no_operation_to_autocast(loss, rng, monkeypatch):
    """Some are lowered on one device and not on another: so no device's rules are asked."""
    call = partial(loss, *case(rng))
    assert left_to_autocast(call) == []
    for name in [name for name in sys.modules if name.startswith("mlcv.losses.")]:
        monkeypatch.setattr(f"{name}.full_precision", lambda _: nullcontext(), raising=False)
    assert left_to_autocast(call)


def test_functions_leave_no_operation_to_autocast(rng):
    scores, other = torch.randn(2, 4, 5, generator=rng)
    _, targets = case(rng, 4, 5)
    for call in (
        partial(soft_label_loss, scores, other),
        partial(soft_label_loss, scores, other, single_label=True),
        partial(three_way_loss, torch.stack([scores, other, scores], dim=2), targets),
        partial(conditional_transport, torch.randn(2, 7, 5, generator=rng), scores, implementation="reference"),
        partial(conditional_transport, torch.randn(2, 7, 5, generator=rng), scores, implementation="blocked"),
    ):
        assert left_to_autocast(call) == []


def test_bfloat16_logits_give_the_value_of_the_same_numbers_in_float32(loss, rng):
    logits, targets = case(rng, dtype=torch.bfloat16)
    torch.testing.assert_close(loss(logits, targets), loss(logits.float(), targets))


def test_the_order_of_images_does_not_matter(loss, rng):
    if type(loss).__name__ in DRAW:
        pytest.skip("each image has numbers of its own")
    logits, targets = case(rng)
    order = torch.randperm(len(logits), generator=rng)
    torch.testing.assert_close(loss(logits[order], targets[order]), loss(logits, targets))


def test_an_unlabeled_batch_costs_nothing(loss, rng):
    if type(loss).__name__ in USE_UNKNOWN:
        pytest.skip("its definition uses unknown entries")
    logits, targets = case(rng)
    loss(logits, targets)  # some look at the labels of all images first
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
        pytest.skip("it is not linear in the targets")
    logits = torch.tensor([[0.7]])
    absent, present, soft = (loss(logits, torch.tensor([[t]])) for t in (0.0, 1.0, 0.3))
    torch.testing.assert_close(soft, 0.7 * absent + 0.3 * present)


def test_a_checkpoint_can_build_it_again_from_its_own_attributes(loss):
    from mlcv.methods.base import plain_arguments

    spec = plain_arguments({"loss": loss})["loss"]
    again = type(loss)(**spec["init_args"])
    assert vars(again).keys() == vars(loss).keys()
    assert plain_arguments({"loss": again})["loss"] == spec
