"""A run's folder is its own: no other run writes there, and what goes on is what had begun."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.posthoc.calibrated import Calibration
from mlcv.runs import new_run_folder, run_folder

OPTIONS = [
    "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=32", "--data.num_test=16",
    "--data.image_size=32", "--data.batch_size=8", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
]  # fmt: skip
ONE = "--trainer.max_epochs=1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "runs" / "mine" / "0"
    assert main(["fit", *OPTIONS, ONE, "--run_dir", str(folder)]) == 0
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_never_writes_where_checkpoints_are(finished, capsys):
    before = contents(finished)
    for more in ([], ["--trainer.fast_dev_run=true"]):
        assert main(["fit", *OPTIONS, ONE, "--run_dir", str(finished), *more]) == 2
        said = capsys.readouterr().err
        assert "holds the checkpoints of a run" in said
        assert f"resume that run with --ckpt_path {finished}/checkpoints/last.ckpt" in said
    assert contents(finished) == before


def test_a_runs_own_config_starts_another_run_beside_it(finished, monkeypatch):
    monkeypatch.chdir(finished.parents[2])
    monkeypatch.delenv("MLCV_RUN_DIR", raising=False)
    stored = yaml.safe_load((finished / "config.yaml").read_text())
    assert not {"run_dir", "ckpt_path", "predictions", "calibration", "untrained"} & set(stored)
    assert "default_root_dir" not in stored["trainer"]
    before = contents(finished)
    assert main(["fit", "--config", "runs/mine/0/config.yaml"]) == 0
    assert contents(finished) == before
    assert sorted(path.name for path in Path("runs/mine").iterdir()) == ["0", "1"]
    assert (finished.parent / "1" / "checkpoints" / "last.ckpt").is_file()
    old = {**stored, "run_dir": str(finished)}  # as earlier versions wrote it
    Path("old.yaml").write_text(yaml.safe_dump(old))
    assert main(["fit", "--config", "old.yaml"]) == 2
    assert contents(finished) == before


def test_a_run_goes_on_in_its_own_folder_alone(finished, tmp_path, capsys):
    last = str(finished / "checkpoints" / "last.ckpt")
    assert main(["fit", *OPTIONS, ONE, "--run_dir", str(tmp_path / "other")]) == 0
    before = contents(tmp_path / "other")
    assert main(["fit", "--ckpt_path", last, "--run_dir", str(tmp_path / "other")]) == 2
    assert contents(tmp_path / "other") == before
    assert main(["fit", "--ckpt_path", last, "--run_dir", str(finished)]) == 0
    assert main(["fit", "--config", str(finished / "config.yaml"), "--ckpt_path", last]) == 0
    assert run_folder(Path(last)) == finished


def test_runs_that_start_together_have_folders_of_their_own(tmp_path, python):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: new_run_folder(tmp_path / "runs"), range(64)))
    assert sorted(int(path.name) for path in made) == list(range(64))
    make = "[print(new_run_folder(Path(sys.argv[1]))) for _ in range(20)]"
    code = f"import sys; from pathlib import Path; from mlcv.runs import new_run_folder; {make}"
    started = [python.start("-c", code, tmp_path / "b") for _ in range(2)]
    lines = [line for process in started for line in process.communicate(60)[0].splitlines()]
    assert len(set(lines)) == len(lines) == 40


@pytest.mark.parametrize("name", ["validate", "test", "predict"])
def test_random_weights_are_never_judged_without_a_word(tmp_path, capsys, name):
    line = [name, *OPTIONS, "--run_dir", str(tmp_path)]
    assert main(line) == 2
    assert f"mlcv {name} needs --ckpt_path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*line, "--untrained", "true"]) == 0


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--data.batch_size=4", "images a step: 8 (now 4)"),
        ("--trainer.accumulate_grad_batches=2", "images a step: 8 (now 16)"),
        ("--data.num_train=64", "training images: 32 (now 64)"),
        ("--data.protocol.known_fraction=0.5", "labels: "),
    ],
)
def test_a_training_goes_on_as_it_began_or_says_what_differs(finished, capsys, option, sentence):
    before = contents(finished / "checkpoints")
    last = str(finished / "checkpoints" / "last.ckpt")
    assert main(["fit", "--ckpt_path", last, option, "--trainer.max_epochs=2", "--model.optim.horizon_epochs=2"]) == 2
    said = capsys.readouterr().err
    assert f"the checkpoint was trained with {sentence}" in said
    assert "--start_from" in said
    assert contents(finished / "checkpoints") == before


def test_a_calibration_is_of_one_model(finished, tmp_path, capsys):
    best = finished / "checkpoints" / "best.ckpt"
    other = finished / "checkpoints" / "other.ckpt"
    state = torch.load(best, weights_only=True)
    state["state_dict"]["head.classifier.bias"] += 0.1
    torch.save(state, other)
    try:
        assert main(["validate", "--ckpt_path", str(best)]) == 0
        assert main(["calibrate", str(finished / "val_predictions.csv")]) == 0
        file = finished / "calibration.json"
        assert Calibration.load(file).model is not None
        for name in ("test", "predict", "export"):
            more = ["--formats", "pt2"] if name == "export" else []
            for given in ([], ["--calibration", str(file)]):
                capsys.readouterr()
                assert main([name, "--ckpt_path", str(other), *more, *given]) == 2
                said = capsys.readouterr().err
                assert f"{file} was made of the predictions of another model" in said
                assert f"mlcv validate --ckpt_path {other}" in said
            assert main([name, "--ckpt_path", str(other), *more, "--calibration", "none"]) == 0
            assert main([name, "--ckpt_path", str(best), *more]) == 0
    finally:
        other.unlink()
        (finished / "calibration.json").unlink()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        new_run_folder(tmp_path / "file" / "runs")
