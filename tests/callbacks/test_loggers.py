"""metrics.csv of resumed runs, and trackers: the packages are stand-ins on the path, Lightning's loggers are real."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlcv import Classifier
from mlcv.cli import main

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=16", "--data.num_test=16",
    "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
    "--model.backbone=test_resnet", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=1", "--trainer.max_epochs=4",
]  # fmt: skip


def rows(run):
    return list(csv.DictReader((run / "metrics.csv").open()))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run = tmp_path_factory.mktemp("straight")
    assert main(["fit", *RUN, f"--run_dir={run}"]) == 0
    return rows(run)


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A run that Ctrl-C ends in the third of its epochs, of four steps each."""
    step = Classifier.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == 10:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", training_step)
        assert main(["fit", *RUN, f"--run_dir={run}"]) == 130
    assert {row["epoch"] for row in rows(run)} == {"0", "1", "2"}
    return run


def test_a_resumed_run_has_the_metrics_file_of_a_straight_one(straight, interrupted):
    with (interrupted / "metrics.csv").open("a") as file:
        file.write("2,0.1")  # a line that a kill has cut off
    assert main(["fit", f"--ckpt_path={interrupted / 'checkpoints' / 'last.ckpt'}"]) == 0
    assert rows(interrupted) == straight
    assert not list(interrupted.glob("metrics.?*.csv"))


def test_a_run_that_goes_on_from_its_best_has_each_epoch_once(straight, tmp_path):
    run = tmp_path / "run"
    assert main(["fit", *RUN, f"--run_dir={run}"]) == 0
    best = run / "checkpoints" / "best.ckpt"
    assert main(["fit", f"--ckpt_path={best}"]) == 0
    steps = [(row["epoch"], row["step"]) for row in rows(run)]
    assert steps == [(row["epoch"], row["step"]) for row in straight]


def test_a_resumption_that_fails_before_it_trains_leaves_the_file_alone(interrupted):
    before = (interrupted / "metrics.csv").read_bytes()
    last = interrupted / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", "--data.batch_size=8"]) == 2
    assert (interrupted / "metrics.csv").read_bytes() == before


def test_a_resumption_in_another_folder_begins_a_file(interrupted, tmp_path, straight):
    other = tmp_path / "other"
    last = interrupted / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", f"--run_dir={other}"]) == 0
    assert rows(other) == [row for row in straight if int(row["step"]) >= 8]


def test_metrics_that_are_no_runs_are_kept_under_another_name(tmp_path):
    (tmp_path / "metrics.csv").write_text("mine\n")
    assert main(["fit", *RUN, "--trainer.max_epochs=1", f"--run_dir={tmp_path}"]) == 0
    assert (tmp_path / "metrics.1.csv").read_text() == "mine\n"
    assert {row["epoch"] for row in rows(tmp_path)} == {"0"}


WANDB = {
    "wandb/__init__.py": """
import json, os
run = None
class Config(dict):
    def update(self, given, **_):
        note("config", given)
def note(what, value):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps([what, value], default=str) + "\\n")
def require(_): pass
def init(**given):
    global run
    from wandb.wandb_run import Run
    note("init", given)
    run = Run()
    return run
""",
    "wandb/wandb_run.py": """
import wandb
class Run:
    id, name = "x", "y"
    config = wandb.Config()
    def define_metric(self, *_, **__): pass
    def log(self, values, **_): wandb.note("log", values)
    def watch(self, *_, **__): pass
""",
    "wandb/sdk/__init__.py": "",
    "wandb/sdk/lib/__init__.py": "class RunDisabled: pass",
}
MLFLOW = {
    "mlflow/__init__.py": "def set_tracking_uri(_): pass",
    "mlflow/tracking/__init__.py": """
import json, os
from types import SimpleNamespace as Space
def note(what, value):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps([what, value]) + "\\n")
class MlflowClient:
    def __init__(self, uri): note("uri", uri)
    def get_experiment_by_name(self, name):
        note("experiment", name)
        return Space(lifecycle_stage="active", experiment_id="1")
    def create_run(self, experiment_id, tags):
        note("create", tags)
        return Space(info=Space(run_id="r1"))
    def get_run(self, run_id):
        note("go on", run_id)
        return Space(info=Space(run_id=run_id, experiment_id="1"))
    def log_batch(self, run_id, params=(), metrics=(), **_):
        if params: note("config", {one.key: one.value for one in params})
        for one in metrics: note("log", {one.key: one.value, "step": one.step})
    def set_terminated(self, run_id, status): note("end", status)
""",
    "mlflow/tracking/context/__init__.py": "",
    "mlflow/tracking/context/registry.py": "def resolve_tags(tags): return tags",
    "mlflow/utils/__init__.py": "",
    "mlflow/utils/mlflow_tags.py": "MLFLOW_RUN_NAME = 'name'",
    "mlflow/entities/__init__.py": """
class Param:
    def __init__(self, key, value): self.key, self.value = key, value
class Metric:
    def __init__(self, key, value, timestamp, step): self.key, self.value, self.step = key, value, step
""",
}


