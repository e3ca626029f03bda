"""Configs that come with the package: listed, found by name, copied."""

from pathlib import Path

import pytest
import yaml

import mlcv
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.shipped_configs import FOLDER, experiments, find_config, text_alone, with_files

NAMES = [one.name for one in experiments()]


def test_the_package_has_the_repositorys_configs():
    here = {path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml")}
    repository = Path(__file__).parents[1] / "configs"
    assert here == {path.relative_to(repository) for path in repository.rglob("*.yaml")}
    assert Path(mlcv.__file__).parent in FOLDER.parents


def test_the_list_has_a_line_each_that_fits_80_columns(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(NAMES) + 1]] == NAMES
    assert max(map(len, lines)) <= 80


def test_each_has_data_and_method():
    assert [one.name for one in experiments() if ": " not in one.about] == []
    assert any(one.reached for one in experiments())


@pytest.mark.parametrize("given", ["digits/bce", "digits/bce.yaml", "configs/digits/bce.yaml", "trainer/gpu"])
def test_a_name_stands_for_the_file(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config(given)).is_relative_to(FOLDER)


def test_a_file_of_that_name_goes_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "bce").write_text("trainer: {max_epochs: 1}")
    assert find_config("digits/bce") == "digits/bce"


NEAR = [("digits/bec", "digits/bce"), ("bce", "voc/bce"), ("vok/lite0", "voc/lite0")]


@pytest.mark.parametrize(("given", "near"), NEAR)
def test_an_unknown_name_is_told_with_the_nearest(given, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"--config: no file {given}.*did you mean.*{near}.*mlcv configs"):
        find_config(given)


def test_all_configs_of_a_command_line_are_found():
    line = with_files(["--model.optim.lr=1", "-c", "digits/bce", "--config=trainer/cpu"])
    assert [Path(one.partition("=")[2]).stem for one in line] == ["bce", "cpu", "1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_needs_no_other_file_and_says_the_same(name, tmp_path):
    original = FOLDER / f"{name}.yaml"
    content = yaml.safe_load(original.read_text())
    content["data"] = yaml.safe_load((original.parent / content["data"]).read_text())
    text = text_alone(name, "my.yaml")
    assert yaml.safe_load(text) == content
    assert "mlcv fit --config my.yaml" in text


def test_a_copy_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "copy", "digits/bce", "my.yaml"]) == 0
    assert "mlcv fit --config my.yaml" in capsys.readouterr().out
    few = ["--data.batch_size=8", *(f"--data.num_{split}=16" for split in ("train", "val", "test"))]
    assert main(["fit", "--config", "my.yaml", *few, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]) == 0
    assert Path("runs/my/0/test.json").is_file()
    assert main(["configs", "copy", "digits/bce", "my.yaml"]) == 2
    assert "my.yaml exists" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["copy"], ["copy", "a", "b", "c"], ["list", "digits/bce"]], ids=" ".join)
def test_a_wrong_use_is_told(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["configs", *arguments])
    assert caught.value.code == 2
    assert "configs copy NAME [FILE]" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data", "--model", "--trainer"])
def test_a_file_for_a_part_of_a_config_is_there_or_told(option, tmp_path):
    path = tmp_path / "a.yaml"
    for words in ([f"{option}={path}"], [option, str(path)]):
        path.unlink(missing_ok=True)
        with pytest.raises(ConfigError, match=f"^{option}: no file {path}"):
            with_files(words)
        path.touch()
        assert with_files(words) == words
