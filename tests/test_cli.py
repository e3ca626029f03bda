import dataclasses
import json
import os
import pickle
import subprocess
import sys
import typing
from pathlib import Path
from typing import Optional, Union

import pytest
import torch
import yaml
from lightning.pytorch import Callback

import mlcv
from mlcv import __version__
from mlcv.cli import main
from mlcv.commands.parser import Parser
from mlcv.plain_config import parameters, takes_none
from tests.tiny_sets import write_coco, write_csv, write_voc

SMALL = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
    "--model=Classifier", "--model.backbone=test_resnet",
]  # fmt: skip
DIGITS = [
    "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=16", "--data.num_test=16",
    "--data.batch_size=8", "--data.image_size=32",
]  # fmt: skip


def fit(*arguments):
    return main(["fit", *DIGITS, *SMALL, "--trainer.max_epochs=1", *map(str, arguments)])


def complaint(capsys):
    """The last line of the error output: one sentence."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert fit("--run_dir", folder, "--test_after_fit=true") == 0
    return folder


@pytest.mark.parametrize("argument", ["--help", "-h", "--version"])
def test_help_and_version_import_nothing_heavy(argument):
    code = f"""
import sys
from mlcv.cli import main
assert main([{argument!r}]) == 0
print(sorted({{'torch', 'lightning', 'jsonargparse', 'timm', 'albumentations', 'numpy', 'polars'}} & set(sys.modules)))
"""
    output = run_python(code)
    assert output.splitlines()[-1] == "[]"
    assert ("fit" in output) if argument != "--version" else (__version__ in output)


def test_the_module_runs_as_a_program():
    output = subprocess.run([sys.executable, "-m", "mlcv", "--version"], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == f"mlcv {__version__}"


def test_a_run_leaves_its_config_metrics_and_table(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert {"config.yaml", "metrics.csv", "val.json", "val_per_class.csv", "test.json", "test_per_class.csv"} <= names
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert any(name.startswith("events.out.tfevents") for name in names)
    facts = json.loads((finished_run / "test.json").read_text())
    assert facts["labels"]["test"]["images"] == 16
    assert len(facts["labels"]["train"]["fingerprint"]) == 12
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"]["init_args"]["backbone"] == "test_resnet"


def test_numbers_flow_from_data_and_backbone(finished_run):
    checkpoint = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    hyperparameters = checkpoint["hyper_parameters"]
    assert hyperparameters["num_classes"] == 10
    assert hyperparameters["image_size"] == 32
    assert list(hyperparameters["class_names"]) == [str(n) for n in range(10)]
    from mlcv.commands.training import image_statistics

    statistics = image_statistics({"init_args": {"backbone": "test_resnet"}})
    assert statistics["mean"] == [0.5, 0.5, 0.5]


def test_a_checkpoint_needs_no_config_and_gives_the_same_numbers(finished_run):
    before = json.loads((finished_run / "test.json").read_text())["metrics"]
    assert main(["test", "--ckpt_path", str(finished_run / "checkpoints" / "best.ckpt")]) == 0
    assert json.loads((finished_run / "test.json").read_text())["metrics"] == before
    assert (finished_run / "test.1.json").is_file()


def test_options_go_before_the_checkpoints_configuration(finished_run, tmp_path):
    best = finished_run / "checkpoints" / "best.ckpt"
    assert main(["test", "--ckpt_path", str(best), "--data.num_test=24", "--run_dir", str(tmp_path / "other")]) == 0
    assert json.loads((tmp_path / "other" / "test.json").read_text())["labels"]["test"]["images"] == 24


def test_runs_are_numbered_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        monkeypatch.delenv("MLCV_RUN_DIR", raising=False)
        assert fit("--trainer.limit_train_batches=1") == 0
    assert {path.name for path in (tmp_path / "runs" / "classifier").iterdir()} == {"0", "1"}


@pytest.mark.parametrize("options", [
    ["--trainer.precision=bf16-mixed"],
    ["--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=1.0"],
    ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.9"],
    ["--trainer.callbacks=Cleaner", "--trainer.callbacks.unknown=negative"],
    ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/mAP", "--trainer.callbacks.mode=max"],
    ["--model.head=CSRAHead", "--model.head.lam=0.3", "--model.loss=AsymmetricLoss", "--model.loss.gamma_neg=2"],
    ["--model.head=MLDecoderHead", "--model.loss=SPLCLoss", "--data.protocol.positives_only=true"],
    ["--model.head=Query2LabelHead", "--model.head.width=64", "--model.head.hidden=64", "--model.loss=HillLoss"],
    ["--data.protocol.known_fraction=0.5", "--model.loss=PartialBCELoss", "--model.eleven_point=true"],
    ["--data.protocol.flip_positives=0.2", "--model.loss=FocalLoss", "--data.augment.strength=0.5"],
])  # fmt: skip
def test_the_options_of_the_field_train(tmp_path, options):
    assert fit("--run_dir", tmp_path / "run", "--trainer.limit_train_batches=2", *options) == 0
    assert (tmp_path / "run" / "val.json").is_file()


@pytest.mark.parametrize(
    ("name", "write"),
    [("VOCDataModule", write_voc), ("COCODataModule", write_coco), ("CSVDataModule", write_csv)],
)
def test_real_layouts_train_from_the_command_line(tmp_path, name, write):
    place = write(tmp_path / "set")
    root = f"--data.path={place}" if name == "CSVDataModule" else f"--data.root={place}"
    more = ["--data.label_columns=[fish]", "--data.split_column=split"] if name == "CSVDataModule" else []
    arguments = [f"--data={name}", root, *more, "--data.batch_size=2", "--data.image_size=32", "--data.num_workers=0"]
    common = [*SMALL, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "run"), "--test_after_fit=true"]
    assert main(["fit", *arguments, *common]) == 0
    assert (tmp_path / "run" / "test.json").is_file()
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert main(["predict", "--ckpt_path", last, "--trainer.enable_progress_bar=false"]) == 0
    tested, predicted = (
        (tmp_path / "run" / f"{name}.csv").read_text().splitlines() for name in ("test_predictions", "predictions")
    )
    assert len(tested) == len(predicted) > 1


def test_options_and_configs_come_in_any_order(tmp_path, monkeypatch):
    """What is given by itself counts, as it does behind the config."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: {class_path: DigitScenesDataModule, init_args: {num_train: 500}}\ntrainer: {max_epochs: 7}\n"
    )
    options = [*DIGITS, *SMALL, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "run")]
    assert main(["fit", *options, "--config", str(path)]) == 0
    stored = (tmp_path / "run" / "config.yaml").read_text()
    assert "max_epochs: 1" in stored
    assert "num_train: 500" not in stored


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model.optm.lr=1"], "there is no option 'model.optm.lr'; did you mean 'model.optim.lr'?"),
        (["--data.protocol.known_fracton=1"], "did you mean 'data.protocol.known_fraction'?"),
        (["--init_args.codes.positive=1"], "give one of a data set, such as mlcv merge writes, with --data"),
        (["--trainer.max_epohcs=1"], "did you mean 'trainer.max_epochs'?"),
        (["--model.loss.gamma_neg", "2", "--model.loss", "AsymmetricLoss"], "gamma_neg stands before --model.loss, "),
        (["--data.codes.blank=negative", "--data=CSVDataModule"], "--data.codes.blank stands before --data, "),
        (["--data.path=x", "--data=mlcv.data.CSVDataModule"], "--data.path stands before --data, "),
        (["--data.path=x", "--data=DigitScenesDataModule"], "an option of other classes, not of the chosen one"),
        (["--data.codes.blank=negative"], "`mlcv fit --config ... --data.help NAME` lists its own"),
        (["--model.optim.lr=fast"], "option 'optim.lr'"),
        (["--data.sampling=classaware"], "option 'sampling': is one of uniform, class_aware, got 'classaware'"),
        (
            ["--model.loss=ELRLoss", "--model.loss.lamb=3"],
            "`mlcv fit --config ... --model.loss.help NAME` lists its own",
        ),
        (["--model.optim.lr=.nan"], "option 'model.optim.lr' is no finite number: nan"),
        (["--model.head=CSRAHead", "--model.head.lam=.inf"], "option 'model.head.lam' is no finite number: inf"),
        (["--data.protocol.known_fraction=2"], "protocol.known_fraction lies in (0, 1], got 2"),
        (["--model.backbone=resnet8"], "timm knows no model 'resnet8'; similar names:"),
        (["--config=nowhere.yaml"], "--config: no file nowhere.yaml, nor a config of that name"),
        (["--ckpt_path=nowhere.ckpt"], "no file nowhere.ckpt"),
        (["--run_dir=/proc/mlcv"], "the run's folder /proc/mlcv cannot be written"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(capsys, monkeypatch, arguments, sentence):
    line = ["fit", *DIGITS, *SMALL, *arguments]
    monkeypatch.setattr(sys, "argv", ["mlcv", *line])
    assert main(line) == 2
    assert sentence in complaint(capsys)


@pytest.mark.parametrize("option", ["--data", "--config"])
def test_a_plan_of_merge_is_told_from_data(tmp_path, capsys, option):
    path = tmp_path / "plan.yaml"
    path.write_text("# two\nsources:\n  one: {path: a.csv}\nclasses: {traffic light: [light]}\n")
    assert main(["fit", "--model=Classifier", f"{option}={path}"]) == 2
    assert f"is a plan of mlcv merge: mlcv merge {path} --out merged.csv, then --data merged.yaml" in complaint(capsys)


def test_a_wrong_key_in_a_config_file_is_told_with_the_right_one(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text("model: {class_path: Classifier, init_args: {backbon: resnet18}}\ndata: DigitScenesDataModule\n")
    assert main(["fit", "--config", str(path)]) == 2
    assert "did you mean 'model.backbone'?" in complaint(capsys)
    path.write_text("model: Clasifier\ndata: DigitScenesDataModule\n")
    assert main(["fit", "--config", str(path)]) == 2
    assert "there is no class 'Clasifier'; did you mean Classifier or Cleaner?" in complaint(capsys)


class Limited(Callback):
    """Options as Lightning's Trainer writes them, in the order that the cache of `typing` may make of it."""

    def __init__(
        self,
        limit: Optional[Union[float, int]] = None,  # noqa: UP007, UP045
        interval: Optional[Union[float, int, str]] = None,  # noqa: UP007, UP045
    ):
        self.limit, self.interval = limit, interval


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)])
def test_one_batch_is_not_all_of_them(text, value):
    parser = Parser()
    parser.add_lightning_class_args(Limited, "trainer")
    trainer = parser.parse_args([f"--trainer.limit={text}", f"--trainer.interval={text}"]).trainer
    for read in (trainer.limit, trainer.interval):
        assert (read, type(read)) == (value, type(value))


