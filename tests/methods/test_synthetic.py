"""Synthetic sets: what is known of a crop, which crops are chosen, and pixels that move as far as they may."""

import math

import pytest
import torch
from torch import nn

from mlcv.errors import ConfigError
from mlcv.methods.synthetic import (
    choose_crops,
    crop_targets,
    lost_information,
    teacher_gap,
    total_variation,
    update_pixels,
)
from mlcv.methods.teacher import OnlineTeacher


def test_a_crop_has_what_its_image_has_and_the_teacher_sees():
    probs = torch.tensor([[[0.9, 0.2, 0.9, 0.9], [0.4, 0.8, 0.1, 0.9]]])
    targets = torch.tensor([[1.0, 1.0, 0.0, -1.0]])
    assert crop_targets(probs, targets).tolist() == [[[1, -1, 0, -1], [-1, 1, 0, -1]]]


def test_each_class_has_its_cheapest_crops_and_no_image_gives_two():
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(30, 4, 3, generator=generator)
    targets = torch.randint(-1, 2, (30, 3), generator=generator).float()
    chosen = choose_crops(probs, targets, per_class=4)
    assert len(set(chosen.images.tolist())) == len(chosen.images)
    assert torch.bincount(chosen.classes, minlength=3).max() <= 4
    own = chosen.targets.gather(1, chosen.classes[:, None])
    assert (own == 1).all()

    def cost(m, k):
        terms = []
        for p, t in zip(probs[m, k].tolist(), targets[m].tolist(), strict=True):
            if t == 0:
                terms.append(-math.log(1 - p))
            elif t == 1 and p >= 0.5:
                terms.append(-math.log(p))
        return sum(terms) / max(len(terms), 1)

    # The class that is served first gets the cheapest of all crops that show it.
    first = int(chosen.classes[0])
    candidates = {
        m: min(cost(m, k) for k in range(4) if probs[m, k, first] >= 0.5)
        for m in range(30)
        if targets[m, first] == 1 and (probs[m, :, first] >= 0.5).any()
    }
    wanted = sorted(candidates.values())[:4]
    mine = chosen.classes == first
    found = [cost(m, k) for m, k in zip(chosen.images[mine].tolist(), chosen.crops[mine].tolist(), strict=True)]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_a_teacher_that_sees_nothing_is_refused():
    with pytest.raises(ConfigError, match="sees none of the labels"):
        choose_crops(torch.zeros(2, 3, 2), torch.ones(2, 2), 1)


@pytest.fixture
def pair(rng):
    """A projector and a teacher that disagree, both of images in [0, 1]."""
    pixels = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)) for _ in range(2)]
    return [OnlineTeacher(net, "test_resnet", None, pixels) for net in nets]


def test_pixels_move_within_their_range_until_projector_and_teacher_agree(pair, rng):
    image = torch.rand(3, 3, 8, 8, generator=rng)
    objective = teacher_gap(*pair)
    updated = update_pixels(image, objective, steps=40, lr=0.02, tv_weight=0.0, most=0.2)
    assert objective(updated) < objective(image) / 2
    assert ((updated >= 0) & (updated <= 1)).all()
    assert (updated - image).abs().max() <= 0.2 + 1e-6
    assert all(p.grad is None for teacher in pair for p in teacher.net.parameters())
    alone = update_pixels(image[:1], objective, steps=40, lr=0.02, tv_weight=0.0, most=0.2)
    torch.testing.assert_close(alone, updated[:1], rtol=1e-3, atol=1e-3)


def test_total_variation_is_the_mean_step_and_weighs_against_noise(rng):
    image = torch.rand(2, 3, 5, 7, generator=rng)
    down = (image[:, :, 1:] - image[:, :, :-1]).abs().mean()
    across = (image[..., 1:] - image[..., :-1]).abs().mean()
    torch.testing.assert_close(total_variation(image), down + across)
    smooth = update_pixels(image, lambda x: 0 * x.sum(), steps=20, tv_weight=1.0, most=0.5)
    assert total_variation(smooth) < 0.7 * total_variation(image)


def test_an_image_without_detail_loses_none(rng):
    objective = lost_information(lambda image: image.flatten(1))
    assert objective(torch.full((1, 3, 8, 8), 0.3)) < 1e-10
    noisy = torch.rand(2, 3, 8, 8, generator=rng)
    updated = update_pixels(noisy, objective, steps=30, lr=0.02, tv_weight=0.0, most=0.3)
    assert objective(updated) < objective(noisy) / 2


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"tv_weight": -1.0}, {"most": 1.5}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="pixels: steps >= 1"):
        update_pixels(torch.rand(1, 3, 4, 4), lambda x: x.sum(), **{"steps": 1, **wrong})
