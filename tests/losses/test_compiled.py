"""A loss is one graph for torch.compile, forwards and backwards, and is compiled once, not once an epoch."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import mlcv.losses
from mlcv.losses import PUMixup, SPLCLoss
from mlcv.losses.base import ElementwiseLoss
from tests.contracts.test_losses import SETTINGS

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
    loss, (logits, targets) = getattr(mlcv.losses, name)(**SETTINGS.get(name, {})), case(rng)
    if hasattr(loss, "on_labels"):
        loss.on_labels(targets, "abcde")
    compiled = torch.compile(deepcopy(loss), backend="aot_eager", fullgraph=True)  # which may learn with each call
    torch.testing.assert_close(compiled(logits, targets), loss(logits, targets))
    grads = [torch.autograd.grad(one(logits, targets), logits)[0] for one in (compiled, loss)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_learns_from_step_to_step_is_the_same(name, rng):
    """A compiled step may compute in its backward pass again what it has seen before it wrote."""
    _, labels = case(rng)
    found = []
    steps = [torch.randn(4, 5, generator=rng) for _ in range(4)]
    indices = [torch.randperm(6, generator=rng)[:4] for _ in steps]
    for compile_ in (lambda one: one, lambda one: torch.compile(one, backend="aot_eager")):
        loss = getattr(mlcv.losses, name)(**SETTINGS.get(name, {}))
        if hasattr(loss, "on_labels"):
            loss.on_labels(labels, "abcde")
        call, gradients = compile_(loss), []
        for epoch, (logits, index) in enumerate(zip(steps, indices, strict=True)):
            if hasattr(loss, "start_epoch"):
                loss.start_epoch(epoch)
            leaf = logits.clone().requires_grad_()
            remembered = [index] if hasattr(loss, "memory") else []
            gradients += torch.autograd.grad(call(leaf, labels[index], *remembered), leaf)
        found.append(gradients)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


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
