import pytest
import torch

from mlcv.metrics import PointingGame


def test_a_hit_is_a_maximum_in_any_box_of_a_present_class():
    game = PointingGame()
    maps = torch.zeros(2, 3, 4, 8)
    maps[0, 0, 0, 0] = 1  # the middle of that place: x 1/16, y 1/8
    maps[0, 1, 3, 7] = 1
    maps[1, 2, 2, 3] = 1
    boxes = [
        torch.tensor([[0, 0.5, 0.5, 0.5, 0.5], [0, 0.0, 0.0, 0.1, 0.2], [1, 0.0, 0.0, 0.5, 0.5]]),
        torch.tensor([[2, 0.4, 0.6, 0.1, 0.1], [1, 0.0, 0.0, 1.0, 1.0]]),
    ]
    targets = torch.tensor([[1.0, 1, 0], [0, -1, 1]])
    game.update(torch.tensor([5, 3]), maps, boxes, targets)
    assert game.compute().item() == pytest.approx(2 / 3)
    game.update(torch.tensor([3]), maps[1:], boxes[1:], targets[1:])  # a sampler's copy
    assert game.compute().item() == pytest.approx(2 / 3)
    game.update(torch.tensor([6]), maps[1:], boxes[1:], targets[1:])
    assert game.compute().item() == pytest.approx(3 / 4)


def test_present_classes_without_box_are_not_asked_for():
    game = PointingGame()
    game.update(torch.tensor([0]), torch.zeros(1, 2, 2, 2), [torch.zeros(0, 5)], torch.ones(1, 2))
    assert game.compute().isnan()
