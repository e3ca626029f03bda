"""Classes of one's own are for who trusts their package; everything else in a file is data."""

import json
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml

from mlcv import Classifier
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import BCELoss
from mlcv.methods import MultiLabelModule
from mlcv.models import CLIPProjector, LoRA
from mlcv.models.open_clip_tower import create_open_clip
from mlcv.plain_config import arguments, parse
from mlcv.runs import Run, load_data
from mlcv.trust import trusted, trusting
from tests.security import planted
from tests.security.test_doors import COMMANDS, command, popen

OWN = '''
    from mlcv import Classifier
    from mlcv.data import DigitScenesDataModule
    from mlcv.losses import BCELoss

    class Wide(Classifier):
        """A method of somebody's own."""

    class Scenes(DigitScenesDataModule):
        """A data set of somebody's own."""

    class Loss(BCELoss):
        """A loss of somebody's own."""
'''


def test_own_classes_work_for_who_trusts_their_package(here, capsys):
    (here / "my_pkg.py").write_text(textwrap.dedent(OWN))
    sizes = {"num_train": 16, "num_val": 8, "num_test": 8, "image_size": 32, "batch_size": 8}
    config = {
        "data": {"class_path": "my_pkg.Scenes", "init_args": sizes},
        "model": {"class_path": "my_pkg.Wide", "init_args": {"backbone": "test_resnet", "loss": "my_pkg.Loss"}},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
    }  # fmt: skip
    (here / "own.yaml").write_text(yaml.safe_dump(config))
    run = here / "run"
    assert main(["fit", "--config", "own.yaml", "--run_dir", str(run), "--test_after_fit=true"]) == 0
    del sys.modules["my_pkg"]
    path = run / "checkpoints" / "last.ckpt"
    commands = {name: command(name, path, run) for name in COMMANDS}
    for name, line in commands.items():
        assert main(line) == 2, name
        assert "add --trust my_pkg" in capsys.readouterr().err
    assert "my_pkg" not in sys.modules
    for name, line in commands.items():
        assert main([*line, "--trust", "my_pkg"]) == 0, (name, capsys.readouterr().err)
        assert main([name, "--trust=my_pkg", *line[1:]]) == 0
        assert trusted() == ()
    assert main(["test", "--config", "own.yaml", "--ckpt_path", str(path)]) == 0  # a config is the user's own


def test_trust_is_for_packages_and_ends_with_the_command(monkeypatch, capsys):
    monkeypatch.setenv("MLCV_TRUST", "csv")
    with trusting(["json.decoder", "csv"]):
        assert trusted() == ("csv", "json.decoder")
    assert trusted() == ("csv",)
    assert main(["test", "--trust", "my_pakage", "--ckpt_path", "x"]) == 2
    assert "--trust my_pakage: there is no such package here" in capsys.readouterr().err
    assert main(["test", "--trust", "not a name", "--ckpt_path", "x"]) == 2
    assert main(["test", "--ckpt_path", "x", "--trust"]) == 2
    assert "--trust needs a value" in capsys.readouterr().err


def test_python_takes_what_a_script_has_defined_and_nothing_that_a_file_names(tmp_path, here):
    class Mine(MultiLabelModule):
        def __init__(self, width: int = 3, **kwargs):
            super().__init__(**kwargs)
            self.backbone, self.loss = torch.nn.Linear(width, 2), BCELoss()

    method = Mine(4, num_classes=2)
    content = {"hyper_parameters": dict(method.hparams), "state_dict": method.state_dict()}
    torch.save(content, tmp_path / "a.ckpt")
    again = Mine.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True)
    assert again.hparams["width"] == 4
    assert torch.equal(again.backbone.weight, method.backbone.weight)
    for wrong in ({"width": "4"}, {"width": popen(here)}, {"strange": 1}, {"optim": "x"}, {"class_names": "ab"}):
        torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], **wrong}}, tmp_path / "b.ckpt")
        with pytest.raises(ConfigError, match=r"b.ckpt: hyper_parameters"):
            Mine.load_from_checkpoint(tmp_path / "b.ckpt")
    torch.save({**content, "state_dict": {}}, tmp_path / "c.ckpt")
    with pytest.raises(ConfigError, match="does not hold the weights of this Mine"):
        Mine.load_from_checkpoint(tmp_path / "c.ckpt")


def test_small_data_that_is_large_is_not_walked_through():
    tree = ["x"]
    for _ in range(40):
        tree = [tree, tree]
    with pytest.raises(ConfigError, match="more than 16 levels"):
        arguments(Classifier, {"backbone_args": {"a": tree}}, "here")
    tree = ["x"]
    for _ in range(12):
        tree = [tree] * 20
    with pytest.raises(ConfigError, match="100000 values"):
        arguments(Classifier, {"backbone_args": {"a": tree}}, "here")


@pytest.mark.parametrize("text", ["a: 1\nb: [1, {c: null}]", json.dumps({"a": "é\u2028x", "b": 1e-5}), "{}"])
def test_plain_text_is_read_as_yaml_reads_it(text):
    assert parse(text, "here") == yaml.safe_load(text)


def test_a_projectors_file_is_data(tmp_path, here):
    clip = tmp_path / "clip.pt"
    torch.save(create_open_clip("digits-clip", None, "test", force_image_size=32).state_dict(), clip)
    names = ["a", "b"]
    projector = CLIPProjector("digits-clip", str(clip), names, lora=LoRA(1, 1), image_size=32)
    random = np.random.default_rng(0)
    keys = [*projector.about, "format", "base"]
    for payload in planted.values(here):
        key = str(random.choice(keys))
        before = dict(projector.about)
        projector.about[key] = payload
        try:
            projector.save(tmp_path / "p.safetensors")
            with planted.watch() as events:
                try:
                    CLIPProjector.from_file(tmp_path / "p.safetensors")
                except ConfigError as error:
                    said = str(error)
                else:
                    said = "p.safetensors"
            assert "p.safetensors" in said or "open_clip" in said
            assert not events
        finally:
            projector.about = before
    assert not planted.markers(here)


def test_the_data_of_a_checkpoint_are_built_as_they_were(trained):
    config = Run(trained / "checkpoints" / "last.ckpt").config()
    data = load_data(config)
    assert (data.image_size, data.batch_size, data.sizes["test"]) == (32, 8, 16)
    assert data.statistics.mean == (0.5, 0.5, 0.5)
