"""What a training started from may be gone: every later command needs the checkpoint alone."""

import numpy as np
import pytest
import timm
import torch

from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.methods.checkpoints import load_method

DATA = [
    "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=8", "--data.num_test=8",
    "--data.batch_size=8", "--model.optim.horizon_epochs=2", "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
]  # fmt: skip
METHODS = {
    "Classifier": [],
    "PUMLC": ["--model.head.width=16", "--model.head.hidden=8"],
    "PatchCT": [],
}


@pytest.mark.parametrize("method", METHODS)
def test_files_that_training_started_from_may_be_gone(method, tmp_path, capsys):
    starts, run = tmp_path / "starts", tmp_path / "run"
    starts.mkdir()
    torch.save(timm.create_model("test_resnet").state_dict(), starts / "backbone.pt")
    np.save(starts / "vectors.npy", np.ones((10, 5)))
    options = [f"--model={method}", "--model.backbone=test_resnet", f"--model.weights={starts / 'backbone.pt'}"]
    vectors = {"PUMLC": "label_embeddings", "PatchCT": "labels.embeddings"}
    if method in vectors:
        options.append(f"--model.{vectors[method]}={starts / 'vectors.npy'}")
    assert main(["fit", *DATA, *options, *METHODS[method], "--trainer.max_epochs=1", "--run_dir", str(run)]) == 0
    for path in starts.iterdir():
        path.unlink()
    starts.rmdir()
    best, last = (str(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    capsys.readouterr()
    for command in (
        ["test", "--ckpt_path", best],
        ["predict", "--ckpt_path", best, "--predictions", str(tmp_path / "out.csv")],
        ["export", "--ckpt_path", best, "--formats", "pt2", "--out", str(tmp_path)],
        ["report", str(run), "--out", str(tmp_path / "report.html")],
        ["fit", "--ckpt_path", last, "--trainer.max_epochs=2"],
    ):
        assert main(command) == 0, capsys.readouterr().err


def test_vectors_that_a_checkpoint_should_bring_and_does_not(tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones((10, 5)))
    options = ["--model=PatchCT", "--model.backbone=test_resnet", "--trainer.max_epochs=1"]
    options += [f"--model.labels.embeddings={tmp_path / 'vectors.npy'}", "--run_dir", str(tmp_path)]
    assert main(["fit", *DATA, *options]) == 0
    path = tmp_path / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["state_dict"]["labels"]
    torch.save(checkpoint, path)
    with pytest.raises(ConfigError, match="the checkpoint holds no weights 'labels'"):
        load_method(path, "--ckpt_path")
