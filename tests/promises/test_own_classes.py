"""A user's own method and data set, of a package that is trusted, work in every command; see docs/extending.md."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"
# The method is named like one of the project, has no head, no loss, and no backbone of timm.
MODULE = """
from torch import nn

from mlcv import DigitScenesDataModule
from mlcv.methods import MultiLabelModule, Optim


class Classifier(MultiLabelModule):
    def __init__(
        self, num_classes: int, class_names: list[str], width: int = 8, extra: int = None, optim: Optim = Optim()
    ):
        super().__init__(num_classes, class_names, optim)
        layers = nn.Conv2d(3, width, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.backbone = nn.Sequential(*layers)
        self.last = nn.Linear(width, num_classes)

    def forward(self, image):
        return self.last(self.backbone(image))

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy_with_logits(self(batch["image"]), batch["target"].clamp(min=0))


class GreyScenes(DigitScenesDataModule):
    def __init__(self, tint: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.grey = True
"""
TRAINER = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
SIZES = ["--data.num_train=16", "--data.num_val=16", "--data.num_test=16", "--data.batch_size=8"]


def test_own_classes_in_every_command(tmp_path, python):
    (tmp_path / "own_package.py").write_text(MODULE)
    (tmp_path / "images").mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "colours.png"), colours)
    cv2.imwrite(str(tmp_path / "images" / "grey.png"), cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY))
    data, best = ["--data=own_package.GreyScenes", *SIZES], ["--ckpt_path", "run/checkpoints/best.ckpt"]
    method = "--model=own_package.Classifier"
    student = ["--model=mlcv.methods.Distillation", "--model.backbone=test_resnet", *TRAINER]
    own = {"MLCV_TRUST": "own_package", "PYTHONPATH": f"{TOOLS.parent}:{tmp_path}"}
    where = {"cwd": tmp_path, "environment": {**os.environ, **own}}
    for command in (
        ["fit", *data, method, *TRAINER, "--run_dir", "run", "--test_after_fit=true"],
        ["validate", *best],
        ["test", *best],
        ["predict", *best, "--predictions", "split.csv"],
        ["predict", *best, "--data.path", "images", "--predictions", "images.csv"],
        ["predict", *best, "--split", "train", "--predictions", "soft.npy"],
        ["export", *best, "--formats", "pt2"],
        ["calibrate", "run/val_predictions.csv"],
        ["report", "run"],
        ["bench", *data, method, "--steps=1", "--warmup=0"],
        ["fit", *data, *student, "--model.teacher=run/checkpoints/best.ckpt", "--run_dir", "student"],
        ["fit", "--ckpt_path", "run/checkpoints/last.ckpt"],
    ):
        ended = python.mlcv(*command, **where)
        assert ended.returncode == 0, ended
    with (tmp_path / "images.csv").open(newline="") as file:
        in_colour, in_grey = csv.DictReader(file)
    for digit in map(str, range(10)):  # the data say that images are grey, so that colours are not seen
        assert float(in_colour[digit]) == pytest.approx(float(in_grey[digit]), abs=1e-3)
    assert np.load(tmp_path / "soft.npy").shape == (16, 10)
    about = torch.load(tmp_path / best[1], weights_only=True)["hyper_parameters"]
    assert sorted(name for name in about if name[0] != "_") == ["class_names", "extra", "num_classes", "optim", "width"]
