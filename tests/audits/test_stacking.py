import numpy as np
import pytest
from scipy.optimize import minimize

from mlcv.audits import stacking
from mlcv.audits.stacking import deal, stack
from tests.audits.made import planted


def oracle(logits, states, folds):
    """The same by a general minimiser, a class and a fold at a time, from the formula."""
    classes = logits.shape[1]
    s = (logits - logits.mean(0)) / logits.std(0)
    t = np.zeros_like(s)
    for c in range(classes):
        is_known = states[:, c] >= 0
        r = states[is_known, c].mean()
        t[is_known, c] = (states[is_known, c] - r) / np.sqrt(r * (1 - r))
    found = np.empty_like(s)
    for c in range(classes):
        others = [j for j in range(classes) if j != c]
        x = np.column_stack([3 * s[:, c], s[:, others], t[:, others]])
        for fold in set(folds.tolist()):
            rows = (folds != fold) & (states[:, c] >= 0)

            def loss(w, rows=rows, x=x, c=c):
                z = x[rows] @ w[:-1] + w[-1]
                return (np.logaddexp(0, z) - states[rows, c] * z).sum() + 20 * (w[:-1] ** 2).sum()

            w = minimize(loss, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-4}).x
            found[folds == fold, c] = x[folds == fold] @ w[:-1] + w[-1]
    return found


def test_equals_the_formula(numpy_rng):
    logits, given, _ = planted(numpy_rng, 300, 3)
    given[numpy_rng.random(given.shape) < 0.2] = -1
    folds = deal(300, None, 0)
    assert stack(logits, given, folds) == pytest.approx(oracle(logits, given, folds), abs=0.01)


def test_the_own_label_of_an_image_is_no_input(numpy_rng):
    logits, given, _ = planted(numpy_rng, 500, 4)
    folds = deal(500, None, 0)
    before = stack(logits, given, folds)
    changed = given.copy()
    changed[7, 2] = 1 - changed[7, 2]
    after = stack(logits, changed, folds)
    # Its own fold's weights are of others; the inputs' standardisation alone moves, by one label in 500.
    assert after[7, 2] == pytest.approx(before[7, 2], abs=1e-6)
    assert abs(after[7, 0] - before[7, 0]) > 1e-3


def test_other_labels_are_used(numpy_rng):
    truth = numpy_rng.integers(0, 2, (2000, 1)).astype(np.int8)
    states = np.hstack([truth, truth])  # each label says what the other is
    stacked = stack(numpy_rng.normal(size=(2000, 2)), states, deal(2000, None, 0))
    assert ((stacked > 0) == (states == 1)).all()


def test_images_of_a_group_share_a_fold_and_folds_are_all_used(numpy_rng):
    groups = numpy_rng.choice([f"patient {i}" for i in range(40)], 200)
    folds = deal(200, groups, 3)
    assert set(folds.tolist()) == set(range(5))
    for group in set(groups):
        assert len(set(folds[groups == group].tolist())) == 1
    assert (folds == deal(200, groups, 3)).all()
    assert (folds != deal(200, groups, 4)).any()
    assert np.bincount(deal(203, None, 0)).tolist() == [41, 41, 41, 40, 40]
    assert deal(0, None, 0).shape == (0,)


def test_a_class_with_too_little_known_keeps_its_logits(numpy_rng):
    logits, given, _ = planted(numpy_rng, 200, 3)
    given[:, 1] = 0
    given[0, 1] = 1
    stacked = stack(logits, given, deal(200, None, 0))
    assert (stacked[:, 1] == logits[:, 1]).all()
    assert (stacked[:, 0] != logits[:, 0]).all()


def test_a_draw_of_many_images_hardly_moves_the_logits(numpy_rng, monkeypatch):
    logits, given, _ = planted(numpy_rng, 12_000, 4)
    folds = deal(len(given), None, 0)
    every = stack(logits, given, folds)
    monkeypatch.setattr(stacking, "_MOST", 2500)
    drawn = stack(logits, given, folds)
    assert (drawn != every).any()
    assert np.abs(drawn - every).mean() < 0.15
    assert (drawn - every).mean() == pytest.approx(0, abs=0.1)  # what is drawn stands for what is not
