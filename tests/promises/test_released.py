"""What earlier versions have written opens, and predicts what it did."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import mlcv
from mlcv import renamings
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.methods import PatchCT
from mlcv.methods.checkpoints import load_method
from mlcv.runs import Run

RELEASED = Path(__file__).parent / "released"
CHECKPOINTS = sorted(RELEASED.rglob("*.ckpt"))
PATCH_CT = RELEASED / "0.1.0" / "PatchCT.ckpt"


def probabilities(path):
    with path.open() as file:
        rows = [[row[str(c)] for c in range(10)] for row in csv.DictReader(file)]
    return np.array(rows, float)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_checkpoint_predicts_what_it_did_and_trains_on(path, tmp_path):
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    shutil.copy(path, run / "last.ckpt")
    assert main(["predict", "--ckpt_path", str(run / "last.ckpt"), "--predictions", str(tmp_path / "p.csv")]) == 0
    then, now = probabilities(path.with_suffix(".csv")), probabilities(tmp_path / "p.csv")
    np.testing.assert_allclose(now, then, atol=1e-5)
    assert main(["fit", "--ckpt_path", str(run / "last.ckpt"), "--trainer.max_epochs=2"]) == 0
    assert torch.load(run / "last.ckpt", weights_only=True)["mlcv_version"] == mlcv.__version__


def test_renamed_options_keep_their_values():
    method = load_method(PATCH_CT, "test")
    assert isinstance(method, PatchCT)
    assert (method.transport.weight, method.transport.temperature, method.transport.rho) == (0.5, 0.2, 0.25)
    assert (method.transport.num_layers, method.transport.background, method.transport.max_labels) == (2, 0.25, 5)
    assert method.transport.patch_weights == "similarity"
    assert method.transport.learn_temperature
    assert method.hparams.labels["dim"] == 8
    assert not method.hparams.labels["learn"]
    assert Run(PATCH_CT).config()["model"]["init_args"]["transport"]["weight"] == 0.5


def test_a_class_that_is_called_otherwise_is_found(monkeypatch):
    monkeypatch.setitem(renamings.CLASSES, "mlcv.methods.patch_ct.PatchCT", "mlcv.methods.classifier.Classifier")
    with pytest.raises(ConfigError, match="Classifier takes no '"):
        load_method(PATCH_CT, "test")


def test_an_option_by_its_old_name_is_told_the_new_one(capsys):
    line = ["fit", "--data=DigitScenesDataModule", "--model=PatchCT", "--model.backbone=test_vit"]
    assert main([*line, "--model.ct_weight=2"]) == 2
    said = capsys.readouterr().err
    assert "the option 'model.ct_weight' of PatchCT is called 'model.transport.weight' now" in said


@pytest.mark.parametrize("option", ["model.head.num_layers", "data.dim", "trainer.background", "model.transport.rho"])
def test_options_of_others_are_not_taken_for_renamed_ones(option):
    assert renamings.renamed_option(option) is None


@pytest.mark.parametrize("given", [{"ct_weight": 1, "transport": {"weight": 2}}, {"ct_weight": 1, "transport": 3}])
def test_an_option_by_both_names_is_refused(given):
    current = renamings.with_current_options(PatchCT, given, ["transport", "labels"])
    assert current == given


def test_what_a_class_knows_by_an_old_name_is_its_own():
    class Own(PatchCT):
        pass

    current = renamings.with_current_options(Own, {"rho": 0.1, "dim": 3}, ["transport", "labels", "rho"])
    assert current == {"rho": 0.1, "labels": {"dim": 3}}


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("9.1.0", rf"written by mlcv 9\.1\.0, this is {mlcv.__version__}: if it does not open"),
        (mlcv.__version__, r"^(?!.*written by).*takes no 'future'"),
        ("<script>", r"^(?!.*script).*takes no 'future'"),
    ],
)
def test_what_this_version_does_not_know_is_told_with_the_version_that_does(version, said, tmp_path):
    checkpoint = torch.load(PATCH_CT, weights_only=True)
    checkpoint["mlcv_version"] = version
    checkpoint["hyper_parameters"]["future"] = 1
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=said) as caught:
        load_method(tmp_path / "a.ckpt", "--ckpt_path")
    assert "a.ckpt" in str(caught.value)


def test_a_run_reads_its_file_once(monkeypatch, tmp_path):
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, *args, **kwargs: reads.append(file) or load(file, *args, **kwargs))
    mlcv.export(PATCH_CT, out=tmp_path, formats=("pt2",))
    assert [file for file in reads if isinstance(file, Path)] == [PATCH_CT]  # torch.export reads its own, too
