"""PatchCT: its objective, which labels are in the label set, where labels come from, and its heat maps."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import cosine_similarity

from mlcv import PatchCT
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import AsymmetricLoss, BCELoss
from mlcv.methods import LabelVectors, Transport
from mlcv.ops import conditional_transport


def build(backbone="test_vit", labels=LabelVectors(), loss=None, weights=None, **transport):  # noqa: B008  # frozen
    torch.manual_seed(0)
    options = {"image_size": 32, "labels": labels, "loss": loss, "weights": weights}
    return PatchCT(backbone, 5, Transport(**transport), **options).eval()


def batch_of(rng, targets=None):
    if targets is None:
        targets = torch.randint(0, 2, (4, 5), generator=rng).float()
    return {
        "image": torch.randn(len(targets), 3, 32, 32, generator=rng),
        "target": targets,
        "index": torch.arange(len(targets)),
    }


def step(module, batch):
    """A training step by itself: the loss, and what it logs."""
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    module._trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", log_every_n_steps=1)
    return module.training_step(batch, 0), logged


def test_the_objective_is_the_loss_of_the_scores_and_the_weighted_transport(rng):
    module = build(weight=0.7, temperature=0.3, rho=0.2)
    batch = batch_of(rng)
    loss, logged = step(module, batch)
    pooled, (patches,) = module.backbone.pooled_and_patches(batch["image"])
    adapted = pooled + module.adaptive(pooled)
    logits = 10 * cosine_similarity(adapted[:, None], module.labels[None], dim=-1)
    of_scores = AsymmetricLoss()(logits, batch["target"])
    transport = conditional_transport(patches, module.labels, None, batch["target"], temperature=0.3, rho=0.2)
    torch.testing.assert_close(loss, of_scores + 0.7 * transport)
    torch.testing.assert_close(module(batch["image"]), logits)
    assert logged["train/loss_ct"] == pytest.approx(transport.item(), rel=1e-5)
    assert logged["train/loss_class"] == pytest.approx(of_scores.item(), rel=1e-5)
    assert logged["train/temperature"] == pytest.approx(0.3)


def transport_part(module, batch):
    return step(module, batch)[1]["train/loss_ct"]


@pytest.mark.parametrize("background", [0.0, 0.4])
def test_unknown_labels_are_in_neither_set(rng, background):
    module = build(background=background)
    batch = batch_of(rng, torch.tensor([[1.0, 0, 0, 1, 0]]))
    of_known = transport_part(module, batch)
    for other in (-1.0, 0.5):  # unknown, soft
        batch["target"] = torch.tensor([[1.0, other, 0, 1, other]])
        assert transport_part(module, batch) == of_known
    batch["target"] = torch.tensor([[0.0, -1, 0, -1, 0]])
    assert transport_part(module, batch) == 0
    loss, _ = step(module, batch)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_the_background_is_one_more_label_of_that_weight(rng):
    module = build(background=0.25, weight=1.0)
    batch = batch_of(rng, torch.tensor([[1.0, 0, 0, 1, 1]]))
    _, (patches,) = module.backbone.pooled_and_patches(batch["image"])
    labels = torch.cat([module.labels, module.background])
    weights = torch.tensor([[0.25, 0, 0, 0.25, 0.25, 0.25]])
    expected = conditional_transport(patches, labels, None, weights, temperature=0.1)
    assert transport_part(module, batch) == pytest.approx(expected.item(), rel=1e-5)
    _, forward, backward = module.explain(batch["image"])
    assert (forward.shape, backward.shape) == ((1, 4, 6), (1, 4, 5))
    bounded = build(background=0.25, max_labels=3)
    assert transport_part(bounded, batch) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("patch_weights", ["uniform", "similarity"])
@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_maps_are_distributions_over_the_patches(rng, backbone, patch_weights):
    module = build(backbone, patch_weights=patch_weights)
    image = torch.randn(2, 3, 64 if backbone == "test_resnet" else 32, 64 if backbone == "test_resnet" else 32)
    logits, maps = module.forward_with_maps(image)
    torch.testing.assert_close(logits, module(image))
    assert maps.shape == (2, 5, 2, 2)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 5))
    if patch_weights == "similarity":
        uniform = build(backbone).forward_with_maps(image)[1]
        assert not torch.allclose(uniform, maps)


def test_transport_at_several_layers_adds_up_and_a_cnn_has_one(rng):
    module = build(num_layers=2)
    batch = batch_of(rng)
    total = transport_part(module, batch)
    _, layers = module.backbone.pooled_and_patches(batch["image"], 2)
    assert len(layers) == 2
    assert not torch.allclose(*layers)
    parts = [conditional_transport(p, module.labels, None, batch["target"], temperature=0.1) for p in layers]
    assert total == pytest.approx(sum(parts).item(), rel=1e-5)
    assert transport_part(build(num_layers=1), batch) == pytest.approx(parts[1].item(), rel=1e-5)
    with pytest.raises(ConfigError, match="num_layers: test_resnet gives the patches of its last layer only"):
        build("test_resnet", num_layers=2)


def test_given_labels_are_the_start_and_stay_if_asked_to(rng, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    source = str(tmp_path / "v.npy")
    fixed = build(labels=LabelVectors(source, learn=False))
    assert torch.equal(fixed.labels, torch.from_numpy(vectors))
    assert not fixed.labels.requires_grad
    assert build(labels=LabelVectors(source)).labels.requires_grad
    loss, _ = step(fixed, batch_of(rng))
    loss.backward()
    assert fixed.patch_projections[0].weight.grad.abs().sum() > 0
    assert build(labels=LabelVectors(source, dim=7)).label_projection.weight.shape == (7, 12)


def test_clip_gives_patches_scores_and_labels(tiny_clip, rng):
    name, path = tiny_clip
    module = build(f"open_clip:{name}", weights=str(path), labels=LabelVectors(f"open_clip:{name}:{path}"))
    batch = batch_of(rng)
    _, maps = module.forward_with_maps(batch["image"])
    assert maps.shape == (4, 5, 2, 2)
    # Scores begin as CLIP's own: the image's and the texts' vectors share a space.
    own = module.backbone.pooled(batch["image"])
    expected = 10 * cosine_similarity(own[:, None], module.labels[None], dim=-1)
    torch.testing.assert_close(module(batch["image"]), expected)
    larger = PatchCT(f"open_clip:{name}", 5, weights=str(path), image_size=64).eval()
    assert larger.forward_with_maps(torch.randn(1, 3, 64, 64))[1].shape == (1, 5, 4, 4)
    loss, _ = step(module, batch)
    loss.backward()
    assert module.labels.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "wrong", [{"weight": -1}, {"temperature": 0}, {"rho": 1.1}, {"num_layers": 0}, {"background": 1.0}]
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(ConfigError, match="are needed"):
        build(**wrong)


def test_without_weight_nothing_is_transported(rng, monkeypatch):
    monkeypatch.setattr("mlcv.methods.patch_ct.conditional_transport", lambda *_, **__: pytest.fail("transported"))
    module = build(weight=0.0, loss=BCELoss())
    batch = batch_of(rng)
    loss, logged = step(module, batch)
    torch.testing.assert_close(loss, BCELoss()(module(batch["image"]), batch["target"]))
    assert "train/loss_ct" not in logged


def test_a_learned_temperature_learns(rng):
    for learned in (True, False):
        module = build(learn_temperature=learned)
        step(module, batch_of(rng))[0].backward()
        assert (module.log_temperature.grad is not None) == learned


def test_the_test_logs_the_pointing_game(tmp_path):
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=8", "--data.num_test=12",
        "--data.image_size=32", "--data.batch_size=8", "--model=PatchCT", "--model.backbone=test_vit",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
        "--test_after_fit=true", f"--run_dir={tmp_path}",
    ]  # fmt: skip
    assert main(["fit", *options]) == 0
    assert 0 <= json.loads((tmp_path / "test.json").read_text())["metrics"]["pointing_game"] <= 1
