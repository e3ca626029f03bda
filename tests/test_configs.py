"""Every shipped config parses, says only what differs, and states no number that flows from elsewhere."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mlcv.cli import main
from mlcv.models.open_clip_tower import create_open_clip
from mlcv.studies.plan import read_plan
from tests.tiny_sets import write_chexpert, write_coco, write_csv, write_voc

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(p for p in CONFIGS.rglob("*.yaml") if p.parent.name not in {"data", "trainer", "studies"})
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
TRAINERS = sorted((CONFIGS / "trainer").glob("*.yaml"))
NAME = {"ids": lambda p: str(p.relative_to(CONFIGS)) if isinstance(p, Path) else None}


def parse(monkeypatch, *arguments):
    """The configuration that a command line gives, without building anything."""
    from mlcv.commands.training import TrainingCLI

    class Parsed(TrainingCLI):
        def before_instantiate_classes(self):
            raise Done(self.config)

    class Done(BaseException):
        pass

    monkeypatch.setattr(sys, "argv", ["mlcv"])
    try:
        Parsed.run(list(map(str, arguments)))
    except Done as done:
        return done.args[0][arguments[0]]
    raise AssertionError("the command line was never parsed")


def depth(node):
    if isinstance(node, dict):
        return 1 + max(map(depth, node.values()), default=0)
    return max(map(depth, node), default=0) if isinstance(node, list) else 0


@pytest.mark.parametrize("path", EXPERIMENTS, **NAME)
def test_the_command_at_an_experiments_head_parses(path, monkeypatch):
    command = re.search(r"#\s+(mlcv fit .*)", path.read_text())
    assert command, f"{path} has no command in its head"
    arguments = shlex.split(command[1])[1:]
    assert Path(arguments[2]) == path.relative_to(CONFIGS.parent)
    monkeypatch.chdir(CONFIGS.parent)
    config = parse(monkeypatch, *arguments)
    assert config.model.class_path.startswith("mlcv.")
    assert config.data.class_path.startswith("mlcv.")


@pytest.mark.parametrize("path", STUDIES, **NAME)
def test_every_method_of_a_study_is_one_that_fit_takes(path, monkeypatch):
    assert re.search(rf"#\s+mlcv study studies/{path.stem}", path.read_text())
    runs = {run.method: run for run in read_plan(path).runs(Path("out")) if not run.needs}
    for run in runs.values():
        config = parse(monkeypatch, "fit", *run.arguments[-1])
        assert config.model.class_path.startswith("mlcv."), run.method


def policies():
    """Of the paper, as the head of its config says them."""
    head = (CONFIGS / "chexpert" / "densenet121.yaml").read_text()
    for line in re.findall(r"#\s+(--data\.policy\..*?)(?:  \(.*)?$", head, re.MULTILINE):
        option, *values = shlex.split(line.replace(" | ", " "))
        if "--model" in values:
            yield [option, *values]
        else:
            yield from ([option, value] for value in values)


@pytest.mark.parametrize("policy", policies(), ids=" ".join)
def test_one_config_has_every_policy_of_the_paper(policy, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    config = parse(monkeypatch, "fit", "--config", "configs/chexpert/densenet121.yaml", *policy)
    assert (
        config.data.init_args.policy.uncertain == policy[1] or config.data.init_args.policy.by_class["Edema"] == "ones"
    )
    assert config.model.class_path.endswith("UMultiClass" if "third_class" in policy else "Classifier")
    assert config.model.init_args.backbone == "densenet121"
    assert config.model.init_args.optim.schedule == "constant"


@pytest.mark.parametrize("path", EXPERIMENTS, **NAME)
def test_an_experiment_is_short_and_names_one_data_set_and_one_model(path):
    text = path.read_text()
    content = yaml.safe_load(text)
    assert len(text.splitlines()) <= 25
    assert depth(content) <= 5
    assert content["data"].startswith("../data/")
    assert set(content) <= {"data", "model", "trainer", "test_after_fit"}
    assert "num_classes" not in text
    assert "class_names" not in text
    assert "mean:" not in text


@pytest.mark.parametrize("path", EXPERIMENTS, **NAME)
def test_no_key_repeats_its_default(path, monkeypatch):
    content = yaml.safe_load(path.read_text())
    given = content["model"]["init_args"]
    arguments = [
        "--data=DigitScenesDataModule",
        f"--model={content['model']['class_path']}",
        "--model.backbone=resnet18",
    ]
    defaults = parse(monkeypatch, "fit", *arguments).model.init_args
    for key, value in given.items():
        if key != "backbone":
            assert_differs(f"model.{key}", value, defaults[key])


def assert_differs(name, value, default):
    if isinstance(value, dict) and "class_path" not in value:
        for key, inner in value.items():
            assert_differs(f"{name}.{key}", inner, default[key] if default else None)
    else:
        assert value != default, f"{name} repeats its default {default!r}"


def tiny(name, folder):
    """Options that point an experiment at six images written for it."""
    few = ["--data.num_workers=0", "--data.batch_size=2", "--data.image_size=64"]
    match name:
        case "digits":
            return ["--data.num_train=8", "--data.num_val=8", "--data.num_test=8", "--data.batch_size=4"]
        case "chexpert":
            return [f"--data.root={write_chexpert(folder)}", *few]
        case "csv":
            table = f"--data.path={write_csv(folder)}"
            return [table, "--data.split_column=split", "--data.label_columns=[fish]", *few]
        case "voc":
            write_voc(folder, 2007)
            return [f"--data.root={write_voc(folder, 2012)}", *few]
    for year in (2014, 2017):
        root = write_coco(folder, year)
    return [f"--data.root={root}", *few]


@pytest.mark.parametrize("path", EXPERIMENTS, **NAME)
def test_every_experiment_trains_validates_and_tests(path, tmp_path):
    options = [
        "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.check_val_every_n_epoch=1",
        "--test_after_fit=true", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    model = yaml.safe_load(path.read_text())["model"]
    if path.parent.name == "chexpert":
        options.append("--trainer.val_check_interval=1.0")
    if model["class_path"] in ("LabelProjector", "Distillation"):
        np.save(tmp_path / "soft.npy", np.full((8, 10), 0.3))
        options.append(f"--model.teacher={tmp_path / 'soft.npy'}")
    if model["class_path"] == "LabelProjector":
        torch.save(create_open_clip("digits-clip", None, "test").state_dict(), tmp_path / "clip.pt")
        options.append(f"--model.weights={tmp_path / 'clip.pt'}")
    elif model["class_path"] != "CLIPPretraining":  # these two have small models
        options += ["--model.backbone=test_resnet", "--model.weights=null", "--model.freeze=[]"]
        options += ["--model.backbone_args={}"]
    if model["class_path"] == "PUMLC" and "head" not in model["init_args"]:
        options += ["--model.head.width=32", "--model.head.hidden=16"]
    if model["init_args"].get("head") == "Query2LabelHead":
        options += ["--model.head.width=64", "--model.head.hidden=64"]
    if "labels" in model["init_args"]:
        options.append("--model.labels.embeddings=null")
    data = tiny(path.parent.name, tmp_path / "set")
    assert main(["fit", "--config", str(path), *data, *options, "--run_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "test_per_class.csv").is_file()


@pytest.mark.parametrize("path", TRAINERS, **NAME)
def test_trainer_files_hold_nothing_else_and_combine_with_an_experiment(path, monkeypatch):
    content = yaml.safe_load(path.read_text())
    assert set(content) == {"trainer"}
    quick = CONFIGS / "digits" / "bce.yaml"
    config = parse(monkeypatch, "fit", "--config", quick, "--config", path)
    assert config.trainer.max_epochs == 8
    assert all(config.trainer[key] == value for key, value in content["trainer"].items())


def test_options_of_the_command_line_go_before_the_file(monkeypatch):
    quick = CONFIGS / "digits" / "bce.yaml"
    config = parse(monkeypatch, "fit", "--config", quick, "--data.protocol.known_fraction", "0.1")
    assert config.data.init_args.protocol.known_fraction == 0.1
    assert config.data.init_args.batch_size == 64
