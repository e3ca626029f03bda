"""Ctrl-C and kill lose at most the current epoch, and the run goes on from there."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mlcv.cli import main

OPTIONS = [
    "--data=DigitScenesDataModule", "--data.num_train=256", "--data.num_val=16", "--data.num_test=16",
    "--data.batch_size=16", "--data.image_size=64", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
    "--trainer.max_epochs=200",
]  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_where_it_was(tmp_path, python, how):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    command = [sys.executable, "-m", "mlcv", "fit", *OPTIONS, "--run_dir", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 180
        while not last.is_file() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        assert last.is_file(), process.communicate()[1][-2000:]
        time.sleep(1)
        os.kill(process.pid, how)
        error = process.communicate(timeout=120)[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert f"mlcv: stopped. To resume: mlcv fit --ckpt_path {last}" in error
        assert "Traceback" not in error
    before = torch.load(last, weights_only=True)
    more = before["epoch"] + 2
    result = python.mlcv("fit", "--ckpt_path", last, f"--trainer.max_epochs={more}")
    assert result.returncode == 0, result.stderr[-3000:]
    after = torch.load(last, weights_only=True)
    assert after["epoch"] == more - 1
    assert after["global_step"] == before["global_step"] + 16 * (more - 1 - before["epoch"])


def test_more_epochs_than_the_learning_rate_was_planned_for_are_refused(tmp_path, capsys):
    assert main(["fit", *OPTIONS, "--trainer.max_epochs=1", "--run_dir", str(tmp_path)]) == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    again = ["fit", "--ckpt_path", str(last), "--trainer.max_epochs"]
    assert main([*again, "3"]) == 2
    assert "planned for 16 steps and is at 0 then; 48 are asked for" in capsys.readouterr().err
    assert last.read_bytes() == before
    assert main([*again, "3", "--model.optim.schedule=constant"]) == 2
    assert "the checkpoint's is another" in capsys.readouterr().err


def test_the_last_checkpoint_is_the_last_epochs_even_when_the_best_is_an_earlier_one(tmp_path):
    nothing_learns = [
        "--model.optim.lr=1e-12", "--model.freeze=[conv1,bn1,layer1,layer2,layer3,layer4]", "--trainer.max_epochs=3",
    ]  # fmt: skip
    assert main(["fit", *OPTIONS, *nothing_learns, "--run_dir", str(tmp_path)]) == 0
    best, last = (torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (0, 2)
