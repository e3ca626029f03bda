"""Which scaling a class gets: its own, the shared one or none, by the rule as `fit_scaling` documents it."""

import numpy as np
import pytest
import torch

from mlcv.posthoc import calibration
from mlcv.posthoc.calibration import (
    FOLDS,
    SLOPES,
    _fit,
    _held_out,
    _is_better,
    _is_enough,
    _losses,
    _parts,
    fit_scaling,
    logits_of,
)
from tests.posthoc.test_calibration import KINDS, drawing


def partial(generator, kind):
    """A tenth of the labels unknown, two classes with few positives, one with none, and images of which nothing is."""
    probs, targets = drawing(generator, kind, 300)(300)
    targets[torch.from_numpy(generator.random(targets.shape)) < 0.1] = -1
    for c in (0, 1):
        positive = (targets[:, c] == 1).nonzero().flatten()
        targets[positive[int(generator.integers(1, 9)) :], c] = -1
    targets[targets[:, 2] == 1, 2] = -1
    targets[::10] = -1
    return probs, targets


def expected(probs, targets, method, seed):
    """Slope, offset and word of each class."""
    judged = (targets >= 0).any(dim=1)
    logits, labels = logits_of(probs[judged]).numpy(), targets[judged].numpy()
    found = [(1.0, 0.0, "none")] * labels.shape[1]
    classes = [c for c in range(labels.shape[1]) if {0, 1} <= set(labels[:, c].tolist())]
    if method == "none" or not _is_enough(labels[:, classes]):
        return found
    enough = [c for c in classes if _is_enough(labels[:, [c]])]
    base = logits.copy()
    shared = _held_out(logits, labels, method, [classes], seed)
    if _is_better(shared[:, classes], logits[:, classes], labels[:, classes]):
        for c in classes:
            before, after = (_losses(z[:, [c]], labels[:, [c]]).sum() for z in (logits, shared))
            if c in enough and after > before:
                continue
            base[:, c] = shared[:, c]
            found[c] = (*_fit(logits[:, classes], labels[:, classes], method), "shared")
    for c in enough:
        own = _held_out(logits, labels, method, [[c]], seed)
        if _is_better(own[:, [c]], base[:, [c]], labels[:, [c]]):
            found[c] = (*_fit(logits[:, [c]], labels[:, [c]], method), "own")
    return found


@pytest.mark.parametrize("method", ["platt", "temperature", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_class_is_scaled_by_the_rule(numpy_rng, kind, method):
    for seed in range(3):
        probs, targets = partial(numpy_rng, kind)
        scaling = fit_scaling(probs, targets, method, seed)
        wanted = expected(probs, targets, method, seed)
        found = zip(scaling.slope.tolist(), scaling.offset.tolist(), scaling.scaled_by, strict=True)
        assert list(found) == wanted
        assert wanted[2] == (1, 0, "none")


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("seed", [None, 4])
def test_parts_are_the_seeds_and_fits_of_one_method(numpy_rng, monkeypatch, method, seed):
    seeds, methods = [], []
    parts, fit = calibration._parts, calibration._fit
    monkeypatch.setattr(calibration, "_parts", lambda labels, given: seeds.append(given) or parts(labels, given))
    monkeypatch.setattr(calibration, "_fit", lambda z, y, given: methods.append(given) or fit(z, y, given))
    fit_scaling(*partial(numpy_rng, "over-confident"), method, *([] if seed is None else [seed]))
    assert set(seeds) == {seed or 0}
    assert set(methods) == {method}


def test_too_few_labels_of_all_classes_together_scale_nothing(numpy_rng):
    probs = torch.from_numpy(numpy_rng.random((60, 3)))
    targets = torch.zeros(60, 3).long()
    targets[:3, 0], targets[3:6, 1], targets[6:9, 2] = 1, 1, 1
    assert fit_scaling(probs, targets, "platt").scaled_by == ("none",) * 3
    nothing = fit_scaling(probs, torch.full_like(targets, -1), "platt")
    assert (nothing.slope.tolist(), nothing.offset.tolist()) == ([1] * 3, [0] * 3)
    assert nothing.slope.dtype == torch.float64
    assert np.isfinite(nothing(probs).numpy()).all()


def test_images_of_each_rarest_class_and_those_of_none_are_shared_out_alike(numpy_rng):
    labels = (numpy_rng.random((211, 4)) < (0.3, 0.25, 0.1, 0.05)).astype(int)
    labels[numpy_rng.random((211, 4)) < 0.1] = -1
    counts = (labels == 1).sum(axis=0)
    own = [min((int(counts[c]), c) for c in range(4) if row[c] == 1)[1] if 1 in row else -1 for row in labels.tolist()]
    part = _parts(labels, int(numpy_rng.integers(100)))
    for c in range(-1, 4):
        sizes = np.bincount(part[np.array(own) == c], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_of_few_labels_a_fit_ends_where_the_loss_of_platts_targets_is_flat(numpy_rng, method):
    inside = 0
    for _ in range(20):
        logits, labels = numpy_rng.normal(size=(24, 2)), numpy_rng.integers(-1, 2, (24, 2))
        labels[(logits > 0) & (numpy_rng.random((24, 2)) < 0.4)] = 1
        slope, offset = _fit(logits, labels, method)
        z, y = logits[labels >= 0], labels[labels >= 0]
        soft = np.where(y == 1, ((y == 1).sum() + 1) / ((y == 1).sum() + 2), 1 / ((y == 0).sum() + 2))
        slant = 1 / (1 + np.exp(-(slope * z + offset))) - soft
        if 1.01 * SLOPES[0] < slope < 0.99 * SLOPES[1]:
            inside += 1
            assert abs((slant * z).mean()) < 3e-4
        assert abs(slant.mean()) < 3e-4 if method == "platt" else offset == 0
    assert inside > 5


@pytest.mark.parametrize("deviations", [1.98, 2.02])
def test_chance_ends_at_two_standard_errors_of_the_mean(numpy_rng, monkeypatch, deviations):
    """Of gains that are given, at an equal calibration error, which is not greater."""
    gains = numpy_rng.normal(size=12)
    gains += deviations * gains.std(ddof=1) / np.sqrt(12) - gains.mean()
    losses = iter((gains, np.zeros(12)))
    monkeypatch.setattr(calibration, "_losses", lambda *_: next(losses))
    logits = numpy_rng.normal(size=(12, 1))
    assert _is_better(logits, logits, (logits > 0).astype(int)) == (deviations > 2)
