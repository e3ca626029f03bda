"""A loss is one graph for torch.compile, forwards and backwards, and is compiled once, not once an epoch."""

import pytest
import torch
from torch import nn

import mlcv.losses
from mlcv.losses import PUMixup, SPLCLoss
from mlcv.losses.base import ElementwiseLoss

LOSSES = [
    name
    for name in mlcv.losses.__all__
    if isinstance(cls := getattr(mlcv.losses, name), type)
    and issubclass(cls, nn.Module)
    and cls not in (ElementwiseLoss, PUMixup)
]


def case(rng):
    logits = torch.randn(6, 5, generator=rng, requires_grad=True)
    return logits, torch.randint(-1, 2, (6, 5), generator=rng).float()


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_one_graph(name, rng):
    loss, (logits, targets) = getattr(mlcv.losses, name)(), case(rng)
    if hasattr(loss, "on_labels"):
        loss.on_labels(targets, "abcde")
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, targets), loss(logits, targets))
    grads = [torch.autograd.grad(one(logits, targets), logits)[0] for one in (compiled, loss)]
    torch.testing.assert_close(*grads)


def test_mixup_is_one_graph(rng):
    mixup, network = PUMixup(), nn.Linear(4, 5)
    image, (logits, targets) = torch.randn(6, 4, generator=rng), case(rng)
    compiled = torch.compile(lambda: mixup(network, image, logits, targets), backend="aot_eager", fullgraph=True)
    assert compiled().isfinite()


def test_epochs_do_not_compile_anew(rng):
    loss, (logits, targets) = SPLCLoss(), case(rng)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(loss, backend=counter)
    for epoch in range(8):
        loss.start_epoch(epoch)
        compiled(logits, targets)
    assert counter.frame_count <= 2
