"""The two-way loss against its formula in Python's floats, and the value of the authors' code."""

import math

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import TwoWayLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.float64)


def one_way(lines, pos_temperature, neg_temperature):
    """Of the classes, or of the images, each a list of (logit, target)."""
    found = []
    for line in lines:
        if not any(y > 0 for _, y in line):
            continue
        above = sum((1 - y) * math.exp(z / neg_temperature) for z, y in line if y >= 0)
        below = sum(y * math.exp(-z / pos_temperature) for z, y in line if y >= 0)
        found.append(math.log1p(above**neg_temperature * below**pos_temperature))
    return sum(found) / max(len(found), 1)


def oracle(logits, targets, *temperatures):
    images = [list(zip(*both, strict=True)) for both in zip(logits.tolist(), targets.tolist(), strict=True)]
    return one_way(images, *temperatures) + one_way(list(zip(*images, strict=True)), *temperatures)


def test_gives_the_value_of_the_authors_code():
    assert TwoWayLoss()(LOGITS, TARGETS).item() == pytest.approx(2.275812, abs=1e-6)


@pytest.mark.parametrize(("images", "classes"), [(1, 1), (1, 6), (6, 1), (7, 5), (20, 12)])
@pytest.mark.parametrize("temperatures", [(4.0, 1.0), (1.0, 2.5)])
def test_equals_the_formula(images, classes, temperatures, rng):
    logits = 3 * torch.randn(images, classes, generator=rng, dtype=torch.float64)
    targets = torch.randint(-1, 2, (images, classes), generator=rng).double()
    for given in (targets, targets.clamp(max=0), targets.abs(), torch.where(targets > 0, 0.3, targets)):
        value = TwoWayLoss(*temperatures)(logits, given).item()
        assert value == pytest.approx(oracle(logits, given, *temperatures), rel=1e-9)


def test_unknown_entries_can_be_negatives(rng):
    logits, targets = torch.randn(6, 5, generator=rng), torch.randint(-1, 2, (6, 5), generator=rng).float()
    assert TwoWayLoss(unknown="negative")(logits, targets) == TwoWayLoss()(logits, targets.clamp(min=0))


def test_gradients_pass_gradcheck(rng):
    logits = torch.randn(5, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (5, 4), generator=rng)
    targets[:, 0], targets[:, 1], targets[4] = 1, 0, -1  # without negatives, without positives, without anything
    assert torch.autograd.gradcheck(lambda z: TwoWayLoss()(z, targets), logits)


def test_a_class_or_image_without_negatives_costs_nothing_and_counts():
    """As the authors' mean has it."""
    logits, targets = torch.tensor([[0.3, -0.2], [0.9, 0.4]]), torch.tensor([[1.0, 1], [1, 0]])
    column, row = [[(-0.2, 1), (0.4, 0)]], [[(0.9, 1), (0.4, 0)]]
    expected = one_way(column, 4, 1) / 2 + one_way(row, 4, 1) / 2
    assert TwoWayLoss()(logits, targets).item() == pytest.approx(expected, rel=1e-5)
    assert TwoWayLoss()(logits, torch.ones(2, 2)) == 0


@pytest.mark.parametrize(
    ("wrong", "name"), [({"pos_temperature": 0}, "pos_temp"), ({"neg_temperature": -1.0}, "neg_temp"),
                        ({"unknown": "smoothed"}, "loss.unknown is ignore or negative")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_told(wrong, name):
    with pytest.raises(ConfigError, match=name):
        TwoWayLoss(**wrong)
