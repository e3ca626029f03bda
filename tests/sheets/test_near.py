"""Copies of photographs are found however they were changed, and hardly anything else is taken for one."""

import cv2
import numpy as np
import pytest
from copies import KINDS, planted

from mlcv.data.items import Arrays, Files
from mlcv.sheets.looks import look_at_all
from mlcv.sheets.near import (
    GREY,
    PHOTOGRAPHS,
    Gate,
    candidates,
    exact_pairs,
    fit,
    fit_levels,
    near_pairs,
    nearest_pairs,
)

SOME = 150
"""Originals of which copies are planted: with 3 % missing 95 % of the time not more than 9 are."""


@pytest.fixture(scope="module")
def photographs(shared_data):
    """Those that set no threshold: every other one, from the second on."""
    return sorted((shared_data / "voc2012" / "JPEGImages").glob("*.jpg"))[1::2]


def found(files, gate):
    looks, errors = look_at_all(Files(files), 100, 2)
    assert errors == {}
    return near_pairs(Files(files), looks, gate, 100, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_photographs_are_found(photographs, kind, tmp_path, numpy_rng):
    chosen = [photographs[n] for n in numpy_rng.permutation(len(photographs))[:SOME]]
    files = chosen + list(planted(tmp_path, chosen, kind))
    pairs = {(pair.one, pair.other): pair for pair in found(files, PHOTOGRAPHS)}
    hits = [pair for n in range(SOME) if (pair := pairs.get((n, n + SOME)))]
    least = {"cut": 0.97}.get(kind, 0.99)
    assert len(hits) >= least * SOME - 2 * np.sqrt(SOME * least * (1 - least))
    assert sum(pair.is_mirrored == (kind == "mirrored") for pair in hits) >= 0.97 * len(hits)
    assert len(pairs) - len(hits) <= 1


def test_photographs_are_not_taken_for_copies_of_each_other(photographs):
    assert len(found(photographs, PHOTOGRAPHS)) <= len(photographs) / 1000


@pytest.mark.parametrize("kind", ["resized", "recompressed", "mirrored"])
def test_copies_of_radiographs_are_found(shared_data, kind, tmp_path):
    originals = sorted((shared_data / "chest_xray" / "nih" / "images_64").rglob("*.png"))[:200]
    files = originals + list(planted(tmp_path, originals, kind, cv2.IMREAD_GRAYSCALE))
    hits = {(pair.one, pair.other) for pair in found(files, GREY)}
    assert sum((n, n + 200) in hits for n in range(200)) >= 194


def test_radiographs_that_are_near_are_of_one_patient(shared_data):
    files = sorted((shared_data / "chest_xray" / "nih" / "images_64").rglob("*.png"))
    patients = [path.name.partition("_")[0] for path in files]
    pairs = found(files, GREY)
    assert len(pairs) >= 20
    assert sum(patients[pair.one] != patients[pair.other] for pair in pairs) <= 1


@pytest.fixture
def pixels(numpy_rng):
    """Scenes in memory that are unlike each other."""
    scenes = [cv2.resize(numpy_rng.random((7, 7, 3)), (80, 64), interpolation=cv2.INTER_CUBIC) for _ in range(12)]
    return np.clip(255 * np.stack(scenes), 0, 255).astype(np.uint8)


def test_candidates_are_those_of_a_comparison_one_by_one(pixels, monkeypatch):
    some = pixels + np.zeros_like(pixels)
    some[7] = some[3, :, ::-1]
    some[9] = np.clip(some[2].astype(int) + 20, 0, 255)
    looks, _ = look_at_all(Arrays(some), 100, 1)
    gate, expected = Gate(28, 0.8, None, None), {}
    for i in range(12):
        for j in range(i + 1, 12):
            best = []
            for mirrored in (False, True):
                code, thumb = looks["mirror" if mirrored else "hash"][i], looks["thumb"][i]
                thumb = thumb[:, ::-1] if mirrored else thumb
                bits = bin(int(code) ^ int(looks["hash"][j])).count("1")
                distance = 1 - np.corrcoef(thumb.ravel(), looks["thumb"][j].ravel())[0, 1]
                if bits <= 28 and distance <= 0.8:
                    best.append((distance, mirrored))
            if best:
                expected[i, j] = min(best)
    for room in (2**21, 30):
        monkeypatch.setattr("mlcv.sheets.near._ROOM", max(room, 256))
        got = {(i, j): (distance, mirrored) for i, j, distance, mirrored in candidates(looks, gate, 2)}
        assert set(got) == set(expected)
        for pair, (distance, mirrored) in got.items():
            assert distance == pytest.approx(expected[pair][0], abs=1e-5)
            assert mirrored == expected[pair][1]
    assert {(3, 7), (2, 9)} <= set(expected)


def test_grey_levels_fit_in_a_corner_or_in_the_middle_and_the_gate_asks_how_well(pixels):
    looks, _ = look_at_all(Arrays(pixels), 100, 1)
    levels = looks["thumb"].astype(np.float32)
    one, other = levels[[0, 0, 1, 2, 3]], levels[[0, 1, 2, 2, 4]].copy()
    other[3] = cv2.resize(one[3][1:, 1:], (16, 16), interpolation=cv2.INTER_CUBIC) * 0.5 + 9
    expected = []
    for a, b in zip(one, other, strict=True):
        found = [np.corrcoef(a.ravel(), b.ravel())[0, 1]]
        for inner, outer in ((a, b), (b, a)):
            small = cv2.resize(inner, (15, 15), interpolation=cv2.INTER_AREA).ravel()
            corners = [outer[y : y + 15, x : x + 15].ravel() for y in (0, 1) for x in (0, 1)]
            found += [np.corrcoef(small, part)[0, 1] for part in (*corners, np.mean(corners, axis=0))]
        expected.append(max(found))
    got = fit_levels(one.reshape(5, -1), other.reshape(5, -1))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got[3] > 0.97 > got[1]
    assert fit_levels(one[:0].reshape(0, 256), other[:0].reshape(0, 256)).shape == (0,)
    fits = {pair[:2]: fit_levels(*looks["thumb"][list(pair[:2]), None].reshape(2, 1, 256).astype(np.float32))[0]
            for pair in candidates(looks, Gate(64, 2, None, None), 1) if not pair[3]}  # fmt: skip
    below, above = sorted(fits.values())[len(fits) // 2 :][:2]
    least = float(below + above) / 2  # and none is exactly there
    kept = {pair[:2] for pair in candidates(looks, Gate(64, 2, least, None), 1)}
    assert {pair for pair, value in fits.items() if value >= least} <= kept
    assert len(kept) < 66


def test_an_image_fits_into_one_that_it_was_cut_from(pixels):
    image = cv2.resize(cv2.cvtColor(pixels[0], cv2.COLOR_RGB2GRAY), (64, 64))
    inner = cv2.resize(image[3:61, 3:61], (64, 64), interpolation=cv2.INTER_AREA)
    assert fit(image, image) == pytest.approx(1, abs=1e-5)
    assert fit(image, inner) == fit(inner, image) > 0.99
    plain = np.corrcoef(image.ravel(), inner.ravel())[0, 1]
    assert plain < fit(image, inner)


def test_the_same_content_is_exact_and_alike_looks_are_not(pixels, tmp_path):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), pixels[0])
    cv2.imwrite(str(tmp_path / "c.png"), pixels[1])
    other = pixels[0].copy()
    other[0, 0] ^= 1
    cv2.imwrite(str(tmp_path / "d.png"), other)
    pairs = found([tmp_path / f"{name}.png" for name in "cabd"], PHOTOGRAPHS)
    assert [(pair.one, pair.other, pair.is_exact) for pair in pairs] == [(1, 2, True), (1, 3, False)]


