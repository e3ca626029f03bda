"""The tools for labels that say "maybe": self-training in one command, and ensembles of files and checkpoints."""

import csv
import signal
import tempfile
import time

import numpy as np
import pytest
import torch

from mlcv import CheXpertDataModule
from mlcv.cli import main
from mlcv.data.chexpert import OBSERVATIONS
from tests.tiny_sets import write_chexpert


@pytest.fixture
def options(tmp_path):
    return [
        "--data=CheXpertDataModule", f"--data.root={write_chexpert(tmp_path)}", "--data.image_size=32",
        "--data.batch_size=4", "--data.num_workers=0", "--model=Classifier", "--model.backbone=test_resnet",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip


def test_self_training_learns_from_its_first_model_and_repeats_nothing(options, tmp_path, capsys, monkeypatch):
    ran = []

    def here(*arguments):
        ran.append(arguments[0])
        assert main(list(arguments)) == 0

    monkeypatch.setattr("mlcv.commands.self_train.call", here)
    monkeypatch.setattr("mlcv.commands.stages.call", here)
    config, other = tmp_path / "config.yaml", tmp_path / "data.yaml"
    config.write_text("data: data.yaml\ntrainer: {accelerator: cpu, callbacks: [{class_path: ModelSummary}]}\n")
    other.write_text("class_path: CheXpertDataModule\n")
    folder = tmp_path / "self"
    command = ["self_train", "--config", str(config), "--folder", str(folder), *options, "--test_after_fit=true"]
    assert main(command) == 0
    assert ran == ["fit", "predict", "fit"]
    assert np.load(folder / "soft_labels.npy").shape == (18, 14)
    checkpoint = torch.load(folder / "self_trained" / "checkpoints" / "last.ckpt", weights_only=True)
    assert f"soft_labels: {folder / 'soft_labels.npy'}" in checkpoint["mlcv_config"]
    assert main(command) == 0
    assert ran[3:] == []
    (folder / "self_trained" / "finished").unlink()  # as if it had been stopped
    (folder / "self_trained" / "test.json").unlink()
    assert main(command) == 0
    assert ran[3:] == ["fit"]
    assert (folder / "self_trained" / "test.json").is_file()
    for change in (["--data.batch_size=3"], []):
        other.write_text("class_path: CheXpertDataModule\n" if change else "class_path: CSVDataModule\n")
        assert main([*command, *change]) == 2
        said = capsys.readouterr().err
        assert "was begun with other arguments" in said
        assert "--data.batch_size=3" in said or not change
    assert ran[4:] == []


@pytest.mark.parametrize("option", ["--run_dir=a", "--ckpt_path=b"])
def test_where_the_stages_are_is_not_for_options_to_say(option, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {accelerator: cpu}\n")
    assert main(["self_train", "--config", str(config), "--folder", str(tmp_path / "a"), option]) == 2
    assert "leave --run_dir and --ckpt_path out" in capsys.readouterr().err


def test_a_stage_that_fails_has_said_why(tmp_path, capfd):
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {accelerator: cpu}\n")
    assert main(["self_train", "--config", str(config), "--folder", str(tmp_path / "a"), "--modle=Classifier"]) == 2
    said = capfd.readouterr().err
    assert "did you mean" in said
    assert "mlcv fit has ended with status 2, and said why above" in said
    assert main(["self_train", "--config", str(config), "--folder", str(tmp_path / "a"), "--model=Nothing"]) == 2
    assert "there is no class 'Nothing'" in capfd.readouterr().err  # and not that it was begun otherwise


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_the_stage_that_is_under_way(python, options, tmp_path, signum):
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {accelerator: cpu}\n")
    folder = tmp_path / "self"
    line = ["-m", "mlcv", "self_train", f"--config={config}", f"--folder={folder}", *options]
    with python.start(*line, "--trainer.max_epochs=500", children=1) as process:
        deadline = time.monotonic() + 120
        while not list(folder.rglob("*.ckpt")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signum)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signum
    assert said.count("mlcv: stopped.") == 1
    assert "give the same command again to go on" in said


def test_checkpoints_and_files_are_averaged(options, tmp_path, capsys):
    for seed in (1, 2):
        assert main(["fit", *options, f"--seed_everything={seed}", "--run_dir", str(tmp_path / str(seed))]) == 0
    first, second = (tmp_path / str(seed) / "checkpoints" / "last.ckpt" for seed in (1, 2))
    assert main(["predict", "--ckpt_path", str(second), "--run_dir", str(tmp_path / "predicted")]) == 0
    out = tmp_path / "both.csv"
    capsys.readouterr()
    assert main(["ensemble", str(first), str(tmp_path / "predicted" / "predictions.csv"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"mean of 2 models: {out}" in said
    assert f"predicting with {first}" in said
    assert tempfile.gettempdir() not in said.replace(str(tmp_path), "")
    assert main(["predict", "--ckpt_path", str(first), "--run_dir", str(tmp_path / "alone")]) == 0
    tables = [list(csv.DictReader(path.open())) for path in (
        tmp_path / "alone" / "predictions.csv", tmp_path / "predicted" / "predictions.csv", out,
    )]  # fmt: skip
    for one, two, mean in zip(*tables, strict=True):
        assert one["image"] == two["image"] == mean["image"]
        assert float(mean["Edema"]) == pytest.approx((float(one["Edema"]) + float(two["Edema"])) / 2)
    truth = tmp_path / "CheXpert-v1.0-small" / "valid.csv"
    evaluate = ["evaluate", str(out), "--truth", str(truth), "--study", "max", "--resamples", "10", "--by", "Sex"]
    assert main([*evaluate, "--out", str(tmp_path / "judged")]) == 0
    text = (tmp_path / "predicted" / "predictions.csv").read_text().splitlines()
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("\n".join(line.rpartition(",")[0] for line in text[:-1]))
    assert main(["ensemble", str(first), str(fewer)]) == 2
    assert "last and fewer cannot be combined" in capsys.readouterr().err
    assert main(["ensemble", str(tmp_path / "none.ckpt")]) == 2
    assert "--ckpt_path: no file" in capsys.readouterr().err


def test_drawn_radiographs_keep_the_tables_labels_and_hide_the_truth_of_uncertain_ones(tool, tmp_path):
    source = write_chexpert(tmp_path / "real", patients=30)
    out = tmp_path / "drawn"
    arguments = [source / "train.csv", "--out", out, "--train=40", "--valid=16", "--size=32"]
    done = tool("render_chexpert.py", *arguments)
    assert done.returncode == 0, done.stderr
    real = {"/".join(r["Path"].split("/")[2:]): r for r in csv.DictReader((source / "train.csv").open())}
    folder = out / "CheXpert-v1.0-small"
    rows = {split: list(csv.DictReader((folder / f"{split}.csv").open())) for split in ("train", "valid")}
    assert sum(map(len, rows.values())) == 56
    patients = {split: {row["Path"].split("/")[2] for row in part} for split, part in rows.items()}
    assert not patients["train"] & patients["valid"]
    for row in rows["train"]:
        original = real["/".join(row["Path"].split("/")[2:])]
        assert all(row[name] == (original[name] or "0.0") for name in OBSERVATIONS)
    for row in rows["valid"]:
        original = real["/".join(row["Path"].split("/")[2:])]
        for name in OBSERVATIONS:
            assert row[name] == (original[name] or "0.0") or (original[name] == "-1.0" and row[name] in ("0.0", "1.0"))
    data = CheXpertDataModule(str(folder), image_size=32, batch_size=4, num_workers=0)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)
    again = tool("render_chexpert.py", *arguments)
    assert "exists already" in again.stderr
    too_many = tool("render_chexpert.py", source / "train.csv", "--out", tmp_path / "x", "--train=400")
    assert "60 studies with a frontal view, 2400 are wanted" in too_many.stderr


def test_label_noise_is_counted_both_ways(tool, tmp_path):
    header = [
        "Image Index",
        "Finding Labels",
        "Patient ID",
        "Pneumothorax",
        "Airspace opacity",
        "Nodule or mass",
        "Set Id",
    ]
    rows = [
        ["1.png", "Pneumothorax", 1, "YES", "NO", "NO", "test"],
        ["2.png", "Mass|Edema", 1, "YES", "YES", "YES", "test"],
        ["3.png", "Pneumothorax", 2, "NO", "NO", "YES", "test"],
        ["4.png", "No Finding", 3, "NO", "YES", "NO", "val"],
    ]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    done = tool("studies/label_noise.py", tmp_path / "table.csv")
    assert "4 images of 3 patients" in done.stdout, done.stderr
    assert "| Pneumothorax (Pneumothorax) | 50.0 % | 50.0 % | 50.0 % | 50.0 % | 0.00 |" in done.stdout
    assert "| Nodule or mass (Nodule, Mass) | 25.0 % | 50.0 % | 50.0 % | 0.0 % | 0.50 |" in done.stdout
    part = tool("studies/label_noise.py", tmp_path / "table.csv", "--set=test")
    assert "3 images of 2 patients" in part.stdout
    refused = tool("studies/label_noise.py", tmp_path / "table.csv", "--set=train")
    assert "no row of the set 'train'; its sets are test, val" in refused.stderr
