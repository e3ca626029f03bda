"""Entropy maximisation and soft labels against their rule, epoch by epoch, an entry at a time."""

import math

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import EMLoss
from tests.losses.oracles import bce, sigmoid

# Four images, three classes, one positive each; values of the authors' rule, means over entries.
LOGITS = torch.tensor([[2.0, -1, 0.5], [0.3, 0.8, -2], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
SINGLE = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]])


def entropy(z):
    p = sigmoid(z)
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_known_values():
    loss = EMLoss(0.1, 0.9)
    assert loss(LOGITS, SINGLE).item() / 3 == pytest.approx(0.090603, abs=4e-5)
    loss.on_labels(SINGLE, "abc")
    loss.memory["soft"][0, 1] = 0.05
    assert loss(LOGITS, SINGLE, torch.arange(4)).item() / 3 == pytest.approx(0.122698, abs=4e-5)


@pytest.mark.parametrize("where", ["device", "cpu"])
@pytest.mark.parametrize(("apl", "trust"), [(True, True), (True, False), (False, True)])
def test_each_step_equals_the_rule(rng, apl, trust, where):
    targets = torch.randint(-1, 2, (20, 3), generator=rng).double()
    observed = (targets >= 0) if trust else targets > 0
    loss = EMLoss(0.2, 0.7, 2, apl, 0.8, trust, where)
    loss.on_labels(targets, "abc")
    loss.plan_epochs(5)
    score, soft = {}, {}
    for epoch in range(5):
        for c in range(3) if apl and epoch >= 2 else ():
            count = int(0.8 * int((~observed[:, c]).sum()) / 3)
            waiting = [i for i in range(20) if not observed[i, c] and (i, c) in score and (i, c) not in soft]
            for i in sorted(waiting, key=lambda i: score[i, c])[:count]:
                soft[i, c] = score[i, c]
        loss.start_epoch(epoch)
        for index in torch.randperm(20, generator=rng)[:16].split(8):
            logits = 2 * torch.randn(8, 3, generator=rng, dtype=torch.float64)
            expected = 0.0
            for i, row in zip(index.tolist(), logits.tolist(), strict=True):
                for c, z in enumerate(row):
                    if observed[i, c]:
                        expected += bce(z, targets[i, c].item())
                    else:
                        expected += 0.7 * bce(z, soft[i, c]) if (i, c) in soft else -0.2 * entropy(z)
                    score[i, c] = torch.tensor(sigmoid(z)).half().item()
            assert loss(logits, targets[index], index).item() == pytest.approx(expected / 8)
    assert bool(soft) == apl


def test_gradients_are_right_also_where_the_network_is_undecided(rng):
    logits = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    logits[0] = 0
    targets = torch.randint(-1, 2, (5, 3), generator=rng)
    loss = EMLoss(0.3)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits.requires_grad_())


def test_evaluation_and_unread_images_are_not_remembered(rng):
    loss = EMLoss()
    loss.on_labels(SINGLE, "abc")
    loss(LOGITS[:2], SINGLE[:2], torch.tensor([-1, 2]))
    loss.eval()(LOGITS, SINGLE, torch.arange(4))
    assert (loss.memory["score"] >= 0).any(dim=1).tolist() == [False, False, True, False]


def test_confident_entries_stay_finite_and_an_empty_batch_is_nothing():
    loss = EMLoss()
    loss.on_labels(SINGLE, "abc")
    loss.memory["soft"][1:] = 0.01
    logits = torch.tensor([[1e4, -1e4, 0]], dtype=torch.bfloat16).repeat(4, 1).requires_grad_()
    loss(logits, SINGLE, torch.arange(4)).backward()
    assert logits.grad.isfinite().all()
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == 0


def test_settings_that_make_no_sense_are_told():
    for wrong in ({"alpha": -1}, {"beta": -1}, {"warmup_epochs": 0}, {"negative_share": 1.5}):
        with pytest.raises(ConfigError, match=f"loss.{next(iter(wrong))}"):
            EMLoss(**wrong)
    with pytest.raises(ConfigError, match="max_epochs"):
        EMLoss().plan_epochs(None)
    EMLoss(apl=False).plan_epochs(None)
