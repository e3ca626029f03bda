"""Two processes with a part of the batch each, against one with the whole; gloo, on this machine."""

from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import mlcv.losses
from mlcv.distributed import gathered, global_sum
from mlcv.losses import PUMLCLoss
from tests.callbacks.test_cleaner import Work

ROOT = Path(__file__).parents[1]
REMEMBERING = [
    ("ELRLoss", {"lam": 0.5}),
    ("ImpreciseLoss", {"momentum": 0.5}),
    *[("LargeLoss", {"mode": mode, "rate": 0.1}) for mode in ("reject", "correct", "permanent")],
    ("EMLoss", {"warmup_epochs": 1}),
    ("EPRLoss", {}),
    ("PseudoLabels", {"warmup_epochs": 1}),
    ("ROLELoss", {}),
    ("SelectiveLoss", {"topk": 0.5, "threshold": 0.6}),
]
# Losses that need the whole batch, and what they keep of it in their buffers.
WHOLE_BATCH = [("AUCMarginLoss", {}), ("TwoWayLoss", {}), ("TwoWayLoss", {"unknown": "negative"})]


def batch(seed, images):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(images, 6, generator=rng), torch.randint(-1, 2, (images, 4), generator=rng).float()


def network():
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def join(rank, file):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)


def step(rank, file, seed, parts, sync):
    join(rank, file)
    image, targets = (x.split(parts)[rank] for x in batch(seed, sum(parts)))
    model = DistributedDataParallel(network())
    loss = PUMLCLoss(0.55, 0.8, sync=sync)(model(image), targets)
    loss.backward()
    torch.distributed.destroy_process_group()
    return loss.detach(), model.module.weight.grad


def product(rank, file):
    join(rank, file)
    mine = torch.tensor([1.0 + rank, 3.0], requires_grad=True)
    (global_sum(mine) ** 2).sum().backward()
    torch.distributed.destroy_process_group()
    return mine.grad


STEPS, IMAGES = 3, 20


def remembering(name, **settings):
    """A loss that has seen the labels of all images, those labels, and the images of each step."""
    rng = torch.Generator().manual_seed(1)
    targets = torch.randint(-1, 2, (IMAGES, 4), generator=rng).float()
    loss = getattr(mlcv.losses, name)(**settings)
    if hasattr(loss, "on_labels"):
        loss.on_labels(targets, "abcd")
    return loss, targets, [torch.randperm(IMAGES, generator=rng)[:16] for _ in range(STEPS)]


def train(name, settings, model, seed, part):
    """Gradients of some steps, what the loss remembers after them, its buffers; `part` cuts out a process's images."""
    loss, targets, steps = remembering(name, **settings)
    if hasattr(loss, "plan_epochs"):
        loss.plan_epochs(STEPS)
    image, gradients = torch.randn(IMAGES, 6, generator=torch.Generator().manual_seed(seed)), []
    for number, index in enumerate(steps):
        if hasattr(loss, "start_epoch"):
            loss.start_epoch(number)
        mine = part(index)
        model.zero_grad()
        remembered = (mine,) if hasattr(loss, "memory") else ()
        loss(model(image[mine]), targets[mine], *remembered).backward()
        gradients.append(next(model.parameters()).grad.clone())
    return gradients, loss.memory.state() if hasattr(loss, "memory") else {}, dict(loss.named_buffers())


def train_on_two(rank, file, name, settings, seed, parts):
    join(rank, file)
    found = train(name, settings, DistributedDataParallel(network()), seed, lambda index: index.split(parts)[rank])
    torch.distributed.destroy_process_group()
    return found


