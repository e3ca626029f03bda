"""The tools for labels that say "maybe": self-training in one command, and ensembles of files and checkpoints."""

import csv

import numpy as np
import pytest
import torch

from mlcv.cli import main
from tests.test_tools import tool
from tests.tiny_sets import write_chexpert


@pytest.fixture
def options(tmp_path):
    return [
        "--data=CheXpertDataModule", f"--data.root={write_chexpert(tmp_path)}", "--data.image_size=32",
        "--data.batch_size=4", "--data.num_workers=0", "--model=Classifier", "--model.backbone=test_resnet",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip


def test_self_training_learns_from_its_first_model_and_repeats_nothing(options, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {accelerator: cpu}\n")
    folder = tmp_path / "self"
    done = tool("self_train.py", config, "--folder", folder, *options)
    assert done.returncode == 0, done.stderr
    soft = np.load(folder / "soft_labels.npy")
    assert soft.shape == (18, 14)
    checkpoint = torch.load(folder / "self_trained" / "checkpoints" / "last.ckpt", weights_only=True)
    assert f"soft_labels: {folder / 'soft_labels.npy'}" in checkpoint["mlcv_config"]
    stamp = (folder / "ignore" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    (folder / "self_trained" / "checkpoints" / "last.ckpt").unlink()
    again = tool("self_train.py", config, "--folder", folder, *options)
    assert again.returncode == 0, again.stderr
    assert (folder / "ignore" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == stamp
    assert (folder / "self_trained" / "checkpoints" / "last.ckpt").is_file()


def test_checkpoints_and_files_are_averaged(options, tmp_path):
    for seed in (1, 2):
        assert main(["fit", *options, f"--seed_everything={seed}", "--run_dir", str(tmp_path / str(seed))]) == 0
    first, second = (tmp_path / str(seed) / "checkpoints" / "last.ckpt" for seed in (1, 2))
    assert main(["predict", "--ckpt_path", str(second), "--run_dir", str(tmp_path / "predicted")]) == 0
    out = tmp_path / "both.csv"
    done = tool("ensemble.py", first, tmp_path / "predicted" / "predictions.csv", "--out", out)
    assert "mean of 2 models, 9 rows, 14 classes" in done.stdout, done.stderr
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
    refused = tool("ensemble.py", tmp_path / "none.ckpt")
    assert refused.returncode == 1
    assert "cannot predict: mlcv: error: --ckpt_path: no file" in refused.stderr
