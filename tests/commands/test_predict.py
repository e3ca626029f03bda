"""mlcv predict on images without labels: folders, files and tables; damaged images, stopped runs, calibrations."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mlcv import DigitScenesDataModule
from mlcv.callbacks.predictions import PredictionWriter
from mlcv.checkpoint_arguments import _for_images
from mlcv.cli import main
from mlcv.methods.checkpoints import load_method
from mlcv.posthoc.calibrated import Calibration
from mlcv.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=64", "--data.num_test=16",
        "--data.image_size=32", "--data.batch_size=4", "--model=Classifier", "--model.backbone=test_resnet",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    assert main(["fit", *options, "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def images(tmp_path):
    """Ten scenes as files, in folders in folders."""
    data = DigitScenesDataModule(10, 1, 1, image_size=32, seed=3)
    data.setup("fit")
    folder = tmp_path / "images"
    paths = []
    for n in range(10):
        path = folder / ("a/b" if n % 2 else "c") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), data.datasets["train"].load(n))
        paths.append(path)
    (folder / "notes.txt").write_text("no image")
    return folder, sorted(paths)


def predict(run, *options):
    checkpoint = run / "checkpoints" / "last.ckpt"
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    return ["predict", "--ckpt_path", str(checkpoint), *quiet, *map(str, options)]


def test_a_folder_is_predicted_as_the_model_does(run, images, tmp_path):
    folder, paths = images
    out = tmp_path / "out.csv"
    assert main(predict(run, "--data.path", folder, "--predictions", out)) == 0
    rows = list(csv.DictReader(out.open()))
    assert [row["image"] for row in rows] == list(map(str, paths))
    method = load_method(run / "checkpoints" / "last.ckpt", "test")
    pixels = torch.from_numpy(np.stack([cv2.imread(str(path)) for path in paths])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = method((pixels - 0.5) / 0.5).sigmoid()
    found = torch.tensor([[float(row[str(c)]) for c in range(10)] for row in rows])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    for row, probs in zip(rows, expected.tolist(), strict=True):
        assert row["labels"] == "|".join(str(c) for c, p in enumerate(probs) if p > 0.5)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["out.csv"]


def test_files_and_tables_name_images_and_json_lines_hold_the_same(run, images, tmp_path):
    folder, paths = images
    table = tmp_path / "table.csv"
    table.write_text("image,other\n" + "".join(f"images/{path.relative_to(folder)},1\n" for path in paths[4:]))
    listed = json.dumps([*map(str, paths[:4]), str(table)])
    out = tmp_path / "out.jsonl"
    assert main(predict(run, "--data.path", listed, "--predictions", out)) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == list(map(str, paths))
    assert all(set(row["probs"]) == set(map(str, range(10))) for row in rows)
    assert all(row["labels"] == [name for name, p in row["probs"].items() if p > 0.5] for row in rows)


def test_names_that_are_no_utf8_are_predicted_like_all_others(run, images, tmp_path, capsys):
    folder, paths = images
    for n, name in enumerate((b"caf\xe9.png", b"\xff\xfe.png", b"new\nline.png", b"bad\xe9.png")):
        content = b"" if name.startswith(b"bad") else paths[n].read_bytes()
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content)
    for out in (tmp_path / "out.csv", tmp_path / "out.jsonl"):
        assert main(predict(run, "--data.path", folder, "--predictions", out)) == 2
        assert "bad\\xe9.png" in capsys.readouterr().err
        text = out.read_text(encoding="utf-8")
        names = (
            [row["image"] for row in csv.DictReader(out.open())]
            if out.suffix == ".csv"
            else [json.loads(line)["image"] for line in text.splitlines()]
        )
        assert {name.rpartition("/")[2] for name in names} >= {"caf\\xe9.png", "\\xff\\xfe.png", "new\\x0aline.png"}
        assert len(names) == 13


def test_a_file_of_another_kind_is_refused_before_anything_is_predicted(run, images, tmp_path, capsys):
    for name in ("p.txt", "p.csv.gz", "p"):
        assert main(predict(run, "--data.path", images[0], "--predictions", tmp_path / name)) == 2
        assert f"{name}: the file's name has to end with .csv, .jsonl or .npy" in capsys.readouterr().err
    assert not list(tmp_path.glob("p*"))


def test_a_checkpoint_is_read_and_hashed_once(run, tmp_path, monkeypatch):
    import mlcv.callbacks.results as results
    import mlcv.commands.training as training

    hashed = []
    for module in (results, training):
        monkeypatch.setattr(module, "weights_fingerprint", lambda state: hashed.append(1) or "0123456789ab")
    monkeypatch.setattr(results, "read_checkpoint", lambda path: pytest.fail("read again"))
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(["test", "--ckpt_path", str(checkpoint), "--run_dir", str(tmp_path), "--calibration=none"]) == 0
    rows = list(csv.DictReader((tmp_path / "test_predictions.csv").open()))
    assert {row["model"] for row in rows} == {"0123456789ab"}
    assert len(hashed) == 1


def test_unreadable_images_are_listed_and_all_others_written(run, images, tmp_path, capsys):
    folder, paths = images
    for path in paths[:5]:  # more than a whole batch
        path.write_bytes(path.read_bytes()[:60])
    out = tmp_path / "out.csv"
    assert main(predict(run, "--data.path", folder, "--predictions", out)) == 2
    said = capsys.readouterr().err
    assert "5 images could not be read, all others are in" in said
    assert all(str(path) in said for path in paths[:5])
    assert [row["image"] for row in csv.DictReader(out.open())] == list(map(str, paths[5:]))


@pytest.fixture
def stopped(run, images, tmp_path, monkeypatch, capsys):
    """A prediction that was interrupted after two batches of three, with marked rows: 0.25 for every class."""

    def at_the_second(self, trainer, *arguments):
        before(self, trainer, *arguments)
        if arguments[3] == 1:
            raise KeyboardInterrupt

    before = PredictionWriter.on_predict_batch_end
    monkeypatch.setattr(PredictionWriter, "on_predict_batch_end", at_the_second)
    out = tmp_path / "out.csv"
    command = predict(run, "--data.path", images[0], "--predictions", out, "--data.batch_size", 3)
    assert main(command) == 130
    said = capsys.readouterr().err
    assert "mlcv: stopped. What is predicted is kept: give the same command again to go on" in said
    monkeypatch.setattr(PredictionWriter, "on_predict_batch_end", before)
    (part,) = tmp_path.glob("out.csv.*.part0")
    rows = [{**json.loads(line), "probs": [0.25] * 10} for line in part.read_text().splitlines()]
    assert len(rows) == 6
    part.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"index": 6, "ima')
    return out, part, command


def kept(out):
    return [row["0"] == "0.25" for row in csv.DictReader(out.open())]


def test_what_a_stopped_run_predicted_is_not_predicted_again(stopped, images):
    out, part, command = stopped
    assert main(command) == 0
    assert [row["image"] for row in csv.DictReader(out.open())] == list(map(str, images[1]))
    assert kept(out) == [True] * 6 + [False] * 4
    assert not part.exists()


def test_an_image_that_has_changed_since_is_predicted_again(stopped, images):
    out, _, command = stopped
    images[1][2].write_bytes(images[1][9].read_bytes())
    assert main(command) == 0
    assert kept(out) == [True] * 2 + [False] + [True] * 3 + [False] * 4


@pytest.mark.parametrize("what", ["weights", "calibration", "option", "images"])
def test_predictions_of_another_model_calibration_or_option_are_never_taken(stopped, run, tmp_path, capsys, what):
    out, part, command = stopped
    if what == "weights":  # of the same classes, in the same place
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        checkpoint["state_dict"]["head.classifier.bias"] += 0.1
        torch.save(checkpoint, tmp_path / "other.ckpt")
        command[2] = str(tmp_path / "other.ckpt")
    elif what == "calibration":
        names, half = tuple(map(str, range(10))), (0.5,) * 10
        made_of = {"scaled_by": ("own",) * 10, "thresholds": half, "goal": "f1", "images": 10}
        promises = {
            "missed_threshold": 0.1,
            "missed_risk": 0.1,
            "not_promised": {},
            "powerset": None,
            "no_powerset": "",
        }
        Calibration(names, (1.0,) * 10, half, **made_of, **promises).save(tmp_path / "c.json")
        command += ["--calibration", str(tmp_path / "c.json")]
    elif what == "option":
        command += ["--data.image_size", "48"]
    else:
        command += ["--data.path", str(tmp_path / "images" / "c")]
    assert main(command) == 0
    assert not any(kept(out))
    assert f"{part.name} beside it: of a stopped run of another model" in capsys.readouterr().err
    assert part.exists()


def test_a_network_as_it_starts_is_a_model_of_its_own(tmp_path):
    """So that what one has predicted is never taken for another's: their weights differ by the seed alone."""
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=8", "--data.num_val=8", "--data.num_test=8",
        "--data.image_size=32", "--model=Classifier", "--model.backbone=test_resnet", "--run_dir", str(tmp_path),
        "--trainer.enable_progress_bar=false", "--untrained=true",
    ]  # fmt: skip
    models = []
    for seed in (0, 0, 1):
        out = tmp_path / "out.csv"
        assert main(["predict", *options, f"--seed_everything={seed}", "--predictions", str(out)]) == 0
        models.append({row["model"] for row in csv.DictReader(out.open())})
    assert models[0] == models[1] != models[2]
    assert all(len(model) == 1 and model != {""} for model in models)


