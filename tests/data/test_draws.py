"""What is drawn for a training image: as often and as far as documented, and the same at every decoded size."""

import math
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mlcv.data.images import read_image
from mlcv.data.items import Files
from mlcv.data.samples import LabeledImages, MultiLabelDataset
from mlcv.data.transforms import Augment, ImageStatistics, Transform, training_transform

PLAIN = {"min_scale": 1.0, "flip": False, "strength": 0.0, "cutout": 0.0}


def build(size=64, **options):
    return training_transform(size, Augment(**{**PLAIN, **options}), ImageStatistics())


def smooth(height, width, seed=0):
    """A picture without fine detail, of which any size shows the same."""
    rough = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path, pixels, turned=1):
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(pixels).save(path, quality=95, exif=exif)
    return path


# How often and how far


def fitting(least, aspect, count):
    """Shares of the area, uniform and drawn with a shape of which the logarithm is, of the windows that fit."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(least, 1, count)
    ratios = np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), count))
    is_in = (shares * ratios / aspect <= 1) & (shares / ratios * aspect <= 1)
    return shares[is_in]


def test_the_window_has_the_area_and_shape_that_are_promised():
    transform = build(min_scale=0.25)
    windows = [transform.draw((0, 0, n)).window(3000, 4000) for n in range(2000)]
    sides = np.array([(right - left, bottom - top) for left, top, right, bottom in windows])
    shares = sides.prod(axis=1) / 12e6
    ratios = sides[:, 0] / sides[:, 1]
    assert all(0 <= left < right <= 4000 and 0 <= top < bottom <= 3000 for left, top, right, bottom in windows)
    assert 0.249 < shares.min() < 0.26
    assert 0.97 < shares.max() <= 1
    assert abs(shares.mean() - np.mean(fitting(0.25, 4 / 3, 4000))) < 0.02
    assert abs(shares.std() - np.std(fitting(0.25, 4 / 3, 4000))) < 0.02
    assert 0.749 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.334
    lefts = [left / (4000 - (right - left)) for left, _, right, _ in windows if right - left < 3900]
    assert abs(np.mean(lefts) - 0.5) < 0.03  # anywhere
    assert abs(np.std(lefts) - math.sqrt(1 / 12)) < 0.02


def test_half_of_the_images_are_mirrored_and_each_kind_is_drawn_for_a_quarter():
    transform = build(flip=True, strength=1.0)
    draws = [transform.draw((1, 2, n)) for n in range(4000)]
    assert abs(np.mean([draw.is_mirrored for draw in draws]) - 0.5) < 0.03
    kinds = Counter(type(step).__name__ for draw in draws for step in draw.colours)
    assert set(kinds) == {"ColorJitter", "RandomGamma", "Posterize", "Sharpen", "Equalize"}
    assert all(abs(count / 4000 - 0.25) < 0.03 for count in kinds.values())
    # Two of eight kinds: without geometry in 5 x 4 of 8 x 7 cases.
    assert abs(np.mean([draw.matrix is None for draw in draws]) - 20 / 56) < 0.03
    assert abs(np.mean([len(draw.colours) == 0 for draw in draws]) - 6 / 56) < 0.02


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_shear_turn_and_shift_reach_as_far_as_promised(strength):
    size = 200
    transform = build(size, strength=strength)
    found = {"shear": [], "turn": [], "shift": []}
    for n in range(3000):
        draw = transform.draw((n,))
        if draw.matrix is None or len(draw.colours) != 1:
            continue
        (a, b, x), (c, d, y), last = draw.matrix.tolist()
        assert last == [0, 0, 1]
        if (a, b, c, d) == (1, 0, 0, 1):
            found["shift"] += [x / size, y / size]
            continue
        # The middle stays where it is.
        middle = (size - 1) / 2
        assert draw.matrix @ [middle, middle, 1] == pytest.approx([middle, middle, 1])
        if a == d == 1:
            found["shear"] += [math.degrees(math.atan(b)), math.degrees(math.atan(c))]
        else:
            assert (a, b) == (pytest.approx(d), pytest.approx(-c))
            found["turn"].append(math.degrees(math.atan2(b, a)))
    for kind, most in (("shear", 17.0), ("turn", 30.0), ("shift", 0.3)):
        values = np.array(found[kind]) / (most * strength)
        assert len(values) > 300
        assert np.abs(values).max() <= 1
        assert values.min() < -0.95
        assert values.max() > 0.95
        assert abs(values.mean()) < 0.1
        assert abs(values.std() - math.sqrt(1 / 3)) < 0.05  # uniform


# One pass


def by_the_formula(pixels, draw, window, size):
    """Each pixel's colour by its place in the image, in float64; and how far outside of the window it is seen."""
    left, top, right, bottom = window
    matrix = np.eye(3) if draw.matrix is None else draw.matrix
    y, x = np.mgrid[:size, :size]
    x, y, _ = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(size * size)])
    x = size - 1 - x if draw.is_mirrored else x
    x, y = (x + 0.5) * (right - left) / size - 0.5 + left, (y + 0.5) * (bottom - top) / size - 0.5 + top
    outside = np.max([left - 0.5 - x, x - right + 0.5, top - 0.5 - y, y - bottom + 0.5], axis=0)
    x, y = x.clip(left, right - 1), y.clip(top, bottom - 1)
    column, row = (np.minimum(np.floor(v).astype(int), most - 1) for v, most in ((x, right - 1), (y, bottom - 1)))
    column, row = column.clip(left), row.clip(top)
    u, v = (x - column)[:, None], (y - row)[:, None]
    image = pixels.astype(np.float64)
    upper = image[row, column] * (1 - u) + image[row, column + 1] * u
    lower = image[row + 1, column] * (1 - u) + image[row + 1, column + 1] * u
    return (upper * (1 - v) + lower * v).reshape(size, size, -1), outside.reshape(size, size)


