"""`mlcv report`: one file, right numbers, images from wherever they can be had."""

import base64
import csv
import html
import re

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcv.cli import main
from mlcv.posthoc import figures

NAMES = ("cat", "dog & <cow>", "owl")


def write(path, probs, cells, ids=None, labels=None):
    ids = ids or [f"{n}.png" for n in range(len(probs))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        extra = [] if labels is None else ["labels"]
        writer.writerow(["index", "image", *NAMES, *(f"truth:{name}" for name in NAMES), *extra])
        for n, (name, row, truth) in enumerate(zip(ids, probs, cells, strict=True)):
            writer.writerow([n, name, *row, *truth, *([] if labels is None else [labels[n]])])
    return path


@pytest.fixture
def labelled(numpy_rng):
    targets = (numpy_rng.random((200, 3)) < 0.4).astype(int)
    probs = (0.5 * targets + 0.5 * numpy_rng.random((200, 3)) ** 2).clip(0, 1)
    return probs, targets


def cells_of(page):
    body = re.search(r'<table class="sortable">.*?</table>', page, re.DOTALL)[0]
    return [re.findall(r'data-value="([^"]*)"', row) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)[1:]]


def test_a_report_needs_nothing_else_and_its_numbers_are_right(tmp_path, labelled):
    probs, targets = labelled
    out = tmp_path / "r.html"
    assert main(["report", str(write(tmp_path / "a.csv", probs, targets)), "--out", str(out), "--resamples", "50"]) == 0
    page = out.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "dog &amp; &lt;cow&gt;" in page
    assert "<cow>" not in page
    rows = cells_of(page)
    for c, row in enumerate(rows):
        positives = targets[:, c].sum()
        chosen = probs[:, c] > 0.5
        hits = (chosen & (targets[:, c] == 1)).sum()
        expected = [
            positives, 200 - positives, 200, average_precision_score(targets[:, c], probs[:, c]),
            roc_auc_score(targets[:, c], probs[:, c]), hits / chosen.sum(), hits / positives,
        ]  # fmt: skip
        assert list(map(float, row[1:])) == pytest.approx(expected, abs=1e-6)
    assert "Best and worst images" not in page  # there is no such file
    assert page.count("<svg") == 5


def test_a_run_that_was_never_tested_is_told_how(tmp_path, capsys):
    (tmp_path / "0").mkdir()
    assert main(["report", str(tmp_path / "0"), "--out", str(tmp_path / "r.html")]) == 2
    assert "0 holds no test_predictions.csv: `mlcv test --ckpt_path" in capsys.readouterr().err


def test_runs_are_compared_and_chosen_labels_are_read(tmp_path, labelled, numpy_rng):
    probs, targets = labelled
    labels = ["|".join(NAMES) for _ in probs]  # everything, whatever the probability
    one = write(tmp_path / "one.csv", probs, targets, labels=labels)
    two = write(tmp_path / "two.csv", numpy_rng.random(probs.shape), targets)
    out = tmp_path / "r.html"
    assert main(["report", str(one), str(two), "--out", str(out), "--resamples", "50"]) == 0
    page = out.read_text()
    assert "one - two" in page
    assert "AUROC 2" in page
    assert all(float(row[7]) == 1 for row in cells_of(page))  # recall of the first


def test_a_report_says_whether_numbers_are_calibrated_and_by_what(tmp_path, labelled, capsys):
    probs, targets = labelled
    run, out = tmp_path / "run", tmp_path / "r.html"
    run.mkdir()
    write(run / "test_predictions.csv", probs, targets)
    command = ["report", str(run), "--out", str(out), "--resamples", "20"]

    def said():
        assert main(command) == 0
        return re.search(r"</div>\s*<p>([^<]*)</p>\s*</section>", out.read_text())[1]

    assert "whether its probabilities are calibrated it does not say" in said()
    assert "above 0.5" in said()
    (run / "test.json").write_text('{"calibration": null}')
    assert said().startswith("Not calibrated")
    (run / "test.json").write_text('{"calibration": "c.json: thresholds by 9 images of v.csv"}')
    assert said().startswith("Calibrated by c.json: thresholds by 9 images of v.csv.")


def test_a_single_group_has_points_without_intervals(tmp_path, labelled):
    probs, targets = labelled
    path = write(tmp_path / "a.csv", probs, targets)
    with path.open() as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*header, "group"], *([*row, "one"] for row in rows)])
    out = tmp_path / "r.html"
    assert main(["report", str(path), "--out", str(out)]) == 0
    page = out.read_text()
    assert "No intervals: all rows with labels are one of groups by" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).replace("isNaN", "")


