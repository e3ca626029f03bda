"""Relative paths of a config or a run that is used from another folder, or was moved."""

import shutil

import pytest
from jsonargparse import Namespace

from mlcv.cli import main
from mlcv.places import above, find_files
from tests.tiny_sets import write_csv

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def config_text():
    return """
data:
  class_path: CSVDataModule
  init_args:
    {path: set/table.csv, label_columns: [fish], split_column: split, image_size: 32, batch_size: 2, num_workers: 0}
model: {class_path: Classifier, init_args: {backbone: test_resnet}}
trainer: {max_epochs: 1}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a table, a config and a run, that is left."""
    folder = tmp_path / "project"
    table = write_csv(folder / "set")
    table.rename(folder / "set" / "table.csv")
    (folder / "my.yaml").write_text(config_text())
    monkeypatch.chdir(folder)
    assert main(["fit", "--config", "my.yaml", *QUICK]) == 0
    monkeypatch.delenv("MLCV_RUN_DIR", raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def checkpoint(folder):
    return str(folder / "checkpoints" / "best.ckpt")


def test_a_run_is_used_from_another_folder(project):
    assert main(["validate", "--ckpt_path", checkpoint(project / "runs" / "my" / "0"), *QUICK]) == 0


def test_a_project_is_moved_with_its_run(project, tmp_path):
    project.rename(tmp_path / "moved")
    assert main(["validate", "--ckpt_path", checkpoint(tmp_path / "moved" / "runs" / "my" / "0"), *QUICK]) == 0


def test_a_run_is_moved_alone(project, tmp_path):
    shutil.move(project / "runs" / "my" / "0", tmp_path / "kept")
    assert main(["validate", "--ckpt_path", checkpoint(tmp_path / "kept"), *QUICK]) == 0


def test_a_config_is_used_from_another_folder(project):
    assert main(["fit", "--config", str(project / "my.yaml"), "--run_dir=run", *QUICK]) == 0


def test_what_is_nowhere_is_named(project, tmp_path, capsys):
    shutil.rmtree(project / "set")
    assert main(["validate", "--ckpt_path", checkpoint(project / "runs" / "my" / "0"), *QUICK]) == 2
    assert "no table set/table.csv" in capsys.readouterr().err


def test_where_a_path_was_given_goes_before_the_working_folder_unless_it_was_typed(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").touch()
    monkeypatch.chdir(tmp_path / "here")
    config = {"data": {"init_args": {"path": "a.csv"}}}
    assert find_files(config, [tmp_path / "there"], {"path"}) == []
    assert config["data"]["init_args"]["path"] == "a.csv"
    assert find_files(config, [tmp_path / "there"]) == [f"a.csv: taken from {tmp_path / 'there'}"]
    assert config["data"]["init_args"]["path"] == str(tmp_path / "there" / "a.csv")


def test_another_projects_table_of_that_name_is_not_taken(project, tmp_path, monkeypatch, capsys):
    """Neither by a checkpoint nor by a config that is used from there."""
    write_csv(tmp_path / "other" / "set").rename(tmp_path / "other" / "set" / "table.csv")
    monkeypatch.chdir(tmp_path / "other")
    assert main(["validate", "--ckpt_path", checkpoint(project / "runs" / "my" / "0"), *QUICK]) == 0
    assert f"taken from {project}" in capsys.readouterr().err
    assert main(["fit", "--config", str(project / "my.yaml"), "--run_dir=run", *QUICK]) == 0
    assert f"taken from {project}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [dict, Namespace])
def test_only_arguments_that_name_files_are_looked_for(tmp_path, monkeypatch, kind):
    for name in ("fish", "fish.pt", "pretrained"):
        (tmp_path / name).touch()
    monkeypatch.chdir("/")
    config = kind(
        class_names=["fish"], weights="pretrained", teacher="fish.pt", backbone="fish", path=["fish", "/x"], root="\0",
        image_root=".",
    )  # fmt: skip
    notes = find_files(config, above(tmp_path / "config.yaml"))
    assert (config["weights"], config["image_root"]) == ("pretrained", ".")
    assert config["teacher"] == str(tmp_path / "fish.pt")
    assert config["path"] == [str(tmp_path / "fish"), "/x"]
    assert (config["class_names"], config["backbone"], config["root"]) == (["fish"], "fish", "\0")
    assert sorted(notes) == [f"fish.pt: taken from {tmp_path}", f"fish: taken from {tmp_path}"]
