"""Conformal sets: exact against brute force, and guarantees that hold over random splits of real predictions."""

import itertools
import math

import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.posthoc.conformal import POWERS, Powerset, choose_power, control_missed
from mlcv.posthoc.predictions import read_predictions
from mlcv.posthoc.truth import read_truth


def simulated(generator, count, classes, prior=0.3):
    """Labels drawn from the probabilities, which are therefore right, then made wrong by a power."""
    probs = torch.from_numpy(generator.beta(prior, 1 - prior, (count, classes)))
    targets = (torch.from_numpy(generator.random((count, classes))) < probs).long()
    return probs**1.5, targets


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.6])
def test_pruned_sets_are_those_of_all_label_sets_by_their_p_values(numpy_rng, power, epsilon):
    classes = 5
    probs, targets = simulated(numpy_rng, 40, classes)
    calibration, tested = slice(0, 30), slice(30, 40)
    conformal = Powerset.calibrate(probs[calibration], targets[calibration], epsilon, power)

    def strange(labels, row):
        return sum(abs(y - o) ** power for y, o in zip(labels, row, strict=True))

    known = [strange(t, p) for t, p in zip(targets[calibration].tolist(), probs[calibration].tolist(), strict=True)]
    every, some = conformal.certain(probs[tested])
    for n, (row, found) in enumerate(zip(probs[tested].tolist(), conformal.sets(probs[tested]), strict=True)):
        expected = set()
        for labels in itertools.product((0, 1), repeat=classes):
            value = strange(labels, row)
            p = (sum(a >= value - 1e-12 for a in known) + 1) / (len(known) + 1)
            if p > epsilon:
                expected.add(labels)
        assert {tuple(map(int, labels)) for labels in found.tolist()} == expected
        assert len(found) == len(expected)
        if expected:
            assert every[n].tolist() == [all(labels[c] for labels in expected) for c in range(classes)]
            assert some[n].tolist() == [any(labels[c] for labels in expected) for c in range(classes)]


def test_the_power_that_decides_most_is_chosen_and_costs_no_coverage(numpy_rng):
    doubt = torch.from_numpy(numpy_rng.random((4000, 1)) * 0.15)  # more in some images than in others, in all classes
    targets = torch.from_numpy(numpy_rng.random((4000, 60)) < 0.1).long()
    probs = (targets - doubt).abs()
    probs[:, :2] = torch.from_numpy(numpy_rng.random((4000, 2)))  # open questions
    targets[:, :2] = (torch.from_numpy(numpy_rng.random((4000, 2))) < probs[:, :2]).long()
    parts = torch.arange(4000).split([1000, 1000, 2000])
    power = choose_power(probs[parts[0]], targets[parts[0]], 0.1)
    undecided = {}
    for one in POWERS:
        sets = Powerset.calibrate(probs[parts[1]], targets[parts[1]], 0.1, one)
        every, some = sets.certain(probs[parts[2]])
        undecided[one] = (some & ~every).sum(dim=1).double().mean().item()
        assert sets.holds(probs[parts[2]], targets[parts[2]]).double().mean() > 0.86
    assert undecided[power] <= 1.1 * min(undecided.values()) < 0.5 * undecided[1.0]
    partial = targets.clone()
    partial[::2, 0] = -1
    assert choose_power(probs, partial, 0.1) == choose_power(probs[1::2], targets[1::2], 0.1)


def test_label_sets_of_a_hundred_classes_are_covered_as_promised(numpy_rng):
    probs, targets = simulated(numpy_rng, 3000, 100, prior=0.03)
    for epsilon in (0.1, 0.2):
        covered = []
        for _ in range(20):
            order = torch.from_numpy(numpy_rng.permutation(3000))
            conformal = Powerset.calibrate(probs[order[:500]], targets[order[:500]], epsilon)
            covered.append(conformal.holds(probs[order[500:]], targets[order[500:]]).double().mean().item())
        assert 1 - epsilon - 0.02 <= np.mean(covered) <= 1 - epsilon + 0.03
        every, some = conformal.certain(probs[order[500:]])
        inside = conformal.holds(probs[order[500:]], targets[order[500:]])
        truth = targets[order[500:]].bool()
        assert (truth | ~every)[inside].all()
        assert (some | ~truth)[inside].all()
    assert len(conformal.sets(probs[:1], limit=50)[0]) <= 50