def test_a_wrong_path_to_the_data_is_told_before_training(tmp_path, capsys):
    arguments = ["--data=VOCDataModule", f"--data.root={tmp_path}", "--run_dir", str(tmp_path / "run")]
    assert main(["fit", *arguments, *SMALL, "--trainer.max_epochs=1"]) == 2
    assert "Point data.root at the folder that holds VOC2007/" in complaint(capsys)


def test_a_wrong_subcommand_is_told(capsys):
    assert main(["tset"]) == 2
    assert "did you mean 'test'?" in complaint(capsys)


def test_data_of_other_classes_than_the_checkpoints_is_refused(finished_run, tmp_path, capsys):
    table = write_csv(tmp_path)
    best = str(finished_run / "checkpoints" / "best.ckpt")
    arguments = ["--data=CSVDataModule", f"--data.path={table}", "--data.label_columns=[fish]", "--data.batch_size=2"]
    common = [*SMALL, "--ckpt_path", best, "--run_dir", str(tmp_path / "run"), "--data.num_workers=0"]
    config = tmp_path / "empty.yaml"
    config.write_text("seed_everything: 0\n")
    assert main(["test", "--config", str(config), *arguments, *common]) == 2
    assert "the checkpoint knows 10 classes (0, 1, 2, ...), the data 1 (fish)" in complaint(capsys)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["MLCV_BOMB"],))


