"""Conformal sets: exact against brute force, and guarantees that hold over random splits of real predictions."""

import itertools
import math

import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.posthoc.conformal import POWERS, Powerset, choose_power, control_missed, only_positives
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


def test_a_label_set_of_which_a_part_is_known_is_held_if_any_that_agrees_is(numpy_rng):
    probs, targets = simulated(numpy_rng, 60, 4)
    conformal = Powerset.calibrate(probs[:30], targets[:30], 0.5, 2.0)
    partial = targets[30:].clone()
    partial[torch.from_numpy(numpy_rng.random(partial.shape)) < 0.4] = -1
    held = conformal.holds(probs[30:], partial)
    for row, (found, labels) in enumerate(zip(conformal.sets(probs[30:]), partial, strict=True)):
        agrees = ((found.long() == labels) | (labels == -1)).all(dim=1)
        assert held[row] == agrees.any()


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


def test_sets_come_least_strange_first(rng):
    for classes in (1, 3, 7):
        probs = torch.rand(6, classes, generator=rng, dtype=torch.float64)
        conformal = Powerset(float(torch.rand((), generator=rng)) * classes, 2.0, 0.1)
        for row, found in zip(probs, conformal.sets(probs), strict=True):
            strange = [float(((labels.double() - row) ** 2).sum()) for labels in found]
            assert all(one <= other + 1e-9 for one, other in itertools.pairwise(strange))
            assert torch.equal(found[:2], conformal.sets(row[None], limit=2)[0])


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
    assert control_missed(probs, targets, 0.1).threshold == 0


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.3])
def test_the_threshold_is_the_highest_that_conformal_risk_control_allows(numpy_rng, risk):
    probs, targets = simulated(numpy_rng, 60, 6)
    probs = (probs * 20).round() / 20  # ties

    def bound(threshold):
        missed = []
        for p, t in zip(probs.tolist(), targets.tolist(), strict=True):
            positives = [o for o, y in zip(p, t, strict=True) if y == 1]
            missed.append(sum(o < threshold for o in positives) / len(positives) if positives else 0.0)
        return (sum(missed) + 1) / (len(missed) + 1)

    found = control_missed(probs, targets, risk).threshold
    candidates = sorted({value for row in probs.tolist() for value in row})
    allowed = [value for value in candidates if bound(value) <= risk + 1e-9]
    positive = sorted(
        {o for p, t in zip(probs.tolist(), targets.tolist(), strict=True) for o, y in zip(p, t, strict=True) if y == 1}
    )
    expected = max([value for value in positive if value in allowed], default=0.0)
    assert found == pytest.approx(expected)
    if found:
        assert bound(found) <= risk + 1e-9


def hide_half(generator, targets):
    """Every second image has no known label."""
    targets[1::2] = -1


def hide_most(generator, targets):
    """A fifth of the entries is known."""
    targets[torch.from_numpy(generator.random(targets.shape)) > 0.2] = -1


def hide_by_class(generator, targets):
    """Classes are known at rates from 0.2 to 0.9."""
    rates = torch.linspace(0.2, 0.9, targets.shape[1])
    targets[torch.from_numpy(generator.random(targets.shape)) > rates] = -1


def hide_together(generator, targets):
    """One half of the classes, or the other, or neither."""
    which = torch.from_numpy(generator.integers(0, 3, len(targets)))
    half = targets.shape[1] // 2
    targets[which == 0, :half] = -1
    targets[which == 1, half:] = -1


HIDE = [hide_half, hide_most, hide_by_class, hide_together]


