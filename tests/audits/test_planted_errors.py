"""The benchmark of rankings, on made labels."""

import numpy as np
import planted_errors
import pytest

P = np.array([0.9, 0.8, 0.75, 0.3, 0.1, 0.05, 0.1, 0.2, 0.15, 0.85, 0.4, 0.95])
Y = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], np.int8)


def test_cleanlab_flags_what_its_table_says_and_unknown_entries_are_none_of_its_business():
    pytest.importorskip("cleanlab")
    logits = np.append(np.log(P / (1 - P)), [5.0, -5.0])[:, None]
    states = np.append(Y, [-1, -2]).astype(np.int8)[:, None]
    _, flags = planted_errors.with_cleanlab(logits, states)
    assert np.flatnonzero(flags[:, 0]).tolist() == [3, 4, 9, 11]


@pytest.mark.parametrize("name", planted_errors.NOISE)
def test_errors_are_planted_at_the_rates_that_are_said(name, numpy_rng):
    missing, false, kind = planted_errors.NOISE[name]
    truth = (numpy_rng.random((60_000, 40)) < 0.3).astype(np.int8)
    truth[:1000] = -1
    given = planted_errors.plant(truth, planted_errors.NOISE[name], numpy_rng.normal(size=truth.shape), numpy_rng)
    assert (given[:1000] == -1).all()
    is_known = given >= 0
    assert is_known[1000:].mean() == pytest.approx(0.3 if kind == "known30" else 1, abs=0.01)
    # Capped at .9 hard images lose nothing at these rates; rates of classes are drawn, 40 of them.
    tolerance = 0.25 if kind == "class" else 0.03
    assert (given == 0)[is_known & (truth == 1)].mean() == pytest.approx(missing, rel=tolerance, abs=1e-9)
    assert (given == 1)[is_known & (truth == 0)].mean() == pytest.approx(false, rel=2 * tolerance, abs=1e-9)


def test_errors_that_depend_on_the_image_are_on_hard_ones(numpy_rng):
    truth = (numpy_rng.random((20_000, 2)) < 0.3).astype(np.int8)
    logits = numpy_rng.normal(size=truth.shape)
    given = planted_errors.plant(truth, planted_errors.NOISE["image"], logits, numpy_rng)
    for value, sign in ((1, -1), (0, 1)):
        rows = truth == value
        assert (sign * logits)[rows & (given != truth)].mean() > (sign * logits)[rows].mean() + 0.5
