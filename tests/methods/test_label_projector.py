"""LabelProjector: teachers, what is in its checkpoints and files, and its errors before training."""

import json

import numpy as np
import pytest
import torch
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mlcv import DigitScenesDataModule, LabelProjector, Optim
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses.soft_labels import soft_label_loss
from mlcv.methods.checkpoints import load_method
from mlcv.methods.teacher import OnlineTeacher, read_teacher
from mlcv.models import LoRA
from tests.methods.test_base import fit
from tests.methods.test_patch_ct import step

DIGITS = tuple(str(digit) for digit in range(10))
FEW = [
    "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=16", "--data.num_test=16",
    "--data.batch_size=8", "--data.image_size=32", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
]  # fmt: skip


@pytest.fixture
def build(tiny_clip):
    name, path = tiny_clip
    defaults = {"weights": str(path), "class_names": DIGITS, "lora": LoRA(2, 2), "image_size": 32}
    return lambda **options: LabelProjector(f"open_clip:{name}", 10, **{**defaults, **options})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    model = ["--model=Classifier", "--model.backbone=test_resnet"]
    assert main(["fit", *FEW, *model, "--run_dir", str(folder)]) == 0
    return folder / "checkpoints" / "last.ckpt"


def test_a_teacher_sees_the_same_pixels_in_its_own_statistics(teacher, rng):
    method = load_method(teacher, "model.teacher")
    assert not method.training
    pixels = torch.rand(2, 3, 32, 32, generator=rng)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    as_clip = (pixels - mean) / std
    as_teacher = (pixels - 0.5) / 0.5
    expected = method(as_teacher).detach()
    found = read_teacher(str(teacher), DIGITS, "open_clip:ViT-B-32")
    assert isinstance(found, OnlineTeacher)
    torch.testing.assert_close(found({"image": as_clip}), expected, rtol=1e-4, atol=1e-4)
    alike = read_teacher(str(teacher), DIGITS, "test_resnet")
    assert torch.equal(alike({"image": as_teacher}), expected)


def test_it_learns_what_the_teacher_says(teacher, build, tmp_path):
    torch.manual_seed(0)
    module = build(teacher=str(teacher), optim=Optim(lr=1e-2, schedule="constant", warmup=0.0))
    data = DigitScenesDataModule(32, 16, 16, batch_size=8, image_size=32)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    says = read_teacher(str(teacher), DIGITS, "open_clip:ViT-B-32")(batch)
    before = soft_label_loss(module.eval()(batch["image"]), says).item()
    fit(module.train(), tmp_path, epochs=6)
    after = soft_label_loss(module.eval()(batch["image"]), says).item()
    assert after < before / 2
    assert (tmp_path / "projector.safetensors").is_file()


def test_the_file_gives_the_trained_logits_and_the_checkpoint_holds_no_base(build, tmp_path):
    np.save(tmp_path / "soft.npy", np.full((32, 10), 0.3))
    module = build(teacher=str(tmp_path / "soft.npy"), hard_weight=0.5, temperature=2.0)
    trainer, _ = fit(module, tmp_path)
    image = torch.randn(2, 3, 32, 32)
    expected = module.eval()(image)
    projector = LabelProjector.from_file(tmp_path / "projector.safetensors")
    assert not projector.training
    torch.testing.assert_close(projector(image), expected)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert all(name.endswith(("lora_a", "lora_b", "log_scale", "bias")) for name in state)
    again = LabelProjector.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).eval()
    torch.testing.assert_close(again(image), expected)


def test_probabilities_of_a_single_label_sum_to_one(build, rng):
    logits = torch.randn(3, 10, generator=rng)
    torch.testing.assert_close(build(single_label=True).probabilities(logits).sum(dim=1), torch.ones(3))
    torch.testing.assert_close(build().probabilities(logits), logits.sigmoid())