def test_crop_mirror_and_geometry_are_one_interpolation():
    pixels, size = smooth(90, 120), 64
    transform = build(size, min_scale=0.4, flip=True, strength=1.0)
    seen = Counter()
    for n in range(120):
        draw = transform.draw((n,))
        draw.colours = []
        out = draw(pixels)
        expected, outside = by_the_formula(pixels, draw, draw.window(90, 120), size)
        inside = outside < (-2.5 if draw.matrix is not None else 0)  # where OpenCV's outlines may lie
        assert np.abs(out[inside] - expected[inside]).max() < 4  # bits of OpenCV's weights
        assert (out[outside > 4] == 127).all()
        seen[draw.matrix is None, draw.is_mirrored] += 1
    assert len(seen) == 4


def test_what_is_outside_is_grey_whatever_the_colours_are_changed_to():
    transform = build(64, strength=1.0)
    drawn = [transform.draw((n,)) for n in range(200)]
    both = [draw for draw in drawn if draw.colours and draw.matrix is not None]
    grey = 0
    for draw in both:
        pixels = np.full((70, 80, 3), (200, 30, 90), np.uint8)
        _, outside = by_the_formula(pixels, draw, (0, 0, 80, 70), 64)
        out = draw(pixels)
        assert (out[outside > 3] == 127).all()
        assert not (out[outside < -3] == 127).all(axis=1).any()
        grey += int((outside > 3).any())
    assert grey > 50


def test_large_pixels_are_averaged_where_interpolation_would_leave_most_out():
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    for options in ({"min_scale": 0.9}, {"min_scale": 0.9, "strength": 0.5}, {}):
        for n in range(20):
            draw = build(32, **options).draw((n,))
            draw.colours = []
            out = draw(pixels)
            assert 100 < out.min() <= out.max() < 155


# At whatever size


