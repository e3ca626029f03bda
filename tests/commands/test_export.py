"""`mlcv export`: its files say what `mlcv predict` says, in any batch, or are refused."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mlcv import DigitScenesDataModule
from mlcv.cli import main
from mlcv.commands import export
from mlcv.methods.checkpoints import load_method
from mlcv.methods.classifier import Classifier
from mlcv.posthoc.calibrated import Calibration

onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
SMALL_HEAD = ("--model.head.width=64", "--model.head.hidden=32")


def trained(folder, *options):
    arguments = [
        "fit", "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=64", "--data.num_test=8",
        "--data.image_size=64", "--data.batch_size=16", "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false", f"--run_dir={folder}", *options,
    ]  # fmt: skip
    assert main(arguments) == 0
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return trained(folder, "--model=Classifier", "--model.backbone=test_resnet", "--data.augment.resize=crop")


def run(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": pixels}), json.loads(session.get_modelmeta().custom_metadata_map["mlcv"])


def test_a_folder_labelled_without_this_project_gets_what_predict_gives(checkpoint, tmp_path, capsys):
    folder = checkpoint.parents[1]
    assert main(["validate", "--ckpt_path", str(checkpoint), "--trainer.enable_progress_bar=false"]) == 0
    assert main(["calibrate", str(folder / "val_predictions.csv"), "--goal", "recall", "--level", "0.7"]) == 0
    assert main(["export", "--ckpt_path", str(checkpoint), "--formats", "onnx"]) == 0
    assert "real images" in capsys.readouterr().out
    images = tmp_path / "images"
    images.mkdir()
    data = DigitScenesDataModule(6, 1, 1, image_size=96, seed=5)
    data.setup("fit")
    names = ("a.png", "b.JPG", "c.jpeg", "d.bmp", "e.tiff", "f.webp", "g.jpg", "h.jpg", "i.jpg", "j.png")
    for n, name in enumerate(
        names
    ):  # larger and smaller than the network's, and not square; JPEGs of many times its size
        scene = data.datasets["train"].load(n % 6)
        cv2.imwrite(str(images / name), cv2.resize(scene, (40 + 90 * n, 50 + 77 * n)))
    turned = Image.open(images / "g.jpg")
    turned.getexif()[0x0112] = 6
    turned.save(images / "g.jpg", exif=turned.getexif(), quality=95)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    script = ROOT / "docs" / "label_folder.py"
    assert "import mlcv" not in script.read_text()
    assert "from mlcv" not in script.read_text()
    done = subprocess.run(
        [sys.executable, script, folder / "model.onnx", images], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("1 could not be read:")
    assert "broken.jpg: not an image" in done.stderr
    out = tmp_path / "out.csv"
    predict = ["predict", "--ckpt_path", checkpoint, "--data.path", images, "--predictions", out]
    assert main([*map(str, predict), "--trainer.enable_progress_bar=false"]) == 2
    rows, expected = list(csv.DictReader(done.stdout.splitlines())), list(csv.DictReader(out.open()))
    assert [row["image"] for row in rows] == [row["image"] for row in expected]
    names = [str(c) for c in range(10)]
    found, wanted = (np.array([[float(row[name]) for name in names] for row in table]) for table in (rows, expected))
    assert len(found) == 10
    assert np.abs(found - wanted).max() < 1e-5
    assert [row["labels"] for row in rows] == [row["labels"] for row in expected]
    assert len({row["labels"] for row in rows}) > 1


@pytest.mark.parametrize(
    "options",
    [
        ("--model=Classifier", "--model.backbone=test_vit", "--model.head=CSRAHead"),
        ("--model=PUMLC", "--model.backbone=test_resnet", *SMALL_HEAD, "--model.global_branches.layers=[layer4]"),
        ("--model=UMultiClass", "--model.backbone=test_resnet", "--data.policy.uncertain=third_class"),
        ("--model=Classifier", "--model.backbone=test_resnet", "--model.head=MLDecoderHead", *SMALL_HEAD),
        ("--model=Classifier", "--model.backbone=test_resnet", "--model.head=SemanticGraphHead", *SMALL_HEAD),
    ],
)
def test_every_kind_of_method_is_exported_as_it_is(tmp_path, options, capsys):
    path = trained(tmp_path / "run", *options)
    assert main(["export", "--ckpt_path", str(path), "--out", str(tmp_path)]) == 0
    method = load_method(path, "test")
    about = run(tmp_path / "model.onnx", np.zeros((1, 64, 64, 3), np.uint8))[1]
    pixels = np.random.default_rng().integers(256, size=(5, 64, 64, 3), dtype=np.uint8)
    image = (torch.from_numpy(pixels).float() / 255 - torch.tensor(about["mean"])) / torch.tensor(about["std"])
    with torch.no_grad():
        expected = method.probabilities(method(image.permute(0, 3, 1, 2)))
    program = torch.export.load(tmp_path / "model.pt2").module()
    for found in (torch.from_numpy(run(tmp_path / "model.onnx", pixels)[0][0]), program(torch.from_numpy(pixels))[0]):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert about["classes"] == list(method.class_names)


def test_a_softmax_is_exported_with_its_calibration(tmp_path, capsys):
    np.save(tmp_path / "soft.npy", np.random.default_rng(0).random((32, 10)))
    teacher = f"--model.teacher={tmp_path / 'soft.npy'}"
    path = trained(
        tmp_path / "run", "--model=Distillation", "--model.backbone=test_resnet", teacher, "--model.single_label=true"
    )
    names = tuple(map(str, range(10)))
    slope, offset = (tuple(np.linspace(*ends, 10).tolist()) for ends in ((0.1, 3), (-1, 1)))
    calibration = Calibration(names, slope, offset, ("own",) * 10, (0.2,) * 10, "f1", 0.1, 0.1, {}, None, "", 9)
    calibration.save(tmp_path / "c.json")
    arguments = ["--out", str(tmp_path), "--calibration", str(tmp_path / "c.json")]
    assert main(["export", "--ckpt_path", str(path), *arguments]) == 0
    method = load_method(path, "test")
    pixels = np.random.default_rng().integers(256, size=(5, 64, 64, 3), dtype=np.uint8)
    (probs, _), about = run(tmp_path / "model.onnx", pixels)
    image = (torch.from_numpy(pixels).float() / 255 - torch.tensor(about["mean"])) / torch.tensor(about["std"])
    with torch.no_grad():
        expected, _ = calibration.decide(method.precise_probabilities(method(image.permute(0, 3, 1, 2))))
    torch.testing.assert_close(torch.from_numpy(probs).double(), expected, rtol=0, atol=1e-4)


def test_a_file_that_differs_is_not_left_behind(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export.Deployed, "forward", lambda self, pixels: self.decide(_shifted(self, pixels)))
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", str(tmp_path), "--formats", "pt2"]) == 2
    assert "is not written: its probabilities differ from the module's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def _shifted(deployed, pixels):
    image = (pixels.float() / 255 - deployed.mean) / deployed.std
    return deployed.method(image.permute(0, 3, 1, 2)) + 0.01


def test_what_cannot_be_exported_is_said_in_one_sentence(checkpoint, tmp_path, monkeypatch, capsys):
    assert main(["export", "--ckpt_path", str(tmp_path / "none.ckpt")]) == 2
    assert "no file" in capsys.readouterr().err
    for name in ("probabilities", "exact_logits"):  # with and without a calibration
        monkeypatch.setattr(Classifier, name, lambda self, logits: logits.sigmoid() * float(logits.max() > 0))
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", str(tmp_path)]) == 2
    assert "this network cannot be exported" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else True)
    assert main(["export", "--ckpt_path", str(checkpoint)]) == 2
    assert 'pip install "mlcv[export]"' in capsys.readouterr().err