def install(folder, name, files):
    for path, text in {**files, f"{name}-9.0.dist-info/METADATA": f"Name: {name}\nVersion: 9.0\n"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def fit(folder, *arguments):
    """In a new Python, whose path has the packages of `folder`; what it has told them."""
    notes = folder / "notes"
    notes.unlink(missing_ok=True)
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(folder), str(root), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "NOTES": str(notes)}
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "mlcv", "fit", *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return list(map(json.loads, notes.read_text().splitlines()))


@pytest.mark.parametrize(("name", "files"), [("wandb", WANDB), ("mlflow", MLFLOW)])
def test_one_option_logs_to_a_tracker_beside_the_files_and_a_resumed_run_goes_on_there(tmp_path, name, files):
    install(tmp_path, name, files)
    run = tmp_path / "some" / "run"
    two = "--trainer.max_epochs=2"
    said = fit(tmp_path, *RUN, two, "--model.optim.horizon_epochs=3", f"--run_dir={run}", "--logger", name)
    told = dict(said) | {"config": {}}
    for what, value in said:  # MLflow takes a hundred numbers at a time
        told["config"] |= value if what == "config" else {}
    scores = [value["val/mAP"] for what, value in said if what == "log" and "val/mAP" in value]
    assert scores == [pytest.approx(float(row["val/mAP"])) for row in rows(run) if row["val/mAP"]]
    assert "test_resnet" in map(str, told["config"].values()) or "test_resnet" in json.dumps(told["config"])
    assert list(run.glob("events.out*"))
    identity = (run / f"{name}_id").read_text().strip()
    if name == "wandb":
        assert (told["init"]["project"], told["init"]["name"]) == ("mlcv", "some/run")
        assert (told["init"]["id"], told["init"]["resume"]) == (identity, "allow")
    else:
        assert (told["experiment"], told["create"], told["end"]) == ("mlcv", {"name": "some/run"}, "FINISHED")
        assert identity == "r1"
    assert yaml.safe_load((run / "config.yaml").read_text())["logger"] == name
    last = run / "checkpoints" / "last.ckpt"
    again = fit(tmp_path, f"--ckpt_path={last}", "--trainer.max_epochs=3")
    assert (dict(again)["init"]["id"] if name == "wandb" else dict(again)["go on"]) == identity
    assert "config" not in dict(again)  # MLflow refuses a second one that differs
    assert len([value for what, value in again if what == "log" and "val/mAP" in value]) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_told_before_training(tmp_path, capsys, monkeypatch, name):
    find = "mlcv.callbacks.loggers.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda wanted: None if wanted == name else pytest.fail(wanted))
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", f"--logger={name}"]) == 2
    expected = f"mlcv: error: logger: the package {name} is not installed: pip install {name}, or leave --logger out\n"
    assert capsys.readouterr().err.endswith(expected)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_two_ways_to_say_where_is_logged_are_told(tmp_path, capsys):
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", "--logger=wandb", "--trainer.logger=false"]) == 2
    assert "give that or trainer.logger, not both" in capsys.readouterr().err
