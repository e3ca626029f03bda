"""A calibration as a file: what was found is what is kept, read, said and done; everything else is refused."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.posthoc.calibrated import FORMAT, Calibration, labelled
from mlcv.posthoc.calibration import fit_scaling
from mlcv.posthoc.conformal import Powerset, choose_power, control_missed
from mlcv.posthoc.thresholds import choose_class_thresholds

NAMES = ("a", "b", "c")


def drawn(generator, count=400, unknown=0.0):
    right = torch.from_numpy(generator.beta(0.5, 1.0, (count, 3)))
    targets = (torch.from_numpy(generator.random((count, 3))) < right).long()
    targets[torch.from_numpy(generator.random((count, 3))) < unknown] = -1
    return (2.5 * (right.logit(eps=1e-6) + 0.4)).sigmoid(), targets


@pytest.mark.parametrize("unknown", [0.0, 0.5])
def test_each_part_is_fitted_to_the_images_that_it_may_see(numpy_rng, unknown):
    probs, targets = drawn(numpy_rng, unknown=unknown)
    seed = int(numpy_rng.integers(100))
    options = {"method": "temperature", "goal": "recall", "level": 0.8, "risk": 0.2, "epsilon": 0.3}
    found = Calibration.fit(probs, targets, NAMES, seed=seed, model="m", **options)
    rows = (targets != -1).any(dim=1)
    assert all(
        torch.equal(one, other[rows]) for one, other in zip(labelled(probs, targets), (probs, targets), strict=True)
    )
    probs, targets = probs[rows], targets[rows]
    order = np.random.default_rng(seed).permutation(len(probs))
    middle = -(-len(order) // 2)
    first, second = order[:middle], order[middle:]
    scaling = fit_scaling(probs[first], targets[first], "temperature", seed)
    assert found.slope == tuple(scaling.slope.tolist())
    assert found.offset == tuple(scaling.offset.tolist())
    assert found.scaled_by == scaling.scaled_by
    calibrated = scaling(probs)
    assert torch.equal(found.probabilities(probs), calibrated)
    thresholds = choose_class_thresholds(calibrated, targets, "recall", 0.8)
    assert found.thresholds == tuple(thresholds.tolist())
    assert found.goal == "recall of 0.8"
    few = control_missed(calibrated[second], targets[second], 0.2)
    assert (found.missed_threshold, found.missed_risk) == (few.threshold, 0.2)
    assert torch.equal(found.covering(calibrated), calibrated >= few.threshold)
    power = choose_power(calibrated[first], targets[first], 0.3)
    assert found.label_sets() == Powerset.calibrate(calibrated[second], targets[second], 0.3, power)
    assert (found.images, found.model, found.class_names, found.no_powerset) == (len(probs), "m", NAMES, "")
    again, chosen = found.decide(probs)
    assert torch.equal(again, calibrated)
    assert torch.equal(chosen, calibrated >= thresholds)
    assert torch.equal(found.chosen(thresholds.expand(2, 3)), torch.ones(2, 3).bool())


def test_the_seed_is_that_of_the_parts_too_that_judge_a_scaling(numpy_rng, monkeypatch):
    """A spy, since other parts change a scaling in one draw of twenty."""
    seeds = []

    def spy(probs, targets, method, seed):
        seeds.append((method, seed))
        return fit_scaling(probs, targets, method, seed)

    monkeypatch.setattr("mlcv.posthoc.calibrated.fit_scaling", spy)
    Calibration.fit(*drawn(numpy_rng), NAMES, seed=9)
    Calibration.fit(*drawn(numpy_rng), NAMES, method="temperature")
    assert seeds == [("platt", 9), ("temperature", 0)]


def test_what_is_asked_for_by_nobody_is_what_the_documentation_says(numpy_rng):
    probs, targets = drawn(numpy_rng)
    told = {"method": "platt", "goal": "f1", "level": 0.9, "risk": 0.1, "epsilon": 0.1, "seed": 0, "model": None}
    assert Calibration.fit(probs, targets, NAMES) == Calibration.fit(probs, targets, NAMES, **told)
    assert Calibration.fit(probs, targets, NAMES).goal == "f1"
    assert Calibration.fit(probs, targets, NAMES, goal="precision").goal == "precision of 0.9"


def test_nothing_to_fit_to_is_said(numpy_rng):
    probs, targets = drawn(numpy_rng)
    for labels in (torch.where(targets == 1, 1, -1), torch.zeros_like(targets), torch.full_like(targets, -1)):
        with pytest.raises(ConfigError) as raised:
            Calibration.fit(probs, labels, NAMES)
        assert str(raised.value) == (
            "0 classes could be calibrated: none has both a known positive and a known negative label; give --truth "
            "with more labels, or --blank negative if blank cells mean absent"
        )


def test_names_are_as_many_as_columns(numpy_rng):
    for names in (NAMES[:2], (*NAMES, "d")):
        with pytest.raises(ValueError, match=r"zip\(\) argument 2"):
            Calibration.fit(*drawn(numpy_rng), names)


def test_label_sets_are_promised_by_images_that_are_known_whole_in_both_halves(numpy_rng):
    probs, targets = drawn(numpy_rng)
    odd = targets.clone()
    odd[odd[:, 1] == 0, 1] = -1
    odd[odd[:, 2] == 0, 2] = -1
    found = Calibration.fit(probs, odd, NAMES)
    assert found.label_sets() is None
    assert found.no_powerset == (
        "only positive labels of b, c are known, so that images known whole are those that have them"
    )
    assert found.not_promised == dict.fromkeys(
        "bc", "only positive labels are known, so what a label is decides whether it is known"
    )
    for whole in (0, 1):
        partial = targets.clone()
        partial[torch.arange(400), torch.from_numpy(numpy_rng.integers(0, 3, 400))] = -1
        partial[:whole] = targets[:whole]
        found = Calibration.fit(probs, partial, NAMES)
        assert (found.powerset, found.no_powerset) == (None, "no image, or just one, has all its labels known")
    # A class of which the second half knows positives alone promises nothing, whatever the first half knows.
    order = torch.from_numpy(np.random.default_rng(0).permutation(400))
    late = targets.clone()
    late[order[200:], 0] = torch.where(targets[order[200:], 0] == 1, 1, -1)
    assert Calibration.fit(probs, late, NAMES).no_powerset.startswith("only positive labels of a are known")


@pytest.mark.parametrize("count", [1, 5, 6, 9])
def test_what_cannot_be_promised_names_five_classes_a_reason(numpy_rng, count):
    names = tuple(f"c{n}" for n in range(12))
    one = Calibration(names, (), (), (), (), "f1", 0.1, 0.1, {}, None, "", 9)
    assert one.cannot_promise() == ""
    reasons = dict.fromkeys(names[:count], "it rains") | {names[-1]: "it snows"}
    order = [list(reasons)[n] for n in numpy_rng.permutation(count + 1)]
    some = dataclasses.replace(one, not_promised={name: reasons[name] for name in order})
    parts = {}
    for reason in dict.fromkeys(reasons[name] for name in order):
        owners = [name for name in order if reasons[name] == reason]
        more = f" and {len(owners) - 5} more" if len(owners) > 5 else ""
        parts[reason] = f"because {reason} ({', '.join(owners[:5])}{more})"
    assert some.cannot_promise() == f"cannot be promised, {', and '.join(parts.values())}"
    every = dataclasses.replace(one, missed_threshold=None, not_promised=dict.fromkeys(names, "it rains"))
    with pytest.raises(ConfigError, match="^sets that miss few labels cannot be promised, because it rains$"):
        every.covering(torch.rand(1, 12))


def test_a_file_holds_what_was_found_and_replaces_none(tmp_path, numpy_rng):
    path = tmp_path / "calibration.json"
    few = Calibration.fit(*drawn(numpy_rng, 12), NAMES, model="m")  # whose sets have no bound
    assert math.isinf(few.powerset["bound"])
    found = Calibration.fit(*drawn(numpy_rng), NAMES)
    partial = dataclasses.replace(found, powerset=None, missed_threshold=None, not_promised={"a": "x"})
    for number, one in enumerate((few, found, partial)):
        one.save(path)
        assert Calibration.load(path) == Calibration.load(path, NAMES) == one
        assert len(list(tmp_path.iterdir())) == number + 1
    text = path.read_text()
    assert text.endswith("}\n")
    assert text.startswith(f'{{\n "format": "{FORMAT}",\n "class_names": [\n')


def refused(path, content, *names):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as raised:
        Calibration.load(path, *names)
    return str(raised.value)


def test_a_file_that_is_none_or_contradicts_itself_is_refused_by_name(tmp_path, numpy_rng):
    path = tmp_path / "c.json"
    Calibration.fit(*drawn(numpy_rng), NAMES).save(path)
    content = json.loads(path.read_text())
    again = "make it again with mlcv calibrate"
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'x'} is no readable calibration; make it with mlcv")):
        Calibration.load(tmp_path / "x")
    for mark in ("mlcv calibration 1", "mlcv calibration"):
        assert refused(path, {**content, "format": mark}) == (
            f"{path} is of another version ({mark!r}): it lacks the mark {FORMAT!r}; {again}"
        )
    unmarked = {name: value for name, value in content.items() if name != "format"}
    for other in (unmarked, *({**content, "format": mark} for mark in ("x", "mlcv other 2", None, 2)), [1], 7):
        assert refused(path, other) == f"{path} is no calibration: it lacks the mark {FORMAT!r}; {again}"
    for name in ("slope", "goal"):
        assert refused(path, {**content, name: {}}).startswith(f"{path} is no readable calibration ({again})")
    whole = content["powerset"]
    for change in (
        {"slope": [1.0, 1.0]}, {"offset": [0.0] * 4}, {"scaled_by": ["own"]}, {"thresholds": []},
        {"class_names": ["a", "b"]}, {"slope": [1.0, 0.0, 1.0]}, {"slope": [1.0, 1.0, 1e6]}, {"slope": [-1.0, 1, 1]},
        {"powerset": {**whole, "more": 1.0}}, {"powerset": {"bound": 1.0, "power": 1.0}}, {"powerset": [1.0]},
        {"powerset": {**whole, "bound": "1"}}, {"powerset": {**whole, "power": 1}}, {"powerset": "x"},
    ):  # fmt: skip
        assert refused(path, {**content, **change}) == f"{path} contradicts itself; {again}"
    path.write_text(json.dumps({**content, "slope": [1e-9, 1.0, 999_999.0], "powerset": {**whole, "bound": 2.5}}))
    assert Calibration.load(path).powerset["bound"] == 2.5
    path.write_text(json.dumps({name: value for name, value in content.items() if name != "powerset"}))
    assert Calibration.load(path).label_sets() is None


def test_classes_are_the_models_in_their_order(tmp_path, numpy_rng):
    path = tmp_path / "c.json"
    Calibration.fit(*drawn(numpy_rng), NAMES).save(path)
    for ours in (NAMES[::-1], NAMES[:2], ("v", "w", "x", "y", "z")):
        assert refused(path, path.read_text(), ours) == (
            f"{path} is of other classes (a, b, c, ...) than those asked for ({', '.join(ours[:4])}, ...), or in "
            "another order. Use the data set that the model was trained on, make the calibration again, or go without: "
            "--calibration none"
        )
    assert Calibration.load(path, list(NAMES)).class_names == NAMES
