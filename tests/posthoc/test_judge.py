"""Models beside a truth: rows by their names, groups by a column, areas and their differences; by loops and counts."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcv.errors import ConfigError, DataError
from mlcv.metrics.bootstrap import bootstrap_areas
from mlcv.posthoc.judge import (
    AGES,
    difference,
    judge,
    match,
    operating_points,
    part,
    subgroups,
    summary,
    truth_of_studies,
)
from mlcv.posthoc.predictions import Predictions
from mlcv.posthoc.studies import aggregate, image_key, study_of
from mlcv.posthoc.truth import Truth, TruthFile

NAMES = ("a", "b", "c")


def drawn(generator, count=40, ids=None):
    """A model and a truth of the same rows, in different orders, a tenth of the labels unknown."""
    ids = ids or [f"x/{n}.png" for n in range(count)]
    targets = generator.integers(0, 2, (len(ids), 3))
    scores = 0.5 * targets + generator.random(targets.shape)
    targets[generator.random(targets.shape) < 0.1] = -1
    order = generator.permutation(len(ids))
    model = Predictions("m", tuple(ids[n] for n in order), torch.from_numpy(scores[order]), NAMES)
    return model, Truth(tuple(ids), torch.from_numpy(targets), {}), torch.from_numpy(scores)


@pytest.mark.parametrize("deeper", ["truth", "model", "neither"])
def test_rows_are_matched_by_what_both_sides_name_of_them(numpy_rng, deeper):
    ids = [f"{n % 3}/{n}.png" for n in range(20)]
    model, truth, scores = drawn(numpy_rng, ids=ids)
    if deeper == "model":
        model = Predictions("m", tuple(f"/data/here/{name}" for name in model.ids), model.scores, NAMES)
    if deeper == "truth":
        truth = Truth(tuple(f"/data/there/{name}" for name in truth.ids), truth.targets, {})
    found, same = match(model, truth)
    assert same is truth
    assert torch.equal(found, scores)


def test_a_row_without_a_prediction_is_named_as_the_truth_names_it(numpy_rng):
    model, truth, _ = drawn(numpy_rng, ids=[f"y/{n}.png" for n in range(20)])
    longer = Predictions(
        "m", tuple(f"/data/{name}" for name in model.ids if name != "y/7.png"), model.scores[:19], NAMES
    )
    with pytest.raises(DataError) as raised:
        match(longer, truth)
    assert str(raised.value) == (
        "m: 20 of the 20 rows of the truth have no prediction, such as y/0.png. Names must be the same (or give "
        "--study, if both name studies); take rows that were not to be predicted out of the truth"
    )
    fewer = Predictions("m", tuple(name for name in truth.ids if name != "y/7.png"), model.scores[:19], NAMES)
    with pytest.raises(DataError, match=r"^m: 1 of the 20 rows of the truth have no prediction, such as y/7.png\. "):
        match(fewer, truth)
    studies = [f"patient{n}/study1/{view}.jpg" for n in range(3) for view in "ab"]
    model, truth, _ = drawn(numpy_rng, ids=studies)
    truth = Truth(truth.ids, torch.ones(6, 3).long(), {})
    short = Predictions("m", tuple(studies[:4]), model.scores[:4], NAMES)
    with pytest.raises(DataError) as raised:
        match(short, truth, "max")
    assert str(raised.value) == (
        "m: 1 of the 3 rows of the truth have no prediction, such as patient2/study1. Names must be the same; take "
        "rows that were not to be predicted out of the truth"
    )


@pytest.mark.parametrize("how", ["max", "mean", None])
def test_a_studys_score_is_that_of_its_views_and_its_labels_are_theirs(numpy_rng, how):
    ids = [f"/here/patient{n // 4}/study{n // 2 % 2}/view{n % 2}.jpg" for n in range(40)]
    model, truth, scores = drawn(numpy_rng, ids=ids)
    truth = Truth(truth.ids, truth.targets[::2].repeat_interleave(2, dim=0), {"sex": tuple("MF" * 20)})
    found, matched = match(model, truth, how)
    if how is None:
        assert torch.equal(found, scores)
        return
    expected = scores.reshape(20, 2, 3)
    torch.testing.assert_close(found, expected.amax(dim=1) if how == "max" else expected.mean(dim=1))
    assert matched.ids == tuple(f"patient{n // 2}/study{n % 2}" for n in range(20))
    assert torch.equal(matched.targets, truth.targets[::2])
    assert matched.about == {"sex": ("M",) * 20}
    groups = (f"patient{n // 2}" for n in range(20))
    assert matched.owners == (tuple(groups), "patients")


def test_studies_are_judged_as_studies_a_thousand_times_unless_told_otherwise(numpy_rng):
    ids = [f"patient{n // 2}/study1/view{n % 2}.jpg" for n in range(40)]
    model, truth, scores = drawn(numpy_rng, ids=ids)
    truth = Truth(truth.ids, truth.targets[::2].repeat_interleave(2, dim=0), {})
    judged = judge(model, truth, "mean")
    expected = scores.reshape(20, 2, 3).mean(dim=1)
    torch.testing.assert_close(judged.scores, expected)
    assert judged.resampled == "20 patients"
    areas = bootstrap_areas(judged.scores, truth.targets[::2], [f"patient{n}" for n in range(20)], 1000, 0)
    torch.testing.assert_close(judged.areas.resampled, areas.resampled, equal_nan=True)


def test_a_study_is_named_whose_rows_disagree_and_a_path_that_is_of_none(numpy_rng):
    ids = ("a/patient1/study1/x.jpg", "a/patient2/study1/x.jpg", "b/patient1/study1/y.jpg")
    with pytest.raises(DataError) as raised:
        truth_of_studies(Truth(ids, torch.tensor([[0, 1], [0, 1], [0, 0]]), {}))
    assert str(raised.value) == (
        "the truth of b/patient1/study1/y.jpg is not that of a/patient1/study1/x.jpg, the same study; mend one of them"
    )
    with pytest.raises(DataError) as raised:
        study_of("a/patient1/x.jpg")
    assert str(raised.value) == (
        "'a/patient1/x.jpg' names no study; a path such as .../patient00001/study1/view1_frontal.jpg does"
    )
    assert study_of("a/patient1/study2/x.jpg") == "patient1/study2"
    assert image_key("a/patient1/study2/x.jpg") == "patient1/study2/x.jpg"
    assert image_key("a/patient1/x.jpg") == "a/patient1/x.jpg"


def test_keys_keep_the_order_in_which_they_come(numpy_rng):
    keys = [str(n) for n in numpy_rng.integers(0, 6, 30)]
    scores = torch.from_numpy(numpy_rng.normal(size=(30, 2)))
    for how, reduce in (("max", max), ("mean", lambda rows: sum(rows) / len(rows)), (None, max)):
        names, found = aggregate(scores, keys, how) if how else aggregate(scores, keys)
        assert names == tuple(dict.fromkeys(keys))
        for name, row in zip(names, found.tolist(), strict=True):
            members = [values for key, values in zip(keys, scores.tolist(), strict=True) if key == name]
            assert row == pytest.approx([reduce(column) for column in zip(*members, strict=True)])


@pytest.mark.parametrize("groups", [True, False])
def test_areas_intervals_and_counts_are_those_of_known_labels(numpy_rng, groups):
    model, truth, scores = drawn(numpy_rng)
    owners = tuple(f"g{n % 7}" for n in range(40)) if groups else None
    truth = Truth(truth.ids, truth.targets, {}, owners, "groups by 'who'")
    truth.targets[:, 2] = truth.targets[:, 2].clamp(max=0)  # no positive: no area
    judged = judge(model, truth, resamples=30, seed=5)
    assert judged.name == "m"
    assert judged.resampled == ("7 groups by 'who'" if groups else "40 rows")
    said = f"95 % intervals of 50 resamples of {judged.resampled}"
    assert judged.intervals(50) == (f"{said} (so few that they are too narrow)" if groups else said)
    areas = bootstrap_areas(scores, truth.targets, owners or truth.ids, 30, 5)
    torch.testing.assert_close(judged.areas.resampled, areas.resampled, equal_nan=True)
    rows = summary(judged, NAMES)
    assert [row["class"] for row in rows] == [*NAMES, "mean of 2"]
    for c, row in enumerate(rows[:3]):
        known = truth.targets[:, c] >= 0
        labels, given = truth.targets[known, c].numpy(), scores[known, c].numpy()
        assert (row["positives"], row["negatives"]) == (labels.sum(), (1 - labels).sum())
        if c < 2:
            assert row["AUROC"].value == pytest.approx(roc_auc_score(labels, given))
            assert row["AUPRC"].value == pytest.approx(average_precision_score(labels, given))
            assert row["AUROC"] == areas.interval(0, [c])
            assert row["AUPRC"] == areas.interval(1, [c])
        else:
            assert math.isnan(row["AUROC"].value)
    assert rows[3]["AUROC"] == areas.interval(0, [0, 1])
    assert rows[3]["positives"] == rows[0]["positives"] + rows[1]["positives"]
    assert rows[3]["negatives"] == rows[0]["negatives"] + rows[1]["negatives"]
    some = part(judged, list(range(5, 35)), 30, 5)
    again = bootstrap_areas(scores[5:35], truth.targets[5:35], (owners or truth.ids)[5:35], 30, 5)
    torch.testing.assert_close(some.areas.resampled, again.resampled, equal_nan=True)
    assert some.name == "m"


def test_the_difference_of_two_models_is_taken_resample_by_resample(numpy_rng):
    model, truth, _ = drawn(numpy_rng)
    truth.targets[:, 1] = 1  # its curves have no area
    other = Predictions("n", truth.ids, torch.from_numpy(numpy_rng.random((40, 3))), NAMES)
    one, two = (judge(given, truth, resamples=50, seed=1) for given in (model, other))
    found = difference(one, two)
    gains = (one.areas.resampled - two.areas.resampled)[:, 0, [0, 2]].mean(dim=1)
    assert found.value == pytest.approx((one.areas.value - two.areas.value)[0, [0, 2]].mean().item())
    low, high = np.percentile(gains.numpy(), (2.5, 97.5)) - (gains.mean().item() - found.value)
    furthest = min(gains.min().item(), found.value), max(gains.max().item(), found.value)
    assert (found.low, found.high) == pytest.approx((max(low, furthest[0]), min(high, furthest[1])))
    assert difference(one, one).value == 0


def decade(cell):
    if not cell:
        return "(blank)"
    begun = max(age for age in AGES if age <= float(cell))
    return "80+" if begun == 80 else f"{begun}-{ {0: 39, 40: 59, 60: 79}[begun] }"


def test_ages_are_grouped_where_they_begin_and_other_values_as_they_are(numpy_rng):
    ages = ["0", "39", "39.9", "40", "59", "60", "79.5", "80", "101", "", *map(str, numpy_rng.integers(0, 100, 30))]
    ages = [ages[n] for n in numpy_rng.permutation(40)]
    columns = {
        "age": ages,
        "few": [str(n % 4) for n in range(40)],  # as many as there are ages
        "five": [str(n % 5) for n in range(40)],
        "words": [f"w{n % 6}" for n in range(40)],
        "version": [f"1.2.{n % 6}" for n in range(40)],
        "raised": ["²³¹"[n % 3] + str(n % 7) for n in range(40)],  # digits, and no numbers
        "signed": [str(-(n % 6)) for n in range(40)],
    }
    truth = Truth(tuple(map(str, range(40))), torch.zeros(40, 1).long(), {k: tuple(v) for k, v in columns.items()})
    for name, cells in columns.items():
        expected = {}
        for row, cell in enumerate(cells):
            label = decade(cell) if name in ("age", "five") else cell
            expected.setdefault(label, []).append(row)
        found = subgroups(truth, name)
        assert found == expected
        assert list(found) == sorted(expected, key=lambda label: "" if label == "(blank)" else label)
    with pytest.raises(ConfigError) as raised:
        subgroups(truth, "Hospital")
    assert str(raised.value) == f"--by Hospital: the truth has the columns {', '.join(columns)} besides labels"
    with pytest.raises(ConfigError, match="^--by x: the truth has the columns none besides labels$"):
        subgroups(Truth(("1",), torch.zeros(1, 1).long(), {}), "x")


def test_operating_points_are_counts(numpy_rng):
    decisions, targets = numpy_rng.random((50, 4)) < 0.5, numpy_rng.integers(-1, 2, (50, 4))
    targets[:, 3] = -1
    points = operating_points(torch.from_numpy(decisions), torch.from_numpy(targets))
    for c in range(3):
        pairs = [(bool(d), int(t)) for d, t in zip(decisions[:, c], targets[:, c], strict=True)]
        counts = {pair: pairs.count(pair) for pair in ((True, 1), (False, 1), (True, 0), (False, 0))}
        hits, misses, alarms, quiet = counts.values()
        assert points["sensitivity"][c] == pytest.approx(hits / (hits + misses))
        assert points["specificity"][c] == pytest.approx(quiet / (quiet + alarms))
        assert points["precision"][c] == pytest.approx(hits / (hits + alarms))
    assert all(values[3].isnan() for values in points.values())


def test_rows_belong_to_the_patient_that_they_name_or_to_themselves():
    def owners(*ids):
        return Truth(ids, torch.zeros(len(ids), 1).long(), {}).owners

    assert owners("a/patient1/x.jpg", "patient1/y.jpg", "patient12") == (
        ("patient1", "patient1", "patient12"),
        "patients",
    )
    assert owners("patient1/x", "b") == (("patient1", "b"), "patients and other rows")
    assert owners("a", "b") == (("a", "b"), "rows")
    given = Truth(("a", "b", "c"), torch.arange(3)[:, None], {"n": ("0", "1", "2")}, ("x", "y", "x"), "people")
    some = given.select([2, 0])
    assert some.ids == ("c", "a")
    assert some.targets.flatten().tolist() == [2, 0]
    assert some.about == {"n": ("2", "0")}
    assert some.owners == (("x", "x"), "people")
    source = TruthFile.of("a.csv")
    assert (str(source.path), TruthFile.of(None).path, TruthFile.of(source)) == ("a.csv", None, source)
    assert source.codes.uncertain == ("-1",)
