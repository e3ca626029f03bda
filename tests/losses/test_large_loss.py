"""Large-loss modification against its rule, epoch by epoch, an entry at a time."""

import pytest
import torch

from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import BCELoss, LargeLoss
from tests.losses.oracles import bce
from tests.losses.test_memory import RUN

# Four images, three classes, one positive each; values of the authors' rule in float64, averaged over entries.
LOGITS = torch.tensor([[2.0, -1, 0.5], [0.3, 0.8, -2], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
SINGLE = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]])

AMOUNT = {"rate": 0.15, "missing": 0.47}  # no count of entries times these is half a number


def oracle(logits, targets, k, mode, trust, flipped):
    """A batch's loss; `flipped` (B rows of booleans) is changed in place."""
    images, losses, doubted = logits.tolist(), {}, []
    for i, row in enumerate(images):
        for c, z in enumerate(row):
            t = targets[i, c].item()
            losses[i, c] = bce(z, 1.0 if flipped[i][c] else max(t, 0.0))
            if not flipped[i][c] and (t == -1 or (t == 0 and not trust)):
                doubted.append((i, c))
    doubted.sort(key=lambda entry: -losses[entry])
    for i, c in doubted[:k]:
        losses[i, c] = 0.0 if mode == "reject" else bce(images[i][c], 1.0)
        flipped[i][c] = mode == "permanent"
    return sum(losses.values()) / len(images)


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("mode", ["reject", "correct", "permanent"])
@pytest.mark.parametrize("how", ["rate", "missing"])
def test_each_step_equals_the_rule(rng, mode, trust, how):
    targets = torch.randint(-1, 2, (12, 4), generator=rng).double()
    loss = LargeLoss(mode, **{how: AMOUNT[how]}, trust_negatives=trust)
    loss.on_labels(targets, "abcd")
    loss.plan_epochs(4)
    flipped, changes = [[False] * 4 for _ in range(12)], 0
    for epoch in range(4):
        loss.start_epoch(epoch)
        for index in torch.randperm(12, generator=rng).split(6):
            logits = 2 * torch.randn(6, 4, generator=rng, dtype=torch.float64)
            unobserved = int((targets[index] == -1).sum() + (not trust) * (targets[index] == 0).sum())
            share = AMOUNT[how] * (1 if mode == "permanent" else epoch)
            k = int(share * 24 + 0.5) if how == "rate" else int(share / 3 * unobserved + 0.5)
            k *= epoch > 0
            mine = [flipped[i] for i in index]
            expected = oracle(logits, targets[index], k, mode, trust, mine)
            assert loss(logits, targets[index], index).item() == pytest.approx(expected)
            changes += k
    assert changes
    if mode == "permanent":
        assert loss.memory["flipped"].tolist() == flipped
    loss.eval()
    assert loss(logits, targets[index], index).item() == pytest.approx(BCELoss("negative")(logits, targets[index]))


@pytest.mark.parametrize(("mode", "value"), [("reject", 0.258604), ("correct", 0.361092), ("permanent", 0.361092)])
def test_known_values(mode, value):
    loss = LargeLoss(mode, rate=0.25)
    loss.on_labels(SINGLE, "abc")
    loss.start_epoch(1)
    assert loss(LOGITS, SINGLE, torch.arange(4)).item() / 3 == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("mode", ["reject", "correct", "permanent"])
def test_of_equal_losses_only_as_many_change_as_are_asked_for(mode):
    loss, targets = LargeLoss(mode, rate=0.25), torch.full((2, 4), -1.0)
    loss.on_labels(targets, "abcd")
    loss.start_epoch(1)
    logits = torch.ones(2, 4, requires_grad=True)
    loss(logits, targets, torch.arange(2)).backward()
    assert (logits.grad != logits.grad[1, 3]).flatten().tolist() == [True, True, *[False] * 6]


def test_gradients_of_the_unchanged_and_the_changed_are_right(rng):
    logits = torch.randn(5, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (5, 3), generator=rng)
    loss = LargeLoss("correct", rate=0.2)
    loss.start_epoch(1)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits)


def test_two_images_lose_nothing_that_so_small_a_share_does_not_ask_for():
    loss, logits, targets = LargeLoss(), torch.ones(2, 20), torch.full((2, 20), -1.0)
    loss.start_epoch(1)
    assert loss(logits, targets) == BCELoss("negative")(logits, targets)


@pytest.mark.parametrize("mode", ["reject", "correct", "permanent"])
def test_odd_batches_in_later_epochs_are_finite(mode):
    for shape, fill in (((0, 3), -1), ((2, 1), -1), ((2, 3), 1), ((2, 3), 0)):
        targets, loss = torch.full(shape, float(fill)), LargeLoss(mode, rate=1.0)
        loss.on_labels(targets, "abc")
        loss.start_epoch(1)
        logits = torch.full(shape, 1e4, dtype=torch.bfloat16, requires_grad=True)
        loss(logits, targets, torch.arange(shape[0])).backward()
        assert logits.grad.isfinite().all()
        if fill == 0:
            assert (logits.grad > 0).all()  # trusted


def test_what_does_not_fit_together_is_told():
    for wrong in ({"mode": "flip"}, {"rate": 2.0}, {"missing": -0.1}, {"rate": 0.1, "missing": 0.1}):
        with pytest.raises(ConfigError, match=f"loss.{next(iter(wrong))}"):
            LargeLoss(**wrong)
    with pytest.raises(ConfigError, match="max_epochs"):
        LargeLoss(missing=0.1).plan_epochs(-1)
    with pytest.raises(ConfigError, match="plan_epochs"):
        LargeLoss(missing=0.1).start_epoch(0)
    loss = LargeLoss("permanent")
    loss.start_epoch(1)
    with pytest.raises(ConfigError, match="index"):
        loss(LOGITS, SINGLE)


def test_a_training_tells_how_many_epochs_it_has(tmp_path, capsys):
    more = ["--model.loss=LargeLoss", "--model.loss.mode=permanent", "--model.loss.missing=0.2"]
    run = ["fit", *[word for word in RUN if "loss" not in word], *more, f"--run_dir={tmp_path}"]
    run += ["--data.protocol.positives_only=true", "--model.optim.schedule=constant"]
    assert main([*run, "--trainer.max_epochs=-1", "--trainer.max_steps=1"]) == 2
    assert "trainer.max_epochs must say" in capsys.readouterr().err
    assert main([*run, "--trainer.max_epochs=2"]) == 0
    memory = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["memory"]
    assert 0.1 < memory["flipped"].float().mean() < 0.2  # 0.2 of the unobserved, which are most