def test_bad_teachers_are_refused_before_training(build, teacher, tmp_path):
    for content, problem in (
        (np.zeros((32, 9)), r"shape \(32, 9\); probabilities \(N, 10\)"),
        (np.full((32, 10), 1.5), r"in \[0, 1\]"),
    ):
        np.save(tmp_path / "soft.npy", content)
        with pytest.raises(ConfigError, match=problem):
            fit(build(teacher=str(tmp_path / "soft.npy")), tmp_path)
    np.save(tmp_path / "soft.npy", np.zeros((20, 10)))
    with pytest.raises(ConfigError, match="has 20 rows, and there are 32 training"):
        fit(build(teacher=str(tmp_path / "soft.npy")), tmp_path)
    with pytest.raises(ConfigError, match="training needs a checkpoint"):
        fit(build(), tmp_path)
    with pytest.raises(ConfigError, match="model.teacher: no file nowhere.ckpt"):
        fit(build(teacher="nowhere.ckpt"), tmp_path)
    with pytest.raises(ConfigError, match=r"model.teacher: .*knows the classes 0, 1, 2"):
        read_teacher(str(teacher), tuple("abcdefghij"), "test_resnet")
    with pytest.raises(ConfigError, match="starts from a CLIP"):
        LabelProjector("resnet18", 10)
    with pytest.raises(ConfigError, match="temperature > 0"):
        build(temperature=0)


def test_a_projector_that_is_trained_from_the_command_line_validates_with_no_teacher(tiny_clip, teacher, tmp_path):
    name, path = tiny_clip
    model = [
        "--model=LabelProjector", f"--model.backbone=open_clip:{name}", f"--model.weights={path}",
        f"--model.teacher={teacher}", "--model.lora.rank=1",
    ]  # fmt: skip
    run = tmp_path / "run"
    assert main(["fit", *FEW, *model, "--run_dir", str(run)]) == 0
    assert (run / "projector.safetensors").stat().st_size < path.stat().st_size / 10
    best = run / "checkpoints" / "best.ckpt"
    assert main(["test", "--ckpt_path", str(best), "--model.teacher=null"]) == 0


def test_the_first_batch_gives_scale_and_bias_the_teachers_mean_and_spread(build, tmp_path, rng):
    probs = torch.rand(8, 10, generator=rng, dtype=torch.float64) * 0.8 + 0.1
    np.save(tmp_path / "soft.npy", probs.numpy())
    image = torch.randn(8, 3, 32, 32, generator=rng)
    batch = {"image": image, "index": torch.arange(8), "target": torch.zeros(8, 10)}
    for calibrate in (True, False):
        module = build(teacher=str(tmp_path / "soft.npy"), calibrate=calibrate).eval()
        before = module(image)
        module.setup("fit")
        step(module, batch)
        after = module(image)
        torch.testing.assert_close(before.argsort(), after.argsort())
        if calibrate:
            assert after.mean().item() == pytest.approx(probs.logit().mean().item(), abs=1e-3)
            spread = probs.logit().std(correction=0).item()
            assert after.std(correction=0).item() == pytest.approx(spread, rel=1e-2)
        else:
            assert torch.equal(before, after)


@pytest.mark.parametrize("follow", [False, True])
def test_batch_statistics_are_the_bases_or_stored(tmp_path, follow):
    open_clip = pytest.importorskip("open_clip")
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (tmp_path / "tiny-rn.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "tiny-rn.json")
    torch.save(open_clip.create_model("tiny-rn").state_dict(), tmp_path / "rn.pt")
    np.save(tmp_path / "soft.npy", np.full((32, 10), 0.3))
    module = LabelProjector(
        "open_clip:tiny-rn", 10, weights=str(tmp_path / "rn.pt"), teacher=str(tmp_path / "soft.npy"),
        lora=LoRA(1, 1, batch_statistics=follow), class_names=DIGITS, image_size=32,
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.backbone.named_buffers()}
    trainer, _ = fit(module, tmp_path)
    statistics = {name: value for name, value in module.backbone.named_buffers() if "running" in name}
    assert statistics
    assert all(torch.equal(value, before[name]) != follow for name, value in statistics.items())
    image = torch.randn(2, 3, 32, 32)
    loaded = LabelProjector.from_file(tmp_path / "projector.safetensors")
    torch.testing.assert_close(loaded(image), module.eval()(image))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = LabelProjector.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).eval()
    torch.testing.assert_close(again(image), module(image))


def test_batch_statistics_of_a_tower_without_are_refused(build):
    with pytest.raises(ConfigError, match="has no BatchNorm"):
        build(lora=LoRA(batch_statistics=True))
