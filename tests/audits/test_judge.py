import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score

from mlcv.audits import judge, order, too_few
from mlcv.audits.judge import _informed
from mlcv.errors import ConfigError, DataError
from tests.audits.made import planted


def area(score, given, truth):
    is_known = given >= 0
    return average_precision_score((given != truth)[is_known], score[is_known])


def test_finds_planted_errors_and_counts_them(numpy_rng):
    logits, given, truth = planted(numpy_rng, 6000)
    judgement = judge(logits, given)
    is_wrong = given != truth
    p = 1 / (1 + np.exp(-logits))
    assert area(judgement.wrong, given, truth) > area(np.where(given == 1, 1 - p, p), given, truth) + 0.02
    assert judgement.expected_wrong.sum() == pytest.approx(is_wrong.sum(), rel=0.2)
    assert judgement.missing.mean() == pytest.approx(0.2, abs=0.06)
    assert judgement.false.mean() == pytest.approx(0.02, abs=0.01)
    assert judgement.health == pytest.approx(1 - is_wrong.mean(), abs=0.01)
    assert judgement.class_health == pytest.approx(1 - is_wrong.mean(axis=0), abs=0.05)
    for some in range(5):  # calibrated: among those said to be wrong with w, so many are
        rows = (judgement.wrong >= some / 5) & (judgement.wrong < (some + 1) / 5)
        if rows.sum() > 100:
            assert is_wrong[rows].mean() == pytest.approx(judgement.wrong[rows].mean(), abs=0.15)


def test_only_known_entries_are_judged_and_others_get_a_probability(numpy_rng):
    logits, given, truth = planted(numpy_rng)
    hidden = numpy_rng.random(given.shape) < 0.4
    states = np.where(hidden, numpy_rng.choice([-1, -2], given.shape), given).astype(np.int8)
    judgement = judge(logits, states)
    assert (np.isnan(judgement.wrong) == hidden).all()
    assert not np.isnan(judgement.present).any()
    assert judgement.present[states == 1] == pytest.approx(1 - judgement.wrong[states == 1])
    assert judgement.present[states == 0] == pytest.approx(judgement.wrong[states == 0])
    # It is the true label that is said to be there, not the given one, of which a fifth is missing.
    assert judgement.present[hidden].sum() == pytest.approx(truth[hidden].sum(), rel=0.1)
    rows, columns = order(judgement, states)
    assert (states[rows, columns] >= 0).all()
    assert len(rows) == (~hidden).sum()


def test_an_unknown_entry_does_not_depend_on_the_other_labels(numpy_rng):
    logits, given, _ = planted(numpy_rng, 2000)
    logits += 4 * numpy_rng.normal(size=logits.shape)
    given[0] = [-1, 0, 0, 0, 0, 0]
    given[1] = [-1, 1, 1, 1, 1, 1]
    logits[1, 0] = logits[0, 0]
    judgement = judge(logits, given)
    assert judgement.is_stacked
    assert judgement.present[0, 0] == judgement.present[1, 0]


def test_other_labels_are_used_where_they_help_and_only_there(numpy_rng):
    logits, given, truth = planted(numpy_rng, 3000)
    noisy = logits + 4 * numpy_rng.normal(size=logits.shape)
    alone = judge(noisy, given, other_labels=False)
    together = judge(noisy, given)
    assert together.is_stacked
    assert not alone.is_stacked
    assert area(together.wrong, given, truth) > area(alone.wrong, given, truth)
    assert not judge(logits[:, :1], given[:, :1]).is_stacked
    # Labels of 40 images that say nothing of each other: weights are noise.
    independent = 3 * numpy_rng.normal(size=(40, 8))
    labels = (independent > 0).astype(np.int8)
    assert not judge(independent, labels).is_stacked