@pytest.mark.parametrize("hide", HIDE)
@pytest.mark.parametrize("risk", [0.1, 0.3])
@pytest.mark.parametrize("has_ties", [True, False])
def test_with_unknown_labels_the_threshold_is_the_highest_at_which_the_bound_holds(numpy_rng, hide, risk, has_ties):
    for _ in range(2 if has_ties else 20):  # a hair's breadth of the bound is seen only without ties
        probs, targets = simulated(numpy_rng, 300 if has_ties else 120, 6)
        if has_ties:
            probs = (probs * 20).round() / 20
        hide(numpy_rng, targets)
        rows = [
            (p, t) for p, t in zip(probs.tolist(), targets.tolist(), strict=True) if any(label != -1 for label in t)
        ]
        found = control_missed(probs, targets, risk)
        promised = [c for c in range(6) if not found.why_not[c]]
        rates = [sum(t[c] != -1 for _, t in rows) / len(rows) for c in promised]
        assert len(promised) == 6 or not has_ties
        if len(promised) < 6:
            continue
        entries = []
        for p, t in rows:
            there = [c for c in range(6) if t[c] == 1]
            entries += [(p[c], 1 / rates[c] / len(there)) for c in there]
        expected, total = 0.0, 1 / min(rates)
        for score in sorted({score for score, _ in entries}):  # what lies below a threshold is missed
            missed = sum(share for other, share in entries if other < score)
            if (missed + total) / (len(rows) + 1) <= risk + 1e-9:
                expected = score
        assert found.threshold == pytest.approx(expected)


def missed_of_new_images(generator, hide, count, draws, sample):
    """Mean part of all labels, known or not, that sets at the threshold miss."""
    missed = []
    for _ in range(draws):
        probs, targets = sample(generator, count)
        hide(generator, targets)
        threshold = control_missed(probs, targets, 0.1).threshold
        probs, targets = sample(generator, 2000)
        positive = targets == 1
        lost = (positive & (probs < threshold)).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        missed.append(lost.double().mean().item())
    return np.mean(missed), np.std(missed) / math.sqrt(draws)


def many_labels(generator, count):
    """Ten classes that go together, with over-confident scores."""
    logits = generator.normal(size=(count, 1)) + 1.5 * generator.normal(size=(count, 10)) + np.linspace(-2.2, -0.2, 10)
    targets = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return torch.from_numpy(1 / (1 + np.exp(-1.5 * logits))), torch.from_numpy(targets).long()


def one_label(generator, count):
    """The case in which the bound is tight."""
    logits = torch.from_numpy(2 * generator.normal(size=(count, 10)))
    chosen = torch.distributions.Gumbel(0.0, 1.0).icdf(torch.from_numpy(generator.random((count, 10))))
    return logits.sigmoid(), torch.nn.functional.one_hot((logits + chosen).argmax(dim=1), 10)


@pytest.mark.parametrize("sample", [many_labels, one_label])
@pytest.mark.parametrize("hide", HIDE)
def test_no_more_is_missed_than_promised_whatever_is_unknown(numpy_rng, hide, sample):
    mean, deviation = missed_of_new_images(numpy_rng, hide, 500, 60, sample)
    assert 0.03 < mean < 0.1 + 4 * deviation
    if hide is hide_half:
        assert mean > 0.08  # nothing is lost but the images


