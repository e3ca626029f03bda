"""Weights of positives: against the formula, with unknown labels, from training to every later command."""

import json
import math

import pytest
import torch

from mlcv import Classifier
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import BCELoss
from mlcv.losses.bce import balancing_weights
from mlcv.methods import MultiLabelModule

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=96", "--data.num_val=16", "--data.num_test=16",
    "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
    "--model.backbone=test_resnet", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--data.protocol.known_fraction=0.7",
    "--model.loss=mlcv.losses.BCELoss", "--model.loss.pos_weight=auto", "--model.optim.horizon_epochs=3",
]  # fmt: skip


def oracle(column):
    """The ratio of one class, one label at a time."""
    positive = sum(t for t in column if t >= 0)
    negative = sum(1 - t for t in column if t >= 0)
    return min(max(negative / positive, 0.01), 100) if positive and negative else 1.0


def loss_oracle(logits, targets, weights):
    total = 0.0
    for z_row, t_row in zip(logits.tolist(), targets.tolist(), strict=True):
        for z, t, w in zip(z_row, t_row, weights, strict=True):
            p = 1 / (1 + math.exp(-z))
            total -= w * t * math.log(p) + (1 - t) * math.log(1 - p) if t >= 0 else 0
    return total / len(logits)


def case(rng, images=200, classes=6):
    rates = torch.tensor([0.5, 0.02, 0.98, 0.1, 0.3, 0.7])[:classes]
    targets = (torch.rand(images, classes, generator=rng) < rates).float()
    targets[torch.rand(images, classes, generator=rng) < 0.4] = -1
    return targets


def test_weights_are_the_ratios_of_known_labels(rng):
    targets = case(rng)
    targets[:5, 3] = torch.tensor([0.25, 0.5, 0.75, 1.0, 0.1])  # soft labels count by parts
    expected = [oracle(column) for column in targets.T.tolist()]
    torch.testing.assert_close(balancing_weights(targets), torch.tensor(expected, dtype=torch.float64))


def test_what_nobody_said_changes_no_weight(rng):
    targets = case(rng)
    more = torch.cat([targets, torch.full((50, 6), -1.0), torch.full((50, 6), -2.0)])
    torch.testing.assert_close(balancing_weights(more), balancing_weights(targets))


def test_weights_are_clamped_and_a_class_that_cannot_be_balanced_has_one():
    rare, common = torch.zeros(1001), torch.ones(1001)
    rare[0], common[0] = 1, 0
    targets = torch.stack([rare, common, torch.zeros(1001), torch.ones(1001), torch.full((1001,), -1.0)], dim=1)
    assert balancing_weights(targets).tolist() == [100, 0.01, 1, 1, 1]


@pytest.mark.parametrize("pos_weight", ["auto", 3.5, 1.0])
def test_the_loss_equals_the_formula(rng, pos_weight):
    targets = case(rng)
    logits = torch.randn(targets.shape, generator=rng, dtype=torch.float64)
    loss = BCELoss(pos_weight=pos_weight)
    loss.on_labels(targets, list("abcdef"))
    weights = [oracle(column) for column in targets.T.tolist()] if pos_weight == "auto" else [pos_weight] * 6
    assert loss(logits, targets).item() == pytest.approx(loss_oracle(logits, targets, weights), rel=1e-6)


def test_weighted_positives_and_negatives_balance(rng):
    """At equal scores the gradients of a class's known positives and negatives cancel: that is what it is for."""
    targets = case(rng)[:, [0, 3, 4, 5]]  # none so rare that its weight is clamped
    targets[:2] = torch.tensor([[1.0], [0.0]])
    loss, logits = BCELoss(pos_weight="auto"), torch.zeros(targets.shape, requires_grad=True)
    loss.on_labels(targets, list("abcd"))
    (gradient,) = torch.autograd.grad(loss(logits, targets), logits)
    torch.testing.assert_close(gradient.sum(dim=0), torch.zeros(4), atol=1e-5, rtol=0)


