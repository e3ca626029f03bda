"""Rows and columns are matched by what they are called, or the command says what it cannot know."""

import csv
import json

import numpy as np
import pytest
import torch

from mlcv.cli import main
from mlcv.posthoc.calibrated import Calibration
from mlcv.posthoc.predictions import Predicted, write_predictions

NAMES = ("cat", "dog")


@pytest.fixture
def numbers(numpy_rng):
    targets = numpy_rng.integers(0, 2, (60, 2))
    return (0.5 * targets + 0.5 * numpy_rng.random((60, 2))).round(3), targets


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def evaluate(tmp_path, predictions, truth, *options):
    line = ["evaluate", predictions, "--truth", truth, "--resamples", "2", "--no_pictures"]
    return main([*line, "--out", str(tmp_path / "out"), *options])


def areas(tmp_path):
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    return {row["class"]: row["AUROC"] for row in rows}


def expected(numbers):
    from sklearn.metrics import roc_auc_score

    probs, targets = numbers
    return {name: pytest.approx(roc_auc_score(targets[:, c], probs[:, c])) for c, name in enumerate(NAMES)}


def test_groups_are_resampled_as_wholes_wherever_they_are_told(tmp_path, numbers, capsys, numpy_rng):
    """Ten patients of six images that agree: intervals are as wide as ten independent rows make them."""
    from mlcv.metrics.bootstrap import bootstrap_areas

    probs, targets = numbers
    people = [f"x{n % 10}" for n in range(60)]
    truth = write(tmp_path / "t.csv", ["image", "Who", *NAMES], [[n, people[n], *t] for n, t in enumerate(targets)])
    model = write(tmp_path / "val.csv", ["image", *NAMES], [[n, *p] for n, p in enumerate(probs)])
    ours = tmp_path / "ours.csv"
    columns = zip(probs.tolist(), targets.tolist(), people, strict=True)
    rows = [Predicted(n, str(n), p, truth=t, group=g) for n, (p, t, g) in enumerate(columns)]
    write_predictions(ours, NAMES, rows, "0123456789ab")
    want = bootstrap_areas(torch.from_numpy(probs), torch.from_numpy(targets), people, 50).interval(0, [0])
    for line in ([model, "--truth", truth, "--group", "Who"], [str(ours)], [str(ours), "--truth", truth]):
        out = ["--resamples", "50", "--no_pictures", "--out", str(tmp_path / "out")]
        assert main(["evaluate", *line, *out]) == 0
        assert "of 10 groups by" in capsys.readouterr().out
        found = json.loads((tmp_path / "out" / "results.json").read_text())
        assert "50 resamples of 10 groups by" in found["intervals"]
        assert (found["results"][0]["AUROC_low"], found["results"][0]["AUROC_high"]) == (want.low, want.high)
    assert main(["evaluate", model, "--truth", truth, *out]) == 0
    assert "50 resamples of 60 rows" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", model, "--truth", truth, "--group", "Whom", *out]) == 2
    assert "--group Whom: neither truth nor predictions have this column" in capsys.readouterr().err


def test_one_group_has_no_interval(tmp_path, numbers):
    probs, targets = numbers
    truth = write(tmp_path / "t.csv", ["image", "Who", *NAMES], [[n, "a", *t] for n, t in enumerate(targets)])
    model = write(tmp_path / "val.csv", ["image", *NAMES], [[n, *p] for n, p in enumerate(probs)])
    assert evaluate(tmp_path, model, truth, "--group", "Who") == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]["AUROC_low"] is None


CODES = {
    "numbers": (("0", "1"), []),
    "booleans": (("False", "True"), []),
    "words": (("no", "Yes"), []),
    "signs": (("-1", "1"), ["--negative", "-1"]),
    "letters": (("A", "P"), ["--negative", "A", "--positive", "P"]),
    "floats": (("0.0", "1.0"), []),
}


@pytest.mark.parametrize("kind", CODES)
def test_truth_in_any_code_is_read_as_meant_or_refused(tmp_path, numbers, capsys, kind):
    words, options = CODES[kind]
    probs, targets = numbers
    truth = write(tmp_path / "t.csv", ["image", *NAMES], [[n, *(words[v] for v in t)] for n, t in enumerate(targets)])
    model = write(tmp_path / "val.csv", ["image", *NAMES], [[n, *p] for n, p in enumerate(probs)])
    commands = {
        "evaluate": [model, "--resamples", "2", "--no_pictures", "--out", str(tmp_path / "out")],
        "calibrate": [model, "--out", str(tmp_path / "c.json")],
        "report": [model, "--resamples", "2", "--out", str(tmp_path / "r.html")],
    }
    if options:
        for name, line in commands.items():
            assert main([name, *line, "--truth", truth]) == 2, name
            said = capsys.readouterr().err
            assert "no class has a positive and a negative" in said or "holds 'A'" in said or "holds 'P'" in said
            assert not (tmp_path / "c.json").exists()
    for name, line in commands.items():
        assert main([name, *line, "--truth", truth, *options]) == 0, name
    found = areas(tmp_path)
    assert {name: found[name] for name in NAMES} == expected(numbers)
    assert Calibration.load(tmp_path / "c.json").class_names == NAMES