@pytest.mark.slow
def test_a_killed_run_goes_on(run, images, tmp_path, python):
    folder, paths = images
    for n in range(400):
        (folder / f"copy{n:04d}.png").write_bytes(paths[n % 10].read_bytes())
    out = tmp_path / "out.csv"
    arguments = predict(run, "--data.path", folder, "--predictions", out, "--data.batch_size", 1)
    with python.start("-m", "mlcv", *arguments) as process:
        while not (parts := list(tmp_path.glob("out.csv.*.part0"))) or parts[0].stat().st_size < 20000:
            time.sleep(0.01)
            assert process.poll() is None, process.stderr
        part = parts[0]
        process.send_signal(signal.SIGKILL)
    before = len(part.read_text().splitlines())
    assert 5 < before < 400
    assert main(arguments) == 0
    names = [row["image"] for row in csv.DictReader(out.open())]
    assert len(names) == len(set(names)) == 410


def test_two_processes_write_one_file_without_copies(run, images, tmp_path, python):
    folder, paths = images
    paths[0].unlink()  # an odd number
    out = tmp_path / "out.csv"
    arguments = predict(
        run, "--data.path", folder, "--predictions", out, "--trainer.devices=2", "--trainer.strategy=ddp"
    )
    done = python.mlcv(*arguments, children=1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["image"] for row in csv.DictReader(out.open())] == list(map(str, paths[1:]))
    assert len(list(tmp_path.glob("out*"))) == 1


