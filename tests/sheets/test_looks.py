"""What is seen in an image is what was put into it; nothing is looked at twice."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from mlcv.data.items import Arrays, Files
from mlcv.sheets import looks as module
from mlcv.sheets.looks import border, kinds_of_looks, look, look_at_all, perceptual_hashes, sharpness
from tests.tiny_sets import write_image


@pytest.fixture
def scene(numpy_rng):
    """A colourful image with structure at all sizes, uint8 (96, 128, 3)."""
    layers = [cv2.resize(numpy_rng.random((n, n + 2, 3)), (128, 96), interpolation=cv2.INTER_CUBIC) for n in (3, 9, 40)]
    return np.clip(255 * (0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]), 0, 255).astype(np.uint8)


def seen(*images):
    found = np.zeros(len(images), module.LOOK)
    for n, pixels in enumerate(images):
        found[n] = look(pixels)
    return found


def test_the_hash_is_that_of_the_formula_and_of_the_mirror_image(numpy_rng):
    small = numpy_rng.integers(0, 256, (32, 32), np.uint8)
    x = np.arange(32)
    for image, code in zip((small, small[:, ::-1]), perceptual_hashes(small), strict=True):
        waves = np.array([np.cos(np.pi * u * (2 * x + 1) / 64) for u in range(1, 9)])
        values = waves @ image.astype(float) @ waves.T
        bits = (values > np.median(values)).ravel()
        assert code == int.from_bytes(np.packbits(bits).tobytes(), "little")


def test_grey_levels_are_those_of_the_image(scene):
    found = look(scene)
    grey = cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)
    assert found["mean"] == pytest.approx(grey.mean(), abs=1e-3)
    assert found["low"] == pytest.approx(np.percentile(grey, 5), abs=1)
    assert found["high"] == pytest.approx(np.percentile(grey, 95), abs=1)
    assert (found["height"], found["width"]) == (96, 128)


def test_colours_are_told_from_grey(scene):
    grey = cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)[..., None]
    assert [bool(look(one)["grey"]) for one in (scene, grey, np.repeat(grey, 3, axis=2))] == [False, True, True]


def test_a_border_is_the_part_that_it_takes(scene):
    framed = np.zeros((120, 128, 3), np.uint8)
    framed[12:108] = scene
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (scene, framed, np.ascontiguousarray(framed[:, 20:]))]
    assert [border(one) for one in grey] == pytest.approx([0, 24 / 120, 24 / 120])
    assert border(np.full((9, 9), 7, np.uint8)) == 0


def test_blur_is_seen_whatever_the_contrast(scene):
    grey = cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(grey, (0, 0), 6)
    assert sharpness(blurred) < 0.2 < sharpness(grey)
    assert sharpness((grey // 2).astype(np.uint8)) == pytest.approx(sharpness(grey), rel=0.1)
    assert sharpness(np.full((70, 90), 3, np.uint8)) == 0


def test_odd_images_are_named_by_kind(scene):
    images = {
        "dark": scene // 6, "bright": 214 + scene // 8, "blurred": cv2.GaussianBlur(scene, (0, 0), 8),
        "one colour": np.full_like(scene, 9), "long": np.tile(scene, (1, 3, 1)), "small": scene[:40, :40],
    }  # fmt: skip
    kinds = kinds_of_looks(seen(scene, *images.values()))
    for n, kind in enumerate(images, 1):
        assert n in kinds[kind], kind
    assert not any(0 in rows for rows in kinds.values())
    assert kinds["one colour"] == [4]
    assert 4 not in kinds["dark"]


def test_what_files_say_is_kept(tmp_path, scene):
    deep, turned, plain = (tmp_path / name for name in ("deep.png", "turned.jpg", "plain.jpg"))
    cv2.imwrite(str(deep), scene[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene).save(turned, exif=exif)
    Image.fromarray(np.tile(scene, (4, 4, 1))).save(plain)
    looks, errors = look_at_all(Files([deep, turned, plain]), 100, 2)
    assert errors == {}
    assert looks["bits"].tolist() == [16, 8, 8]
    assert looks["turn"].tolist() == [1, 6, 1]
    assert looks[["width", "height"]].tolist() == [(128, 96), (96, 128), (512, 384)]  # upright, and of the whole file
    assert looks["size"].tolist() == [path.stat().st_size for path in (deep, turned, plain)]
    assert kinds_of_looks(looks)["turned by EXIF"] == [1]
    assert kinds_of_looks(looks)["of more than 8 bits"] == [0]


def test_unreadable_images_are_told_and_the_others_seen(tmp_path):
    good, bad = write_image(tmp_path / "a.jpg"), tmp_path / "b.jpg"
    bad.write_bytes(good.read_bytes()[:300])
    looks, errors = look_at_all(Files([bad, good, tmp_path / "absent.jpg"]), 100, 2)
    assert looks["good"].tolist() == [False, True, False]
    assert sorted(errors) == [0, 2]
    assert "truncated" in str(errors[0])
    assert kinds_of_looks(looks)["one colour"] == []


def test_a_second_look_is_taken_only_of_what_has_changed(tmp_path, monkeypatch):
    files = [write_image(tmp_path / f"{n}.jpg", seed=n) for n in range(4)]
    cache, opened = tmp_path / "sheet.npz", []
    first, _ = look_at_all(Files(files), 100, 1, cache)
    own = module._look_at
    monkeypatch.setattr(module, "_look_at", lambda items, n, most: opened.append(n) or own(items, n, most))
    write_image(files[2], seed=9)
    os.utime(files[2], ns=(1, 1))
    second, _ = look_at_all(Files(files[::-1]), 100, 1, cache)
    assert opened == [1]
    assert (second[[0, 2, 3]] == first[[3, 1, 0]]).all()
    assert second["hash"][1] != first["hash"][2]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:100], lambda data: b"PK" + data])
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    files = Files([write_image(tmp_path / f"{n}.jpg", seed=n) for n in range(2)])
    cache = tmp_path / "sheet.npz"
    first, _ = look_at_all(files, 100, 1, cache)
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert (look_at_all(files, 100, 1, cache)[0] == first).all()
    with np.load(cache) as stored:
        assert len(stored["keys"]) == 2


def test_images_in_memory_are_looked_at_as_well(scene):
    looks, errors = look_at_all(Arrays(np.stack([scene, scene])), 100, 2)
    assert errors == {}
    assert looks["size"].tolist() == [0, 0]
    assert (looks[0] == look(scene)).all()
