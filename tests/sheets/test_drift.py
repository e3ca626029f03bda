"""Differences are found where they were put, and hardly ever where they were not."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from mlcv.sheets.drift import area, holm, rates_apart, values_apart


def test_holms_correction_is_the_papers():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.5])).tolist() == pytest.approx([1, 1])
    assert holm(np.zeros(0)).tolist() == []


def test_a_rate_is_tested_by_chi_squared_or_exactly_where_few_are_expected():
    positive, total = np.array([[30, 1], [60, 7]]), np.array([[100, 20], [100, 20]])
    gaps = {gap.column: gap for gap in rates_apart(positive, total)}
    many = stats.chi2_contingency([[30, 60], [70, 40]], correction=False).pvalue
    few = stats.fisher_exact([[1, 7], [19, 13]]).pvalue
    assert many * 2 < few  # so that Holm's rule doubles the first alone
    assert gaps[0].p == pytest.approx(2 * many)
    assert gaps[1].p == pytest.approx(few)
    assert gaps[0].rates == (0.3, 0.6)
    assert gaps[0].odds == pytest.approx((60.5 / 40.5) / (30.5 / 70.5))
    assert gaps[0].is_one
    assert not gaps[1].is_one


def test_a_difference_that_is_sure_and_small_does_not_stand_out():
    gap = rates_apart(np.array([[50_000], [51_500]]), np.array([[100_000], [100_000]]))[0]
    assert gap.p < 1e-9
    assert not gap.is_one


def test_parts_without_known_labels_are_not_compared():
    assert rates_apart(np.array([[0, 2], [0, 3]]), np.array([[0, 4], [5, 4]]))[0].column == 1
    assert rates_apart(np.array([[5]]), np.array([[9]])) == []
    same = rates_apart(np.array([[0], [0]]), np.array([[5], [5]]))
    assert same[0].p == 1


def test_chance_is_seldom_called_a_difference(numpy_rng):
    total = np.full((3, 20), 500)
    false = sum(any(g.is_one for g in rates_apart(numpy_rng.binomial(500, 0.2, (3, 20)), total)) for _ in range(60))
    assert false <= 5  # 0.6 are expected


def test_a_shifted_quantity_is_found_with_its_medians(numpy_rng):
    one, other = numpy_rng.normal(0, 1, 400), numpy_rng.normal(1, 1, 400)
    found = values_apart({"a": [one, other, np.zeros(0)], "b": [one, one]})["a"]
    assert [shift.parts for shift in found] == [(0, 1)]
    points = np.sort(np.concatenate([one, other]))
    gap = max(abs((one <= x).mean() - (other <= x).mean()) for x in points)
    assert found[0].distance == pytest.approx(gap)
    assert found[0].medians == (np.median(one), np.median(other))
    assert found[0].is_one
    assert found[0].p == pytest.approx(2 * stats.ks_2samp(one, other, method="asymp").pvalue)  # of two that are made
    same = values_apart({"a": [one, other], "b": [one, one]})["b"][0]
    assert (same.distance, same.p, same.is_one) == (0, 1, False)


def test_of_few_images_the_distance_is_judged_exactly():
    """Of 3 and 3 all below and all above: 2 of the 20 orders."""
    found = values_apart({"a": [np.arange(3.0), np.arange(3.0) + 5]})["a"][0]
    assert (found.distance, found.p) == (1, pytest.approx(0.1))


def test_the_area_is_that_of_all_pairs_and_its_interval_covers(numpy_rng):
    truth, covered = stats.norm.cdf(1 / math.sqrt(2)), 0
    for _ in range(200):
        there = np.arange(120) < 30
        values = numpy_rng.normal(there, 1)
        found = area(values, there, ~there)
        assert found.value == pytest.approx(roc_auc_score(there, values))
        covered += found.low < truth < found.high
    assert 180 <= covered <= 199  # 190 are expected


def test_the_area_counts_ties_half_and_leaves_out_what_is_not_known():
    there = np.repeat([True, False], 20)
    assert area(np.zeros(40), there, ~there).value == 0.5
    values, known = np.arange(41.0), np.arange(41) < 40
    assert area(values[::-1], np.append(there, False), np.append(~there, False)).value == 1
    assert known.sum() == 40


def test_a_label_follows_only_with_all_of_its_interval():
    there = np.arange(200) < 100
    assert area(-there.astype(float), there, ~there, 100).follows  # down, without a single exception
    mixed = np.where(np.arange(200) % 100 < 60, there, ~there).astype(float)
    assert area(mixed, there, ~there).value == pytest.approx(0.6)
    assert not area(mixed, there, ~there).follows
    assert area(mixed, there, ~there, 100).low < area(mixed, there, ~there).low


@pytest.mark.parametrize("count", [0, 1, 9])
def test_of_few_images_nothing_is_said(count):
    there = np.arange(30) < count
    found = area(there.astype(float), there, ~there)
    assert math.isnan(found.value)
    assert not found.follows


def test_nothing_of_many_and_nothing_of_few_is_no_difference():
    for positive in (np.zeros((2, 1), int), np.array([[1000], [40]])):
        (gap,) = rates_apart(positive, np.array([[1000], [40]]))
        assert (gap.odds, gap.p, gap.is_one) == (1.0, 1.0, False)
