"""Studies from the command line: whole, stopped, killed, failed, and those that no run can begin of."""

import csv
import json
import os
import signal
import time
from dataclasses import replace

import pytest

from mlcv.cli import main
from mlcv.commands.study import _alone
from mlcv.commands.study_runs import planned, result_of
from mlcv.errors import ConfigError
from mlcv.files import write_text
from mlcv.studies.plan import Run

SMALL = """
config: digits/bce
options:
  data.num_train: 48
  data.num_val: 16
  data.num_test: 16
  data.image_size: 32
  data.batch_size: 16
  data.num_workers: 0
  trainer.max_epochs: 2
tune: {model.optim.lr: [0.001, 0.01]}
methods:
  plain: {model.loss: mlcv.losses.BCELoss}
  focal: {model.loss: FocalLoss}
seeds: 2
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_study_chooses_by_validation_and_tests_once(file, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["study", str(file), "--out", str(out), "--jobs", "2"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "labels as they are" in said
    runs, table = read(out / "runs.csv"), read(out / "table.csv")
    assert len(runs) == 4
    assert {row["method"] for row in table} == {"plain", "focal"}
    for run in runs:
        result = json.loads((out / run["folder"] / "result.json").read_text())
        best = max(result["tried"], key=lambda one: one["val"])
        assert result["tried"][result["chosen"]] == best
        assert run["setting"] == f"{best['setting']['model.optim.lr']:g}"
        folders = [path.name for path in (out / run["folder"]).iterdir() if path.is_dir()]
        assert folders == [str(result["chosen"])]  # of what lost nothing is kept
        assert float(run["mAP"]) == result["metrics"]["mAP"]
        test = out / run["folder"] / folders[0] / "test.json"
        assert json.loads(test.read_text())["metrics"]["mAP"] == result["metrics"]["mAP"]
    for row in table:
        own = [float(run["mAP"]) for run in runs if run["method"] == row["method"]]
        assert float(row["mAP"]) == pytest.approx(sum(own) / 2)
    assert (out / "plot.png").stat().st_size > 5000
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert main(command) == 0  # nothing is done twice
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == before
    file.write_text(SMALL.replace("num_train: 48", "num_train: 64"))
    capsys.readouterr()
    assert main(command) == 2
    assert "holds a run of other settings: give another --out" in capsys.readouterr().err
    file.write_text(SMALL)
    assert main([*command, "--seeds", "1", "--methods", "focal"]) == 0
    assert {row["seeds"] for row in read(out / "table.csv")} == {"1"}


def test_a_run_that_fails_is_in_the_table_and_the_others_go_on(file, tmp_path, capsys):
    more = "  wild: {model.optim.name: sgd, tune: {model.optim.lr: [1.0e+30, 1.0e+35]}}\n"
    more += "  half: {model.optim.name: sgd, tune: {model.optim.lr: [1.0e+30, 0.01]}}\n"
    more += "  after: {model.weights: '{wild}/0/x.ckpt'}\n"
    file.write_text(SMALL.replace("seeds: 2", "seeds: 1").replace("  focal:", f"{more}  focal:"))
    assert main(["study", str(file), "--out", str(tmp_path / "out")]) == 0
    rows = {row["method"]: row for row in read(tmp_path / "out" / "table.csv")}
    assert "the loss was " in rows["wild"]["error"]
    assert rows["half"]["settings"] == "0.01"
    assert rows["after"]["error"] == "not run, for want of wild"
    assert rows["focal"]["mAP"]
    assert rows["plain"]["mAP"]
    said = capsys.readouterr().out
    assert "wild, labels as they are, seed 0: failed: " in said
    assert "Traceback" not in said


def test_what_was_killed_is_repeated_whole_and_what_was_done_is_kept(file, tmp_path, python, capsys):
    out = tmp_path / "out"
    command = ["study", str(file), "--out", str(out), "--jobs", "1"]
    process = python.start("-m", "mlcv", *command)
    while not list(out.rglob("result.json")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "runs are done and kept; give the same command again to go on" in process.stderr
    done = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert 1 <= len(done) < 4
    assert read(out / "table.csv")
    time.sleep(0.5)
    begun = [path.parent for path in out.rglob("run.json") if not (path.parent / "result.json").exists()]
    for folder in begun:
        (folder / "left-over").touch()
    assert main(command) == 0
    assert len(list(out.rglob("result.json"))) == 4
    assert not list(out.rglob("left-over"))
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.parametrize(("change", "more", "words"), [
    (("model.loss: FocalLoss", "model.loss: FokalLoss"), [], "FocalLoss"),
    (("model.loss: FocalLoss", "model.los: FocalLoss"), [], "model.los"),
    (("data.num_val: 16", "data.num_val: 1"), [], "the validation split, by which settings are chosen"),
    (("", ""), ["--methods", "foccal"], "did you mean 'focal'"),
    (("", ""), ["--config", "digits/bce"], "leave --config out"),
    (("", ""), ["--preset", "losses"], "not both"),
    (("", ""), ["surplus"], "no option with a value"),
    (("", ""), ["--data.features=/nowhere"], "/nowhere has no features.json"),
    (("", ""), ["--data.root", "--data.batch_size", "8"], "'--data.root' is no option with a value"),
    (("", ""), ["--trainer.callbacks+=A", "--trainer.callbacks+=B"], "--trainer.callbacks+ is given twice"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence_before_any_run(file, tmp_path, capsys, change, more, words):
    file.write_text(SMALL.replace(*change))
    out = tmp_path / "out"
    assert main(["study", str(file), "--out", str(out), *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()[-1]) < 600
    assert not out.exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_refused_before_any_run(file, tmp_path, capsys, name):
    (tmp_path / "file").touch()
    assert main(["study", str(file), "--out", str(tmp_path / name)]) == 2
    assert "a file is in its place" in capsys.readouterr().err


def test_of_two_studies_in_one_folder_the_second_is_refused(tmp_path):
    with _alone(tmp_path / "out"):
        with pytest.raises(ConfigError, match="another one is at work"), _alone(tmp_path / "out"):
            pass
        with _alone(tmp_path / "other"):
            pass
    with _alone(tmp_path / "out"):
        pass


def test_runs_of_a_config_that_has_changed_are_not_mixed_with_new_ones(tmp_path):
    run = Run("all", "a", 0, "", ({},), (("--config=a.yaml",),), content="1")
    write_text(tmp_path / "run.json", json.dumps(planned(run)))
    assert result_of(tmp_path, run) is None
    with pytest.raises(ConfigError, match="other settings, as a config has changed since: give"):
        result_of(tmp_path, replace(run, content="2"))
    with pytest.raises(ConfigError, match="other settings: give"):
        result_of(tmp_path, replace(run, arguments=(("--config=b.yaml",),)))
    write_text(tmp_path / "run.json", json.dumps({k: v for k, v in planned(run).items() if k != "configs"}))
    assert result_of(tmp_path, replace(run, content="2")) is None  # of a time when this was not written down


@pytest.mark.parametrize(("option", "words"), [
    ("trainer.logger: false", "no epoch has written val/mAP"),
    ("trainer.check_val_every_n_epoch: 5", "no epoch has written val/mAP"),
    ("trainer.enable_checkpointing: false", "no checkpoint to test"),
])  # fmt: skip
def test_no_setting_is_chosen_without_validation(file, tmp_path, option, words):
    text = SMALL.replace("seeds: 2", "seeds: 1").replace(
        "  trainer.max_epochs: 2", f"  trainer.max_epochs: 1\n  {option}"
    )
    file.write_text(text)
    assert main(["study", str(file), "--out", str(tmp_path / "out"), "--methods", "plain"]) == 0
    assert words in read(tmp_path / "out" / "table.csv")[0]["error"]


def test_a_method_starts_from_the_chosen_checkpoint_of_another(file, tmp_path):
    more = "  after: {model.loss: FocalLoss, tune: {}, under: {x: {start_from: '{plain}/best.ckpt'}}}\n"
    more += "conditions: {x: {}}\n"
    file.write_text(SMALL.replace("seeds: 2", "seeds: 1").replace("  focal: {model.loss: FocalLoss}\n", more))
    out = tmp_path / "out"
    assert main(["study", str(file), "--out", str(out)]) == 0
    assert [row["error"] for row in read(out / "table.csv")] == ["", ""]
    folder = out / "runs" / "0" / "x" / "plain"
    chosen = json.loads((folder / "result.json").read_text())["chosen"]
    assert (folder / "best.ckpt").read_bytes() == (folder / str(chosen) / "checkpoints" / "best.ckpt").read_bytes()


def test_a_preset_needs_a_config(capsys):
    assert main(["study", "--preset", "losses"]) == 2
    assert "needs --config" in capsys.readouterr().err
    assert main(["study"]) == 2
    assert "give a file, or --preset" in capsys.readouterr().err


def test_the_process_of_a_run_ends_with_the_study(file, tmp_path, python):
    out = tmp_path / "out"
    process = python.start("-m", "mlcv", "study", str(file), "--out", str(out), "--jobs", "1")
    while not list(out.rglob("run.json")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(3)
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    time.sleep(3)
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before
