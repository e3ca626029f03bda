"""PUMLC: what is frozen, what is logged, where the graph comes from, thresholds in the checkpoint."""

import csv
import json
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from mlcv import PUMLC, DigitScenesDataModule, Optim, Protocol
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import PUMixup, PUMLCLoss
from mlcv.methods import GlobalBranches
from mlcv.metrics import choose_thresholds, tuned_f1
from mlcv.models import LinearHead, LocalGlobalConv, SemanticGraphHead

SMALL_HEAD = partial(SemanticGraphHead, width=32, hidden=16)


def build(**options):
    return PUMLC("test_resnet", 10, **{"optim": Optim(name="adam", horizon_epochs=None), **options})


def fit(module, tmp_path, **options):
    # 64 pixels: a grid of 2 x 2 patches.
    data = DigitScenesDataModule(32, 16, 16, batch_size=8, protocol=Protocol(known_fraction=0.5))
    trainer = Trainer(
        max_epochs=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer, data


def detach_from_training(module):
    """So that a training step can be called by itself."""
    module.log = lambda *_, **__: None
    module._trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")


def test_only_the_last_stage_the_branches_and_the_head_learn(tmp_path):
    torch.manual_seed(0)
    module = build(head=SMALL_HEAD)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, tmp_path)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    learned = {name for name, p in module.named_parameters() if p.requires_grad}
    assert changed - {"head.cooccurrence"} <= learned
    for name in before:
        expected = name.startswith(("head.", "backbone.net.layer4")) or ".branch." in name
        if name in dict(module.named_parameters()):
            assert (name in learned) == expected, name
    assert any(".branch." in name and "layer1" in name for name in changed)
    assert any(name.startswith("backbone.net.layer4") for name in changed)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_statistics_are_frozen_if_asked_for(tmp_path, frozen):
    module = build(freeze_batch_norm=frozen, head=SMALL_HEAD)
    fit(module, tmp_path)
    module.train()
    norms = {n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    moved = {name for name, norm in norms.items() if norm.running_mean.abs().sum() > 0}
    assert "head.norm" in norms
    if frozen:
        assert not moved
        assert not any(norm.training for norm in norms.values())
    else:
        assert "head.norm" in moved
        assert module.head.norm.training


def test_a_training_step_is_the_papers_sum(seed):
    torch.manual_seed(seed)
    module = build(gamma=0.3, alpha=2.0, mix_alpha=0.5, mixup_weight=0.7)
    detach_from_training(module)
    batch = {
        "image": torch.randn(6, 3, 64, 64),
        "target": torch.randint(-1, 2, (6, 10)).float(),
        "index": torch.arange(6),
    }
    module.eval()
    torch.manual_seed(seed)
    total = module.training_step(batch, 0)
    torch.manual_seed(seed)
    logits = module(batch["image"])
    expected = PUMLCLoss(0.3, 2.0)(logits, batch["target"])
    expected = expected + 0.7 * PUMixup(0.5)(module, batch["image"], logits, batch["target"])
    torch.testing.assert_close(total, expected)


def test_without_weight_the_mixture_is_never_computed():
    module = build(mixup_weight=0.0)
    detach_from_training(module)
    seen = []
    module.head.register_forward_hook(lambda *_: seen.append(1))
    batch = {"image": torch.randn(4, 3, 64, 64), "target": torch.ones(4, 10), "index": torch.arange(4)}
    module.training_step(batch, 0)
    assert len(seen) == 1


def test_the_graph_is_that_of_the_training_labels_and_in_the_checkpoint(tmp_path):
    module = build()
    trainer, data = fit(module, tmp_path)
    assert torch.equal(module.head.cooccurrence, data.cooccurrence)
    assert not torch.equal(module.head.cooccurrence, torch.eye(10))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = PUMLC.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(again.head.cooccurrence, data.cooccurrence)
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(again.eval()(image), module.eval()(image))


def test_the_graph_comes_from_a_plain_loader_too(tmp_path):
    data = DigitScenesDataModule(16, 8, 8, batch_size=8, num_workers=0, protocol=Protocol(known_fraction=0.5))
    data.setup("fit")
    module = build()
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.fit(module, data.train_dataloader())
    assert torch.equal(module.head.cooccurrence, data.cooccurrence)


def test_thresholds_are_chosen_on_validation_kept_in_the_checkpoint_and_used_by_the_test(tmp_path):
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=40", "--data.num_test=50",
        "--data.batch_size=16", "--model=PUMLC", "--model.backbone=test_resnet", "--model.head=LinearHead",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
    ]  # fmt: skip
    assert main(["fit", *options, "--run_dir", str(tmp_path)]) == 0
    best = tmp_path / "checkpoints" / "best.ckpt"
    thresholds = torch.load(best, weights_only=True)["thresholds"]
    assert set(thresholds) == {"CF1", "OF1"}
    assert main(["test", "--ckpt_path", str(best)]) == 0
    assert main(["predict", "--ckpt_path", str(best)]) == 0
    rows = list(csv.reader((tmp_path / "predictions.csv").open()))[1:]
    probs = torch.tensor([[float(cell) for cell in row[2:12]] for row in rows])
    data = DigitScenesDataModule(64, 40, 50)
    targets = torch.from_numpy(data.read_split("test").states.astype(np.int64))
    metrics = json.loads((tmp_path / "test.json").read_text())["metrics"]
    expected = tuned_f1(probs, targets, thresholds)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    module = PUMLC.load_from_checkpoint(best, weights_only=True).eval()
    data.setup("validate")
    with torch.no_grad():
        batches = [(module(batch["image"]).sigmoid(), batch["target"]) for batch in data.val_dataloader()]
    assert choose_thresholds(*(torch.cat(part) for part in zip(*batches, strict=True))) == thresholds


