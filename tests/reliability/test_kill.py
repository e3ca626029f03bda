"""kill -9 at any moment, ten times: no corrupt checkpoint is picked up, and the end is that of a straight run."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow
KILLS = 10
OPTIONS = [
    "--data=DigitScenesDataModule", "--data.num_train=192", "--data.num_val=32", "--data.num_test=32",
    "--data.batch_size=16", "--data.image_size=48", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
    "--trainer.max_epochs=150", "--trainer.deterministic=true", "--test_after_fit=true",
]  # fmt: skip


def command(run, last):
    start = ["--ckpt_path", str(last)] if last.is_file() else OPTIONS
    return [sys.executable, "-m", "mlcv", "fit", *start, "--run_dir", str(run), "--test_after_fit=true"]


def results(run):
    found = {name: json.loads((run / f"{name}.json").read_text())["metrics"] for name in ("val", "test")}
    return found, torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_ten_kills_change_nothing(tmp_path, seed):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    last = killed / "checkpoints" / "last.ckpt"
    subprocess.run(command(straight, tmp_path / "none"), check=True, capture_output=True, timeout=600)
    random = np.random.default_rng(seed)
    for _ in range(KILLS):
        with subprocess.Popen(command(killed, last), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            time.sleep(random.uniform(2, 12))  # before the first step, in training, or while a checkpoint is written
            assert process.poll() is None, "the run ended before it was killed often enough"
            os.kill(process.pid, signal.SIGKILL)
        if last.is_file():
            torch.load(last, weights_only=True)
    done = subprocess.run(command(killed, last), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (metrics, weights), (expected, straight_weights) = results(killed), results(straight)
    assert metrics == expected
    for name, value in straight_weights.items():
        assert torch.equal(weights[name], value), name
    leftovers = {path.name for path in (killed / "checkpoints").iterdir()} - {"best.ckpt", "last.ckpt"}
    assert not {name for name in leftovers if name.endswith(".ckpt")}
