"""Ways into a run that were open once, each tried through every command that reads a checkpoint."""

import copy
import json
import sys
import time
import zipfile
from itertools import pairwise

import pytest
import torch
import yaml

from mlcv import Classifier
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.methods.teacher import read_teacher
from mlcv.plain_config import MOST_BYTES
from mlcv.runs import CONFIG_KEY, Run
from mlcv.trainer_settings import settings_for_training
from tests.security import planted

COMMANDS = ("fit", "validate", "test", "predict", "report", "export")


def changed(trained, path, change):
    """The run's checkpoint after `change(config, checkpoint)`, as a run of its own."""
    checkpoint = copy.copy(torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True))
    config = yaml.safe_load(checkpoint[CONFIG_KEY])
    change(config, checkpoint)
    checkpoint.setdefault("text", yaml.safe_dump(config))
    checkpoint[CONFIG_KEY] = checkpoint.pop("text")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path


def command(name, path, trained):
    quiet = [] if name in ("report", "export") else ["--trainer.enable_progress_bar=false"]
    more = {
        "report": [str(trained / "test_predictions.csv"), "--resamples", "2", "--out", str(path.parent / "r.html")],
        "export": ["--formats", "pt2"],
        "fit": ["--trainer.max_epochs", "1"],
    }
    return [name, *more.get(name, []), *quiet, "--ckpt_path", str(path)]


def popen(folder):
    return {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(folder / "touched")]}}


DOORS = {
    "an argument of any type": lambda f, c, k: _put(c["model"]["init_args"], k, backbone_args=popen(f)),
    "one below it": lambda f, c, k: _put(c["model"]["init_args"], k, backbone_args={"drop_rate": popen(f)}),
    "a string that is YAML again": lambda f, c, k: _put(
        c["model"]["init_args"], k, backbone_args=yaml.safe_dump(popen(f), default_flow_style=True).strip()
    ),
    "a function for a head": lambda f, c, k: _put(
        c["model"]["init_args"], k, head={"class_path": "planted_module.bomb"}
    ),
    "a loss of another package": lambda f, c, k: _put(
        c["model"]["init_args"], k, loss={"class_path": "torch.nn.CrossEntropyLoss"}
    ),
    "a method from the working directory": lambda f, c, k: _rename(c, k, "planted_module.Bomb"),
    "timm's addresses": lambda f, c, k: _put(
        c["model"]["init_args"], k, weights="pretrained", backbone_args={"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x"}}
    ),
    "a file for options": lambda f, c, k: _put(c["model"]["init_args"], k, optim=str(f / "payload.yaml")),
    "aliases that explode": lambda f, c, k: k.update(
        text="a: &a [x, x]\n" + "".join(f"{y}: &{y} [*{x}, *{x}]\n" for x, y in pairwise("abcdefghijklmnopq"))
    ),
    "depth": lambda f, c, k: k.update(text="model: " + "[" * 200_000),
    "tags": lambda f, c, k: k.update(text="model: !!python/object/apply:os.system ['true']"),
    "length": lambda f, c, k: k.update(text="# " + "x" * MOST_BYTES),
    "no text": lambda f, c, k: k.update(text=["model"]),
}  # fmt: skip


def _put(arguments, checkpoint, **given):
    arguments.update(given)
    checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], **given}


def _rename(config, checkpoint, name):
    config["model"]["class_path"] = name
    checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "_class_path": name}


