import math

import numpy as np
import pytest
from scipy.optimize import check_grad

from mlcv.audits import rates
from mlcv.audits.rates import Points, expected_rates, fit_own, fit_shared, intervals, negative_log_likelihood, wrong
from tests.audits.made import planted

Z, N = np.array([-4.0, -1, 0, 2, 5])[:, None], np.array([1, 0, 0, 1, 0], np.int8)[:, None]
M, A = np.array([0.2]), np.array([0.01])


def made_sequence():
    """20,000 entries of one class with missing rate .2 and false rate .01, without a random number."""
    k = np.arange(20000)
    z = -8 + 14 * (0.6180339887498949 * k % 1)
    given = 0.7548776662466927 * k % 1 < 0.01 + 0.79 / (1 + np.exp(-(1.5 * z + 0.5)))
    return z[:, None], given.astype(np.int8)[:, None]


def test_the_likelihood_has_its_check_value():
    points = Points.of(Z, N)
    slope = np.log([points.scale])  # of z in units of its spread, so that that of z is 1
    loss, _ = negative_log_likelihood(points, M, A, slope, np.zeros(1))
    assert loss == pytest.approx(6.423571, abs=1e-6)


def test_the_likelihood_is_that_of_the_formula_one_entry_at_a_time(numpy_rng):
    logits, given = numpy_rng.normal(size=(50, 3)) * 4, numpy_rng.integers(-2, 2, (50, 3)).astype(np.int8)
    m, a, u, b = numpy_rng.uniform(0.01, 0.3, (4, 3))
    total = 0.0
    for c in range(3):
        for z, n in zip(logits[:, c], given[:, c], strict=True):
            p = a[c] + (1 - m[c] - a[c]) / (1 + math.exp(-(math.exp(u[c]) * z + b[c])))
            total -= math.log(p) if n == 1 else math.log(1 - p) if n == 0 else 0
    points = Points.of(logits, given)
    loss, _ = negative_log_likelihood(points, m, a, u + np.log(points.scale), b)
    assert loss == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("own", [False, True], ids=["shared rates", "own rates"])
def test_the_gradient_is_that_of_finite_differences(own, numpy_rng):
    logits, given, _ = planted(numpy_rng, 200, 3)
    points = Points.of(logits, given)
    parameters = numpy_rng.normal(size=(6 if own else 2) + 7)
    prior = np.array([[6.0, 24.0], [10.0, 990.0]])
    args = (points, prior)
    error = check_grad(lambda *x: rates.objective(*x)[0], lambda *x: rates.objective(*x)[1], parameters, *args)
    assert error < 1e-4 * np.abs(rates.objective(parameters, *args)[1]).max()


def test_the_priors_are_those_of_the_note(numpy_rng):
    points = Points.of(np.zeros((0, 2)), np.zeros((0, 2), np.int8))
    x_m, x_a, u, b, centre = *numpy_rng.normal(size=2), *numpy_rng.normal(size=(2, 2)), numpy_rng.normal()
    m, a = 0.6 / (1 + math.exp(-x_m)), 0.3 / (1 + math.exp(-x_a))
    expected = -(0.4 * math.log(m) + 3.6 * math.log(1 - m) + math.log(a) + 99 * math.log(1 - a))
    expected += sum(0.5 * ((u_c - centre) / 0.3) ** 2 + 5e-4 * b_c**2 for u_c, b_c in zip(u, b, strict=True))
    found, _ = rates.objective(np.array([x_m, x_a, *u, *b, centre]), points, rates._POOLED)
    assert found == pytest.approx(expected)


def test_the_posterior_has_its_check_values():
    present = 1 / (1 + np.exp(-Z))
    without = [0.405638, 0.069178, 0.168067, 0.001689, 0.967724]
    with_tail = [0.380878, 0.069481, 0.168067, 0.001713, 0.958523]
    assert wrong(present, N, M, A)[:, 0] == pytest.approx(without, abs=1e-6)
    assert wrong(0.002 + 0.996 * present, N, M, A)[:, 0] == pytest.approx(with_tail, abs=1e-6)


def test_the_posterior_is_the_share_of_wrong_labels_among_drawn_ones(numpy_rng):
    truth = numpy_rng.random(400_000) < 0.3
    given = np.where(numpy_rng.random(len(truth)) < np.where(truth, 0.25, 0.1), ~truth, truth)
    for n in (0, 1):
        share = (truth != given)[given == n].mean()
        w = wrong(np.array([[0.3]]), np.array([[n]], np.int8), np.array([0.25]), np.array([0.1]))
        assert w.item() == pytest.approx(share, abs=0.01)


def test_the_fit_to_the_made_sequence_has_its_check_values():
    z, given = made_sequence()
    assert given.sum() == 7348
    curve = fit_shared(Points.of(z, given))
    assert curve.missing == pytest.approx([0.2], abs=5e-5)
    assert curve.false == pytest.approx([0.0093], abs=5e-5)
    w = wrong(1 / (1 + np.exp(-(curve.slope * z + curve.offset))), given, curve.missing, curve.false)
    assert w.sum() == pytest.approx(1913.9, abs=0.1)
    assert (w > 0.5).sum() == 1716


def test_the_curve_does_not_depend_on_the_scale_or_offset_of_logits():
    z, given = made_sequence()
    first, second = (fit_shared(Points.of(some, given)) for some in (z, 1000 * z + 300))
    assert second.missing == pytest.approx(first.missing, abs=1e-3)
    assert second.present(1000 * z + 300) == pytest.approx(first.present(z), abs=2e-3)


