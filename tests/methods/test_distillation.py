"""Distillation: the student learns what its teacher says of the same view, from a projector or a checkpoint."""

import csv

import numpy as np
import pytest
import torch

from mlcv import Distillation, LabelProjector
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import BCELoss
from mlcv.losses.soft_labels import soft_label_loss
from mlcv.methods.teacher import OnlineTeacher, read_online_teacher, read_teacher
from mlcv.models import CLIPProjector, LoRA
from mlcv.models.backbones import pretrained_config
from tests.methods.test_base import fit
from tests.methods.test_label_projector import DIGITS, FEW
from tests.methods.test_patch_ct import step


@pytest.fixture
def projector(tiny_clip, tmp_path):
    """A file of a projector for images of 64 pixels."""
    name, path = tiny_clip
    module = LabelProjector(
        f"open_clip:{name}", 10, weights=str(path), class_names=DIGITS, lora=LoRA(1, 1), image_size=64
    )
    module.save(tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def test_the_objective_is_that_of_the_same_batch_and_no_gradient_reaches_the_teacher(projector, rng):
    module = Distillation(
        "test_resnet", 10, teacher=str(projector), temperature=2.0, hard_weight=0.5, class_names=DIGITS
    ).eval()
    module.setup("fit")
    batch = {"image": torch.randn(3, 3, 64, 64, generator=rng), "index": torch.arange(3)}
    batch["target"] = torch.randint(-1, 2, (3, 10), generator=rng).float()
    loss, logged = step(module, batch)
    says = read_teacher(str(projector), DIGITS, "test_resnet")(batch)
    logits = module(batch["image"])
    expected = soft_label_loss(logits, says, 2.0)
    assert logged["train/loss_soft"] == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(loss, expected + 0.5 * BCELoss()(logits, batch["target"]) / 10)
    loss.backward()
    assert all(p.grad is not None for p in module.parameters())
    teacher = module._teacher[0]
    assert isinstance(teacher, OnlineTeacher)
    assert all(not p.requires_grad for p in teacher.net.parameters())
    assert not any("tower" in name for name in module.state_dict())


def test_a_teacher_of_fixed_size_gets_the_view_resized(projector, rng):
    teacher = read_teacher(str(projector), DIGITS, "test_resnet")
    image = torch.randn(2, 3, 32, 32, generator=rng)
    larger = torch.nn.functional.interpolate(image, (64, 64), mode="bilinear", antialias=True)
    torch.testing.assert_close(teacher({"image": image}), teacher({"image": larger}))


def test_a_projector_that_teaches_is_merged_and_says_the_same(projector, rng):
    image = torch.randn(2, 3, 64, 64, generator=rng)
    alone = CLIPProjector.from_file(projector).eval()
    with torch.no_grad():
        for name, parameter in alone.named_parameters():
            if name.endswith("lora_b"):
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.1)
    alone.save(projector)
    config = pretrained_config(f"open_clip:{alone.about['clip']}")
    teacher = read_online_teacher(projector, DIGITS, (config.mean, config.std))
    assert not any("parametrizations" in name for name, _ in teacher.net.named_modules())
    torch.testing.assert_close(teacher({"image": image}), alone(image), rtol=1e-4, atol=1e-4)


def test_a_student_of_stored_labels_learns_them(tmp_path):
    torch.manual_seed(0)
    np.save(tmp_path / "soft.npy", np.tile(np.linspace(0.05, 0.95, 10), (32, 1)))
    module = Distillation("test_resnet", 10, teacher=str(tmp_path / "soft.npy"))
    module.optim = type(module.optim)(lr=2e-2, schedule="constant", warmup=0.0)
    _, data = fit(module, tmp_path, epochs=8)
    probs = module.eval()(next(iter(data.val_dataloader()))["image"]).sigmoid().mean(dim=0)
    assert (probs.diff() > 0).sum() >= 7
    assert (probs - torch.linspace(0.05, 0.95, 10)).abs().max() < 0.25


def test_it_trains_from_the_command_line_and_needs_a_teacher(projector, tmp_path):
    model = ["--model=Distillation", "--model.backbone=test_resnet", "--trainer.log_every_n_steps=1"]
    run = tmp_path / "run"
    assert main(["fit", *FEW, *model, f"--model.teacher={projector}", "--run_dir", str(run)]) == 0
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert len([row for row in rows if row["train/loss_soft"]]) == 4
    with pytest.raises(ConfigError, match="training needs a checkpoint"):
        Distillation("test_resnet", 10).setup("fit")