def test_rates_are_the_classes_own_only_where_they_differ(numpy_rng):
    logits, given, _ = planted(numpy_rng, 20_000, missing=np.array([0.1, 0.1, 0.4, 0.4, 0.1, 0.4]))
    judgement = judge(logits, given, other_labels=False)
    assert judgement.has_own_rates
    # The prior of shared rates may keep one class near them, so groups are compared and not each class.
    assert judgement.missing[[2, 3]].mean() > judgement.missing[[0, 1]].mean() + 0.08
    logits, given, _ = planted(numpy_rng, 1500)
    judgement = judge(logits, given, other_labels=False)
    if not judgement.has_own_rates:  # chance may ask for them
        assert np.ptp(judgement.missing) == 0


def test_rates_are_no_lower_than_those_of_the_second_estimator_and_in_their_intervals(numpy_rng):
    from mlcv.audits.rates import Points, expected_rates

    logits, given, truth = planted(numpy_rng, 3000, missing=0.0, false=0.0)
    hard = (truth == 1) & (logits < np.quantile(logits[truth == 1], 0.3))
    given[hard] = 0  # of images that look as if the class were absent: no floor of a curve shows it
    judgement = judge(logits, given, other_labels=False)
    m, a = expected_rates(Points.of(logits, given))
    assert (judgement.missing >= m).all()
    assert (judgement.false >= a).all()
    for rate, interval in (
        (judgement.missing, judgement.missing_interval),
        (judgement.false, judgement.false_interval),
    ):
        assert (interval[:, 0] <= rate).all()
        assert (rate <= interval[:, 1]).all()


def test_what_does_not_converge_is_not_trusted_but_ranked_all_the_same(numpy_rng):
    logits, given, _ = planted(numpy_rng)
    good, off = judge(logits, given), judge(0.1 * logits + 0.5, given)
    assert good.is_trusted.all()
    assert not off.is_trusted.any()
    assert off.mean_probability == pytest.approx((1 / (1 + np.exp(-(0.1 * logits + 0.5)))).mean(axis=0))
    assert off.prevalence == pytest.approx(given.mean(axis=0))
    # Slope and offset are fitted anew.
    assert off.wrong == pytest.approx(good.wrong, abs=0.02)


def test_health_does_not_fall_with_the_number_of_classes(numpy_rng):
    logits, given, _ = planted(numpy_rng, 1500, 3)
    once, thrice = (judge(np.tile(logits, times), np.tile(given, times), other_labels=False).health for times in (1, 3))
    assert thrice == pytest.approx(once, abs=0.005)


def test_the_order_is_by_probability_and_ties_stand_as_in_the_table(numpy_rng):
    logits = np.repeat(numpy_rng.normal(size=(50, 3)), 2, axis=0)
    states = np.repeat(numpy_rng.integers(-1, 2, (50, 3)), 2, axis=0).astype(np.int8)
    judgement = judge(logits, states, other_labels=False)
    rows, columns = order(judgement, states)
    entries = [(-judgement.wrong[r, c], r, c) for r in range(100) for c in range(3) if states[r, c] >= 0]
    assert list(zip(rows, columns, strict=True)) == [(r, c) for _, r, c in sorted(entries)]


def test_the_order_for_mean_ap_divides_by_the_root_of_expected_positives(numpy_rng):
    logits, given, _ = planted(numpy_rng, 800)
    given[::3, 1] = -1
    judgement = judge(logits, given)
    expected = [judgement.present[given[:, c] >= 0, c].sum() for c in range(6)]
    rows, columns = order(judgement, given, "mean_ap")
    score = np.array([judgement.wrong[r, c] / expected[c] ** 0.5 for r, c in zip(rows, columns, strict=True)])
    assert (np.diff(score) <= 1e-12).all()
    first = [np.bincount(order(judgement, given, by)[1][:200], minlength=6) for by in ("errors", "mean_ap")]
    assert first[1][np.argmin(expected)] > first[0][np.argmin(expected)]
    with pytest.raises(ConfigError, match="errors, mean_ap"):
        order(judgement, given, "size")