@pytest.mark.slow
@pytest.mark.parametrize("count", [500, 1000, 5000])
@pytest.mark.parametrize("sample", [many_labels, one_label])
@pytest.mark.parametrize("hide", HIDE)
def test_over_many_draws_no_more_is_missed_than_promised(numpy_rng, hide, sample, count):
    mean, deviation = missed_of_new_images(numpy_rng, hide, count, 400_000 // count, sample)
    assert mean < 0.1 + 3 * deviation


def test_nothing_is_promised_where_what_a_label_is_decides_whether_it_is_known(numpy_rng):
    probs, targets = many_labels(numpy_rng, 400)
    everything = control_missed(probs, targets, 0.1)
    assert everything.why_not == ("",) * 10
    found = control_missed(probs, torch.where(targets == 1, 1, -1), 0.1)
    assert found.threshold is None
    assert all("only positive labels are known" in reason for reason in found.why_not)
    # One such class is left out, and so are classes that are known hardly or not at all; the promise is of the others.
    partial = targets.clone()
    partial[partial[:, 0] == 0, 0] = -1
    partial[:, 1] = -1
    partial[15:, 2] = -1
    found = control_missed(probs, partial, 0.1)
    assert found.threshold == control_missed(probs[:, 3:], targets[:, 3:], 0.1).threshold
    assert [bool(reason) for reason in found.why_not] == [True] * 3 + [False] * 7
    assert found.why_not[1:3] == ("no label is known", "only 15 labels are known, and 20 are needed")
    assert control_missed(probs, torch.full_like(targets, -1), 0.1).threshold is None
    # All labels known, and all of them positive, is another matter.
    assert control_missed(probs, torch.ones_like(targets), 0.1).threshold > 0


def test_no_label_sets_are_promised_by_images_that_are_known_whole_only_if_they_have_everything():
    targets = torch.ones(30, 3).long()
    targets[20:, 1:] = -1
    need = "^conformal sets of labels need known negatives; of a class only positive ones are known$"
    with pytest.raises(ConfigError, match=need):
        Powerset.calibrate(torch.rand(30, 3), targets, 0.1)
    assert Powerset.calibrate(torch.rand(20, 3), targets[:20], 0.1).bound < 3


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
            threshold = control_missed(probs[first], truth.targets[first], 0.1).threshold
            positive = truth.targets[second] == 1
            lost = (positive & (probs[second] < threshold)).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
            missed.append(lost.double().mean().item())
        assert 0.89 <= np.mean(covered) <= 0.93, path.stem
        assert 0.08 <= np.mean(missed) <= 0.103, path.stem


def test_only_positives_are_found_by_their_definition(numpy_rng):
    for known in (1.0, 0.9, 0.3, 0.05):
        for _ in range(20):
            targets = numpy_rng.integers(0, 2, (12, 4))
            targets[numpy_rng.random((12, 4)) > known] = -1
            targets[:, 0] = np.where(targets[:, 0] == 0, -1, targets[:, 0])
            if numpy_rng.random() < 0.5:
                targets[:, 1] = 1  # known to be there in every image
            if numpy_rng.random() < 0.3:
                targets[targets == 0] = -1
            images = [row for row in targets.tolist() if any(label != -1 for label in row)]
            columns = [[row[c] for row in images] for c in range(4)]
            nothing_absent = all(0 not in column for column in columns)
            expected = [1 in column and 0 not in column and -1 in column for column in columns]
            if nothing_absent and any(-1 in column for column in columns):
                expected = [True] * 4
            assert only_positives(torch.from_numpy(targets)).tolist() == expected


def test_a_class_that_is_known_too_rarely_is_told_how_often_it_must_be(numpy_rng):
    for count, risk in ((100, 0.1), (100, 0.3), (30, 0.5), (400, 0.05), (10, 0.3), (9, 0.3)):
        needed = 2 * count / (risk * (count + 1))
        for known in (math.ceil(needed) - 1, math.ceil(needed)):
            targets = torch.from_numpy(numpy_rng.integers(0, 2, (count, 3)))
            targets[known:, 1] = -1
            targets[0, 1], targets[1, 1] = 0, 1
            found = control_missed(torch.from_numpy(numpy_rng.random((count, 3))), targets, risk)
            few = f"only {known} labels are known, and {math.ceil(needed)} are needed"
            assert found.why_not == ("", few if known < needed else "", "")
            assert found.threshold is not None
    # All labels of a few images are all that there can be.
    assert control_missed(torch.rand(5, 2), torch.tensor([[0, 1]] * 5), 0.1).why_not == ("", "")


def test_numbers_out_of_range_and_labels_unknown_everywhere_are_refused():
    probs, targets = torch.rand(4, 2), torch.full((4, 2), -1)
    with pytest.raises(
        ConfigError, match="^conformal sets of labels need images whose labels are all known; there is none$"
    ):
        Powerset.calibrate(probs, targets, 0.1)
    for wrong in (1.0, 0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ConfigError, match=f"^epsilon lies between 0 and 1, got {wrong}$"):
            Powerset.calibrate(probs, targets, wrong)
        with pytest.raises(ConfigError, match=f"^risk lies between 0 and 1, got {wrong}$"):
            control_missed(probs, targets, wrong)
    for power in (0, -1.0):
        with pytest.raises(ConfigError, match=f"^power is above 0, got {power}$"):
            Powerset.calibrate(probs, targets, 0.1, power=power)
    assert Powerset.calibrate(probs, torch.zeros(4, 2).long(), 0.5, power=0.5).power == 0.5
    assert Powerset.calibrate(probs, torch.zeros(4, 2).long(), 0.5).power == 1
