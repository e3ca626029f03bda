"""Two processes give the numbers of one: no sample twice, none left out."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from mlcv.cli import main
from mlcv.models import CLIPProjector, LoRA
from mlcv.models.open_clip_tower import create_open_clip
from tests.tiny_sets import write_csv

# 21 validation scenes do not divide by two, nor by the batch size.
OPTIONS = [
    "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=21", "--data.num_test=21",
    "--data.batch_size=4", "--data.image_size=32", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
]  # fmt: skip


DEVICES = ["--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.fixture
def two(python):
    def run(*arguments):
        result = python.mlcv(*arguments, *DEVICES, children=1)
        assert result.returncode == 0, result.stderr[-3000:]

    return run


def metrics(folder, stage="test"):
    facts = json.loads((folder / f"{stage}.json").read_text())
    return {name: value for name, value in facts["metrics"].items() if value is not None}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert main(["fit", *OPTIONS, "--trainer.max_epochs=1", "--run_dir", str(folder)]) == 0
    return folder / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_on_two_processes_equals_one(checkpoint, two, tmp_path, stage):
    one, both = tmp_path / "one", tmp_path / "two"
    assert main([stage, "--ckpt_path", str(checkpoint), "--run_dir", str(one)]) == 0
    two(stage, "--ckpt_path", checkpoint, "--run_dir", both)
    name = {"validate": "val", "test": "test"}[stage]
    assert metrics(both, name) == pytest.approx(metrics(one, name), abs=1e-6)
    rows = [list(csv.reader((folder / f"{name}_predictions.csv").open())) for folder in (one, both)]
    assert [row[:2] + row[12:] for row in rows[0]] == [row[:2] + row[12:] for row in rows[1]]
    assert len(rows[0]) == 22
    assert rows[0][0][12] == "truth:0"


def test_what_every_process_skipped_is_listed(two, tmp_path):
    table = write_csv(tmp_path)
    for n in (6, 7):  # each process gets one
        (tmp_path / "images" / f"{n}.jpg").write_bytes(b"")
    config = tmp_path / "empty.yaml"
    config.write_text("trainer: {accelerator: cpu}\n")
    options = [
        "--data=CSVDataModule", f"--data.path={table}", "--data.label_columns=[fish]", "--data.on_error=skip",
        "--data.fractions=[0.2,0.8,0]", "--data.image_size=32", "--data.batch_size=1", "--data.num_workers=0",
        "--model=Classifier", "--model.backbone=test_resnet", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    two("validate", "--config", config, *options, "--untrained", "true", "--run_dir", tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "val.json").read_text())
    found = {name.rpartition("images/")[2].partition(":")[0] for name in facts["skipped_images"]}
    in_validation = {
        row["image"].rpartition("/")[2] for row in csv.DictReader((tmp_path / "run" / "val_predictions.csv").open())
    }
    assert found
    assert not found & in_validation
    assert len(found) + len(in_validation) == facts["labels"]["val"]["images"]


def test_predictions_of_two_processes_are_those_of_one(checkpoint, two, tmp_path):
    one, both = tmp_path / "one", tmp_path / "two"
    assert main(["predict", "--ckpt_path", str(checkpoint), "--run_dir", str(one)]) == 0
    two("predict", "--ckpt_path", checkpoint, "--run_dir", both)
    rows = [list(csv.reader((folder / "predictions.csv").open())) for folder in (one, both)]
    assert len(rows[0]) == 22
    for ours, theirs in zip(*rows, strict=True):
        assert ours[:2] == theirs[:2]
    values = [[float(cell) for row in table[1:] for cell in row[2:12]] for table in rows]
    assert values[1] == pytest.approx(values[0], abs=1e-5)


def test_pu_mlc_trains_on_two_processes(two, tmp_path):
    options = [option for option in OPTIONS if not option.startswith(("--model", "--data.image_size"))]
    two(
        "fit", *options, "--model=PUMLC", "--model.backbone=test_resnet", "--trainer.max_epochs=1",
        "--trainer.log_every_n_steps=1", "--run_dir", tmp_path,
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    temperatures = [float(row["train/temperature"]) for row in rows if row["train/temperature"]]
    assert len(temperatures) == 4
    assert all(0 < t <= 1 for t in temperatures)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_patch_ct_trains_on_two_processes(two, tmp_path, weight):
    options = [option for option in OPTIONS if not option.startswith("--model")]
    two(
        "fit", *options, "--model=PatchCT", "--model.backbone=test_vit", f"--model.transport.weight={weight}",
        "--model.transport.background=0.5", "--model.labels.dim=16", "--trainer.max_epochs=1",
        "--trainer.log_every_n_steps=1",
        "--run_dir", tmp_path, "--test_after_fit=true",
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert len([row for row in rows if row["train/loss"]]) == 4
    assert 0 <= metrics(tmp_path)["pointing_game"] <= 1


@pytest.mark.parametrize("method", ["Distillation", "LabelProjector", "CLIPPretraining"])
def test_methods_with_a_teacher_or_a_clip_train_on_two_processes(two, tmp_path, method):
    options = [option for option in OPTIONS if not option.startswith("--model")]
    options += ["--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", f"--model={method}"]
    clip, projector = tmp_path / "clip.pt", tmp_path / "p.safetensors"
    torch.save(create_open_clip("digits-clip", None, "test", force_image_size=32).state_dict(), clip)
    if method == "Distillation":  # from a projector, online
        names = [str(digit) for digit in range(10)]
        CLIPProjector("digits-clip", str(clip), names, lora=LoRA(1, 1), image_size=32).save(projector)
        options += ["--model.backbone=test_resnet", f"--model.teacher={projector}"]
    else:
        options.append("--model.backbone=open_clip:digits-clip")
    if method == "LabelProjector":  # from stored labels
        np.save(tmp_path / "soft.npy", np.full((32, 10), 0.3))
        options += [f"--model.teacher={tmp_path / 'soft.npy'}", f"--model.weights={clip}"]
        options += ["--model.lora.rank=1", "--model.lora.batch_statistics=true"]
    run = tmp_path / "run"
    two("fit", *options, "--run_dir", run, "--test_after_fit=true")
    losses = [row["train/loss"] for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss"]]
    assert len(losses) == 4
    assert 0 <= metrics(run)["mAP"] <= 1
    made = {"LabelProjector": "projector.safetensors", "CLIPPretraining": "clip.pt"}.get(method)
    assert made is None or (run / made).is_file()


def test_training_on_two_processes_leaves_one_run(tmp_path):
    """From a new Python, whose second process Lightning starts itself."""
    command = [sys.executable, "-m", "mlcv", "fit", *OPTIONS, *DEVICES, "--trainer.max_epochs=1"]
    command += ["--run_dir", str(tmp_path / "run"), "--test_after_fit=true"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # 32 images, 2 processes, batches of 4
    assert metrics(tmp_path / "run", "val").keys() >= {"mAP", "num_evaluable_classes"}
    assert len(list(tmp_path.iterdir())) == 1