def test_a_calibration_beside_the_checkpoint_is_used(run, images, tmp_path, capsys):
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(["validate", "--ckpt_path", str(checkpoint), "--trainer.enable_progress_bar=false"]) == 0
    assert main(["calibrate", str(run / "val_predictions.csv"), "--goal", "recall", "--level", "0.9"]) == 0
    folder, _ = images
    plain, calibrated = tmp_path / "plain.csv", tmp_path / "calibrated.csv"
    assert main(predict(run, "--data.path", folder, "--predictions", calibrated)) == 0
    assert "thresholds for recall of 0.9" in capsys.readouterr().err
    file = (run / "calibration.json").rename(tmp_path / "elsewhere.json")
    assert main(predict(run, "--data.path", folder, "--predictions", plain)) == 0
    tables = [list(csv.DictReader(path.open())) for path in (plain, calibrated)]
    calibration = Calibration.load(file)
    probs = [
        torch.tensor([[float(row[str(c)]) for c in range(10)] for row in table], dtype=torch.float64)
        for table in tables
    ]
    torch.testing.assert_close(calibration.probabilities(probs[0]), probs[1], rtol=1e-4, atol=1e-6)
    for row, chosen in zip(tables[1], calibration.chosen(probs[1]).tolist(), strict=True):
        assert row["labels"] == "|".join(str(c) for c, is_chosen in enumerate(chosen) if is_chosen)
    named = tmp_path / "named.csv"
    assert main(predict(run, "--data.path", folder, "--predictions", named, "--calibration", file)) == 0
    assert named.read_text() == calibrated.read_text()


