"""`mlcv calibrate`: its file, what it promises on images it has not seen, and what it refuses."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.posthoc.calibrated import Calibration
from mlcv.posthoc.calibration import classwise_calibration_error

NAMES = ("a", "b", "c", "d")


def over_confident(generator, count):
    right = generator.beta(0.5, 1.0, (count, 4))
    targets = (generator.random((count, 4)) < right).astype(int)
    wrong = 1 / (1 + np.exp(-2.5 * (np.log(right / (1 - right)) + 0.4)))
    return wrong.clip(0, 1), targets


def write(path, probs, targets):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "image", *NAMES, *(f"truth:{name}" for name in NAMES)])
        writer.writerows([n, f"{n}.png", *p, *t] for n, (p, t) in enumerate(zip(probs, targets, strict=True)))
    return path


def test_new_images_are_calibrated_and_sets_keep_their_promises(tmp_path, numpy_rng, capsys):
    errors, missed, covered = [], [], []
    for _ in range(25):
        path = write(tmp_path / "val_predictions.csv", *over_confident(numpy_rng, 600))
        assert main(["calibrate", str(path), "--risk", "0.1", "--epsilon", "0.2"]) == 0
        calibration = Calibration.load(tmp_path / "calibration.json", NAMES)
        probs, targets = map(torch.from_numpy, over_confident(numpy_rng, 2000))
        calibrated = calibration.probabilities(probs)
        errors.append([classwise_calibration_error(p, targets).mean().item() for p in (probs, calibrated)])
        lost = (~calibration.covering(calibrated) & (targets == 1)).sum(dim=1) / (targets == 1).sum(dim=1).clamp(min=1)
        missed.append(lost.double().mean().item())
        covered.append(calibration.label_sets().holds(calibrated, targets).double().mean().item())
    before, after = np.mean(errors, axis=0)
    assert after < 0.05 < 0.1 < before
    assert 0.07 <= np.mean(missed) <= 0.11
    assert 0.78 <= np.mean(covered) <= 0.84
    out = capsys.readouterr().out
    assert "classwise ECE" in out
    assert re.search(r"ECE, of all entries together: 0\.\d{4} to 0\.\d{4}", out)


@pytest.mark.parametrize("goal", ["f1", "precision", "recall"])
@pytest.mark.parametrize("method", ["platt", "temperature", "none"])
def test_every_choice_gives_a_file_that_says_what_it_is(tmp_path, numpy_rng, method, goal):
    path = write(tmp_path / "val_predictions.csv", *over_confident(numpy_rng, 800))
    out = tmp_path / "c.json"
    assert main(["calibrate", str(path), "--method", method, "--goal", goal, "--level", "0.8", "--out", str(out)]) == 0
    calibration = Calibration.load(out)
    assert calibration.goal == ("f1" if goal == "f1" else f"{goal} of 0.8")
    assert (calibration.slope == (1.0,) * 4) == (method == "none")
    assert (calibration.scaled_by == ("none",) * 4) == (method == "none")
    assert (calibration.images, calibration.model, calibration.not_promised) == (800, None, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "val_predictions.csv"]


def printed(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_the_table_says_what_each_class_was_scaled_by_and_how_many_positives_it_rests_on(tmp_path, numpy_rng, capsys):
    probs, targets = over_confident(numpy_rng, 800)
    targets[:, 1] = 0
    targets[::200, 1] = 1
    path = write(tmp_path / "val_predictions.csv", probs, targets)
    assert main(["calibrate", str(path), "--goal", "precision"]) == 0
    calibration = Calibration.load(tmp_path / "calibration.json")
    text = printed(capsys)
    assert "scaled by" in text
    assert calibration.scaled_by[0] in ("own", "shared")
    for name, by, positives in zip(NAMES, calibration.scaled_by, targets.sum(axis=0), strict=True):
        cells = re.search(rf" {name} ([\d. -]+) ([a-z]+) ([\d. -]+) (\d+)(?= )", text)
        assert (cells[2], int(cells[4])) == (by, positives)


def test_partial_labels_calibrate_all_but_label_sets_and_say_what_cannot_be_promised(tmp_path, numpy_rng, capsys):
    probs, targets = over_confident(numpy_rng, 400)
    cells = targets.astype(object)
    cells[:, 3] = ""
    path = write(tmp_path / "val_predictions.csv", probs, cells)
    assert main(["calibrate", str(path)]) == 0
    calibration = Calibration.load(tmp_path / "calibration.json")
    assert calibration.powerset is None
    assert calibration.slope[3] == 1
    assert calibration.thresholds[3] == 0.5
    assert calibration.not_promised == {"d": "no label is known"}
    text = printed(capsys)
    assert "of an image's labels at most: probability >= " in text
    assert "at most cannot be promised, because no label is known (d)" in text
    assert "label sets cannot be promised, because no image, or just one, has all its labels known" in text
    cells[:, 3] = np.where(targets[:, 3] == 1, "1", "")
    path = write(tmp_path / "val_predictions.csv", probs, cells)
    assert main(["calibrate", str(path)]) == 0
    calibration = Calibration.load(tmp_path / "calibration.json")
    assert list(calibration.not_promised) == ["d"]
    text = printed(capsys)
    assert "because only positive labels are known, so what a label is decides whether it is known (d)" in text
    assert "label sets cannot be promised, because only positive labels of d are known" in text
    nothing = dataclasses.replace(
        calibration, missed_threshold=None, not_promised=dict.fromkeys(NAMES, "no label is known")
    )
    with pytest.raises(ConfigError, match="few labels cannot be promised, because no label is known$"):
        nothing.covering(torch.rand(2, 4))


def test_what_cannot_be_calibrated_at_all_gives_no_file(tmp_path, numpy_rng, capsys):
    probs, targets = over_confident(numpy_rng, 50)
    for cells in (np.where(targets == 1, "1", ""), np.full(targets.shape, ""), np.zeros_like(targets)):
        path = write(tmp_path / "val_predictions.csv", probs, cells)
        assert main(["calibrate", str(path)]) == 2
        assert "no class has a positive and a negative" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["val_predictions.csv"]


@pytest.mark.parametrize("known", [0.5, 0.2])
def test_labels_missed_are_as_few_as_promised_where_most_are_unknown(numpy_rng, known):
    missed = []
    for _ in range(12):
        probs, targets = map(torch.from_numpy, over_confident(numpy_rng, 1500))
        targets[torch.from_numpy(numpy_rng.random(targets.shape)) > known] = -1
        targets[::2] = -1
        calibration = Calibration.fit(probs, targets, NAMES)
        probs, targets = map(torch.from_numpy, over_confident(numpy_rng, 2000))
        lost = (~calibration.covering(calibration.probabilities(probs)) & (targets == 1)).sum(dim=1)
        missed.append((lost / (targets == 1).sum(dim=1).clamp(min=1)).double().mean().item())
    assert np.mean(missed) < 0.1 + 4 * np.std(missed) / np.sqrt(12)


def test_test_data_scores_and_broken_files_are_refused(tmp_path, numpy_rng, capsys):
    probs, targets = over_confident(numpy_rng, 50)
    path = write(tmp_path / "test_predictions.csv", probs, targets)
    assert main(["calibrate", str(path)]) == 2
    assert "is no test: use val_predictions.csv" in capsys.readouterr().err
    path = write(tmp_path / "val_predictions.csv", probs * 5, targets)
    assert main(["calibrate", str(path)]) == 2
    assert "scores outside [0, 1]" in capsys.readouterr().err
    path = write(tmp_path / "val_predictions.csv", probs, targets)
    assert main(["calibrate", str(path)]) == 0
    file = tmp_path / "calibration.json"
    with pytest.raises(ConfigError, match="of other classes .* than those asked for"):
        Calibration.load(file, ("x", "y"))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "model": "a fingerprint"}))
    assert Calibration.load(file).model == "a fingerprint"
    file.write_text(json.dumps({**content, "format": "mlcv calibration 1"}))
    with pytest.raises(ConfigError, match="of another version.*make it again with mlcv calibrate"):
        Calibration.load(file)
    for broken in ("{", "[]", json.dumps({**content, "format": "other"}), json.dumps({**content, "more": 1})):
        file.write_text(broken)
        with pytest.raises(ConfigError, match="mlcv calibrate"):
            Calibration.load(file)
    with pytest.raises(ConfigError, match="no readable calibration"):
        Calibration.load(tmp_path / "none.json")
