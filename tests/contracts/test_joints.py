"""What is passed on where two rooms meet: each of these was once lost in silence, with every other test content."""

import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import mlcv
from mlcv.cli import main
from mlcv.commands import bench
from mlcv.commands.export import Deployed
from mlcv.data import CSVDataModule
from mlcv.data.transforms import Augment, ImageStatistics, evaluation_transform, training_transform
from mlcv.losses.base import ElementwiseLoss
from mlcv.metrics.bootstrap import bootstrap_areas
from mlcv.posthoc import Calibration, Predictions, Truth
from mlcv.posthoc.judge import judge, part
from tests.tiny_sets import write_rows as table

NAMES = ("a", "b")


@pytest.fixture
def scored(numpy_rng):
    targets = (numpy_rng.random((60, 2)) < 0.4).astype(int)
    return (0.4 * targets + 0.6 * numpy_rng.random((60, 2))).round(4), targets


# Groups


def test_five_images_of_each_patient_say_no_more_than_one(scored):
    scores, targets = (torch.from_numpy(x) for x in scored)
    patients = [str(n) for n in range(60)]
    one = bootstrap_areas(scores, targets, patients, resamples=50)
    five = bootstrap_areas(scores.repeat(5, 1), targets.repeat(5, 1), patients * 5, resamples=50)
    torch.testing.assert_close(five.resampled, one.resampled, equal_nan=True)


def test_a_model_and_a_part_of_it_are_judged_over_the_groups_of_the_truth(scored):
    scores, targets = (torch.from_numpy(x) for x in scored)
    names = [f"{n}.jpg" for n in range(300)]
    patients = tuple(str(n % 60) for n in range(300))
    once = judge(
        Predictions("m", tuple(names[:60]), scores, NAMES),
        Truth(tuple(names[:60]), targets, {}, patients[:60], "patients"),
        resamples=50,
    )
    often = judge(
        Predictions("m", tuple(names), scores.repeat(5, 1), NAMES),
        Truth(tuple(names), targets.repeat(5, 1), {}, patients, "patients"),
        resamples=50,
    )
    torch.testing.assert_close(often.areas.resampled, once.areas.resampled, equal_nan=True)
    some, same = part(often, [row for row in range(300) if row % 60 < 30], 50, 0), part(once, list(range(30)), 50, 0)
    # Thirty patients may be drawn without one who has the class.
    torch.testing.assert_close(some.areas.resampled, same.areas.resampled, equal_nan=True)


# Options of the command line


def test_blank_cells_are_what_the_option_says(tmp_path, scored):
    scores, targets = scored
    path = table(tmp_path / "p.csv", ["image", *NAMES], [[f"{n}.jpg", *row] for n, row in enumerate(scores)])
    cells = [[f"{n}.jpg", *(("1" if t else ("" if n % 2 else "0")) for t in row)] for n, row in enumerate(targets)]
    truth = table(tmp_path / "t.csv", ["image", *NAMES], cells)
    counts = {}
    for blank in ("unknown", "negative"):
        command = ["evaluate", str(path), "--truth", str(truth), "--blank", blank, "--resamples", "1", "--no_pictures"]
        assert main([*command, "--out", str(tmp_path / blank)]) == 0
        rows = json.loads((tmp_path / blank / "results.json").read_text())["results"]
        counts[blank] = [row["negatives"] for row in rows[:2]]
    assert counts["negative"] == (targets == 0).sum(axis=0).tolist()
    assert counts["unknown"] == (targets[::2] == 0).sum(axis=0).tolist()


def test_a_smaller_risk_makes_larger_sets(tmp_path, numpy_rng):
    targets = (numpy_rng.random((600, 2)) < 0.4).astype(int)
    scores = (0.4 * targets + 0.6 * numpy_rng.random((600, 2))).round(4)
    header = ["image", *NAMES, *(f"truth:{name}" for name in NAMES)]
    rows = [[f"{n}.jpg", *p, *t] for n, (p, t) in enumerate(zip(scores, targets, strict=True))]
    path = table(tmp_path / "val_predictions.csv", header, rows)
    thresholds = []
    for risk in (0.05, 0.1, 0.4):
        assert main(["calibrate", str(path), "--risk", str(risk)]) == 0
        thresholds.append(Calibration.load(tmp_path / "calibration.json").missed_threshold)
    assert thresholds[0] < thresholds[1] < thresholds[2]


# Augmentation


NOTHING = {"min_scale": 1.0, "flip": False, "strength": 0.0, "cutout": 0.0}


def varied(image, **options):
    transform = training_transform(64, Augment(**{**NOTHING, **options}), ImageStatistics())
    return [transform(image, (0, seed)) for seed in range(30)]


def test_each_kind_of_augmentation_changes_what_it_is_for(numpy_rng):
    image = cv2.blur(numpy_rng.integers(0, 100, (64, 64, 3), dtype=np.uint8), (3, 3))
    plain = evaluation_transform(64, Augment(**NOTHING), ImageStatistics())(image, (0,))
    assert all((out == plain).all() for out in varied(image))
    for out in varied(image, cutout=1.0):
        hidden = (out == 127).all(axis=2)
        assert 0 < hidden.mean() < 0.5
        assert (out[~hidden] == plain[~hidden]).all()
    grey = np.full((64, 64, 3), 90, np.uint8)
    outs = varied(grey, strength=1.0)
    assert any((out != 90).all() for out in outs)  # colour, of every pixel
    filled = [(out[[0, -1], :] == 127).all(axis=2).any() and (out[32, 32] != 127).all() for out in outs]
    assert any(filled)  # geometry leaves a border behind
    assert any((out[:, ::-1] == plain).all() for out in varied(image, flip=True))


