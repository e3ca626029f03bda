"""Rows of a study: means, intervals and paired differences against those of textbooks."""

import csv
import math

import numpy as np
import pytest
from scipy import stats

from mlcv.studies.plan import Method, Plan
from mlcv.studies.plot import _curves, draw
from mlcv.studies.results import Interval, rows, score
from mlcv.studies.tables import about, write_csv, write_markdown

PLAN = Plan(
    {name: Method(("x.yaml",)) for name in ("base", "good", "bad", "broken")}, {"one": {}, "two": {}}, seeds=4,
    baseline="base", metrics=("mAP", "ECE"), min_positives=5,
)  # fmt: skip


def result(aps, positives, ece=0.1, val=0.5):
    classes = [
        {"class": str(n), "AP": str(ap), "AUROC": "0.5", "positives": str(count)}
        for n, (ap, count) in enumerate(zip(aps, positives, strict=True))
    ]
    tried = [{"setting": {"model.optim.lr": 0.003}, "val": val, "fallen": 0.1, "seconds": 2.0}]
    return {"metrics": {"mAP": float(np.mean(aps)), "ECE": ece}, "classes": classes, "tried": tried, "chosen": 0}


@pytest.fixture
def results(numpy_rng):
    found = {}
    for seed in range(4):
        for condition in ("one", "two"):
            base = numpy_rng.uniform(0.4, 0.6, 3)
            for method, more in (("base", 0), ("good", 0.1), ("bad", -0.1)):
                aps = base + more + numpy_rng.uniform(-0.01, 0.01, 3)
                found[condition, method, seed] = result(aps, [9, 5, 4], ece=0.1 - more / 2)
    return found


def test_an_interval_is_students(numpy_rng):
    values = numpy_rng.normal(size=5)
    low, high = stats.t.interval(0.95, 4, values.mean(), values.std(ddof=1) / math.sqrt(5))
    found = Interval(tuple(values))
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert math.isnan(Interval((1.0,)).half)
    assert math.isnan(Interval(()).mean)


def test_rare_classes_are_in_no_mean(results):
    one = result([0.2, 0.4, 0.9], [9, 5, 4])
    assert score(one, "mAP", 5) == pytest.approx(0.3)
    assert score(one, "mAP", 1) == pytest.approx(0.5)
    assert score(result([0.2, math.nan, 0.9], [9, 50, 10]), "mAP", 2) == pytest.approx(0.55)
    assert math.isnan(score(one, "GAP@20", 1))


def test_methods_are_compared_with_the_baseline_seed_by_seed(results):
    found = rows(PLAN, results, {("one", "broken", 2): "it broke"})
    assert [row.method for row in found[:4]] == ["good", "base", "bad", "broken"]
    good = found[0]
    pairs = [
        np.mean([float(c["AP"]) for c in results["one", "good", s]["classes"][:2]])
        - np.mean([float(c["AP"]) for c in results["one", "base", s]["classes"][:2]])
        for s in range(4)
    ]
    low, high = stats.t.interval(0.95, 3, np.mean(pairs), np.std(pairs, ddof=1) / 2)
    assert (good.difference.mean, good.difference.low, good.difference.high) == pytest.approx(
        (np.mean(pairs), low, high)
    )
    assert (good.wins, good.losses) == (4, 0)
    assert (found[2].wins, found[2].losses) == (0, 4)
    assert good.judged == (2, 2, 2, 2)
    assert good.fallen.mean == pytest.approx(0.1)
    assert found[1].difference.values == ()
    assert (found[3].seeds, found[3].errors) == (0, ("it broke",))


def test_what_is_better_low_is_sorted_so(results):
    plan = Plan(PLAN.methods, PLAN.conditions, seeds=4, baseline="base", metrics=("mAP",), sort_by="ECE")
    found = rows(plan, results, {})
    assert plan.metrics == ("ECE", "mAP")
    assert [row.method for row in found[:3]] == ["good", "base", "bad"]
    assert (found[0].wins, found[2].losses) == (4, 4)


def test_seeds_that_one_of_a_pair_lacks_are_in_no_difference(results):
    del results["one", "base", 1], results["one", "good", 2]
    good = next(row for row in rows(PLAN, results, {}) if row.method == "good")
    assert good.seeds == 3
    assert len(good.difference.values) == 2


def test_tables_hold_every_row(results, tmp_path):
    found = rows(PLAN, results, {("two", "broken", 0): "no | word"})
    write_csv(tmp_path / "table.csv", PLAN, found)
    table = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["condition"], row["method"]) for row in table] == [(row.condition, row.method) for row in found]
    assert float(table[0]["mAP_low"]) == pytest.approx(found[0].metrics["mAP"].low)
    assert table[0]["seeds"] == "4"
    assert table[-1]["error"] == "no | word"
    assert table[-1]["mAP"] == ""
    write_markdown(tmp_path / "table.md", PLAN, found)
    text = (tmp_path / "table.md").read_text()
    assert text.count("### ") == 3
    assert "| base |" in text.split("### ")[1]
    assert f"{100 * found[0].metrics['mAP'].mean:.1f}" in text
    assert "broken: no | word" in text
    assert about(PLAN, found[:4]) == "2 classes with at least 5 test positives, 4 seeds"


def test_what_failed_alike_with_each_seed_is_printed_once_and_kept_whole(results, tmp_path):
    found = rows(PLAN, results, {("one", "broken", seed): f"the loss was nan on sample {seed}" for seed in range(3)})
    write_csv(tmp_path / "table.csv", PLAN, found)
    write_markdown(tmp_path / "table.md", PLAN, found)
    errors = [row["error"] for row in csv.DictReader((tmp_path / "table.csv").open()) if row["error"]]
    assert errors == ["the loss was nan on sample 0 the loss was nan on sample 1 the loss was nan on sample 2"]
    text = (tmp_path / "table.md").read_text()
    assert "broken: the loss was nan on sample 0 (and 2 more seeds, see table.csv)" in text
    assert "sample 1" not in text


@pytest.mark.parametrize("plot", ["dots", "curves"])
def test_a_picture_of_any_results(results, tmp_path, plot):
    plan = Plan(PLAN.methods, PLAN.conditions, seeds=4, plot=plot)
    draw(tmp_path / "plot.png", plan, rows(plan, results, {}))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    draw(tmp_path / "none.png", plan, rows(plan, {}, {}))


@pytest.mark.parametrize(
    ("name", "label", "place"), [("ECE", "ECE (%)", 10), ("coverage_error", "coverage_error", 1.5)]
)
def test_a_picture_has_the_units_of_the_table(name, label, place):
    plan = Plan({"a": Method(("x",)), "b" * 90: Method(("x",))}, {"one": {}}, seeds=1, sort_by=name, plot="curves")
    one = result([0.5], [9])
    one["metrics"] |= {"coverage_error": 1.5}
    figure = _curves(plan, rows(plan, {("one", method, 0): one for method in plan.methods}, {}))
    assert figure.axes[0].get_ylabel() == label
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(place)
    assert max(len(text.get_text()) for text in figure.legends[0].get_texts()) <= 34
