"""A training that begins with another's weights, and one that goes on past its planned end."""

import csv
from functools import partial

import pytest
import torch

from mlcv import Classifier
from mlcv.cli import main
from mlcv.commands.starting import start_from
from mlcv.errors import ConfigError
from mlcv.models import CSRAHead, LinearHead, MLDecoderHead, Query2LabelHead
from tests.tiny_sets import write_csv

FEW = [
    "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=16", "--data.num_test=16",
    "--data.batch_size=8", "--data.image_size=32", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
]  # fmt: skip


@pytest.fixture(scope="module", params=["onecycle", "cosine"])
def run(request, tmp_path_factory):
    """Of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    schedule = f"--model.optim.schedule={request.param}"
    assert main(["fit", *FEW, "--trainer.max_epochs=2", schedule, "--run_dir", str(folder)]) == 0
    return folder


def last(folder):
    return str(folder / "checkpoints" / "last.ckpt")


def rates(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/lr"]) for row in csv.DictReader(file) if row.get("train/lr")]


def test_more_epochs_have_a_schedule_of_their_own(run):
    assert main(["fit", "--ckpt_path", last(run), "--more_epochs=3", "--trainer.log_every_n_steps=1"]) == 0
    found = torch.load(last(run), weights_only=True)
    assert found["epoch"] == 4
    assert found["global_step"] == 5 * 4
    of_these = rates(run)[-12:]
    assert max(of_these) == pytest.approx(1e-4, rel=1e-2)
    assert of_these[0] < 0.7e-4
    assert of_these[-1] < 0.3e-4
    # What was stopped there, or finished, goes on or ends as any other run does.
    assert main(["fit", "--ckpt_path", last(run)]) == 0
    assert torch.load(last(run), weights_only=True)["epoch"] == 4


def test_the_error_past_the_planned_end_names_the_option(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["fit", *FEW, "--trainer.max_epochs=1", "--run_dir", str(folder)]) == 0
    assert main(["fit", "--ckpt_path", last(folder), "--trainer.max_epochs=2"]) == 2
    assert "--more_epochs" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--more_epochs=1"], ["--more_epochs=0", "--ckpt_path=LAST"]])
def test_more_epochs_of_nothing_are_refused(options, run, capsys, tmp_path):
    options = [option.replace("LAST", last(run)) for option in options]
    assert main(["fit", *FEW, *options, "--run_dir", str(tmp_path / "other")]) == 2
    assert "--more_epochs is 1 or more, of the run of --ckpt_path" in capsys.readouterr().err


def test_a_new_run_starts_from_anothers_weights(run, tmp_path):
    folder, before = tmp_path / "second", torch.load(last(run), weights_only=True)["state_dict"]
    still = ["--model.optim.lr=1e-12", "--trainer.max_epochs=1", "--model.weights=pretrained"]  # no download is tried
    assert main(["fit", *FEW, *still, "--start_from", last(run), "--run_dir", str(folder)]) == 0
    after = torch.load(last(folder), weights_only=True)["state_dict"]
    weights = [name for name in before if name.endswith("weight")]
    assert weights
    for name in weights:
        torch.testing.assert_close(after[name], before[name])


def test_rows_follow_the_names_of_classes(tmp_path):
    torch.manual_seed(0)
    theirs = Classifier("test_resnet", 3, class_names=["cat", "dog", "cow"])
    path = tmp_path / "theirs.ckpt"
    torch.save({"state_dict": theirs.state_dict(), "hyper_parameters": dict(theirs.hparams)}, path)
    for names in (
        ["dog", "fish", "cat", "owl"],
        ["dog", "cow", "cat"],
        ["fish", "owl", "bee"],
        list(theirs.class_names),
    ):
        ours = Classifier("test_resnet", len(names), class_names=names)
        before = {name: value.clone() for name, value in ours.state_dict().items()}
        start_from(ours, path)
        for name, value in ours.state_dict().items():
            if name.startswith("backbone."):
                assert torch.equal(value, theirs.state_dict()[name])
            elif value.ndim and len(value) == len(names):
                for row, cls in enumerate(names):
                    known = cls in theirs.class_names
                    expected = theirs.state_dict()[name][theirs.class_names.index(cls)] if known else before[name][row]
                    assert torch.equal(value[row], expected)


def test_another_backbone_is_refused(tmp_path):
    theirs = Classifier("test_resnet", 2)
    path = tmp_path / "theirs.ckpt"
    torch.save({"state_dict": theirs.state_dict(), "hyper_parameters": dict(theirs.hparams)}, path)
    with pytest.raises(ConfigError, match=r"theirs\.ckpt does not hold this backbone .*its own is test_resnet"):
        start_from(Classifier("resnet18", 2), path)


def test_other_classes_in_a_resumed_run_are_told_the_way(run, tmp_path, capsys):
    table = write_csv(tmp_path / "set")
    data = ["--data=CSVDataModule", f"--data.path={table}", "--data.label_columns=[fish]", "--data.split_column=split"]
    more = [*data, "--data.batch_size=2", "--data.image_size=32", "--data.num_workers=0", *FEW[6:]]
    assert main(["fit", *more, "--ckpt_path", last(run), "--run_dir", str(tmp_path / "a")]) == 2
    assert "--start_from in place of --ckpt_path" in capsys.readouterr().err
    one = ["--trainer.max_epochs=1", "--run_dir", str(tmp_path / "b")]
    assert main(["fit", *more, *one, "--start_from", last(run)]) == 0
    assert main(["fit", *more, *one, "--start_from", last(run), "--ckpt_path", last(run)]) == 2
    assert "choose" in capsys.readouterr().err


HEADS = [
    LinearHead,
    CSRAHead,
    partial(CSRAHead, num_heads=2),
    MLDecoderHead,
    partial(Query2LabelHead, width=64, hidden=64),
]


@pytest.mark.parametrize("head", HEADS, ids=["linear", "csra", "csra2", "mldecoder", "query2label"])
def test_what_a_head_knows_of_a_class_follows_it_or_is_left(tmp_path, head):
    """A class that both know is scored as before, or the head starts anew; never as another class."""
    torch.manual_seed(0)
    theirs = Classifier("test_resnet", 3, head=head, class_names=["cat", "dog", "cow"]).eval()
    path = tmp_path / "theirs.ckpt"
    torch.save({"state_dict": theirs.state_dict(), "hyper_parameters": dict(theirs.hparams)}, path)
    image = torch.randn(2, 3, 64, 64)
    for names in (["cow", "cat", "dog"], ["dog", "owl", "cat", "bee"]):
        ours = Classifier("test_resnet", len(names), head=head, class_names=names).eval()
        before = {name: value.clone() for name, value in ours.state_dict().items() if name.startswith("head.")}
        start_from(ours, path)
        shared = [name for name in names if name in theirs.class_names]
        with torch.no_grad():
            logits, expected = ours(image), theirs(image)
        if any(not torch.equal(value, before[name]) for name, value in ours.state_dict().items() if name in before):
            for name in shared:
                mine, known = logits[:, names.index(name)], expected[:, theirs.class_names.index(name)]
                torch.testing.assert_close(mine, known)


def test_more_epochs_train_after_patience_was_lost(tmp_path):
    folder, still = tmp_path / "run", ["--model.optim.lr=1e-9", "--patience=1"]
    assert main(["fit", *FEW, *still, "--trainer.max_epochs=6", "--run_dir", str(folder)]) == 0
    stopped = torch.load(last(folder), weights_only=True)["epoch"]
    assert stopped < 5
    assert main(["fit", "--ckpt_path", last(folder), "--more_epochs=1"]) == 0
    assert torch.load(last(folder), weights_only=True)["epoch"] == stopped + 1
