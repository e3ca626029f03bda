"""Scalings that undo what was done to probabilities, calibration error as its definition, thresholds as asked."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from mlcv.errors import ConfigError
from mlcv.posthoc.calibration import (
    FOLDS,
    LEAST,
    Scaling,
    _fit,
    _held_out,
    _is_better,
    _is_enough,
    _losses,
    _parts,
    classwise_calibration_error,
    fit_scaling,
    logits_of,
)
from mlcv.posthoc.thresholds import choose_class_thresholds, top_k


@pytest.fixture
def data(numpy_rng):
    """Right probabilities of 3 classes, labels drawn from them, and a sixth of the entries unknown."""
    right = torch.from_numpy(numpy_rng.beta(0.7, 1.2, (20_000, 3)))
    targets = (torch.from_numpy(numpy_rng.random((20_000, 3))) < right).long()
    targets[torch.from_numpy(numpy_rng.random((20_000, 3))) < 1 / 6] = -1
    return right, targets


def test_a_temperature_is_undone(data):
    right, targets = data
    wrong = (right.logit() * torch.tensor([3.0, 1.0, 0.4])).sigmoid()
    scaling = fit_scaling(wrong, targets, "temperature")
    torch.testing.assert_close(scaling.slope, torch.tensor([1 / 3, 1, 2.5]).double(), rtol=0.12, atol=0)
    assert (scaling.offset == 0).all()
    before, after = classwise_calibration_error(wrong, targets), classwise_calibration_error(scaling(wrong), targets)
    assert (after < 0.03).all()
    assert before[0] > 0.08


def test_slope_and_offset_are_undone_and_the_order_kept(data):
    right, targets = data
    wrong = ((right.logit() - 1) * 2).sigmoid()
    scaling = fit_scaling(wrong, targets, "platt")
    torch.testing.assert_close(scaling.slope, torch.full((3,), 0.5).double(), rtol=0.12, atol=0)
    torch.testing.assert_close(scaling.offset, torch.ones(3).double(), rtol=0.15, atol=0)
    in_order = scaling(wrong).gather(0, wrong.argsort(dim=0))
    assert (in_order.diff(dim=0) >= 0).all()


KINDS = ("right", "over-confident", "rare", "rare and over-confident", "mixed", "upside down")


def drawing(generator, kind, count):
    """Draws probabilities and labels of ten classes; "rare" ones have two or three positives in `count` images.

    Probabilities are right, or over-confident; "mixed": in every second class; "upside down": right but for the last
    class, where the likely images are the unlikely ones.
    """
    spread, middle = generator.uniform(1, 2.5, 10), generator.uniform(-2.5, -0.5, 10)
    if kind.startswith("rare"):
        middle = np.full(10, np.log(2.5 / count) - 1)
    is_wrong = {"right": False, "rare": False, "upside down": False, "mixed": np.arange(10) % 2 == 1}.get(kind, True)

    def draw(images):
        logits = spread * generator.normal(size=(images, 10)) + middle
        targets = (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
        logits = np.where(is_wrong, 2.5 * (logits + 0.4), logits)
        if kind == "upside down":
            logits[:, -1] = -logits[:, -1]
        return torch.from_numpy(1 / (1 + np.exp(-logits))), torch.from_numpy(targets)

    return draw


def log_loss(probs, targets):
    return torch.where(targets == 1, -probs.log(), -torch.log1p(-probs)).mean().item()


def changes(generator, kind, count, draws, method="platt"):
    """How calibration error and log-loss of new images change: means over draws, standard errors; who was scaled."""
    found, scaled_by = [], []
    for _ in range(draws):
        draw = drawing(generator, kind, count)
        scaling = fit_scaling(*draw(count), method)
        probs, targets = draw(2000)
        after = scaling(probs)
        error, error_after = (classwise_calibration_error(p, targets).mean().item() for p in (probs, after))
        found.append((error_after - error, log_loss(after, targets) - log_loss(probs, targets)))
        scaled_by += scaling.scaled_by
    return np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(draws), scaled_by


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaling_does_not_harm_and_helps_where_it_can(numpy_rng, kind):
    mean, deviation, scaled_by = changes(numpy_rng, kind, 300, 12)
    assert (mean < 0.001 + 3 * deviation).all()
    if kind in ("right", "rare"):
        assert scaled_by.count("none") > 0.7 * len(scaled_by)
    elif kind == "over-confident":
        assert (mean < (-0.05, -0.08)).all()
        assert scaled_by.count("none") < 0.05 * len(scaled_by)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("count", [100, 300, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_over_many_draws_neither_calibration_error_nor_loss_of_new_images_rises(numpy_rng, kind, count, method):
    mean, _, _ = changes(numpy_rng, kind, count, 100, method)
    assert (mean < 0.0005).all()


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_scaling_turns_the_order_of_images_round(numpy_rng, kind, method):
    draw = drawing(numpy_rng, kind, 300)
    scaling = fit_scaling(*draw(300), method)
    assert (scaling.slope > 0).all()
    probs = draw(500)[0]
    order = probs.argsort(dim=0)
    assert (scaling(probs).gather(0, order).diff(dim=0) >= 0).all()


def test_each_class_says_what_it_was_scaled_by(numpy_rng):
    draw = drawing(numpy_rng, "over-confident", 1000)
    probs, targets = draw(1000)
    probs[:, 0] = ((probs[:, 0].logit() + 4) * 0.3).sigmoid()  # wrong in another way
    targets[:, 1:3] = -1
    few = 2 * LEAST - 1
    targets[:LEAST, 1], targets[LEAST:few, 1] = 1, 0  # one known negative too few
    targets[:LEAST, 2], targets[LEAST : 2 * LEAST, 2] = 1, 0
    targets[:, 3] = 0
    found = {method: fit_scaling(probs, targets, method) for method in ("platt", "temperature", "none")}
    platt = found["platt"]
    assert platt.scaled_by[0] == "own"
    assert platt.scaled_by[1] == "shared"
    assert platt.scaled_by[3] == "none"
    assert platt.scaled_by.count("shared") >= 5
    for scaling in found.values():
        for by, slope, offset in zip(scaling.scaled_by, scaling.slope, scaling.offset, strict=True):
            assert (by == "none") == (slope == 1 and offset == 0)
    shared = {float(slope) for by, slope in zip(platt.scaled_by, platt.slope, strict=True) if by == "shared"}
    assert len(shared) == 1
    assert (found["temperature"].offset == 0).all()
    assert found["none"].scaled_by == ("none",) * 10


@pytest.mark.parametrize("free", [True, False])
def test_what_is_fitted_has_the_smallest_loss_of_smoothed_targets(numpy_rng, free):
    logits = numpy_rng.normal(size=(200, 3)) * 3
    labels = numpy_rng.integers(-1, 2, (200, 3))
    labels[:40] = logits[:40] > 1

    def cost(slope, offset):
        positives, negatives = (labels == 1).sum(), (labels == 0).sum()
        total = 0.0
        for z, y in zip(logits[labels >= 0].tolist(), labels[labels >= 0].tolist(), strict=True):
            p = 1 / (1 + np.exp(-(slope * z + offset)))
            soft = (positives + 1) / (positives + 2) if y else 1 / (negatives + 2)
            total -= soft * np.log(p) + (1 - soft) * np.log(1 - p)
        return total

    slope, offset = _fit(logits, labels, "platt" if free else "temperature")
    best = cost(slope, offset)
    for step in (0.01, -0.01):
        assert cost(slope + step, offset) > best
        assert not free or cost(slope, offset + step) > best
    assert free or offset == 0


def test_parts_are_equal_and_share_out_each_class(numpy_rng):
    labels = (numpy_rng.random((203, 4)) < (0.3, 0.3, 0.1, 0.05)).astype(int)
    part = _parts(labels, 1)
    sizes = np.bincount(part, minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1
    rarest = labels.sum(axis=0).argmin()
    positives = np.bincount(part[labels[:, rarest] == 1], minlength=FOLDS)
    assert positives.max() - positives.min() <= 1
    assert (part == _parts(labels, 1)).all()
    assert (part != _parts(labels, 2)).any()


def test_probabilities_of_large_logits_stay_apart_when_scaled():
    probs = torch.tensor([20.0, 23.0, 26.0, 26.1, -26.0], dtype=torch.float64).sigmoid()[:, None]
    for slope in (1.0, 0.3):
        scaled = Scaling(torch.tensor([slope], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64))(probs)
        assert (scaled[:4].diff(dim=0) > 0).all()
    as_they_are = Scaling(torch.ones(1).double(), torch.zeros(1).double())
    assert torch.equal(
        as_they_are(torch.tensor([[0.0], [1e-20], [1.0]])), torch.tensor([[0.0], [1e-20], [1.0]]).double()
    )


def test_classes_that_cannot_be_judged_and_no_method_change_nothing(data):
    right, targets = data
    targets[:, 0] = 0
    for method in ("none", "temperature", "platt"):
        torch.testing.assert_close(fit_scaling(right, targets, method)(right)[:, 0], right[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fit_scaling(right, targets, "none")(right), right, rtol=1e-6, atol=1e-6)


def test_separable_classes_and_certain_probabilities_stay_finite():
    probs = torch.tensor([[0.0], [0.1], [0.9], [1.0]])
    targets = torch.tensor([[0], [0], [1], [1]])
    for method in ("temperature", "platt"):
        calibrated = fit_scaling(probs, targets, method)(probs)
        assert calibrated.isfinite().all()
        assert (calibrated[:2] < 0.5).all()
        assert (calibrated[2:] > 0.5).all()


def test_calibration_error_is_its_definition(data):
    right, targets = data
    errors = classwise_calibration_error(right**2, targets, bins=7)
    for c in range(3):
        rows = targets[:, c] >= 0
        pairs = sorted(zip((right[rows, c] ** 2).tolist(), targets[rows, c].tolist(), strict=True))
        total = 0.0
        for part in np.array_split(np.array(pairs), 7):
            total += len(part) / len(pairs) * abs(part[:, 0].mean() - part[:, 1].mean())
        assert errors[c].item() == pytest.approx(total, abs=1e-9)
    assert classwise_calibration_error(right, torch.full_like(targets, -1)).isnan().all()


def test_thresholds_reach_what_they_are_chosen_for(data):
    probs, targets = data
    probs = (probs * 50).round() / 50  # ties
    for goal, level in (("f1", 0.9), ("precision", 0.8), ("recall", 0.9)):
        thresholds = choose_class_thresholds(probs, targets, goal, level)
        for c in range(3):
            rows = targets[:, c] >= 0
            truth, scores = targets[rows, c].numpy(), probs[rows, c].numpy()

            def at(t, metric, truth=truth, scores=scores):
                return metric(truth, scores >= t, zero_division=0)

            candidates = np.unique(scores)
            if goal == "f1":
                best = max(at(t, f1_score) for t in candidates)
                assert at(thresholds[c].item(), f1_score) == pytest.approx(best)
            elif goal == "precision":
                assert thresholds[c].item() == min(t for t in candidates if at(t, precision_score) >= level)
            else:
                assert thresholds[c].item() == max(t for t in candidates if at(t, recall_score) >= level)


def test_a_precision_out_of_reach_predicts_nothing_and_unjudged_classes_get_a_half():
    probs = torch.tensor([[0.9, 0.4], [0.8, 0.6]])
    targets = torch.tensor([[0, 1], [1, 1]])
    thresholds = choose_class_thresholds(probs, targets, "precision", 0.9)
    assert thresholds[0] > 1
    assert thresholds[1] == 0.5
    assert thresholds[0] == 1 + 1e-6
    for level in (0, -0.5, 1.1):
        with pytest.raises(ConfigError, match=rf"^the level of recall lies in \(0, 1\], got {level}$"):
            choose_class_thresholds(probs, targets, "recall", level)
    assert choose_class_thresholds(probs, torch.tensor([[1, 1], [0, 0]]), "recall", 1).tolist() == probs[0].tolist()


def test_a_level_that_is_met_exactly_is_met():
    """Ninths and tenths that no float holds exactly."""
    for count in (10, 9, 7, 30):
        probs = torch.linspace(0.9, 0.1, count).double()[:, None]
        for hits in range(1, count):
            targets = (torch.arange(count) < hits).long()[:, None]
            # The first `hits` are there: precision is hits / k from the k-th on, recall k / hits up to it.
            for k in range(1, hits + 1):
                chosen = choose_class_thresholds(probs, targets, "recall", k / hits)
                assert chosen == probs[k - 1]
            for k in range(hits, count + 1):
                assert choose_class_thresholds(probs, targets, "precision", hits / k) == probs[k - 1]


def test_thresholds_are_of_f1_and_nine_tenths_if_nobody_says_otherwise(data):
    probs, targets = (x[:300] for x in data)
    assert torch.equal(choose_class_thresholds(probs, targets), choose_class_thresholds(probs, targets, "f1"))
    for goal in ("precision", "recall"):
        found = choose_class_thresholds(probs, targets, goal)
        assert found.dtype == torch.float64
        assert torch.equal(found, choose_class_thresholds(probs, targets, goal, 0.9))


def test_the_likeliest_classes_are_chosen():
    probs = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    assert top_k(probs, 2).tolist() == [[False, True, True], [True, True, False]]
    assert top_k(probs, 2).dtype == torch.bool
    assert top_k(probs, 9).all()


def test_calibration_error_has_fifteen_bins_and_judges_what_is_known_at_all(data):
    right, targets = (x[:100] for x in data)
    assert torch.equal(classwise_calibration_error(right, targets), classwise_calibration_error(right, targets, 15))
    targets[1:, 0], targets[0, 0] = -1, 1
    errors = classwise_calibration_error(right, targets, 200)  # most bins are empty
    assert errors[0].item() == pytest.approx(1 - right[0, 0].item())
    known = targets[:, 1] >= 0
    assert errors[1].item() == pytest.approx((right[known, 1] - targets[known, 1]).abs().mean().item())


def test_logits_are_finite_and_those_of_a_billionth_right():
    probs = torch.tensor([0.0, 1e-15, 1e-9, 0.25, 1 - 1e-9, 1.0], dtype=torch.float64)
    logits = logits_of(probs)
    assert logits[2:5].tolist() == pytest.approx([np.log(1e-9 / (1 - 1e-9)), np.log(1 / 3), np.log((1 - 1e-9) / 1e-9)])
    assert logits[0] == logits[1] == pytest.approx(np.log(1e-12), abs=1e-9)
    assert logits[5] == pytest.approx(-np.log(1e-12), rel=1e-3)
    assert logits_of(probs.float()).dtype == torch.float64


@pytest.mark.parametrize("is_more", [True, False])
def test_a_class_needs_ten_images_that_have_it_and_ten_that_lack_it(numpy_rng, is_more):
    for state in (0, 1):
        labels = np.full((60, 1), 1 - state)
        labels[: LEAST - 1 + is_more] = state
        labels[50:] = -1
        assert _is_enough(numpy_rng.permutation(labels)) == is_more
    several = np.full((25, 2), -1)
    several[:5, 0], several[5:10, 1] = 1, 1  # ten images that have a class, none of them both
    several[10 : 19 + is_more, 1] = 0
    assert _is_enough(several) == is_more
    several[:10] = 1  # and one with two classes counts once
    several[9] = 0
    assert not _is_enough(several)


def test_losses_of_images_are_summed_over_what_is_known_of_them(numpy_rng):
    logits, labels = 3 * numpy_rng.normal(size=(30, 4)), numpy_rng.integers(-1, 2, (30, 4))
    expected = []
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        p = [1 / (1 + np.exp(-value)) for value in z]
        expected.append(sum(-np.log(q if label else 1 - q) for q, label in zip(p, y, strict=True) if label >= 0))
    before = logits.copy()
    assert _losses(logits, labels).tolist() == pytest.approx(expected)
    assert (logits == before).all()


def test_better_is_a_loss_lower_by_two_standard_errors_and_no_greater_calibration_error(numpy_rng):
    outcomes = set()
    for turn in range(200):
        right = 1.5 * numpy_rng.normal(size=(100, 2))
        labels = (numpy_rng.random((100, 2)) < 1 / (1 + np.exp(-right))).astype(int)
        labels[numpy_rng.random((100, 2)) < 0.3] = -1
        labels[:5] = -1  # images that say nothing are none of the mean
        base = (1 if turn % 2 else 4) * right
        candidate = numpy_rng.uniform(0.3, 2.5) * right + numpy_rng.uniform(-0.5, 0.5)
        if turn % 4 == 1:  # which tells labels apart, and is far too cautious
            candidate = 0.4 * np.where(labels == 1, 1, -1)
            base = 0.1 * right
        known = (labels >= 0).any(axis=1)
        gain = (_losses(base, labels) - _losses(candidate, labels))[known]
        is_lower = gain.mean() > 2 * np.sqrt(((gain - gain.mean()) ** 2).sum() / (len(gain) - 1)) / np.sqrt(len(gain))
        true = torch.from_numpy(labels[labels >= 0])[:, None]
        before, after = (
            classwise_calibration_error(torch.from_numpy(1 / (1 + np.exp(-z[labels >= 0])))[:, None], true)
            for z in (base, candidate)
        )
        outcomes.add((bool(is_lower), bool(after <= before)))
        assert _is_better(candidate, base, labels) == (is_lower and after <= before)
    assert len(outcomes) == 4
    assert not _is_better(base, base, labels)  # nothing is not better


def test_each_image_is_scaled_by_what_was_fitted_to_the_other_parts(numpy_rng):
    logits, labels = 2 * numpy_rng.normal(size=(60, 4)), numpy_rng.integers(-1, 2, (60, 4))
    groups = [[0, 2], [3]]
    before = logits.copy()
    found = _held_out(logits, labels, "platt", groups, 3)
    assert (logits == before).all()
    part = _parts(labels, 3)
    for image in range(60):
        others = part != part[image]
        for group in groups:
            slope, offset = _fit(logits[others][:, group], labels[others][:, group], "platt")
            assert found[image, group] == pytest.approx(slope * logits[image, group] + offset)
        assert found[image, 1] == logits[image, 1]


def test_a_slope_stays_between_its_bounds_whatever_the_labels_say(numpy_rng):
    logits = numpy_rng.normal(size=(400, 1))
    for method in ("platt", "temperature"):
        assert _fit(logits, (logits < 0).astype(int), method)[0] == pytest.approx(np.exp(-5))
        assert _fit(1e-3 * logits, (logits > 0).astype(int), method)[0] == pytest.approx(np.exp(5))
