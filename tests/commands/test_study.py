"""Studies from the command line: whole, stopped, killed, failed, and those that no run can begin of."""

import csv
import json
import os
import signal
import time

import pytest
import torch
from scipy.stats import entropy

from mlcv.cli import main
from mlcv.commands.study import _alone
from mlcv.commands.study_runs import _divergence, _last_validation
from mlcv.errors import ConfigError

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
    (("", ""), ["--data.root", "--data.batch_size", "8"], "'--data.root' is no option with a value"),
    (("", ""), ["--trainer.callbacks+=A", "--trainer.callbacks+=B"], "--trainer.callbacks+ is given twice"),
    (("", ""), ["--data.features=/nowhere"], "/nowhere has no features.json"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence_before_any_run(file, tmp_path, capsys, change, more, words):
    file.write_text(SMALL.replace(*change))
    out = tmp_path / "out"
    assert main(["study", str(file), "--out", str(out), *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()[-1]) < 600
    assert not out.exists()


def test_a_study_of_which_no_run_is_done_says_so(file, tmp_path, capsys):
    wild = "methods:\n  wild: {model.optim.name: sgd, tune: {model.optim.lr: [1.0e+30]}}\n"
    file.write_text(SMALL[: SMALL.index("methods:")] + wild + "seeds: 1\n")
    assert main(["study", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "none of 1 runs is done; the first said: the loss was" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    assert main(["study", str(file), "--out", str(tmp_path / "taken")]) == 2
    assert "taken" in capsys.readouterr().err


def test_options_of_fit_stand_anywhere(file, tmp_path, capsys):
    small = SMALL.partition("options:")[2].partition("tune:")[0].split("\n")
    options = [
        word
        for line in small
        if line
        for key, _, value in [line.strip().partition(": ")]
        for word in (f"--{key}", value)
    ]
    given = ["--config", "digits/bce", *options, "--model.optim.lr", "0.01"]
    out = ["--out", str(tmp_path / "out"), "--methods", "BCE weak negative"]
    assert main(["study", *given, "--preset", "losses", *out, "--seeds", "1"]) == 0
    assert {row["method"] for row in read(tmp_path / "out" / "runs.csv")} == {"BCE negative", "BCE weak negative"}
    assert main(["study", "--seeds", "1", "--data.num_val", "12", str(file), "--out", str(tmp_path / "other")]) == 0


def test_of_two_studies_in_one_folder_the_second_is_refused(tmp_path):
    with _alone(tmp_path), pytest.raises(ConfigError, match="another one is at work"), _alone(tmp_path):
        pass
    with _alone(tmp_path):
        pass


def test_a_second_study_is_refused_before_anything_is_built(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mlcv.commands.study._check", lambda *_: pytest.fail("it builds"))
    out = tmp_path / "out"
    out.mkdir()
    with _alone(out):
        assert main(["study", str(file), "--out", str(out)]) == 2
    assert "another one is at work" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "words"), [
    ("trainer.logger: false", "no epoch has written val/mAP"),
    ("trainer.enable_checkpointing: false", "no checkpoint to test"),
])  # fmt: skip
def test_no_setting_is_chosen_without_validation(file, tmp_path, option, words, capsys):
    text = SMALL.replace("seeds: 2", "seeds: 1").replace(
        "  trainer.max_epochs: 2", f"  trainer.max_epochs: 1\n  {option}"
    )
    file.write_text(text)
    assert main(["study", str(file), "--out", str(tmp_path / "out"), "--methods", "plain"]) == 2
    assert words in read(tmp_path / "out" / "table.csv")[0]["error"]
    assert words in capsys.readouterr().err


def test_a_method_starts_from_the_chosen_checkpoint_of_another(file, tmp_path):
    more = "  after: {model.loss: FocalLoss, tune: {}, under: {x: {start_from: '{plain}/chosen.ckpt'}}}\n"
    more += "conditions: {x: {}}\n"
    file.write_text(SMALL.replace("seeds: 2", "seeds: 1").replace("  focal: {model.loss: FocalLoss}\n", more))
    out = tmp_path / "out"
    assert main(["study", str(file), "--out", str(out)]) == 0
    assert [row["error"] for row in read(out / "table.csv")] == ["", ""]
    folder = out / "runs" / "0" / "x" / "plain"
    chosen = json.loads((folder / "result.json").read_text())["chosen"]
    assert (folder / "chosen.ckpt").read_bytes() == (folder / str(chosen) / "checkpoints" / "last.ckpt").read_bytes()
    assert main(["study", str(file), "--out", str(out)]) == 0  # what other runs wrote is no other setting


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


def test_settings_are_chosen_by_classes_with_enough_positives(tmp_path):
    rows = "class,AP,positives\na,0.2,9\nb,0.9,3\nc,0.6,4\nd,nan,7\n"
    (tmp_path / "val_per_class.csv").write_text(rows)
    assert _last_validation(tmp_path, 4) == pytest.approx(0.4)
    assert _last_validation(tmp_path, 1) == pytest.approx(1.7 / 3)
    assert _last_validation(tmp_path, 10) == 0


def test_divergence_is_that_of_bernoulli_distributions(numpy_rng):
    true, said = numpy_rng.uniform(0.01, 0.99, (2, 5, 3))
    expected = [entropy([p, 1 - p], [q, 1 - q]) for p, q in zip(true.flatten(), said.flatten(), strict=True)]
    found = _divergence(torch.from_numpy(true), torch.from_numpy(said))
    assert found == pytest.approx(sum(expected) / len(expected))
    assert _divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])) < 14  # finite


def test_a_config_that_was_changed_since_is_another(file, tmp_path, capsys):
    config = tmp_path / "my.yaml"
    model = "{class_path: Classifier, init_args: {backbone: test_resnet}}"
    config.write_text(f"data: {{class_path: DigitScenesDataModule}}\nmodel: {model}\n")
    file.write_text(SMALL.replace("digits/bce", "my.yaml").replace("seeds: 2", "seeds: 1"))
    command = ["study", str(file), "--out", str(tmp_path / "out"), "--methods", "plain"]
    assert main(command) == 0
    assert main(command) == 0
    config.write_text(config.read_text() + "trainer: {gradient_clip_val: 0.5}\n")
    assert main(command) == 2
    assert "holds a run of other settings" in capsys.readouterr().err