# Data


class Radiographs(CSVDataModule):
    grey = True


@pytest.fixture
def radiographs(tmp_path, numpy_rng):
    rows = []
    for n, split in enumerate(["train", "train", "valid", "validation", "train"]):
        cv2.imwrite(str(tmp_path / f"{n}.png"), numpy_rng.integers(0, 255, (40, 40), dtype=np.uint8))
        rows.append([f"{n}.png", split, n % 2, 1 - n % 2])
    return table(tmp_path / "t.csv", ["image", "split", *NAMES], rows)


@pytest.mark.parametrize(("cls", "channels"), [(Radiographs, 1), (CSVDataModule, 3)])
def test_a_grey_data_set_stays_grey_from_the_file_to_the_batch(radiographs, cls, channels):
    data = cls(path=str(radiographs), split_column="split", image_size=32, batch_size=2, num_workers=0)
    data.setup("fit")
    for split in ("train", "val"):
        assert data.datasets[split].load(0).shape[2] == channels
        assert data.datasets[split][0]["image"].shape[2] == channels
    assert next(iter(data.train_dataloader()))["image"].shape[1] == 3


def test_validation_has_three_names_and_stands_in_for_an_absent_test(radiographs):
    data = CSVDataModule(path=str(radiographs), split_column="split", image_size=32, batch_size=2, num_workers=0)
    data.setup("fit")
    data.setup("test")
    names = {
        split: [data.datasets[split].describe(n) for n in range(len(data.datasets[split]))] for split in data.datasets
    }
    assert [re.sub(r".*/", "", name) for name in names["val"]] == ["2.png", "3.png"]
    assert names["test"] == names["val"]
    assert len(names["train"]) == 3


# The report, the bench and the export


def test_the_reports_best_and_worst_are_the_best_and_worst(tmp_path, scored):
    scores, targets = scored
    for n in range(60):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((20, 20, 3), 4 * n, np.uint8))
    header = ["image", *NAMES, *(f"truth:{name}" for name in NAMES)]
    files = [str(tmp_path / f"{n}.png") for n in range(60)]
    rows = [[name, *p, *t] for name, p, t in zip(files, scores, targets, strict=True)]
    path = table(tmp_path / "p.csv", header, rows)
    page = mlcv.report([path], out=tmp_path / "r.html", examples=1, resamples=2).read_text()
    shown = re.findall(r'<figure class="(\w+)"><img alt="[^"]*/(\d+)\.png: (\w) ', page)
    for c, name in enumerate(NAMES):
        has, lacks = (np.flatnonzero(targets[:, c] == value) for value in (1, 0))
        best, worst, alarm = (
            has[scores[has, c].argmax()],
            has[scores[has, c].argmin()],
            lacks[scores[lacks, c].argmax()],
        )
        assert [("good", str(best), name), ("missed", str(worst), name), ("false", str(alarm), name)] == [
            one for one in shown if one[2] == name
        ]


def test_warming_up_counts_neither_in_time_nor_in_images(monkeypatch):
    clock = iter(np.cumsum([100.0] * 9 + [1.0] * 40))
    monkeypatch.setattr(bench, "perf_counter", lambda: float(next(clock)))
    timer, batch = bench.StepTimer(warmup=2), {"index": torch.zeros(4)}
    for _ in range(5):
        timer.on_train_batch_start(None, None, batch, 0)
        timer.on_before_backward(None, None, None)
        timer.on_after_backward(None, None)
        timer.on_train_batch_end(None, None, None, batch, 0)
    row = timer.row("train", "32-true", "eager")
    assert (timer.steps, timer.images) == (3, 12)
    # Of the first measured step, one part still ends in a slow tick of the clock.
    assert sum(row.milliseconds.values()) * 3 <= 1000 * (100 + 11)
    assert row.milliseconds["forward"] == 1000


def test_a_probability_at_its_threshold_is_chosen_in_the_export_as_by_predict():
    logits = torch.tensor([[0.3, -1.2]])
    method = SimpleNamespace(exact_logits=lambda z: z, requires_grad_=lambda _: torch.nn.Identity(), num_classes=2)
    probs = logits.sigmoid()
    calibration = Calibration(
        NAMES, (1.0, 1.0), (0.0, 0.0), ("own", "own"), tuple(probs[0].tolist()), "f1", None, 0.1, {}, None, "", 9
    )
    deployed = Deployed(method, (0.5,) * 3, (0.5,) * 3, calibration)
    deployed.method.exact_logits = method.exact_logits
    probs, labels = deployed.decide(logits)
    assert labels.all()
    assert calibration.chosen(probs).all()


# Losses


class Seen(ElementwiseLoss):
    """Tells what it is computed in."""

    def elementwise(self, logits, targets):
        self.is_autocast = torch.is_autocast_enabled("cpu")
        self.product = (logits @ logits.T).dtype
        return logits * 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_inside_a_loss_nothing_is_cast(dtype):
    loss = Seen()
    with torch.autocast("cpu", torch.bfloat16):
        loss(torch.zeros(2, 3, dtype=dtype), torch.zeros(2, 3))
    assert (loss.is_autocast, loss.product) == (False, torch.float32)