@pytest.mark.parametrize("door", DOORS)
def test_what_a_checkpoint_says_is_refused_in_one_sentence(trained, here, capsys, door):
    path = changed(
        trained, here / "run" / "checkpoints" / "a.ckpt", lambda config, ckpt: DOORS[door](here, config, ckpt)
    )
    for name in COMMANDS:
        with planted.watch() as events:
            assert main(command(name, path, trained)) == 2, name
        (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert said.startswith("mlcv: error: --ckpt_path: ")
        assert "a.ckpt" in said
        assert not events
        assert not planted.markers(here)
    assert "planted_module" not in sys.modules


@pytest.mark.parametrize("name", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("what", ["callback", "logger", "profiler", "plugins", "folder", "config", "predictions"])
def test_settings_of_a_training_are_advice(trained, here, capsys, name, what):
    place = str(here / "touched")
    calls = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": "os.getcwd"}}
    logs = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": place}}
    profiles = {
        "class_path": "lightning.pytorch.profilers.SimpleProfiler", "init_args": {"dirpath": place, "filename": "x"},
    }  # fmt: skip
    section, given = {
        "callback": ("trainer", {"callbacks": [calls]}),
        "logger": ("trainer", {"logger": logs}),
        "profiler": ("trainer", {"profiler": profiles}),
        "plugins": ("trainer", {"plugins": [popen(here)]}),
        "folder": ("trainer", {"default_root_dir": place}),
        "config": (None, {"config": [str(here / "secret.txt")]}),
        "predictions": (None, {"predictions": place, "run_dir": place}),
    }[what]
    path = changed(
        trained,
        here / "run" / "checkpoints" / "a.ckpt",
        lambda config, _: (config[section] if section else config).update(given),
    )
    with planted.watch() as events:
        status = main(command(name, path, trained))
    said = capsys.readouterr().err
    refuses = name == "fit" and what in ("callback", "logger", "profiler", "plugins")
    assert status == (2 if refuses else 0), said
    assert not refuses or "if the run is yours, give its configuration, too: --config" in said
    assert not events
    assert not (here / "touched").exists()
    assert "12345" not in said


@pytest.mark.parametrize("key", ["hparams", "module_arguments"])
def test_old_keys_of_hyperparameters_are_not_looked_at(trained, here, key):
    def change(config, checkpoint):
        checkpoint[key] = {"backbone_args": popen(here), "_instantiator": "planted_module.bomb"}
        checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "_instantiator": "planted_module.bomb"}

    path = changed(trained, here / "run" / "checkpoints" / "a.ckpt", change)
    with planted.watch() as events:
        for name in ("test", "export", "report"):
            assert main(command(name, path, trained)) == 0
        read_teacher(str(path), tuple(map(str, range(10))), "test_resnet")
        Classifier.load_from_checkpoint(path)
    assert not events
    assert not planted.markers(here)


def test_resuming_removes_nothing_that_a_checkpoint_names(trained, here, capsys):
    precious = here / "x"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    run = here / "run"

    def change(config, checkpoint):
        trap = str(run / "checkpoints" / ".." / ".." / "x")
        for name, state in checkpoint["callbacks"].items():
            if name.startswith("ModelCheckpoint"):
                state.pop("dirpath")
                zero = torch.tensor(-1.0)
                state |= {
                    "best_k_models": {trap: zero, "s3://bucket/x": zero}, "best_model_path": trap, "kth_value": zero,
                    "best_model_score": zero, "kth_best_model_path": trap, "last_model_path": trap,
                }  # fmt: skip

    path = changed(trained, run / "checkpoints" / "last.ckpt", change)
    more = ["--trainer.max_epochs=2", "--model.optim.horizon_epochs=2"]
    with planted.watch() as events:
        status = main(["fit", "--ckpt_path", str(path), *more, "--trainer.enable_progress_bar=false"])
    assert status in (0, 2), capsys.readouterr().err
    assert not events
    assert (precious / "thesis.tex").read_text() == "years of work"
    assert path.is_file()


def test_a_moved_run_goes_on_with_its_own_files(trained, tmp_path):
    """The same rule keeps the best checkpoint of a run whose folder has moved."""
    from mlcv.callbacks.resuming import _of_own_folder

    (tmp_path / "best.ckpt").write_text("")
    old = {"/elsewhere/best.ckpt": torch.tensor(0.5), "/elsewhere/gone.ckpt": torch.tensor(0.4)}
    best = {"best_model_path": "/elsewhere/best.ckpt", "best_model_score": torch.tensor(0.5)}
    state = _of_own_folder({"best_k_models": old, **best}, tmp_path)
    assert state["best_model_path"] == str(tmp_path / "best.ckpt")
    assert state["best_k_models"] == {str(tmp_path / "best.ckpt"): torch.tensor(0.5)}
    assert state["best_model_score"] == 0.5
    assert _of_own_folder({"best_model_path": "best.txt", "best_model_score": torch.tensor(1.0)}, tmp_path) == {
        "best_model_score": None, "best_model_path": "", "dirpath": str(tmp_path), "best_k_models": {},
        "kth_best_model_path": "", "last_model_path": "",
    }  # fmt: skip


@pytest.mark.parametrize("section", ["loops", "optimizer_states", "lr_schedulers", "random_state", "callbacks"])
@pytest.mark.parametrize("value", [{}, [], "text", 3, [{"state": {}, "param_groups": "x"}], {"fit_loop": {"a": 1}}])
def test_a_state_that_does_not_fit_is_told_in_one_sentence(trained, here, capsys, section, value):
    path = changed(trained, here / "run" / "checkpoints" / "a.ckpt", lambda _, ckpt: ckpt.update({section: value}))
    more = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    status = main(["fit", "--ckpt_path", str(path), *more])
    said = [line for line in capsys.readouterr().err.splitlines() if "mlcv: error" in line]
    assert (status, len(said)) in ((0, 0), (2, 1))


def expanded(config, ckpt):
    ckpt["state_dict"] = {**ckpt["state_dict"], "zz": torch.zeros(1).as_strided((1_500_000_000,), (0,))}


def entangled(config, ckpt):
    many = []
    for _ in range(34):
        many = [many, many]
    ckpt["optimizer_states"][0]["state"][0]["zz"] = many


def held(name, value):
    return lambda config, ckpt: ckpt.update(state_dict={**ckpt["state_dict"], name: value})


SWOLLEN = {
    "views of one number": expanded,
    "lists that hold each other twice": entangled,
    "a tensor without content": held("zz", torch.zeros(3, device="meta")),
    "a sparse tensor": held("zz", torch.eye(3).to_sparse()),
    "a weight without a name": held(7, torch.zeros(3)),
    "numbers beyond any float": lambda config, _: config["model"]["init_args"]["optim"].update(lr=10**400),
    "a seed beyond any": lambda config, _: config.update(seed_everything=10**30),
    "thresholds of words": lambda _, ckpt: ckpt.update(thresholds={"CF1": "x"}),
    "workers below none": lambda config, _: config["data"]["init_args"].update(num_workers=-1),
}  # fmt: skip


@pytest.mark.parametrize("what", SWOLLEN)
def test_what_swells_or_fits_nothing_is_refused_in_one_sentence(trained, here, capsys, what):
    path = changed(trained, here / "run" / "checkpoints" / "a.ckpt", SWOLLEN[what])
    for name in ("test", "fit"):
        began = time.monotonic()
        assert main(command(name, path, trained)) == 2, name
        assert time.monotonic() - began < 20
        assert len([line for line in capsys.readouterr().err.splitlines() if "mlcv: error: " in line]) == 1


def test_a_checkpoint_that_is_compressed_is_not_inflated(trained, tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(trained / "checkpoints" / "last.ckpt") as old, zipfile.ZipFile(path, "w") as new:
        for part in old.infolist():
            new.writestr(part, old.read(part), zipfile.ZIP_DEFLATED)
    with pytest.raises(ConfigError, match="parts are compressed"):
        Run(path).config()


@pytest.mark.parametrize("name", [
    "{step:c}tmp", "../x", "/tmp/x", "~/x", "a/../../x", "{step!r}", "{step.__class__}", "{step:>99999999}", "\\x",
    "a\nb",
])  # fmt: skip
def test_no_name_of_a_file_leads_out_of_the_runs_folder(trained, here, name):
    """Nor do numbers, which a format can make any character of."""
    saver = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": name}}
    path = changed(trained, here / "a.ckpt", lambda config, _: config["trainer"].update(callbacks=[saver]))
    with pytest.raises(ConfigError, match="a checkpoint does not say where files are written"):
        Run(path).config(settings_for_training)
    saver["init_args"]["filename"] = "best-{epoch:02d}-{val/mAP:.3f}"
    changed(trained, path, lambda config, _: config["trainer"].update(callbacks=[saver]))
    assert Run(path).config(settings_for_training)["trainer"]["callbacks"][0] == saver | {
        "class_path": "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"
    }


def test_all_images_are_evaluated_whatever_the_training_left_out(trained, here):
    limits = {f"limit_{verb}_batches": 1 for verb in ("val", "test", "predict")}
    path = changed(trained, here / "run" / "checkpoints" / "a.ckpt", lambda config, _: config["trainer"].update(limits))
    assert main(command("test", path, trained)) == 0
    assert len((here / "run" / "test_predictions.csv").read_text().splitlines()) == 17
    assert main([*command("test", path, trained), "--trainer.limit_test_batches=1"]) == 0
    assert json.loads((here / "run" / "test.json").read_text())["limited_to_batches"] == 1
