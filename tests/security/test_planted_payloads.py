"""A payload at every place of every shipped configuration, and of its hyperparameters: none may come to life."""

import itertools
import json
import os
import sys
from pydoc import locate

import pytest
import torch
import yaml

from mlcv.errors import UserError
from mlcv.methods.checkpoints import load_method
from mlcv.models.open_clip_tower import create_open_clip
from mlcv.runs import CONFIG_KEY, Run, load_data
from mlcv.trainer_settings import settings_for_evaluation, settings_for_training
from tests.security import planted
from tests.test_configs import EXPERIMENTS, NAME, tiny

SAMPLE = 20
"""Mutants of each configuration in the fast test."""


@pytest.fixture(scope="module")
def parser():
    """The command line's own parser, which takes seconds to make."""
    from mlcv.commands.parser import Parser
    from mlcv.commands.training import TrainingCLI
    from mlcv.data.base import MultiLabelDataModule
    from mlcv.methods.base import MultiLabelModule

    class Parsed(TrainingCLI):
        def before_instantiate_classes(self):
            pass

        def instantiate_classes(self):
            pass

        def _run_subcommand(self, subcommand):
            pass

    before, sys.argv = sys.argv, ["mlcv"]
    cli = Parsed(
        MultiLabelModule, MultiLabelDataModule, subclass_mode_model=True, subclass_mode_data=True,
        save_config_callback=None, seed_everything_default=False, auto_configure_optimizers=False, parser_class=Parser,
        run=False, args=["--data=DigitScenesDataModule", "--model=Classifier", "--model.backbone=test_resnet"],
    )  # fmt: skip
    sys.argv = before
    return cli.parser


@pytest.fixture
def stored(request, tmp_path, monkeypatch):
    """The configuration and hyperparameters that a run of a shipped config leaves in its checkpoint."""
    path = request.param
    monkeypatch.chdir(path.parents[2])
    options = tiny(path.parent.name, tmp_path / "set")
    content = yaml.safe_load(path.read_text())["model"]
    if content["class_path"] not in ("LabelProjector", "CLIPPretraining"):
        options += ["--model.backbone=test_resnet", "--model.weights=null", "--model.freeze=[]"]
        options += ["--model.backbone_args={drop_rate: 0.1}"]
        options += ["--model.transport.num_layers=1"] if content["class_path"] == "PatchCT" else []
    if content["class_path"] == "LabelProjector":
        torch.save(create_open_clip("digits-clip", None, "test").state_dict(), tmp_path / "clip.pt")
        options.append(f"--model.weights={tmp_path / 'clip.pt'}")
    tree = dumped(monkeypatch, "--config", path, *options)
    folder = tmp_path / "planted"
    folder.mkdir()
    monkeypatch.chdir(planted.prepare(folder))
    monkeypatch.syspath_prepend(str(folder))
    write(folder / "a.ckpt", tree, {})
    clean = Run(folder / "a.ckpt").config(settings_for_training)
    return folder, tree, clean


def dumped(monkeypatch, *arguments):
    """The configuration that a run with these options would store."""
    from mlcv.commands.training import ConfigKeeper, TrainingCLI

    class Dumped(TrainingCLI):
        def before_instantiate_classes(self):
            keeper = ConfigKeeper(self._parser(self.subcommand), self.config[self.subcommand])
            raise Done(keeper._text())

    class Done(BaseException):
        pass

    monkeypatch.setattr(sys, "argv", ["mlcv"])
    with pytest.raises(Done) as done:
        Dumped.run(["fit", *map(str, arguments)])
    return yaml.safe_load(done.value.args[0])


def write(path, config, hyperparameters):
    about = {CONFIG_KEY: yaml.safe_dump(config), "hyper_parameters": hyperparameters, "state_dict": {}}
    torch.save(about, path)


def with_classes(tree):
    """A configuration with classes for class paths: one class has several."""
    if isinstance(tree, list):
        return [with_classes(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: (locate(value) or value) if key == "class_path" else with_classes(value) for key, value in tree.items()
    }


def lives_on(folder, act, *, may_read=False):
    """Whether an action went through; it must end or be refused in one sentence, and bring nothing to life.

    A checkpoint may name tables, which are read as such.
    """
    with planted.watch() as events:
        try:
            act()
            went_through = True
        except UserError as error:
            went_through, sentence = False, str(error)
    assert went_through or "\n" not in sentence
    assert not [event for event in events if not (may_read and event[0] == "open")]
    assert not planted.markers(folder)
    return went_through


def chosen(request, mutants, numpy_rng):
    """All of them in the slow test; else some."""
    if request.config.getoption("--run-slow"):
        return mutants
    listed = list(mutants)
    return [listed[n] for n in numpy_rng.permutation(len(listed))[:SAMPLE]]


@pytest.mark.parametrize("stored", EXPERIMENTS, indirect=True, **NAME)
def test_no_place_of_a_configuration_brings_a_payload_to_life(stored, parser, numpy_rng, request):
    folder, tree, _ = stored
    path, built = folder / "a.ckpt", 0
    for place, mutant in chosen(request, planted.mutants(tree, folder), numpy_rng):
        write(path, mutant, {})
        for settings in (settings_for_training, settings_for_evaluation):
            found = []
            if lives_on(folder, lambda: found.append(Run(path).config(settings))):  # noqa: B023  # at once
                config = found[0]
                actions = [lambda: load_data(config), lambda: parser.parse_string(json.dumps(config))]  # noqa: B023
                for act in actions:
                    built += lives_on(folder, act, may_read="path')" in place)
        assert "planted_module" not in sys.modules, place
    assert built


@pytest.mark.parametrize("stored", EXPERIMENTS, indirect=True, **NAME)
def test_no_place_of_hyperparameters_brings_a_payload_to_life(stored, numpy_rng, request):
    folder, _, clean = stored
    path = folder / "a.ckpt"
    about = {"_class_path": clean["model"]["class_path"], **clean["model"]["init_args"]}
    about |= {"num_classes": 3, "class_names": ["a", "b", "c"], "image_size": 32}
    trees = itertools.chain([("as it is", about)], chosen(request, planted.mutants(about, folder), numpy_rng))
    is_projector = clean["model"]["class_path"].endswith("LabelProjector")  # whose CLIP has a file of its own
    for place, mutant in trees:
        write(path, {}, mutant)
        may_read = is_projector and place.startswith("('weights',)")
        lives_on(folder, lambda: load_method(path, "--ckpt_path"), may_read=may_read)
    assert "planted_module" not in sys.modules


def test_every_shipped_configuration_passes_as_it_is(tmp_path, monkeypatch, parser):
    """What a run stores is what comes back, for every command; nothing is lost on the way but the Trainer's places."""
    for path in EXPERIMENTS:
        monkeypatch.chdir(path.parents[2])
        options = tiny(path.parent.name, tmp_path / path.stem / path.parent.name)
        tree = dumped(monkeypatch, "--config", path, *options)
        write(tmp_path / "a.ckpt", tree, {})
        clean = Run(tmp_path / "a.ckpt").config(settings_for_training)
        again = parser.parse_string(json.dumps({s: clean[s] for s in ("model", "data")}))
        stored = yaml.safe_load(parser.dump(again, skip_none=False))
        for section in ("model", "data"):
            assert with_classes(stored[section]) == with_classes(tree[section])
        for name, value in clean["trainer"].items():
            if name != "callbacks":
                assert value == tree["trainer"][name]
        assert len(clean["trainer"]["callbacks"] or ()) == len(tree["trainer"]["callbacks"] or ())
    assert os.environ.get("MLCV_TRUST") is None