def test_of_images_that_features_call_alike_more_may_be_cut_off(photographs, tmp_path, numpy_rng):
    """By the thresholds of the other half; features of copies are made: near those of their originals."""
    count = 60
    files = [photographs[n] for n in numpy_rng.permutation(len(photographs))[:count]]
    for n, path in enumerate(files[:count]):
        image, part = cv2.imread(str(path)), (0.1, 0.15, 0.2)[n % 3]
        top, left = (round(part * length) for length in image.shape[:2])
        copy = image[top:-top, left:-left]
        cv2.imwrite(str(tmp_path / f"{n}.jpg"), copy[:, ::-1] if n % 2 else copy)
        files.append(tmp_path / f"{n}.jpg")
    looks, _ = look_at_all(Files(files), 100, 2)
    features = numpy_rng.normal(size=(count, 32))
    near = np.concatenate([features, features + 0.1 * numpy_rng.normal(size=features.shape)])
    near[0] = np.nan  # an image without features is nobody's nearest
    pairs = {(p.one, p.other): p for p in near_pairs(Files(files), looks, PHOTOGRAPHS, 100, 2, near)}
    hits = [n for n in range(1, count) if (n, n + count) in pairs]
    assert len(hits) >= 0.93 * count - 2 * np.sqrt(0.93 * 0.07 * count)
    assert sum(pairs[n, n + count].is_mirrored == bool(n % 2) for n in hits) >= 0.95 * len(hits)
    assert all(other - one == count for one, other in pairs)
    strange = numpy_rng.normal(size=near.shape)  # features that say nothing find nothing new, whatever is nearest
    without = {(p.one, p.other) for p in near_pairs(Files(files), looks, PHOTOGRAPHS, 100, 2)}
    lucky = {(p.one, p.other) for p in near_pairs(Files(files), looks, PHOTOGRAPHS, 100, 2, strange)} - without
    assert all(other - one == count for one, other in lucky)
    assert len(without) < 0.2 * count


