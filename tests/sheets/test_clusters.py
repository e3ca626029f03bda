"""Images of one group say less than as many others, and tests know it."""

import numpy as np
import pytest
from scipy import stats

from mlcv.sheets.clusters import design_effect, design_effects, numbered
from mlcv.sheets.drift import area, rates_apart, values_apart
from mlcv.sheets.labels import label_facts


def patients(rng, count, size, share=0.2, alike=1.0):
    """A label of each image, the patient's own with probability `alike`; patients; noise that patients share."""
    own = np.repeat(rng.random(count) < share, size)
    single = rng.random(count * size) < share
    labels = np.where(rng.random(count * size) < alike, own, single).astype(float)
    return labels, np.repeat(np.arange(count), size), np.repeat(rng.normal(size=count), size)


def test_the_effect_is_that_of_the_formula_for_groups_of_one_size(numpy_rng):
    """1 + (size - 1) times the correlation within a group: Kish, Survey Sampling (1965)."""
    labels, groups, _ = patients(numpy_rng, 4000, 5, alike=0.6)
    nobody = np.zeros(len(labels), int)
    assert design_effect(labels, groups, nobody, 1)[0] == pytest.approx(1 + 4 * 0.6**2, rel=0.1)
    assert design_effect(np.repeat(labels[::5], 5), groups, nobody, 1)[0] == pytest.approx(5, rel=0.01)
    single = numpy_rng.random(len(labels)).round()
    assert 1 <= design_effect(single, groups, nobody, 1)[0] < 1.1


def test_single_images_have_no_effect_and_one_group_a_part_the_largest():
    assert numbered(np.array([-1, -2, 7])) is None
    labels = np.array([0.0, 1, 1, 0, 1, 1])
    assert design_effects([labels], None, [np.arange(6)]).tolist() == [[1]]
    two = [np.arange(4), np.arange(4, 6)]
    assert design_effects([labels], numbered(np.array([5, 5, 5, 5, 9, 9])), two).tolist() == [[4], [2]]
    assert design_effects([np.full(6, np.nan)], numbered(np.zeros(6)), two).tolist() == [[1], [1]]
    assert design_effects([labels], numbered(np.zeros(6)), [np.arange(0)]).tolist() == [[1]]


def test_a_group_in_two_parts_is_two(numpy_rng):
    labels, groups, _ = patients(numpy_rng, 300, 4)
    half = np.arange(len(labels)) % 2
    parts = [np.flatnonzero(half == 0), np.flatnonzero(half == 1)]
    assert design_effects([labels], groups, parts) == pytest.approx(2)


def test_chance_among_patients_is_seldom_called_a_difference(numpy_rng):
    """Of 30 and 30 patients with 40 images each: else nearly every second draw would look like a difference."""
    known, naive, sizes = 0, 0, np.full((2, 1), 1200)
    for _ in range(80):
        labels, groups, quantity = patients(numpy_rng, 60, 40)
        parts = [np.arange(1200), np.arange(1200, 2400)]
        effects = design_effects([labels], groups, parts)
        hits = np.array([[int(labels[rows].sum())] for rows in parts])
        naive += rates_apart(hits, sizes)[0].is_one
        known += rates_apart(hits, sizes, effects)[0].is_one
        of_values = design_effects([stats.rankdata(quantity)], groups, parts)
        shift = values_apart({"a": [quantity[rows] for rows in parts]}, {"a": of_values[:, 0]})["a"][0]
        known += shift.is_one
    assert naive > 30
    assert known <= 6  # 1.6 are expected


@pytest.mark.parametrize("few", [1, 2, 5])
def test_a_part_of_few_patients_is_seldom_called_different_from_one_of_many(numpy_rng, few):
    """600 with an image each, and a few with 30: each of these says about as much as one of the others."""
    sizes, groups = np.array([[600], [30 * few]]), np.concatenate([np.arange(600), np.repeat(600 + np.arange(few), 30)])
    parts, known, naive = [np.arange(600), np.arange(600, len(groups))], 0, 0
    for _ in range(100):
        rates, quantity = numpy_rng.beta(0.3, 0.7, 600 + few)[groups], numpy_rng.normal(size=600 + few)[groups]
        labels = (numpy_rng.random(len(groups)) < rates).astype(float)
        effects = design_effects([labels, stats.rankdata(quantity)], groups, parts)
        hits = np.array([[int(labels[rows].sum())] for rows in parts])
        naive += rates_apart(hits, sizes)[0].is_one
        known += rates_apart(hits, sizes, effects[:, :1])[0].is_one
        known += values_apart({"a": [quantity[rows] for rows in parts]}, {"a": effects[:, 1]})["a"][0].is_one
    assert naive > 25
    assert known <= 12  # 2 are expected


def test_the_effect_of_a_part_is_of_its_own_groups(numpy_rng):
    """Donner and Klar (2000): 1 + (size - 1) times a correlation within groups that all parts share."""
    labels, groups, _ = patients(numpy_rng, 8000, 6, alike=0.6)
    rows = np.arange(len(labels))
    parts = [rows[:24000], rows[24000:][rows[24000:] % 6 < 2]]
    found = design_effects([labels], groups, parts)[:, 0]
    assert found == pytest.approx([1 + 5 * 0.6**2, 1 + 0.6**2], rel=0.1)


def test_nothing_is_said_of_an_area_of_few_groups(numpy_rng):
    values, there = numpy_rng.normal(size=90), np.arange(90) % 2 == 0
    assert np.isnan(area(values, there, ~there, groups=np.arange(90) % 9).value)
    assert 0 < area(values, there, ~there, groups=np.arange(90) % 10).low < 1


def test_a_difference_between_patients_is_found_still(numpy_rng):
    labels, groups, quantity = patients(numpy_rng, 400, 4)
    parts = [np.arange(800), np.arange(800, 1600)]
    labels[:800] = 1 - labels[:800]
    hits = np.array([[int(labels[rows].sum())] for rows in parts])
    assert rates_apart(hits, np.full((2, 1), 800), design_effects([labels], groups, parts))[0].is_one
    quantity[:800] += 1
    effect = design_effects([stats.rankdata(quantity)], groups, parts)[:, 0]
    assert values_apart({"a": [quantity[rows] for rows in parts]}, {"a": effect})["a"][0].is_one


def test_an_areas_interval_covers_where_images_are_of_patients(numpy_rng):
    covered, naive = 0, 0
    for _ in range(150):
        labels, groups, quantity = patients(numpy_rng, 120, 10, share=0.4)
        found = [area(quantity, labels == 1, labels == 0, groups=one) for one in (groups, None)]
        covered += found[0].low < 0.5 < found[0].high
        naive += found[1].low < 0.5 < found[1].high
    assert 132 <= covered <= 149  # 142.5 are expected
    assert naive < 110


def test_an_area_of_groups_of_one_is_that_of_images(numpy_rng):
    values, there = numpy_rng.normal(size=400), numpy_rng.random(400) < 0.3
    alone, grouped = (area(values, there, ~there, groups=groups) for groups in (None, np.arange(400)))
    assert grouped.low == pytest.approx(alone.low, abs=2e-3)
    assert grouped.high == pytest.approx(alone.high, abs=2e-3)


def test_a_rates_interval_is_as_wide_as_that_of_as_many_patients(numpy_rng):
    states = np.repeat(numpy_rng.integers(0, 2, (50, 1)), 8, axis=0).astype(np.int8)
    one = label_facts(states, "a", effects=np.array([8.0])).classes[0]
    other = label_facts(states[::8], "a").classes[0]
    assert (one.rate, one.low, one.high) == pytest.approx((other.rate, other.low, other.high))
