import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlcv.data.digits import DigitScenesDataModule, Scene, _source_digits, compose_scenes
from mlcv.errors import ConfigError


def test_no_source_digit_is_in_two_splits_and_all_are_used():
    parts = [_source_digits(split, seed=3)[0] for split in ("train", "val", "test")]
    rows = np.concatenate([part.reshape(len(part), -1) for part in parts])
    everything = (load_digits().images.reshape(1797, -1) * (255 / 16)).astype(np.uint8)
    assert len(rows) == 1797
    assert sorted(map(bytes, rows)) == sorted(map(bytes, everything))


def test_the_seed_decides_every_pixel():
    first, again, other = (compose_scenes("val", 50, Scene(), 64, seed) for seed in (1, 1, 2))
    assert (first.images == again.images).all()
    assert (first.states == again.states).all()
    assert (first.images != other.images).any()


def test_labels_are_the_digits_in_the_boxes_and_boxes_do_not_overlap():
    scenes = compose_scenes("train", 200, Scene(), 64, seed=0)
    for row, boxes in zip(scenes.states, scenes.boxes, strict=True):
        assert set(np.flatnonzero(row)) == set(boxes[:, 0].astype(int))
        assert 1 <= len(boxes) <= 4
        x0, y0, x1, y1 = boxes[:, 1], boxes[:, 2], boxes[:, 1] + boxes[:, 3], boxes[:, 2] + boxes[:, 4]
        assert min(x0.min(), y0.min()) >= 0
        assert max(x1.max(), y1.max()) <= 1
        for a in range(len(boxes)):
            for b in range(a):
                assert x0[a] >= x1[b] or x0[b] >= x1[a] or y0[a] >= y1[b] or y0[b] >= y1[a]


def test_a_digit_is_brighter_than_its_background():
    scenes = compose_scenes("train", 100, Scene(noise=0.0, clutter=0), 64, seed=0)
    for image, boxes in zip(scenes.images, scenes.boxes, strict=True):
        for x, y, w, h in (64 * boxes[:, 1:]).round().astype(int):
            assert image[y : y + h, x : x + w].max() > image.min() + 60


def test_scenes_of_another_size_and_channels_are_as_asked():
    data = DigitScenesDataModule(num_train=64, num_val=10, num_test=10, image_size=96, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 3, 96, 96)
    assert data.num_classes == 10


def test_turned_scenes_differ_in_the_digits_alone_and_inverted_ones_in_the_sign():
    plain, turned, inverted = (
        compose_scenes("train", 20, Scene(noise=0.0, **options), 64, seed=3)
        for options in ({}, {"turn": 40}, {"invert": True})
    )
    assert np.array_equal(inverted.images, 255 - plain.images)
    assert np.array_equal(inverted.states, plain.states)
    assert not np.array_equal(turned.images, plain.images)
    first = [scenes.boxes[0][0] for scenes in (plain, turned)]  # further ones are drawn after the first one's turn
    assert np.array_equal(*first)


@pytest.mark.parametrize("options", [{"max_digits": 0}, {"digit_size": (0.5, 0.2)}])
def test_impossible_scenes_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Scene(**options)


def test_a_canvas_too_small_for_digits_is_refused():
    with pytest.raises(ConfigError, match="image_size"):
        DigitScenesDataModule(image_size=8)
