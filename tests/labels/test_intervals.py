"""Wilson's interval: against its equation, a library, and what a textbook has."""

import numpy as np
import pytest
from scipy.stats import binomtest

from mlcv.labels.intervals import Z, wilson


def test_the_interval_is_wilsons(numpy_rng):
    """Where (p - rate)^2 = z^2 p (1 - p) / n; 0 of 10 is below 27.8 %, a textbook's number."""
    count = np.array([0, 3, 10, *numpy_rng.integers(0, 50, 5)])
    total = np.array([10, 17, 10, *(count[3:] + numpy_rng.integers(1, 50, 5))])
    ends = wilson(count / total, total)
    assert ends[0, 1] == pytest.approx(0.27753, abs=1e-5)
    assert (ends[0, 0], ends[2, 1]) == pytest.approx((0, 1))
    assert ends[2, 0] == pytest.approx(1 - ends[0, 1])
    for k, n, (low, high) in zip(count.tolist(), total.tolist(), ends, strict=True):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        for p in (low, high):
            assert (p - k / n) ** 2 == pytest.approx(Z**2 * p * (1 - p) / n, abs=1e-12)


def test_of_no_cases_everything_is_possible():
    assert wilson(np.nan, 0.0).tolist() == [0, 1]
    assert wilson(np.zeros((0,)), np.zeros((0,))).shape == (0, 2)