@pytest.mark.parametrize(
    "states",
    [
        np.full((12, 3), -1),
        np.zeros((12, 3)),
        np.ones((12, 3)),
        np.eye(12, 3),
        np.tile([1, -1, -2], (12, 1)),
        np.zeros((1, 1)),
        np.zeros((0, 2)),
    ],
    ids=["all unknown", "no positives", "all positive", "one each", "one class known", "one entry", "nothing"],
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e8])
def test_probabilities_are_finite_and_inside_whatever_is_known(states, scale, numpy_rng):
    states = states.astype(np.int8)
    judgement = judge(scale * numpy_rng.normal(size=states.shape), states)
    assert (np.isnan(judgement.wrong) == (states < 0)).all()
    for some in (judgement.wrong[states >= 0], judgement.present, judgement.missing, judgement.false):
        assert ((some >= 0) & (some <= 1)).all()
    assert np.isnan(judgement.health) == (not (states >= 0).any())


def test_the_same_seed_gives_the_same_and_given_folds_and_groups_are_used(numpy_rng):
    logits, given, _ = planted(numpy_rng, 400)
    noisy = logits + 4 * numpy_rng.normal(size=logits.shape)
    first = judge(noisy, given, seed=1)
    assert (judge(noisy, given, seed=1).wrong == first.wrong).all()
    from mlcv.audits.stacking import deal

    groups = np.arange(400) // 8
    assert (
        judge(noisy, given, folds=deal(400, groups, 1)).wrong == judge(noisy, given, groups=groups, seed=1).wrong
    ).all()
    assert (judge(noisy, given, groups=groups, seed=1).wrong != first.wrong).any()


def test_what_cannot_be_judged_is_said():
    with pytest.raises(DataError, match=re.escape("logits have shape (3, 2), label states (3, 4)")):
        judge(np.zeros((3, 2)), np.zeros((3, 4), np.int8))
    with pytest.raises(DataError, match="image 1, class 0 is inf"):
        judge(np.array([[0.0], [np.inf]]), np.zeros((2, 1), np.int8))


def test_classes_with_too_little_are_named():
    states = np.full((30, 4), -1, np.int8)
    states[:, 0] = np.arange(30) % 2
    states[:, 1] = np.arange(30) < 9
    states[:, 2] = 1
    found = too_few(states, ["cat", "a dog", "cow", "eel"])
    assert found == [
        "'a dog' (9 known positive, 21 known negative)",
        "'cow' (30 known positive, 0 known negative)",
        "'eel' (0 known positive, 0 known negative)",
    ]
    assert len(too_few(states, ["cat", "a dog", "cow", "eel"], folds=4)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_many_images_fit_into_little_memory():
    code = """
import resource
import numpy as np
from mlcv.audits import judge
rng = np.random.default_rng(0)
logits = 3 * rng.normal(size=(40_000, 8)).astype(np.float32) - 2
states = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
judge(logits, states)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    mib = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert mib < 100  # 40,000 x 8 numbers are 2.4 MiB as float64


def test_a_class_of_which_the_scores_say_nothing_is_told(numpy_rng):
    logits, given, _ = planted(numpy_rng)
    assert judge(logits, given).is_informed.all()
    useless = logits.copy()
    useless[:, 0] = 0.0  # a constant
    useless[:, 1] = -logits[:, 1]  # upside down, which can be learned
    p_values, informed = [], []
    for _ in range(40):
        useless[:, 2] = numpy_rng.permutation(np.round(logits[:, 2]))  # of another image, with ties
        found = _informed(useless, given)
        assert found[:2].tolist() == [False, True]
        assert found[3:].all()
        above, below = (useless[given[:, 2] == state, 2] for state in (1, 0))
        p_values.append(mannwhitneyu(above, below, use_continuity=False, method="asymptotic").pvalue)
        informed.append(bool(found[2]))
    assert informed == [p < 0.05 for p in p_values]
    assert sum(informed) <= 8  # 2 are expected


def test_of_a_few_labels_nobody_can_tell(numpy_rng):
    states = np.where(np.arange(100)[:, None] < 4, 1, 0).astype(np.int8)
    assert _informed(numpy_rng.normal(size=(100, 1)), states).all()
    assert _informed(np.zeros((0, 2)), np.zeros((0, 2), np.int8)).all()
