"""A full disk or a folder that cannot be written: one sentence, and what was there before is whole."""

import csv
import os
import resource
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow
OPTIONS = [
    "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=16", "--data.num_test=16",
    "--data.batch_size=16", "--data.image_size=48", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
]  # fmt: skip


def mlcv(*arguments, largest=None):
    """Runs the command line where no file may grow beyond so many bytes, which fails as a full disk does."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.run(
        [sys.executable, "-m", "mlcv", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300, preexec_fn=limit if largest is not None else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = mlcv("fit", *OPTIONS, "--trainer.max_epochs=1", "--model.optim.schedule=constant", "--run_dir", folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_a_checkpoint_that_finds_no_room_leaves_the_last_one_whole(run):
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    done = mlcv("fit", "--ckpt_path", last, "--trainer.max_epochs=3", largest=300_000)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "mlcv: error:" in done.stderr
    assert "File too large" in done.stderr
    assert "checkpoints" in done.stderr
    assert last.read_bytes() == before
    assert torch.load(last, weights_only=True)["epoch"] == 0
    done = mlcv("fit", "--ckpt_path", last, "--trainer.max_epochs=2")  # there is room again
    assert done.returncode == 0, done.stderr[-2000:]


def test_predictions_that_find_no_room_go_on_later(run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for n in range(200):
        cv2.imwrite(str(images / f"{n:03d}.png"), np.full((48, 48, 3), n, np.uint8))
    out = tmp_path / "out.csv"
    out.write_text("an earlier file")
    arguments = ["predict", "--ckpt_path", run / "checkpoints" / "last.ckpt", "--data.path", images]
    arguments += ["--predictions", out, "--data.num_workers=0", "--trainer.enable_progress_bar=false"]
    done = mlcv(*arguments, largest=20_000)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "make room and give the same command again" in done.stderr
    assert out.read_text() == "an earlier file"
    done = mlcv(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    names = [row["image"] for row in csv.DictReader(out.open())]
    assert len(names) == len(set(names)) == 200
    assert (tmp_path / "out.1.csv").read_text() == "an earlier file"


@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_folder_that_cannot_be_written_is_named_before_any_work(run, subcommand):
    folder = "/proc/mlcv" if os.geteuid() == 0 else "/usr/mlcv"  # root may write anywhere else
    start = OPTIONS if subcommand == "fit" else ["--ckpt_path", run / "checkpoints" / "last.ckpt"]
    done = mlcv(subcommand, *start, "--run_dir", folder)
    assert done.returncode == 2
    assert f"the run's folder {folder} cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["export", "test", "validate", "report", "evaluate", "calibrate", "bench", "fit"])
def test_every_command_without_room_says_so_and_leaves_what_was_there(run, tmp_path, command):
    checkpoint = run / "checkpoints" / "last.ckpt"
    own = tmp_path / "own"
    assert mlcv("validate", "--ckpt_path", checkpoint, "--run_dir", own).returncode == 0
    table = own / "val_predictions.csv"
    lines = {
        "export": ["--ckpt_path", checkpoint, "--out", own],
        "test": ["--ckpt_path", checkpoint, "--run_dir", own],
        "validate": ["--ckpt_path", checkpoint, "--run_dir", own],
        "report": [table, "--resamples", "5", "--out", own / "r.html"],
        "evaluate": [table, "--resamples", "5", "--out", own],
        "calibrate": [table, "--out", own / "calibration.json"],
        "bench": [*OPTIONS, "--steps", "2", "--warmup", "1", "--out", own / "b.json"],
        "fit": [*OPTIONS, "--trainer.max_epochs=1", "--run_dir", tmp_path / "new"],
    }
    for name in ("r.html", "model.onnx", "model.pt2", "calibration.json", "b.json", "results.csv", "test.json"):
        (own / name).write_text("an earlier file")
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    done = mlcv(command, *lines[command], largest=200)
    assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr or "no room to write" in done.stderr
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert not list((tmp_path / "new").rglob("*.json"))