def test_entries_that_are_alike_are_counted_together_and_unknown_ones_not():
    z = np.array([[0.0], [0.0], [1.0], [1.0], [5.0]])
    points = Points.of(z, np.array([[0], [0], [0], [1], [-1]], np.int8))
    assert points.count.tolist() == [2, 1, 1]
    assert (points.z * points.scale).tolist() == [0, 1, 1]


def test_counting_together_does_not_change_the_fit(numpy_rng, monkeypatch):
    logits, given, _ = planted(numpy_rng, 3000, 3)
    coarse = fit_shared(Points.of(logits, given))
    monkeypatch.setattr(rates, "_STEPS", 10**9)
    exact = fit_shared(Points.of(logits, given))
    assert coarse.missing == pytest.approx(exact.missing, abs=1e-4)
    assert coarse.log_likelihood == pytest.approx(exact.log_likelihood, abs=0.05)


@pytest.mark.parametrize(("missing", "false"), [(0.2, 0.02), (0.4, 0.0), (0.0, 0.05)])
def test_planted_rates_are_found_and_lie_in_their_intervals(missing, false, numpy_rng):
    logits, given, _ = planted(numpy_rng, 20_000, 5, missing, false)
    points = Points.of(logits, given)
    curve = fit_shared(points)
    assert curve.missing[0] == pytest.approx(missing, abs=0.05)
    assert curve.false[0] == pytest.approx(false, abs=0.012)
    for estimate, interval in zip((curve.missing, curve.false), intervals(points, curve), strict=True):
        assert interval.shape == (5, 2)
        assert (interval[:, 0] <= estimate).all()
        assert (estimate <= interval[:, 1]).all()
        assert (interval[:, 1] - interval[:, 0] < 0.1).all()


def test_intervals_end_where_the_profile_likelihood_says():
    z, given = made_sequence()
    points = Points.of(z, given)
    curve = fit_shared(points)
    best, _ = rates.objective(curve.parameters, points, curve.prior)
    for kind, found in enumerate(intervals(points, curve)):
        for end in found[0]:
            fixed = curve.parameters.copy()
            fixed[kind] = np.log(end / ((0.6, 0.3)[kind] - end))
            others = np.delete(np.arange(len(fixed)), kind)
            fitted = rates._minimise(points, fixed, curve.prior, others)
            assert 2 * (rates.objective(fitted, points, curve.prior)[0] - best) == pytest.approx(3.84, abs=0.3)


def test_intervals_are_narrower_with_more_entries(numpy_rng):
    widths = []
    for count in (1000, 64_000):
        logits, given, _ = planted(numpy_rng, count, 4)
        points = Points.of(logits, given)
        of_missing, _ = intervals(points, fit_shared(points))
        widths.append(np.ptp(of_missing[0]))
    assert widths[1] < 0.5 * widths[0]


def test_own_rates_are_found_where_classes_differ_and_held_at_the_shared_ones_where_there_is_little(numpy_rng):
    missing = np.array([0.1, 0.1, 0.4, 0.4])
    logits = 4 * numpy_rng.normal(size=(10_000, 4))
    truth = numpy_rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    given = (truth & (numpy_rng.random(truth.shape) >= missing)).astype(np.int8)
    given[50:, 3] = -1
    points = Points.of(logits, given)
    shared = fit_shared(points)
    own = fit_own(points, shared)
    assert own.missing[:3] == pytest.approx(missing[:3], abs=0.1)
    assert own.missing[3] == pytest.approx(shared.missing[0], abs=0.2)
    assert own.log_likelihood > shared.log_likelihood + 4
    of_missing, _ = intervals(points, own)
    assert np.ptp(of_missing[3]) > np.ptp(of_missing[2])


def test_the_second_estimator_repeats_its_rounds(numpy_rng):
    z, given = numpy_rng.normal(size=300) * 3, None
    given = (numpy_rng.random(300) < 0.05 + 0.8 / (1 + np.exp(-z))).astype(np.int8)
    from sklearn.linear_model import LogisticRegression

    q = LogisticRegression(C=1e9, tol=1e-10).fit(z[:, None], given).predict_proba(z[:, None])[:, 1]
    m, a = 0.1, 0.01
    for _ in range(50):
        r = []
        for q_i, n in zip(q, given, strict=True):
            y = min(max((q_i - a) / (1 - m - a), 1e-4), 1 - 1e-4)
            there, absent = (y * (1 - m), (1 - y) * a) if n else (y * m, (1 - y) * (1 - a))
            r.append(there / (there + absent))
        m = (sum(r_i for r_i, n in zip(r, given, strict=True) if not n) + 2) / (sum(r) + 20)
        a = (sum(1 - r_i for r_i, n in zip(r, given, strict=True) if n) + 2) / (300 - sum(r) + 200)
    assert expected_rates(Points.of(z[:, None], given[:, None])) == pytest.approx((m, a), abs=1e-3)


@pytest.mark.parametrize("given", [[-1, -1, -1, -1], [0, 0, 0, 0], [1, 1, 1, 1], [1, -1, -1, 0]])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_everything_is_finite_whatever_is_known(given, scale):
    logits = scale * np.array([[-1.0, 0], [2, 0], [0.5, 3], [-3, 1]])
    states = np.array([given, [1, 0, -1, 0]], np.int8).T
    points = Points.of(logits, states)
    shared = fit_shared(points)
    for curve in (shared, fit_own(points, shared)):
        assert np.isfinite(curve.parameters).all()
        assert np.isfinite(curve.present(logits)).all()
        assert all(np.isfinite(some).all() for some in intervals(points, curve))
    assert all(0 < rate < 0.6 for rate in expected_rates(points))