@pytest.fixture
def on_two(python, tmp_path):
    """What a function of this file returns in each of two processes that have met."""

    def run(function, *arguments):
        call = f"{function.__name__}(rank, {str(tmp_path / 'rendezvous')!r}, *{arguments!r})"
        code = f"import sys, torch; from tests.test_distributed import *; rank = int(sys.argv[1]); found = {call}"
        code += f"; torch.save(found, {str(tmp_path)!r} + f'/{{rank}}.pt')"
        started = [python.start("-c", code, rank, cwd=ROOT) for rank in range(2)]
        for process in started:
            assert process.wait(120) == 0, process.stderr
        return [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    return run


@pytest.mark.parametrize("parts", [(8, 8), (5, 11)])
def test_pu_loss_on_two_processes_has_the_gradients_of_one(on_two, parts, seed):
    both = on_two(step, seed, parts, True)
    image, targets = batch(seed, 16)
    model = network()
    loss = PUMLCLoss(0.55, 0.8)(model(image), targets)
    loss.backward()
    for value, gradient in both:
        torch.testing.assert_close(value, loss.detach(), atol=1e-5, rtol=0)
        torch.testing.assert_close(gradient, model.weight.grad, atol=1e-5, rtol=0)


def test_without_sync_each_process_has_its_own_statistics(on_two, seed):
    both = on_two(step, seed, (8, 8), False)
    parts = zip(*(x.split(8) for x in batch(seed, 16)), strict=True)
    for (value, _), (image, targets) in zip(both, parts, strict=True):
        alone = PUMLCLoss(0.55, 0.8)(network()(image), targets)
        torch.testing.assert_close(value, alone.detach())


def test_a_global_sums_gradient_is_summed_over_processes(on_two):
    # Each of two losses is (1 + 2)^2 + (3 + 3)^2.
    for gradient in on_two(product):
        assert gradient.tolist() == [2 * 2 * 3, 2 * 2 * 6]


@pytest.mark.parametrize(("name", "settings"), REMEMBERING)
def test_a_loss_with_a_memory_learns_and_remembers_on_two_processes_what_it_does_on_one(on_two, name, settings, seed):
    gradients, memory, buffers = train(name, settings, network(), seed, lambda index: index)
    for theirs, remembered, kept in on_two(train_on_two, name, settings, seed, (8, 8)):
        torch.testing.assert_close(theirs, gradients, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(kept, buffers)
        assert remembered.keys() == memory.keys()
        for key in memory.keys() - {"labels"}:
            torch.testing.assert_close(remembered[key][:-1].float(), memory[key][:-1].float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("parts", [(8, 8), (1, 15)])
@pytest.mark.parametrize(("name", "settings"), WHOLE_BATCH)
def test_a_loss_over_the_whole_batch_is_on_two_processes_what_it_is_on_one(on_two, name, settings, parts, seed):
    gradients, _, kept = train(name, settings, network(), seed, lambda index: index)
    assert all(gradient.any() for gradient in gradients)
    for theirs, _, buffers in on_two(train_on_two, name, settings, seed, parts):
        torch.testing.assert_close(theirs, gradients, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(buffers, kept)


def clean(seed, part):
    """What a Cleaner remembers after some steps, and what it drops then."""
    torch.manual_seed(seed)
    targets, image = torch.randint(-1, 2, (IMAGES, 3)).float(), torch.randn(IMAGES, 5)
    work = Work(targets, prototypes=True, clean="all", min_entries=5)
    steps = [torch.randperm(IMAGES)[:16] for _ in range(STEPS)]
    for index in steps:
        mine = part(index)
        work.step(image[mine], mine)
    work.cleaner.refit()
    return work.cleaner.state_dict()


def clean_on_two(rank, file, seed, parts):
    join(rank, file)
    found = clean(seed, lambda index: index.split(parts)[rank])
    torch.distributed.destroy_process_group()
    return found


def test_a_cleaner_drops_on_two_processes_what_it_does_on_one(on_two, seed):
    expected = clean(seed, lambda index: index)
    for found in on_two(clean_on_two, seed, (5, 11)):
        torch.testing.assert_close(found["sums"], expected["sums"])
        for name in expected["memory"].keys() - {"labels"}:
            torch.testing.assert_close(found["memory"][name][:-1].float(), expected["memory"][name][:-1].float(),
                                       atol=1e-3, rtol=0)  # fmt: skip


DTYPES = [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64,
          torch.float16, torch.bfloat16, torch.float32, torch.float64]  # fmt: skip


def rows_of(rank, file):
    join(rank, file)
    found = (
        [gathered(torch.full((rank * 2 + 1, 3), rank, dtype=dtype)) for dtype in DTYPES],
        gathered(torch.zeros(0, 2)),
    )
    torch.distributed.destroy_process_group()
    return found


def test_rows_of_batches_of_all_sizes_and_types_are_gathered(on_two):
    for of_each_type, none in on_two(rows_of):
        assert [rows.dtype for rows in of_each_type] == DTYPES
        assert all(rows.tolist() == [[0] * 3] + [[1] * 3] * 3 for rows in of_each_type)
        assert none.shape == (0, 2)


def test_alone_a_tensor_is_its_own_sum():
    tensor = torch.randn(3)
    assert global_sum(tensor) is tensor