def test_a_strangers_checkpoint_runs_no_code(tmp_path, monkeypatch, capsys):
    target = tmp_path / "exploded"
    monkeypatch.setenv("MLCV_BOMB", str(target))
    for name, save in (("torch.ckpt", torch.save), ("pickle.ckpt", lambda o, p: Path(p).write_bytes(pickle.dumps(o)))):
        save({"state_dict": {}, "trap": Bomb()}, str(tmp_path / name))
        assert main(["test", "--ckpt_path", str(tmp_path / name)]) == 2
        assert "no checkpoint that can be read safely" in complaint(capsys)
    assert not target.exists()


GROUPED = [
    (cls, f"{name}.{field.name}")
    for cls in (mlcv.PUMLC, mlcv.PatchCT, mlcv.Classifier)
    for name, hint in parameters(cls)
    for group in (hint, *typing.get_args(hint))
    if dataclasses.is_dataclass(group)
    for field in dataclasses.fields(group)
    if takes_none(field.type)
]


@pytest.mark.parametrize(("cls", "option"), GROUPED, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_null_is_nothing_in_every_group_of_options(cls, option, capsys):
    line = ["fit", "--data=DigitScenesDataModule", f"--model={cls.__name__}", "--model.backbone=test_resnet"]
    with pytest.raises(SystemExit):
        main([*line, f"--model.{option}=null", "--print_config"])
    value = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    for part in option.split("."):
        value = value[part]
    assert value is None
