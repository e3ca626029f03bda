"""The numbers behind reliability diagrams, against loops and definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from mlcv.posthoc import figures
from mlcv.posthoc.reliability import entries, isotonic, log_odds_bins, miscalibration


def coco_like(generator, classes=40, images=3000, slope=1.0):
    """Right probabilities of rare classes (1 to 3 %), most of them near 0, their log-odds then times a slope."""
    rates = generator.uniform(0.01, 0.03, classes)
    odds = np.log(rates / (1 - rates)) - 2 + 2.5 * generator.normal(size=(images, classes))
    targets = generator.random((images, classes)) < 1 / (1 + np.exp(-odds))
    return torch.from_numpy(1 / (1 + np.exp(-slope * odds))), torch.from_numpy(targets.astype(int))


def test_bins_are_of_equal_width_in_log_odds_and_hold_every_entry_once(numpy_rng):
    probs, targets = coco_like(numpy_rng)
    targets[:100] = -1
    said, there = entries(probs, targets)
    assert len(said) == 2900 * 40
    found = log_odds_bins(said, there, 0.001, 0.9, 10)
    edges = [math.log(0.001 / 0.999) + k / 10 * (math.log(9) - math.log(0.001 / 0.999)) for k in range(11)]
    edges[0], edges[-1] = -math.inf, math.inf
    odds = np.log(said / (1 - said))
    for one, low, high in zip(found, edges[:-1], edges[1:], strict=True):
        rows = (odds >= low) & (odds < high)
        assert (one.count, one.there) == (rows.sum(), there[rows].sum())
        assert one.said == pytest.approx(said[rows].mean())
        wilson = binomtest(one.there, one.count).proportion_ci(method="wilson")
        assert (one.low, one.high) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_rare_classes_have_points_over_the_whole_range_and_right_probabilities_lie_on_the_line(numpy_rng):
    said, there = entries(*coco_like(numpy_rng))
    assert 0.005 < there.mean() < 0.05
    found = log_odds_bins(said, there, *figures._range(said))
    assert len(found) == 12
    assert found[0].said < 0.001
    assert found[-1].said > 0.5
    assert sum(one.low <= one.said <= one.high for one in found) >= 10


def test_probabilities_of_0_and_1_are_in_the_outer_bins():
    found = log_odds_bins(np.array([0.0, 1.0, 0.5]), np.array([0.0, 1.0, 1.0]), 0.01, 0.99, 3)
    assert [(one.said, one.count, one.there) for one in found] == [(0, 1, 0), (0.5, 1, 1), (1, 1, 1)]


def test_the_isotonic_curve_is_the_best_rising_one():
    probs, labels = np.array([0.1, 0.2, 0.3, 0.4, 0.4, 0.9]), np.array([0, 1, 0, 0, 1, 1])
    # 1 before 0, 0 and 1 violates the order: the three places are pooled, of which two of four entries are there.
    assert isotonic(probs, labels) == pytest.approx([0, 0.5, 0.5, 0.5, 0.5, 1])


def test_miscalibration_is_what_the_brier_score_loses_by_the_curve_and_finds_the_class_that_is_off(numpy_rng):
    probs, targets = coco_like(numpy_rng, classes=5)
    probs[:, 3] = (probs[:, 3] * 20).clip(max=0.99)
    targets[:, 4] = 0
    targets[:9, 4] = 1
    found = miscalibration(probs, targets)
    said, there = probs[:, 0].numpy(), targets[:, 0].double().numpy()
    brier = [np.mean((one - there) ** 2) for one in (said, isotonic(said, there))]
    rate = there.mean()
    assert found[0].item() == pytest.approx((brier[0] - brier[1]) / (rate * (1 - rate)))
    assert found[:4].argmax() == 3
    assert found[4].isnan()  # nine have it


def test_of_many_classes_those_of_the_largest_numbers_are_drawn_and_named():
    table = torch.rand(200, 200, generator=torch.Generator().manual_seed(0)) / 2
    table.fill_diagonal_(1)
    table[17, 150], table[3, 60] = 0.9, 0.8
    table[5] = torch.nan
    assert figures.strongest({"": table}, 4) == [3, 17, 60, 150]
    assert figures.strongest({"a": table * 0, "b": table}, 4) == [3, 17, 60, 150]
    assert figures.strongest({"": table[:20, :20]}, 20) == list(range(20))
    picture = figures.matrices({"": table}, [f"class-{c}" for c in range(200)])
    assert all(picture.count(f"class-{c}<") == 2 for c in (3, 17, 60, 150))  # a row and a column
    assert picture.count("class-") >= 60
    assert picture.count(">class-") == 60
    assert all(
        f"class-{c}<" in figures.matrices({"": table[:20, :20]}, [f"class-{c}" for c in range(20)]) for c in range(20)
    )