def test_what_the_paper_adapts_is_logged(tmp_path):
    module = build(mixup_weight=0.5, head=SMALL_HEAD)
    trainer, _ = fit(module, tmp_path)
    logged = trainer.callback_metrics
    assert {"train/loss_pu", "train/loss_mixup", "train/temperature", "train/rebalance", "train/loss"} <= set(logged)
    assert 0 < logged["train/temperature"] <= 1
    assert 0 <= logged["train/rebalance"] <= 1
    parts = logged["train/loss_pu"] + 0.5 * logged["train/loss_mixup"]
    torch.testing.assert_close(logged["train/loss"], parts)


def test_branches_and_head_are_options():
    bare = build(global_branches=None, head=LinearHead)
    assert not any(isinstance(m, LocalGlobalConv) for m in bare.modules())
    some = build(global_branches=GlobalBranches(layers=["layer4"], num_heads=4, reduction=2))
    names = [name for name, m in some.named_modules() if isinstance(m, LocalGlobalConv)]
    assert names
    assert all("layer4" in name for name in names)


def test_given_label_embeddings_reach_the_head(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(10, 12)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    module = build(label_embeddings=str(tmp_path / "vectors.npy"))
    assert isinstance(module.head, SemanticGraphHead)
    np.testing.assert_array_equal(module.head.label_embeddings.numpy(), vectors)
    with pytest.raises(ConfigError, match="this head takes none, leave them out"):
        build(label_embeddings=str(tmp_path / "vectors.npy"), head=LinearHead)


def test_refuses_a_negative_weight_and_a_horizon_before_the_end(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.mixup_weight is at least 0"):
        build(mixup_weight=-1.0)
    data = DigitScenesDataModule(16, 8, 8, batch_size=8)
    trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ConfigError, match="plan the schedule for at least the epochs that are trained"):
        trainer.fit(build(optim=Optim(horizon_epochs=2)), data)


def test_the_command_line_reads_label_embeddings_and_says_when_it_cannot(tmp_path, capsys):
    np.save(tmp_path / "vectors.npy", np.ones((10, 5)))
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=8", "--data.num_test=8",
        "--data.batch_size=8", "--model=PUMLC", "--model.backbone=test_resnet", "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
    ]  # fmt: skip
    given = [f"--model.label_embeddings={tmp_path / 'vectors.npy'}", "--run_dir", str(tmp_path)]
    assert main(["fit", *options, *given, "--model.head.width=16", "--model.head.hidden=8"]) == 0
    best = tmp_path / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["state_dict"]["head.label_embeddings"].shape == (10, 5)
    assert main(["test", "--ckpt_path", str(best)]) == 0
    capsys.readouterr()
    assert main(["fit", *options, "--model.label_embeddings=nowhere.txt", "--run_dir", str(tmp_path / "b")]) == 2
    assert "mlcv: error: label_embeddings: no file nowhere.txt. Give a .npy file" in capsys.readouterr().err
