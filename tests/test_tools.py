"""The tools run on little, and refuse what they do not know."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mlcv import Classifier, DigitScenesDataModule
from mlcv.cli import main
from mlcv.methods.checkpoints import load_method
from mlcv.models import CLIPProjector, LoRA
from mlcv.models.open_clip_tower import create_open_clip

ROOT = Path(__file__).parents[1]
FEW = ["--data.num_train=64", "--data.num_val=16", "--data.num_test=16", "--trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patch_ct")
    options = [
        "--data=DigitScenesDataModule",
        "--model=PatchCT",
        "--model.backbone=test_vit",
        "--model.transport.background=0.5",
    ]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    assert main(["fit", *options, *FEW, *quiet, "--data.image_size=32", "--run_dir", str(folder)]) == 0
    return folder / "checkpoints" / "last.ckpt"


def test_transport_is_shown_for_test_images_and_for_files(tool, checkpoint, tmp_path, shared_data):
    done = tool("show_transport.py", checkpoint, "--test=2", "--out", tmp_path / "test")
    assert done.stdout.count("\n") == 2, done.stderr
    image = next((shared_data / "voc2012" / "JPEGImages").glob("*.jpg"))
    done = tool("show_transport.py", checkpoint, image, "--out", tmp_path / "files")
    assert done.returncode == 0, done.stderr
    pictures = sorted(tmp_path.rglob("*.png"))
    assert [path.stem for path in pictures] == [image.stem, "test_0", "test_1"]
    assert all(path.stat().st_size > 5000 for path in pictures)


def test_transport_is_shown_of_patch_ct_only(tool, tmp_path):
    refused = tool("show_transport.py", tmp_path / "none.ckpt")
    assert refused.returncode == 1
    assert "error:" in refused.stderr
    assert "none.ckpt" in refused.stderr
    about = {"_class_path": "mlcv.Classifier", "backbone": "test_resnet", "num_classes": 2}
    state = Classifier("test_resnet", 2).state_dict()
    torch.save({"hyper_parameters": about, "state_dict": state}, tmp_path / "a.ckpt")
    refused = tool("show_transport.py", tmp_path / "a.ckpt")
    assert "is of Classifier; only PatchCT has transport to show" in refused.stderr


def test_transport_is_measured_after_it_is_checked(tool, tmp_path):
    arguments = ["--device=cpu", "--sizes=coco-196", "--batch=2", "--patches=20", "--runs=2", "--weights=positive"]
    done = tool("benchmarks/transport.py", *arguments, "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    found = {(row["implementation"], row["mode"]) for row in rows}
    assert found == {(name, mode) for name in ("reference", "blocked") for mode in ("forward", "full")}
    assert all(row["error"] < 1e-4 and row["eager_ms"] > 0 and row["floor_ms"] > 0 for row in rows)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A classifier of a few scenes that says of every class that it is there."""
    folder = tmp_path_factory.mktemp("teacher")
    options = ["--data=DigitScenesDataModule", "--model=Classifier", "--model.backbone=test_resnet", "--data.seed=5"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    assert main(["fit", *options, *FEW, *quiet, "--data.image_size=32", "--run_dir", str(folder)]) == 0
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    bias = next(name for name in checkpoint["state_dict"] if name.startswith("head") and name.endswith("bias"))
    checkpoint["state_dict"][bias] += 5
    torch.save(checkpoint, path)
    return path


def test_soft_labels_are_what_the_teacher_says_of_plain_training_images(teacher, tmp_path, capsys):
    soft = ["--split=train", f"--predictions={tmp_path / 'soft.npy'}", "--run_dir", str(tmp_path)]
    assert main(["predict", "--ckpt_path", str(teacher), *soft]) == 0
    assert np.load(tmp_path / "soft.npy").shape == (64, 10)
    data = DigitScenesDataModule(64, 16, 16, image_size=32, seed=5)
    data.setup("fit")
    method = load_method(teacher, "test")
    pixels = torch.from_numpy(data.datasets["train"].load(7)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        expected = method((pixels - 0.5) / 0.5).sigmoid()[0]  # the statistics of test_resnet
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "soft.npy"))[7], expected, rtol=1e-3, atol=1e-4)
    student = [
        "--data=DigitScenesDataModule", *FEW, "--data.image_size=32", "--data.seed=5", "--model=Distillation",
        "--model.backbone=test_resnet", f"--model.teacher={tmp_path / 'soft.npy'}",
        "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    assert main(["fit", *student, "--run_dir", str(tmp_path / "a"), "--data.protocol.known_fraction=0.5"]) == 0
    assert main(["fit", *student, "--run_dir", str(tmp_path / "b"), "--data.seed=1"]) == 2  # as many, but others
    assert "soft.npy was made of other images than there are now" in capsys.readouterr().err


@pytest.mark.parametrize("update", ["none", "information", "gap"])
def test_a_synthetic_set_is_a_data_set_that_a_student_learns_from(tool, teacher, tmp_path, update):
    clip, projector, out = tmp_path / "clip.pt", tmp_path / "p.safetensors", tmp_path / "set"
    torch.save(create_open_clip("digits-clip", None, "test", force_image_size=32).state_dict(), clip)
    names = [str(digit) for digit in range(10)]
    CLIPProjector("digits-clip", str(clip), names, lora=LoRA(1, 1), image_size=32).save(projector)
    arguments = [teacher, "--out", out, "--per_class=2", "--crops=2", "--update", update, "--projector", projector]
    done = tool("make_synthetic.py", *arguments, "--steps=3")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((out / "labels.csv").open()))
    splits = [row["split"] for row in rows]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (20, 16, 16)
    assert len(list(csv.DictReader((out / "sources.csv").open()))) == 20
    assert all(row[name] in ("0", "1", "") for row in rows for name in names)
    if update != "none":
        before, after = map(float, re.search(rf"{update}: (\S+) before, (\S+) after", done.stdout).groups())
        assert after < before
    student = [
        "--data=CSVDataModule", f"--data.path={out / 'labels.csv'}", "--data.split_column=split", "--data.batch_size=8",
        "--data.image_size=32", "--data.num_workers=0", "--model=Distillation", "--model.backbone=test_resnet",
        f"--model.teacher={projector}", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    assert main(["fit", *student, "--run_dir", str(tmp_path / "run"), "--test_after_fit=true"]) == 0
    again = tool("make_synthetic.py", *arguments)
    assert again.returncode == 1
    assert "holds a data set already" in again.stderr


def test_storage_of_soft_labels_is_that_of_the_published_example(tool, tmp_path):
    # HeLlO: 300 epochs of 1,000 images of 1,000 classes in half precision take 572 MiB.
    done = tool("studies/label_storage.py", "--images=1000", "--epochs=300", "--classes=1000")
    assert "| float16 | 572.2 MiB |" in done.stdout, done.stderr
    assert "| float32 | 1.1 GiB |" in done.stdout
    assert "| float16, top 10 | 11.4 MiB |" in done.stdout  # 10 (2 + 2) bytes a view
    refused = tool("studies/label_storage.py", "--images=1", "--epochs=1")
    assert refused.returncode == 2
    assert "--classes or --projector" in refused.stderr
    refused = tool("studies/label_storage.py", "--images=1", "--epochs=1", "--projector", tmp_path / "p.safetensors")
    assert refused.returncode == 1
    assert "error: no projector at" in refused.stderr


def test_storage_of_a_projector_is_its_file(tool, tiny_clip, tmp_path):
    path = tmp_path / "p.safetensors"
    CLIPProjector(tiny_clip[0], str(tiny_clip[1]), ["a", "b"], lora=LoRA(1, 1)).save(path)
    done = tool("studies/label_storage.py", "--images=1000000", "--epochs=100", "--projector", path)
    assert "2 classes" in done.stdout, done.stderr
    percent = 100 * path.stat().st_size / (4 * 1000000 * 100 * 2)
    assert f"| float32 | 762.9 MiB | {percent:.3g} % |" in done.stdout