def test_the_window_is_the_same_part_of_the_image_at_every_size():
    for options in ({"min_scale": 0.3}, {}, {"resize": "crop"}):
        transform = build(48, **options)
        for n in range(60):
            draw = transform.draw((n,))
            draw.min_side(1200, 1600)
            left, top, right, bottom = (draw.window(1200, 1600)[k] / (1600, 1200)[k % 2] for k in range(4))
            for factor in (1, 2, 4, 8):
                place = np.indices((1200 // factor, 1600 // factor))  # each pixel says where it is
                seen = draw._seen(place.transpose(1, 2, 0))
                (y, x), (last_y, last_x) = seen[0, 0], seen[-1, -1] + 1
                found = np.array([x, y, last_x, last_y]) * factor / [1600, 1200, 1600, 1200]
                assert np.abs(found - [left, top, right, bottom]).max() <= 0.5 * factor / 1200 + 1e-9


def test_the_size_that_a_crop_needs_is_never_less_than_the_outputs():
    transform = build(100, min_scale=0.1)
    factors = Counter()
    for n in range(500):
        height, width = np.random.default_rng(n).integers(60, 2000, 2).tolist()
        draw = transform.draw((n,))
        needed = draw.min_side(height, width)
        left, top, right, bottom = draw.window(height, width)
        fitting = [f for f in (8, 4, 2) if min(height, width) // f >= needed]
        factor = fitting[0] if fitting else 1
        factors[factor] += 1
        shape = -(-height // factor), -(-width // factor)  # as decoders round
        seen = draw._seen(np.empty((*shape, 1), np.uint8)).shape
        if factor > 1:
            assert min(seen[:2]) >= 100
        if factor < 8 and min(right - left, bottom - top) >= 2 * factor * 100 + 2 * factor:
            pytest.fail(f"{height} x {width} might be decoded at 1/{2 * factor}")
    assert set(factors) == {1, 2, 4, 8}


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
def test_a_reduced_jpeg_gives_what_the_whole_one_does(tmp_path, monkeypatch, turned):
    """Turned by EXIF or not: of all that is drawn, nothing depends on the size that was decoded."""
    path = write(tmp_path / "a.jpg", smooth(600, 800), turned)
    dataset = MultiLabelDataset(
        LabeledImages([path], np.zeros((1, 1), np.int8)), torch.zeros(1, 1),
        build(48, min_scale=0.3, flip=True, strength=0.5, cutout=0.5),
    )  # fmt: skip
    asked = []
    assert read_image(path, lambda *size: asked.append(size) or 10**6).shape[:2] == asked[0]
    shapes = []
    read = Files.read

    def whole(self, index, min_side, *others):
        shapes.append(read(self, index, min_side, *others).shape)
        return read(self, index, lambda *size: min_side(*size) * 0 + 10**6, *others)

    for epoch in range(40):
        reduced = dataset[epoch, 0]["image"].astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(Files, "read", whole)
            full = dataset[epoch, 0]["image"].astype(int)
        # Posterised levels and equalised ones may be one step apart: most pixels are not.
        assert np.median(np.abs(reduced - full)) <= 6
    upright = (800, 600) if turned in {6, 8} else (600, 800)
    assert {tuple(upright[k] // shape[k] for k in (0, 1)) for shape in shapes} >= {(8, 8), (4, 4)}


def test_large_photographs_are_decoded_smaller_for_most_crops(tmp_path):
    path = write(tmp_path / "a.jpg", smooth(1200, 1600))
    transform = build(448, min_scale=0.5)
    draws = [transform.draw((n,)) for n in range(30)]
    sides = [min(read_image(path, draw.min_side).shape[:2]) for draw in draws]
    assert set(sides) <= {600, 1200}
    assert sides.count(600) > 15
    assert min(read_image(path, transform.min_side).shape[:2]) == 1200  # what could be known before


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (2, 3), (1000, 9)])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_tiny_and_narrow_images_come_out_too(tmp_path, shape, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.full((*shape, 3), 90, np.uint8))
    for grey in (False, True):
        for options in ({}, {"resize": "crop"}, {"min_scale": 0.2}):
            dataset = MultiLabelDataset(
                LabeledImages([path], np.zeros((1, 1), np.int8)), torch.zeros(1, 1),
                build(32, flip=True, strength=1.0, **options), grey=grey,
            )  # fmt: skip
            for epoch in range(20):
                assert dataset[epoch, 0]["image"].shape == (32, 32, 1 if grey else 3)


def test_a_header_that_says_another_size_than_is_decoded_changes_no_crop(tmp_path):
    """As EXIF that decoders read in different ways would."""
    pixels = smooth(120, 60)
    draw, other = (build(32, min_scale=0.3).draw((4,)) for _ in range(2))
    draw.min_side(60, 120)
    assert (draw(pixels) == other(pixels)).all()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"])
def test_damaged_exif_hinders_no_decoder(tmp_path, exif):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(80, 160)).save(path, exif=exif)
    draw = build(16, min_scale=0.5).draw((0,))
    assert read_image(path, draw.min_side).shape[0] in {20, 40, 80}


class Own(Transform):
    """What a user writes, who knows of no draws."""

    def __call__(self, image, seed):
        return np.ascontiguousarray(image[:16, :16])


def test_transforms_and_images_of_ones_own_are_asked_as_before(tmp_path):
    path = write(tmp_path / "a.jpg", smooth(200, 200))
    labeled = LabeledImages([path], np.zeros((1, 1), np.int8))
    dataset = MultiLabelDataset(labeled, torch.zeros(1, 1), Own([], min_side=50))
    assert (dataset[0, 0]["image"] == read_image(path, 50)[:16, :16]).all()
    asked = []

    class Stored:
        def __len__(self):
            return 1

        def read(self, index, min_side, grey, max_megapixels):
            asked.append(min_side)
            return smooth(200, 200)

        name = keys = select = fingerprint = unreadable = lambda self, *others: None

    dataset = MultiLabelDataset(LabeledImages(Stored(), labeled.states), torch.zeros(1, 1), build(16, min_scale=0.25))
    assert dataset[0, 0]["image"].shape == (16, 16, 3)
    assert asked == [32]
