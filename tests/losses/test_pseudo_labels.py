"""Pseudo-labels against their rule, epoch by epoch, an entry at a time."""

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import BCELoss, PseudoLabels
from tests.losses.oracles import bce


@pytest.mark.parametrize("where", ["device", "cpu"])
@pytest.mark.parametrize("priors", [None, [0.3, 0.6, 0.2]])
def test_each_step_equals_the_rule(rng, priors, where):
    targets = torch.randint(-1, 2, (24, 3), generator=rng)
    targets[:2] = torch.tensor([[0], [1]])
    targets[20:] = -1  # images without any label
    loss = PseudoLabels(0.5, 2, priors, where)
    loss.on_labels(targets, "abc")
    score, label = {}, {}
    for epoch in range(4):
        for c in range(3) if epoch >= 2 else ():
            column = targets[:, c].tolist()
            prior = priors[c] if priors else column.count(1) / (column.count(1) + column.count(0))
            candidates = [i for i in range(24) if column[i] == -1 and i in score]
            ranked = sorted(candidates, key=lambda i: -score[i][c])
            count = int(prior * len(ranked) + 0.5)
            label |= {(i, c): float(rank < count) for rank, i in enumerate(ranked)}
        loss.start_epoch(epoch)
        for index in torch.randperm(23, generator=rng)[:20].split(10):
            logits = (2 * torch.randn(10, 3, generator=rng)).half().double()
            expected = 0.0
            for i, row in zip(index.tolist(), logits.tolist(), strict=True):
                for c, z in enumerate(row):
                    if targets[i, c] >= 0:
                        expected += bce(z, targets[i, c].item())
                    elif (i, c) in label:
                        expected += 0.5 * bce(z, label[i, c])
                score[i] = row
            assert loss(logits, targets[index], index).item() == pytest.approx(expected / 10)
    assert {0.0, 1.0} == set(label.values())
    assert loss(logits, targets[index]) == BCELoss()(logits, targets[index])
    before = loss.memory["score"].clone()
    loss.eval()(logits + 1, targets[index], index)
    torch.testing.assert_close(loss.memory["score"], before, equal_nan=True)


def test_gradients_are_right(rng):
    targets = torch.randint(-1, 2, (6, 3), generator=rng)
    loss, index = PseudoLabels(0.7, 1, priors=[0.4] * 3), torch.arange(6)
    loss.on_labels(targets, "abc")
    logits = torch.randn(6, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    loss(logits, targets, index)
    loss.start_epoch(1)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets, index), logits)


def test_a_class_that_has_no_prior_gets_no_labels(caplog):
    targets = torch.tensor([[1.0, 1, -1], [0, 1, -1], [-1, -1, -1], [-1, -1, 0]])
    loss, logits, index = (
        PseudoLabels(warmup_epochs=1),
        torch.tensor([[0.0], [0], [2], [1]]).repeat(1, 3),
        torch.arange(4),
    )
    loss.on_labels(targets, ["car", "dog", "sun"])
    assert "dog, sun" in caplog.text
    loss(logits, targets, index)
    loss.start_epoch(1)
    assert loss.memory["label"][2:].tolist() == [[1, -1, -1], [0, -1, -2]]


def test_labels_that_cannot_tell_how_rare_a_class_is_are_refused():
    positives = torch.tensor([[1.0, -1], [-1, 1]])
    with pytest.raises(ConfigError, match=r"no negative.*loss\.priors.*ROLELoss"):
        PseudoLabels().on_labels(positives, "ab")
    PseudoLabels(priors=[0.5, 0.5]).on_labels(positives, "ab")
    with pytest.raises(ConfigError, match="2 numbers for 3 classes"):
        PseudoLabels(priors=[0.5, 0.5]).on_labels(torch.zeros(1, 3), "abc")


@pytest.mark.parametrize("wrong", [{"weight": -1}, {"warmup_epochs": 0}, {"priors": [1.5]}])
def test_settings_that_make_no_sense_are_told(wrong):
    with pytest.raises(ConfigError, match=f"loss.{next(iter(wrong))}"):
        PseudoLabels(**wrong)