def test_a_test_judges_what_the_calibration_decides(run, tmp_path):
    quiet = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.enable_progress_bar=false"]
    file = tmp_path / "c.json"
    assert main(["validate", *quiet]) == 0
    assert main(["calibrate", str(run / "val_predictions.csv"), "--goal", "recall", "--out", str(file)]) == 0
    tables = []
    for name, options in (("plain", []), ("calibrated", ["--calibration", str(file)])):
        assert main(["test", *quiet, "--run_dir", str(tmp_path / name), *options]) == 0
        tables.append(list(csv.DictReader((tmp_path / name / "test_predictions.csv").open())))
    calibration = Calibration.load(file)
    plain, calibrated, truth = (
        torch.tensor([[float(row[f"{mark}{c}"]) for c in range(10)] for row in rows], dtype=torch.float64)
        for rows, mark in ((tables[0], ""), (tables[1], ""), (tables[1], "truth:"))
    )
    torch.testing.assert_close(calibration.probabilities(plain), calibrated, rtol=1e-4, atol=1e-6)
    chosen = calibrated >= torch.tensor(calibration.thresholds)
    assert [row["labels"] for row in tables[1]] == [
        "|".join(str(c) for c in row.nonzero().flatten().tolist()) for row in chosen
    ]
    metrics = json.loads((tmp_path / "calibrated" / "test.json").read_text())["metrics"]
    hits = (chosen & (truth == 1)).sum()
    assert metrics["OF1_calibrated"] == pytest.approx(float(2 * hits / (chosen.sum() + (truth == 1).sum())))
    assert "OF1_calibrated" not in json.loads((tmp_path / "plain" / "test.json").read_text())["metrics"]


def test_wrong_paths_are_named(run, tmp_path, capsys):
    for path, problem in ((tmp_path / "none", "there is no"), (tmp_path, "no image under")):
        assert main(predict(run, "--data.path", path)) == 2
        assert problem in capsys.readouterr().err
    assert main(predict(run, "--calibration", tmp_path / "none.json")) == 2
    assert "no readable calibration" in capsys.readouterr().err


def test_the_limit_of_an_images_size_is_an_option_that_the_checkpoint_keeps(run, images, tmp_path, capsys):
    folder, paths = images
    cv2.imwrite(str(paths[0]), np.zeros((1000, 1100, 3), np.uint8))
    assert (
        main(predict(run, "--data.path", folder, "--predictions", tmp_path / "a.csv", "--data.max_megapixels", 1)) == 2
    )
    assert (
        f"1 image could not be read, all others are in {tmp_path / 'a.csv'}:\n  {paths[0]}" in capsys.readouterr().err
    )
    assert main(predict(run, "--data.path", folder, "--predictions", tmp_path / "b.csv")) == 0
    checkpoint = Run(tmp_path / "a.ckpt")
    checkpoint.contents = {"hyper_parameters": {"class_names": ["a"]}}
    data = {"class_path": "mlcv.data.CSVDataModule", "init_args": {"max_megapixels": 7.0}}
    kept = _for_images(data, checkpoint)
    assert kept["init_args"]["max_megapixels"] == 7.0
