import pytest
import yaml

from mlcv import Classifier
from mlcv.cli import main

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=16", "--data.num_test=16",
    "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
    "--model.backbone=test_resnet", "--trainer.accelerator=cpu",
    "--model.optim.horizon_epochs=20", "--trainer.max_epochs=20",
]  # fmt: skip


@pytest.fixture
def course(monkeypatch):
    """Sets what val/mAP is in each epoch."""

    def set_to(*values):
        def evaluate(self, stage):
            self.collected.reset()
            self.log("val/mAP", values[self.current_epoch], prog_bar=True)

        monkeypatch.setattr(Classifier, "_evaluate", evaluate)

    return set_to


def epochs(text):
    return [line.split("/")[0] for line in text.splitlines() if line.startswith("epoch ")]


def test_training_stops_after_as_many_validations_without_a_new_best(tmp_path, course, capsys):
    course(0.1, 0.3, 0.2, 0.3, 0.5, 0.4, 0.45, 0.5, 0.9)
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", "--patience", "3"]) == 0
    out, error = capsys.readouterr()
    assert epochs(out)[-1] == "epoch  8"
    told = "training stops after epoch 8: val/mAP has not risen in 3 validations (patience 3); best: 0.5000 in epoch 5"
    assert told in error
    assert "best val/mAP 0.5000 in epoch 5" in out
    assert "at most" in out
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["patience"] == 3


@pytest.mark.parametrize("first", [2, 5])
def test_a_resumed_run_stops_where_a_straight_one_does(tmp_path, course, capsys, first):
    course(0.1, 0.5, 0.2, 0.3, 0.4, 0.45, 0.9)
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", "--patience=4", f"--trainer.max_epochs={first}"]) == 0
    assert "training stops" not in capsys.readouterr().err
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=20"]) == 0
    out, error = capsys.readouterr()
    assert epochs(out)[-1] == "epoch  6"
    assert "training stops after epoch 6: val/mAP has not risen in 4 validations" in error
    assert "best: 0.5000 in epoch 2" in error


def test_a_run_that_had_stopped_goes_on_with_more_patience_alone(tmp_path, course, capsys):
    course(0.5, 0.4, 0.3, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", "--patience=2"]) == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    assert main(["fit", f"--ckpt_path={last}"]) == 0
    out, error = capsys.readouterr()
    assert "training had stopped: val/mAP has not risen in 2 validations" in error
    assert epochs(out) == []
    assert main(["fit", f"--ckpt_path={last}", "--patience=4"]) == 0
    out, error = capsys.readouterr()
    assert epochs(out)[0] == "epoch  4"
    assert "best: 0.6000 in epoch 4" in error


def test_epochs_without_validation_do_not_count(tmp_path, course, capsys):
    course(*[0.5] * 20)
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", "--patience=2", "--trainer.check_val_every_n_epoch=2"]) == 0
    assert "training stops after epoch 6: val/mAP has not risen in 2 validations" in capsys.readouterr().err


def test_no_number_is_no_new_best_and_no_end(tmp_path, course, capsys):
    course(float("nan"), float("nan"), 0.5, 0.4, 0.3, 0.2)
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", "--patience=3"]) == 0
    assert "training stops after epoch 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--patience=0"], "patience is at least 1, got 0"),
        (["--patience=2", "--trainer.limit_val_batches=0"], "patience needs validation"),
    ],
)
def test_a_patience_that_cannot_be_is_told(tmp_path, capsys, options, sentence):
    assert main(["fit", *RUN, f"--run_dir={tmp_path}", *options]) == 2
    assert sentence in capsys.readouterr().err