def test_labels_that_were_never_seen_are_asked_for_in_training_alone():
    loss, logits, targets = BCELoss(pos_weight="auto"), torch.randn(3, 2), torch.ones(3, 2)
    with pytest.raises(ConfigError, match="give a number, or call on_labels"):
        loss(logits, targets)
    assert loss.eval()(logits, targets) == BCELoss()(logits, targets)


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), float("nan"), "balanced"])
def test_a_weight_that_is_none_is_told(wrong):
    with pytest.raises(ConfigError, match="a number above 0, or auto"):
        BCELoss(pos_weight=wrong)


def test_the_log_names_each_class_or_of_many_the_extremes(caplog, rng):
    with caplog.at_level("INFO", logger="mlcv"):
        BCELoss(pos_weight="auto").on_labels(torch.tensor([[1.0, 0], [0, 0], [0, 1]]), ["cat", "dog"])
        many = (torch.rand(400, 30, generator=rng) < 0.2).float()
        BCELoss(pos_weight="auto").on_labels(many, [f"c{n}" for n in range(30)])
    weights = [oracle(column) for column in many.T.tolist()]
    low, high = min(range(30), key=weights.__getitem__), max(range(30), key=weights.__getitem__)
    assert caplog.messages[0] == "loss.pos_weight auto: cat 2, dog 2"
    assert f"from c{low} {weights[low]:.3g} to c{high} {weights[high]:.3g}" in caplog.messages[1]


@pytest.mark.parametrize("more", [[], ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.5"]])
def test_weights_of_training_are_in_the_checkpoint_and_never_counted_again(tmp_path, monkeypatch, more, capsys):
    seen = []
    on_labels = BCELoss.on_labels
    monkeypatch.setattr(BCELoss, "on_labels", lambda self, *given: [seen.append(given[0]), on_labels(self, *given)])
    assert main(["fit", *RUN, *more, "--trainer.max_epochs=2", f"--run_dir={tmp_path}"]) == 0
    assert capsys.readouterr().err.count("loss.pos_weight auto: 0 ") == 1
    (targets,) = seen
    assert (targets == -1).any()
    expected = torch.tensor([oracle(column) for column in targets.T.tolist()])
    last = tmp_path / "checkpoints" / "last.ckpt"
    for path in (last, last.with_name("best.ckpt")):
        state = torch.load(path, weights_only=True)["state_dict"]
        torch.testing.assert_close(state["loss.class_weights"], expected)
    method = Classifier.load_from_checkpoint(last)
    assert isinstance(method, MultiLabelModule)
    torch.testing.assert_close(method.loss.class_weights, expected)
    for verb in ("validate", "test", "predict"):  # of data with other labels
        options = [f"--ckpt_path={last}", f"--run_dir={tmp_path / verb}", "--data.seed=5"]
        assert main([verb, *options]) == 0
    metrics = json.loads((tmp_path / "test" / "test.json").read_text())["metrics"]
    assert 0 < metrics["mAP"] <= 1
    assert len(seen) == 1
    assert main(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=3"]) == 0
    torch.testing.assert_close(torch.load(last, weights_only=True)["state_dict"]["loss.class_weights"], expected)


def test_one_option_is_enough_where_no_loss_is_chosen(tmp_path, capsys):
    run = [option for option in RUN if not option.startswith("--model.loss=")]
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    assert main(["fit", *run, *quick, "--run_dir", str(tmp_path / "run")]) == 0
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert len(state["loss.class_weights"]) == 10
    config = tmp_path / "c.yaml"
    config.write_text("model: {class_path: Classifier, init_args: {backbone: test_resnet, loss: AsymmetricLoss}}\n")
    others = [option for option in run if not option.startswith("--model=")]
    assert main(["fit", "--config", str(config), *others, *quick, "--run_dir", str(tmp_path / "other")]) == 2
    assert "pos_weight" in capsys.readouterr().err
