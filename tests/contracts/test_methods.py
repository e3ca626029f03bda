"""What every method in `mlcv.methods` must do, run through the command line on a few digit scenes."""

import inspect
import json

import numpy as np
import pytest
import torch
import yaml

import mlcv.methods
from mlcv.cli import main
from mlcv.methods import BackboneMethod, Student
from mlcv.methods.base import MultiLabelModule

METHODS = [
    name
    for name in mlcv.methods.__all__
    if inspect.isclass(cls := getattr(mlcv.methods, name))
    and issubclass(cls, MultiLabelModule)
    and cls not in (MultiLabelModule, BackboneMethod, Student)
]
DATA = {
    "class_path": "DigitScenesDataModule",
    "init_args": {"num_train": 32, "num_val": 16, "num_test": 16, "batch_size": 8, "image_size": 32},
}


@pytest.fixture(params=METHODS)
def config(request, tmp_path, tiny_clip):
    cls = getattr(mlcv.methods, request.param)
    arguments = {"backbone": "test_resnet"} if "backbone" in inspect.signature(cls).parameters else {}
    if issubclass(cls, Student):
        np.save(tmp_path / "soft.npy", np.random.default_rng(0).random((32, 10)))
        arguments["teacher"] = str(tmp_path / "soft.npy")
    if request.param == "CLIPPretraining":
        arguments["backbone"] = f"open_clip:{tiny_clip[0]}"
    if request.param == "LabelProjector":
        arguments.update(
            backbone=f"open_clip:{tiny_clip[0]}", weights=str(tiny_clip[1]), lora={"rank": 1, "dropout": 0.5}
        )
    # Dropout, so that a resumed run must draw the numbers of the straight one.
    head = {"class_path": "LinearHead", "init_args": {"dropout": 0.5}}
    if "head" in inspect.signature(cls).parameters:
        arguments["head"] = head
    content = {
        "data": DATA,
        "model": {"class_path": request.param, "init_args": arguments},
        "trainer": {"max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"},
    }
    path = tmp_path / "method.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments):
    assert main(list(map(str, arguments))) == 0


def state(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_trains_saves_tests_and_predicts_from_the_command_line(config, tmp_path, capsys):
    run_dir = tmp_path / "run"
    run("fit", "--config", config, "--run_dir", run_dir)
    best = run_dir / "checkpoints" / "best.ckpt"
    run("test", "--ckpt_path", best)
    assert "per class" in capsys.readouterr().out
    run("validate", "--ckpt_path", best)
    run("predict", "--ckpt_path", best)
    metrics = json.loads((run_dir / "test.json").read_text())["metrics"]
    assert 0 < metrics["mAP"] <= 1
    assert len((run_dir / "predictions.csv").read_text().splitlines()) == 17
    assert len((run_dir / "test_per_class.csv").read_text().splitlines()) == 11
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["data"]["init_args"]["num_train"] == 32


def test_a_resumed_run_equals_a_straight_one_to_the_last_bit(config, tmp_path):
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    # The schedule must be planned for four epochs in both.
    plan = ("--model.optim.horizon_epochs", 4)
    run("fit", "--config", config, "--run_dir", straight, "--trainer.max_epochs", 4, *plan)
    run("fit", "--config", config, "--run_dir", halves, "--trainer.max_epochs", 2, *plan)
    last = halves / "checkpoints" / "last.ckpt"
    run("fit", "--ckpt_path", last, "--trainer.max_epochs", 4)
    ours, theirs = state(halves / "checkpoints" / "last.ckpt"), state(straight / "checkpoints" / "last.ckpt")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (halves / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