def test_the_nearest_is_that_of_the_largest_cosine_about_the_mean(numpy_rng, monkeypatch):
    monkeypatch.setattr("mlcv.sheets.near._ROOM", 100)  # in several blocks
    features = numpy_rng.normal(size=(37, 5)) * numpy_rng.random((37, 1)) + 3
    features[[4, 20], 2] = np.nan
    expected = set()
    good = [n for n in range(37) if n not in (4, 20)]
    middle = features[good].mean(axis=0)
    for i in good:
        rays = {j: features[j] - middle for j in good}
        cosines = {j: rays[i] @ rays[j] / np.sqrt(rays[i] @ rays[i] * (rays[j] @ rays[j])) for j in good if j != i}
        best = max(cosines, key=cosines.get)
        expected.add((min(i, best), max(i, best)))
    assert nearest_pairs(features) == sorted(expected)
    assert nearest_pairs(features[:1]) == nearest_pairs(features[:0]) == []


def test_an_almost_even_image_is_like_no_other(numpy_rng):
    """Noise of a level or two about one grey: hashes of such say nothing."""
    even = (128 + numpy_rng.integers(-1, 2, (1, 64, 64, 3))).astype(np.uint8).repeat(2, axis=0)
    even[1, 0, 0] += 1
    looks, _ = look_at_all(Arrays(even), 100, 1)
    assert near_pairs(Arrays(even), looks, PHOTOGRAPHS, 100, 1) == []


def test_images_of_one_colour_are_copies_only_to_the_byte():
    even = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (5, 200, 5)])
    looks, _ = look_at_all(Arrays(even), 100, 1)
    assert [(pair.one, pair.other) for pair in near_pairs(Arrays(even), looks, PHOTOGRAPHS, 100, 1)] == [(0, 2)]


@pytest.mark.parametrize("count", [0, 1])
def test_no_pair_is_found_where_there_is_none(count):
    arrays = Arrays(np.zeros((count, 64, 64, 3), np.uint8))
    looks, _ = look_at_all(arrays, 100, 1)
    assert exact_pairs(arrays, looks) == near_pairs(arrays, looks, GREY, 100, 1) == []
