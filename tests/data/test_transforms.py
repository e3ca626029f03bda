import numpy as np
import pytest

from mlcv.data.transforms import Augment, ImageStatistics, evaluation_transform, training_transform
from mlcv.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
PLAIN = Augment(min_scale=1.0, flip=False, strength=0.0, cutout=0.0)


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("make", [training_transform, evaluation_transform])
def test_any_image_comes_out_square_and_uint8(make, resize):
    transform = make(64, Augment(resize=resize), ImageStatistics(crop_fraction=0.875))
    for shape in ((90, 130, 3), (130, 90, 3), (64, 64, 3), (20, 300, 3)):
        image = transform(np.resize(IMAGE, shape), (0, 0, 0))
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8


def test_training_varies_with_the_epoch_and_repeats_with_the_seed():
    transform = training_transform(64, Augment(strength=1.0), ImageStatistics())
    first, again, other = (transform(IMAGE, key) for key in ((0, 1, 5), (0, 1, 5), (0, 2, 5)))
    assert (first == again).all()
    assert (first != other).any()
    another = training_transform(64, Augment(strength=1.0), ImageStatistics())
    assert (another(IMAGE, (0, 1, 5)) == first).all()


def test_evaluation_depends_on_no_seed():
    transform = evaluation_transform(64, Augment(), ImageStatistics())
    assert (transform(IMAGE, (0, 0, 0)) == transform(IMAGE, (9, 9, 9))).all()


def test_without_flip_no_image_is_mirrored():
    gradient = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    plain = training_transform(64, PLAIN, ImageStatistics())
    assert all((plain(gradient, (0, e, 0)) == gradient).all() for e in range(20))
    flipping = training_transform(64, Augment("squash", 1.0, True, 0.0, 0.0), ImageStatistics())
    mirrored = [(flipping(gradient, (0, e, 0)) == gradient[:, ::-1]).all() for e in range(40)]
    assert 5 < sum(mirrored) < 35


def test_a_decoder_may_stop_where_a_crop_would_lose_nothing():
    assert training_transform(100, Augment(min_scale=0.25), ImageStatistics()).min_side == 200
    assert evaluation_transform(100, Augment(), ImageStatistics(crop_fraction=0.5)).min_side == 200


@pytest.mark.parametrize("options", [{"min_scale": 0.0}, {"strength": 2.0}, {"cutout": -1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Augment(**options)


def test_an_interpolation_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="nearest, bilinear, bicubic, lanczos"):
        evaluation_transform(64, Augment(), ImageStatistics(interpolation="magic"))


def test_boxes_follow_a_squash_and_a_centre_crop():
    boxes = np.array([[3, 0.5, 0.25, 0.25, 0.5], [1, 0.0, 0.0, 0.1, 1.0]], np.float32)
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 40:60] = 255  # the first box
    squash = evaluation_transform(32, Augment(), ImageStatistics())
    assert squash.locate(boxes, image.shape) is boxes
    crop = evaluation_transform(32, Augment(resize="crop"), ImageStatistics(crop_fraction=0.8))
    located = crop.locate(boxes, image.shape)
    x, y, w, h = (32 * located[0, 1:]).round().astype(int)
    output = crop(image, (0,))
    assert output[y + 1 : y + h - 1, x + 1 : x + w - 1].min() > 200
    output[max(y - 1, 0) : y + h + 1, max(x - 1, 0) : x + w + 1] = 0
    assert output.max() < 60
    assert located[1, 3] == 0  # outside


def test_grey_images_go_through_every_step_as_colour_ones_do():
    """One channel and three equal ones: the same result, so that grey data sets need a third of the work."""
    augment = Augment(flip=True, strength=1.0, cutout=1.0)
    transform = training_transform(32, augment, ImageStatistics())
    grey = np.random.default_rng(0).integers(0, 256, (40, 48, 1), dtype=np.uint8)
    differing = 0
    for seed in range(150):
        one, three = transform(grey, (seed,)), transform(np.repeat(grey, 3, axis=2), (seed,))
        assert one.shape == (32, 32, 1)
        # Saturation and equalisation work on colours; rounding differs by a level or two.
        differing += np.abs(one.astype(int) - three).max() > 3
    assert differing <= 15, differing