def test_a_column_that_both_files_share_is_no_class(tmp_path, numbers, capsys):
    probs, targets = numbers
    header = ["image", "fold", *NAMES]
    truth = write(tmp_path / "t.csv", header, [[n, n % 2, *t] for n, t in enumerate(targets)])
    model = write(tmp_path / "p.csv", header, [[n, n % 2, *p] for n, p in enumerate(probs)])
    assert evaluate(tmp_path, model, truth) == 2
    said = capsys.readouterr()
    assert "the column 'fold' is the same in the truth, so it is no prediction; say with --classes" in said.err
    assert "classes: fold, cat, dog" in said.out
    assert evaluate(tmp_path, model, truth, "--classes", *NAMES) == 0
    said = capsys.readouterr().out
    assert f"rows are named by 'image' of {truth}, 'image' of {model}\n2 classes: cat, dog; not classes: fold" in said


@pytest.mark.parametrize("header", ["", "Unnamed: 0", "id", "number", "row"])
def test_rows_are_never_matched_by_a_number_that_nobody_calls_a_name(tmp_path, numbers, capsys, header):
    """Position in one file is not position in the other."""
    probs, targets = numbers
    order = np.random.default_rng(0).permutation(60)
    truth = write(tmp_path / "t.csv", [header, *NAMES], [[n, *t] for n, t in enumerate(targets)])
    model = write(tmp_path / "p.csv", [header, *NAMES], [[n, *probs[row]] for n, row in enumerate(order)])
    assert evaluate(tmp_path, model, truth) == 2
    assert "which column names the rows?" in capsys.readouterr().err
    if header:
        assert evaluate(tmp_path, model, truth, "--id", header) == 0  # the user says that it does


@pytest.mark.parametrize(
    ("of_truth", "of_model"), [("image", "Path"), ("Image Index", "image"), ("filename", "IMAGE_ID")]
)
def test_names_are_found_under_the_headers_of_the_field(tmp_path, numbers, of_truth, of_model):
    probs, targets = numbers
    order = np.random.default_rng(0).permutation(60)
    truth = write(tmp_path / "t.csv", ["n", of_truth, *NAMES], [[9, f"{n}.png", *t] for n, t in enumerate(targets)])
    model = write(tmp_path / "p.csv", [*NAMES, of_model], [[*probs[n], f"{n}.png"] for n in order])
    assert evaluate(tmp_path, model, truth) == 0
    found = areas(tmp_path)
    assert {name: found[name] for name in NAMES} == expected(numbers)


def test_full_paths_match_names_where_that_is_clear(tmp_path, numbers, capsys):
    probs, targets = numbers
    truth = write(tmp_path / "t.csv", ["image", *NAMES], [[f"{n}.png", *t] for n, t in enumerate(targets)])
    rows = [[f"/data/{n % 3}/{n}.png", *p] for n, p in enumerate(probs)]
    assert evaluate(tmp_path, write(tmp_path / "p.csv", ["image", *NAMES], rows), truth) == 0
    found = areas(tmp_path)
    assert {name: found[name] for name in NAMES} == expected(numbers)
    rows.append(["/data/elsewhere/0.png", 0.5, 0.5])  # which 0.png is meant?
    assert evaluate(tmp_path, write(tmp_path / "p.csv", ["image", *NAMES], rows), truth) == 2
    assert "60 of the 60 rows of the truth have no prediction" in capsys.readouterr().err


def predicted(probs, targets, count=60):
    rows = zip(probs.tolist()[:count], targets.tolist()[:count], strict=True)
    return [Predicted(n, f"image {n}", p, None, t) for n, (p, t) in enumerate(rows)]


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "report"])
def test_a_file_that_was_cut_off_is_never_taken_for_whole(tmp_path, numbers, capsys, command):
    path = tmp_path / "val_predictions.csv"
    write_predictions(path, NAMES, predicted(*numbers), "0123456789ab")
    whole = path.read_text().splitlines(keepends=True)
    for kept in (len(whole) - 1, 40, 2):
        path.write_text("".join(whole[:kept]))
        out = tmp_path / "out"
        assert main([command, str(path), "--out", str(out)]) == 2
        assert f"has {kept - 1} rows and says that it has 60: it was cut off" in capsys.readouterr().err
        assert not out.exists()
    path.write_text("".join(whole))
    assert main([command, str(path), "--out", str(tmp_path / "out")]) == 0


def test_images_of_one_name_that_have_other_labels_are_other_images(tmp_path, numbers, capsys):
    probs, targets = numbers
    write_predictions(tmp_path / "a.csv", NAMES, predicted(probs, targets), None)
    write_predictions(tmp_path / "b.csv", NAMES, predicted(probs, 1 - targets), None)
    line = ["evaluate", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--resamples", "2", "--no_pictures"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 2
    assert "the labels of image 0 are not those of the first file" in capsys.readouterr().err
    assert main([*line, "--truth", str(tmp_path / "a.csv"), "--out", str(tmp_path / "out")]) == 0  # the user decides
