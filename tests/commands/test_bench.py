"""`mlcv bench`: times that add up, a file that can be compared with, and nothing else written."""

import json
import subprocess
import sys
import time

import pytest
import torch

from mlcv import DigitScenesDataModule
from mlcv.cli import main
from mlcv.commands.bench import StepTimer
from mlcv.methods.classifier import Classifier

FEW = [
    "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=8", "--data.num_test=40",
    "--data.image_size=32", "--data.batch_size=16", "--model=Classifier", "--model.backbone=test_resnet",
]  # fmt: skip


def bench(*options):
    return main(["bench", *FEW, "--steps", "4", "--warmup", "2", *map(str, options)])


def test_times_add_up_and_nothing_but_the_file_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert bench("--precisions", "32-true", "bf16-mixed", "--out", "now.json") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["now.json"]
    found = json.loads((tmp_path / "now.json").read_text())
    keys = [(row["phase"], row["precision"], row["mode"]) for row in found["rows"]]
    assert keys == [(phase, p, "eager") for p in ("32-true", "bf16-mixed") for phase in ("train", "predict")]
    for row in found["rows"]:
        parts = ["data", "forward", "backward", "optimizer"] if row["phase"] == "train" else ["data", "forward"]
        assert list(row["milliseconds"]) == parts
        assert all(value > 0 for value in row["milliseconds"].values())
        assert row["batch_size"] == 16
        assert row["steps"] == (4 if row["phase"] == "train" else 1)  # two full batches, of which one warms up
        assert row["images_per_second"] == pytest.approx(16000 / sum(row["milliseconds"].values()))
        assert row["memory_mib"] > 10
    assert found["torch"] == torch.__version__
    assert found["image_size"] == 32
    assert "train bf16-mixed eager" in capsys.readouterr().out


def test_modes_are_what_fit_compiles_and_nothing(monkeypatch):
    traced, compile_ = [], torch.compile

    def watched(call, **given):
        traced.append((given.get("mode"), getattr(call, "__qualname__", type(call).__name__)))
        return compile_(call, backend="eager")

    monkeypatch.setattr(torch, "compile", watched)
    assert bench("--modes", "eager", "--compile", "default") == 0
    assert traced == []
    assert bench("--modes", "compiled") == 0
    assert traced == [("default", "MultiLabelModule.forward"), ("default", "MultiLabelModule.objective")]


def test_each_part_is_where_its_time_went(tmp_path, monkeypatch):
    slow = {"data": 0.03, "forward": 0.05}
    load, step = DigitScenesDataModule.transfer_batch_to_device, Classifier.training_step

    def slow_load(self, *arguments):
        time.sleep(slow["data"])
        return load(self, *arguments)

    def slow_step(self, *arguments):
        time.sleep(slow["forward"])
        return step(self, *arguments)

    monkeypatch.setattr(DigitScenesDataModule, "transfer_batch_to_device", slow_load)
    monkeypatch.setattr(Classifier, "training_step", slow_step)
    assert bench("--out", tmp_path / "now.json") == 0
    after = json.loads((tmp_path / "now.json").read_text())["rows"][0]["milliseconds"]
    assert after["data"] >= 30
    assert after["forward"] >= 50


def test_systems_that_are_not_linux_need_nothing_that_linux_alone_has(tmp_path):
    """macOS and Windows know neither a process's cores nor some ways to open files."""
    code = (
        "import os, sys\n"
        "del os.sched_getaffinity, os.O_NONBLOCK, os.O_CLOEXEC\n"
        "from mlcv.cli import main\n"
        f"sys.exit(main(['bench', *{FEW!r}, '--steps', '2', '--warmup', '1']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_earlier_file_gives_ratios_and_says_what_has_changed(tmp_path, capsys):
    file = tmp_path / "then.json"
    assert bench("--out", file) == 0
    found = json.loads(file.read_text())
    found["torch"] = "1.0"
    for row in found["rows"]:
        row["images_per_second"] *= 1e-3
    file.write_text(json.dumps(found))
    capsys.readouterr()
    assert bench("--compare", file) == 0
    said = capsys.readouterr().out
    assert "ratio: images/s now / then" in said
    assert "torch was 1.0" in said
    for broken in ("{", '{"rows": [{"phase": 1}]}'):
        file.write_text(broken)
        assert bench("--compare", file) == 2
        assert "no readable file of mlcv bench" in capsys.readouterr().err


def test_data_that_ends_too_soon_and_wrong_options_are_said(tmp_path, capsys):
    with pytest.raises(Exception, match="lower it"):
        StepTimer(3).row("train", "32-true", "eager")
    assert bench("--data.batchsize", "4") == 2
    assert "batch_size" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert bench("--out", tmp_path / "file" / "x.json") == 2
    assert "cannot be written" in capsys.readouterr().err
