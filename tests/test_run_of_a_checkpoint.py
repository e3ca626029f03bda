"""A run's folder, and the way back from its checkpoint: each step by itself, on a checkpoint that no training wrote."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch

from mlcv.data import DigitScenesDataModule
from mlcv.errors import ConfigError
from mlcv.fingerprints import weights_fingerprint
from mlcv.methods import Classifier
from mlcv.models.backbones import image_statistics
from mlcv.posthoc.calibrated import Calibration
from mlcv.runs import (
    CONFIG_KEY,
    Run,
    check_new,
    check_writable,
    find_calibration,
    load_data,
    new_run_folder,
    run_folder,
)

NAMES = tuple(map(str, range(10)))
MODEL = {"class_path": "mlcv.methods.Classifier", "init_args": {"backbone": "test_resnet", "num_classes": 10}}
DATA = {
    "class_path": "mlcv.data.DigitScenesDataModule",
    "init_args": {"num_train": 9, "image_size": 32, "seed": 3},
}


@pytest.fixture
def written(tmp_path):
    """Writes a checkpoint with some configuration; gives its path."""

    def write(config, name="last.ckpt"):
        path = tmp_path / "run" / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        method = Classifier("test_resnet", 10)
        content = {"hyper_parameters": dict(method.hparams), "state_dict": method.state_dict()}
        if config is not None:
            content[CONFIG_KEY] = config if isinstance(config, str) else json.dumps(config)
        torch.save(content, path)
        return path

    return write


def test_a_runs_folder_holds_its_checkpoints_or_the_folder_of_these():
    assert run_folder(Path("a/b/checkpoints/last.ckpt")) == Path("a/b")
    assert run_folder(Path("a/b/last.ckpt")) == Path("a/b")
    assert Run(Path("a/b/checkpoints/last.ckpt")).folder == Path("a/b")


def test_the_next_number_follows_the_largest(tmp_path):
    parent = tmp_path / "not" / "there"
    assert new_run_folder(parent) == parent / "0"
    (parent / "7").mkdir()
    (parent / "x9").mkdir()
    (parent / "notes").touch()
    assert new_run_folder(parent) == parent / "8"
    (parent / "11").touch()
    assert new_run_folder(parent) == parent / "12"
    assert all((parent / str(n)).is_dir() for n in (0, 8, 12))


def test_a_number_that_another_run_took_in_the_meantime_is_passed_over(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(()))
    assert new_run_folder(tmp_path) == tmp_path / "3"


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as raised:
        check_writable(tmp_path / "file")
    assert str(raised.value) == (
        f"the run's folder {tmp_path / 'file'} cannot be written (File exists); choose one with --run_dir"
    )


def test_a_folder_is_tried_by_writing_into_it(tmp_path, monkeypatch):
    def full(**options):
        assert options == {"dir": tmp_path}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path} cannot be written (No space left on device)")):
        check_writable(tmp_path)


@pytest.mark.parametrize(
    "held",
    [["checkpoints/b.ckpt", "checkpoints/a.ckpt"], ["hpc_ckpt_2.ckpt"], ["checkpoints/z.ckpt", "hpc_ckpt_1.ckpt"]],
)
def test_checkpoints_are_not_written_over(tmp_path, held):
    for name in ("a.ckpt", "checkpoints/notes.txt", "config.yaml", "hpc_ckpt_1.txt", "checkpoints/old/a.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    check_new(tmp_path)
    for name in held:
        (tmp_path / name).touch()
    first = min(held).rpartition("/")[2]
    with pytest.raises(ConfigError) as raised:
        check_new(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} holds the checkpoints of a run, such as {first}, which a new one would replace: leave --run_dir "
        f"out for a folder of its own, or resume that run with --ckpt_path {tmp_path}/checkpoints/last.ckpt"
    )


@pytest.mark.parametrize("seed", [None, 0, 7, True])
def test_what_a_checkpoint_may_say_is_read_and_nothing_else(written, seed):
    tree = {"model": MODEL, "data": DATA, "trainer": {"max_epochs": 3}, "seed_everything": seed, "run_dir": "/x"}
    if seed is None:
        del tree["seed_everything"]
    path = written(tree)
    run = Run(path)
    config = run.config()
    assert set(run.contents) == {"hyper_parameters", "state_dict", CONFIG_KEY}
    expected = {
        "model": {**MODEL, "class_path": "mlcv.methods.classifier.Classifier"},
        "data": {**DATA, "class_path": "mlcv.data.digits.DigitScenesDataModule"},
    }
    if seed is not None:
        expected["seed_everything"] = seed
    assert config == expected
    asked = []

    def trainer(given, where):
        asked.append((given, where))
        return {"max_epochs": 1}

    assert Run(path, "--this").config(trainer) == {**expected, "trainer": {"max_epochs": 1}}
    assert asked == [({"max_epochs": 3}, f"--this: {path}: trainer")]


@pytest.mark.parametrize("option", [None, "--this"])
def test_what_is_wrong_with_a_checkpoint_is_told_with_its_place(written, option, tmp_path):
    named = [] if option is None else [option]
    option = option or "--ckpt_path"

    def refused(config):
        path = written(config)
        with pytest.raises(ConfigError) as raised:
            Run(path, *named).config()
        said = str(raised.value)
        assert said.startswith(f"{option}: {path}")
        return said.removeprefix(f"{option}: {path}")

    assert refused(None) == " carries no configuration (it is not from `mlcv fit`); name one with --config"
    assert refused("{").startswith(": its configuration is no YAML (")
    assert refused({"data": DATA}).startswith(": model")
    assert refused({"model": MODEL}).startswith(": data")
    assert refused({"model": DATA, "data": DATA}).startswith(": model")
    assert refused({"model": MODEL, "data": MODEL}).startswith(": data")
    assert refused({"model": MODEL, "data": DATA, "seed_everything": "x"}).startswith(": seed_everything")
    with pytest.raises(ConfigError, match=f"^{option}: no file {tmp_path}/x"):
        Run(tmp_path / "x", *named).config()
    with pytest.raises(ConfigError, match=f"^{option}: no file {tmp_path}/x"):
        Run(tmp_path / "x", *named).data()
    with pytest.raises(ConfigError, match=f"^{option}: no file {tmp_path}/x"):
        Run(tmp_path / "x", *named).method()
    with pytest.raises(ConfigError, match=f"^{option}: no file {tmp_path}/x"):
        Run(tmp_path / "x", *named).fingerprint()


def test_data_are_those_of_the_configuration_with_what_the_backbone_expects(written):
    path = written({"model": MODEL, "data": DATA})
    data = load_data(Run(path).config())
    assert type(data) is DigitScenesDataModule
    assert (data.sizes["train"], data.image_size, data.seed, data.batch_size) == (9, 32, 3, 32)
    expected = image_statistics(MODEL)
    found = {name: getattr(data.statistics, name) for name in expected}
    assert {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()} == expected
    given = {**DATA, "init_args": {**DATA["init_args"], "statistics": {"mean": [0.1, 0.2, 0.3]}}}
    own = load_data(Run(written({"model": MODEL, "data": given})).config())
    assert own.statistics.mean == (0.1, 0.2, 0.3)
    assert own.statistics != data.statistics


def test_changes_of_the_data_are_those_that_are_given(written):
    run = Run(written({"model": MODEL, "data": DATA}))
    data = run.data(batch_size=5, seed=None, num_train=0, image_size=48)
    assert (data.batch_size, data.seed, data.sizes["train"], data.image_size) == (5, 3, 0, 48)
    assert run.data().sizes["train"] == 9


def test_a_method_comes_with_its_weights_and_judges(written):
    path = written({"model": MODEL, "data": DATA})
    state = torch.load(path, weights_only=True)["state_dict"]
    run = Run(path)
    method = run.method()
    assert not method.training
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert run.fingerprint() == weights_fingerprint(state)
    assert run.option == "--ckpt_path"


def calibration(model=None, names=NAMES):
    many = len(names)
    ones = (1.0,) * many
    return Calibration(
        names, ones, (0.0,) * many, ("own",) * many, (0.5,) * many, "f1", 0.1, 0.1, {}, None, "", 9, model
    )


def test_a_runs_calibration_is_found_unless_another_is_named(written, tmp_path, caplog):
    caplog.set_level(logging.INFO, "mlcv")
    path = written({"model": MODEL, "data": DATA})
    run, own = Run(path), tmp_path / "run" / "calibration.json"
    assert run.calibration(None, NAMES) is None
    assert run.calibration("none", NAMES) is None
    with pytest.raises(ConfigError, match="no readable calibration"):
        run.calibration(str(own), NAMES)
    assert caplog.text == ""
    calibration(run.fingerprint()).save(own)
    assert run.calibration(None, NAMES) == calibration(run.fingerprint())
    assert run.calibration("none", NAMES) is None
    assert caplog.messages == [f"calibrated by {own}: thresholds for f1"]
    other = tmp_path / "other.json"
    calibration().save(other)  # of a model that nobody knows
    assert run.calibration(str(other), NAMES) == calibration()
    assert find_calibration(str(other), path, NAMES, None) == calibration()
    with pytest.raises(ConfigError, match="of other classes"):
        run.calibration(None, NAMES[:3])
    calibration("someone else").save(tmp_path / "third.json")
    with pytest.raises(ConfigError) as raised:
        run.calibration(str(tmp_path / "third.json"), NAMES)
    assert str(raised.value) == (
        f"{tmp_path / 'third.json'} was made of the predictions of another model (someone else; {path} is "
        f"{run.fingerprint()}). Make it again (mlcv validate --ckpt_path {path}, then mlcv calibrate), or go without: "
        "--calibration none"
    )
    with pytest.raises(ConfigError, match="of another model"):
        find_calibration(str(tmp_path / "third.json"), path, NAMES, None)


@pytest.mark.parametrize("tests", [True, False])
def test_a_resumed_training_tests_if_the_straight_one_would(written, tests):
    run = Run(written({"model": MODEL, "data": DATA, "trainer": {}, "test_after_fit": tests}))
    assert run.config(lambda given, where: given)["test_after_fit"] is tests
    assert "test_after_fit" not in run.config()


def test_a_method_that_cannot_be_found_is_told_with_its_place(written):
    path = written({"model": MODEL, "data": DATA})
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] = {}
    torch.save(checkpoint, path)
    with pytest.raises(ConfigError, match=f"^--this: {path} does not say what method it is of"):
        Run(path, "--this").method()
