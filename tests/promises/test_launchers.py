"""Machines start, stop and repeat commands: torchrun, a cluster's scheduler, and Lightning's words for checkpoints."""

import os
import signal
import time

import pytest
import torch

from mlcv.checkpoint_arguments import with_checkpoint_found
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.launchers import process_rank, starts_apart

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=8", "--data.num_test=8",
    "--data.batch_size=8", "--model=Classifier", "--model.backbone=test_resnet", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
]  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    """With checkpoints of which the scheduler's second is the newest."""
    names = ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "hpc_ckpt_9.ckpt", "hpc_ckpt_10.ckpt"]
    (tmp_path / "checkpoints").mkdir()
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    return tmp_path


@pytest.mark.parametrize(
    ("word", "found"),
    [("best", "checkpoints/best.ckpt"), ("last", "hpc_ckpt_10.ckpt"), ("hpc", "hpc_ckpt_10.ckpt")],
)
def test_a_word_is_a_checkpoint_of_the_runs_folder(run_dir, word, found):
    for given in (["--ckpt_path", word, "--run_dir", str(run_dir)], [f"--ckpt_path={word}", f"--run_dir={run_dir}"]):
        changed = with_checkpoint_found(["test", *given, "--data.num_workers=0"])
        assert changed[-1] == f"--ckpt_path={run_dir / found}"
        assert sum("--ckpt_path" in argument for argument in changed) == 1
        assert "--data.num_workers=0" in changed


def test_last_is_whatever_is_newest(run_dir):
    os.utime(run_dir / "checkpoints" / "last.ckpt")
    changed = with_checkpoint_found(["fit", "--ckpt_path=last", f"--run_dir={run_dir}"])
    assert changed[-1] == f"--ckpt_path={run_dir / 'checkpoints' / 'last.ckpt'}"


def test_words_without_a_folder_or_a_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="--ckpt_path last is of the run's folder: give --run_dir, too"):
        with_checkpoint_found(["test", "--ckpt_path", "last"])
    with pytest.raises(ConfigError, match="--ckpt_path best: .* holds no such checkpoint"):
        with_checkpoint_found(["test", "--ckpt_path", "best", "--run_dir", str(tmp_path)])
    assert with_checkpoint_found(["test", "--ckpt_path", "x.ckpt"]) == ["test", "--ckpt_path", "x.ckpt"]


def test_the_same_line_starts_a_run_and_goes_on_with_it(tmp_path, capsys):
    line = ["fit", *RUN, "--model.optim.horizon_epochs=2", "--run_dir", str(tmp_path / "run"), "--ckpt_path", "last"]
    assert main([*line, "--trainer.max_epochs=1"]) == 0
    assert "holds no checkpoint yet, so training begins anew" in capsys.readouterr().err
    assert main([*line, "--trainer.max_epochs=2"]) == 0
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1


def test_a_requeued_job_needs_its_folder(monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(ConfigError, match="a job that was queued again goes on in the run's folder: give --run_dir"):
        with_checkpoint_found(["fit"])
    for other in (["test"], ["fit", "--help"], ["fit", "--data.help", "COCODataModule"]):
        assert with_checkpoint_found(other) == other


@pytest.mark.parametrize("given", [[], ["--ckpt_path=best"], ["--ckpt_path", "elsewhere/last.ckpt"]])
def test_a_requeued_job_goes_on_with_its_last_checkpoint_whatever_it_began_with(run_dir, monkeypatch, given):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    changed = with_checkpoint_found(["fit", *given, "--run_dir", str(run_dir)])
    assert changed == ["fit", "--run_dir", str(run_dir), f"--ckpt_path={run_dir / 'hpc_ckpt_10.ckpt'}"]


def test_a_new_run_leaves_a_clusters_checkpoint_alone(tmp_path, capsys):
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    assert main(["fit", *RUN, "--run_dir", str(tmp_path)]) == 2
    assert "holds the checkpoints of a run, such as hpc_ckpt_1.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "rank", "apart"),
    [
        ({}, 0, False),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 3, True),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, 2, True),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1", "MLCV_RUN_DIR": "run"}, 1, False),  # Lightning's, in a batch script
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_NAME": "interactive"}, 0, False),
        ({"RANK": "", "SLURM_NTASKS": "8"}, 0, False),
    ],
)
def test_who_started_this_process(monkeypatch, given, rank, apart):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MLCV_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert (process_rank(), starts_apart()) == (rank, apart)


def test_processes_that_start_apart_need_one_folder(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["fit", *RUN]) == 2
    assert "processes that are started apart, as by torchrun or srun, need one --run_dir" in capsys.readouterr().err


def test_torchrun_trains_one_run(tmp_path, python):
    """Which starts two new Pythons."""
    line = ["-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "mlcv", "fit", *RUN]
    line += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1", "--run_dir", "run"]
    done = python.run(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_cluster_stops_a_job_and_queues_it_again(tmp_path, python):
    """As SLURM does: a signal before the time is up, on which Lightning saves and asks for it, then a restart."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" > requeued.txt\n')
    (tmp_path / "scontrol").chmod(0o755)
    cluster = {"JOB_ID": "7", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "train"}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {f"SLURM_{name}": value for name, value in cluster.items()} | {"SLURM_JOB_NUM_NODES": "1"}
    line = ["fit", *RUN, "--run_dir", "run", "--trainer.max_epochs=300"]
    run, saved = tmp_path / "run", tmp_path / "run" / "hpc_ckpt_1.ckpt"
    with python.start("-m", "mlcv", *line, cwd=tmp_path, environment=environment) as process:
        while not (run / "checkpoints" / "last.ckpt").is_file() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        while not (tmp_path / "requeued.txt").is_file() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 143, said
    assert (tmp_path / "requeued.txt").read_text() == "requeue 7\n"
    reached = torch.load(saved, weights_only=True)["global_step"]
    environment["SLURM_RESTART_COUNT"] = "1"
    again = python.mlcv(*line, f"--trainer.max_steps={reached + 40}", cwd=tmp_path, environment=environment)
    assert again.returncode == 0, again.stderr[-2000:]
    assert f"{run.name}/hpc_ckpt_1.ckpt" in again.stderr or "last.ckpt" in again.stderr
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > reached
