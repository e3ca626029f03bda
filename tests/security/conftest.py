"""A run whose checkpoint is changed, and a folder where whatever was planted would leave a mark."""

import pytest

from mlcv.cli import main
from tests.security import planted


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=16", "--data.num_test=16",
        "--data.image_size=32", "--data.batch_size=8", "--model=Classifier", "--model.backbone=test_resnet",
        "--model.loss=mlcv.losses.AsymmetricLoss", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.9", "--test_after_fit=true",
    ]  # fmt: skip
    assert main(["fit", *options, "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(planted.prepare(folder))
    monkeypatch.syspath_prepend(str(folder))
    return folder