def test_few_images_promise_only_everything():
    probs, targets = torch.full((5, 3), 0.9), torch.ones(5, 3).long()
    conformal = Powerset.calibrate(probs, targets, 0.1)
    assert math.isinf(conformal.bound)
    assert len(conformal.sets(probs[:1])[0]) == 8
    assert control_missed(probs, targets, 0.1) == 0


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.3])
def test_the_threshold_is_the_highest_that_conformal_risk_control_allows(numpy_rng, risk):
    probs, targets = simulated(numpy_rng, 60, 6)
    probs = (probs * 20).round() / 20  # ties
    targets[::7] = -1

    def bound(threshold):
        missed = []
        for p, t in zip(probs.tolist(), targets.tolist(), strict=True):
            positives = [o for o, y in zip(p, t, strict=True) if y == 1]
            missed.append(sum(o < threshold for o in positives) / len(positives) if positives else 0.0)
        return (sum(missed) + 1) / (len(missed) + 1)

    found = control_missed(probs, targets, risk)
    candidates = sorted({value for row in probs.tolist() for value in row})
    allowed = [value for value in candidates if bound(value) <= risk + 1e-9]
    positive = sorted(
        {o for p, t in zip(probs.tolist(), targets.tolist(), strict=True) for o, y in zip(p, t, strict=True) if y == 1}
    )
    expected = max([value for value in positive if value in allowed], default=0.0)
    assert found == pytest.approx(expected)
    if found:
        assert bound(found) <= risk + 1e-9


def splits(count, generator, times):
    for _ in range(times):
        order = torch.from_numpy(generator.permutation(count))
        yield order[: count // 2], order[count // 2 :]


def test_real_predictions_are_covered_over_a_hundred_splits(shared_data):
    """Ten leaderboard models on CheXpert's test studies. Scores above 1 are cut: any score may be calibrated."""
    tasks = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    folder = shared_data / "chest_xray" / "chexpert_test"
    truth = read_truth(folder / "groundtruth.csv", tasks)
    generator = np.random.default_rng(0)
    for path in sorted((folder / "example_models" / "predictions" / "standard").glob("*.csv")):
        model = read_predictions(path, tasks)
        place = {name: row for row, name in enumerate(model.ids)}
        probs = model.scores[[place[name] for name in truth.ids]].clamp(0, 1)
        covered, missed = [], []
        for first, second in splits(len(probs), generator, 100):
            conformal = Powerset.calibrate(probs[first], truth.targets[first], 0.1)
            covered.append(conformal.holds(probs[second], truth.targets[second]).double().mean().item())
            threshold = control_missed(probs[first], truth.targets[first], 0.1)
            positive = truth.targets[second] == 1
            lost = (positive & (probs[second] < threshold)).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
            missed.append(lost.double().mean().item())
        assert 0.89 <= np.mean(covered) <= 0.93, path.stem
        assert 0.08 <= np.mean(missed) <= 0.103, path.stem


def test_numbers_out_of_range_and_labels_unknown_everywhere_are_refused():
    probs, targets = torch.rand(4, 2), torch.full((4, 2), -1)
    with pytest.raises(ConfigError, match="labels are all known; there is none"):
        Powerset.calibrate(probs, targets, 0.1)
    with pytest.raises(ConfigError, match="epsilon lies between 0 and 1, got 1"):
        Powerset.calibrate(probs, targets, 1.0)
    with pytest.raises(ConfigError, match="power is above 0"):
        Powerset.calibrate(probs, targets, 0.1, power=0)
    with pytest.raises(ConfigError, match="risk lies between 0 and 1, got 0"):
        control_missed(probs, targets, 0.0)