def test_chosen_labels_follow_the_order_of_the_truth(tmp_path, labelled):
    probs, targets = labelled
    right = ["|".join(name for name, there in zip(NAMES, row, strict=True) if there) for row in targets]
    truth = write(tmp_path / "truth.csv", probs, targets)
    ids = [f"{n}.png" for n in range(200)]
    mixed = write(tmp_path / "mixed.csv", probs[::-1], targets[::-1], ids[::-1], right[::-1])
    out = tmp_path / "r.html"
    assert main(["report", str(mixed), "--truth", str(truth), "--out", str(out), "--resamples", "20"]) == 0
    assert all(float(row[6]) == float(row[7]) == 1 for row in cells_of(out.read_text()))  # precision and recall


def test_unknown_and_uncertain_labels_are_shown_but_judge_nobody(tmp_path, labelled):
    probs, targets = labelled
    cells = targets.astype(object)
    cells[:50, 0], cells[50:90, 1] = "", "-1"
    out = tmp_path / "r.html"
    assert main(["report", str(write(tmp_path / "a.csv", probs, cells)), "--out", str(out), "--resamples", "20"]) == 0
    page = out.read_text()
    assert re.search(r"<td>unknown</td><td>50</td>", page)
    assert re.search(r"<td>uncertain</td><td>40</td>", page)
    assert re.search(r"<td>some uncertain</td><td>40</td>", page)
    assert re.search(r"<td>all labels known</td><td>110</td>", page)
    assert float(cells_of(page)[0][4 - 1]) == 150
    assert float(cells_of(page)[1][5]) == pytest.approx(
        roc_auc_score(np.delete(targets[:, 1], range(50, 90)), np.delete(probs[:, 1], range(50, 90)))
    )


def test_images_come_from_paths_or_from_the_checkpoint_with_heat_maps(tmp_path, labelled):
    probs, targets = labelled
    ids = []
    for n in range(200):
        path = tmp_path / f"{n}.png"
        if n % 2:
            cv2.imwrite(str(path), np.full((40, 60, 3), n, np.uint8))
        ids.append(str(path))
    out = tmp_path / "r.html"
    file = write(tmp_path / "a.csv", probs, targets, ids)
    assert main(["report", str(file), "--out", str(out), "--resamples", "20", "--examples", "4"]) == 0
    shown = re.findall(r'title="([^"]*?): [^"]*?" src="data:image/jpeg;base64,([^"]*)"', out.read_text())
    assert 0 < len(shown) <= 3 * 3 * 4
    for name, data in shown:
        grey = int(name.rpartition("/")[2].removesuffix(".png"))
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert abs(int(picture.mean()) - grey) <= 2
    run = tmp_path / "run"
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=16", "--data.num_test=64",
        "--model=Classifier", "--model.backbone=test_resnet", "--model.head=CSRAHead", "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false", "--test_after_fit=true", f"--run_dir={run}",
    ]  # fmt: skip
    assert main(["fit", *options]) == 0
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    assert main(["validate", "--ckpt_path", checkpoint, "--trainer.enable_progress_bar=false"]) == 0
    assert main(["calibrate", str(run / "val_predictions.csv")]) == 0
    assert main(["test", "--ckpt_path", checkpoint, "--trainer.enable_progress_bar=false"]) == 0
    report = ["report", str(run), "--ckpt_path", checkpoint, "--out", str(out), "--resamples", "20"]
    assert main(report) == 0
    page = out.read_text()
    assert "Red is where the model looks" in page
    calibration = html.escape(str(run / "calibration.json"))
    assert f"Calibrated by {calibration}: the probabilities of" in page
    assert f"by 16 images of {run / 'val_predictions.csv'}" in page
    assert len(re.findall("data:image/jpeg", page)) == 3 * 3 * 10


def test_what_a_report_cannot_be_made_of_is_said(tmp_path, labelled, capsys):
    probs, targets = labelled
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["report", str(write(tmp_path / "a.csv", probs * 3, targets)), "--out", str(tmp_path / "r")]) == 2
    assert "needs probabilities" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    out = tmp_path / "a.csv" / "r.html"
    assert main(["report", str(write(tmp_path / "a.csv", probs, targets)), "--out", str(out)]) == 2
    assert "r.html cannot be written" in capsys.readouterr().err


def test_confusion_and_togetherness_against_loops(rng):
    chosen = torch.rand(30, 4, generator=rng) < 0.5
    targets = torch.randint(-1, 2, (30, 4), generator=rng)
    confusion, together = figures.confusion(chosen, targets), figures.together(targets == 1, targets)
    for i in range(4):
        for j in range(4):
            rows = [n for n in range(30) if targets[n, i] == 1 and targets[n, j] == 0]
            if rows:
                assert confusion[i, j] == pytest.approx(sum(bool(chosen[n, j]) for n in rows) / len(rows))
            else:
                assert confusion[i, j].isnan()
            there = [n for n in range(30) if targets[n, i] == 1 and targets[n, j] >= 0]
            if i != j and there:
                assert together[i, j] == pytest.approx(sum(int(targets[n, j] == 1) for n in there) / len(there))
