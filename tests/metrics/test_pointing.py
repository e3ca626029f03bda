import pytest
import torch

from mlcv.metrics import PointingGame


def test_a_hit_is_a_maximum_in_any_box_of_a_present_class():
    game = PointingGame(3)
    maps = torch.zeros(2, 3, 4, 8)
    maps[0, 0, 0, 0] = 1  # the middle of that place: x 1/16, y 1/8
    maps[0, 1, 3, 7] = 1
    maps[1, 2, 2, 3] = 1
    boxes = [
        torch.tensor([[0, 0.5, 0.5, 0.5, 0.5], [0, 0.0, 0.0, 0.1, 0.2], [1, 0.0, 0.0, 0.5, 0.5]]),
        torch.tensor([[2, 0.4, 0.6, 0.1, 0.1], [1, 0.0, 0.0, 1.0, 1.0]]),
    ]
    targets = torch.tensor([[1.0, 1, 0], [0, -1, 1]])
    game.update(maps, boxes, targets)
    assert game.hits.tolist() == [1, 0, 1]
    assert game.total.tolist() == [1, 1, 1]
    assert game.compute().item() == pytest.approx(2 / 3)


def test_present_classes_without_box_are_not_asked_for():
    game = PointingGame(2)
    game.update(torch.zeros(1, 2, 2, 2), [torch.zeros(0, 5)], torch.ones(1, 2))
    assert game.compute().isnan()
