import functools

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn

import mlcv.losses
from mlcv import Classifier, DigitScenesDataModule, Optim, Protocol
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import AsymmetricLoss, BCELoss, ELRLoss, SPLCLoss
from mlcv.methods import BackboneMethod
from mlcv.methods.base import MultiLabelModule
from mlcv.models import CSRAHead, Head, LinearHead, MLDecoderHead, Query2LabelHead, SemanticGraphHead


def fit(module, tmp_path, epochs=1, **options):
    data = DigitScenesDataModule(32, 16, 16, batch_size=8, image_size=32)
    trainer = Trainer(
        max_epochs=epochs, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer, data


def build(**options):
    return Classifier("test_resnet", 10, **options)


def test_a_module_built_in_python_comes_back_whole_from_weights_only(tmp_path):
    head = functools.partial(CSRAHead, lam=0.4, num_heads=2)
    module = build(head=head, loss=AsymmetricLoss(gamma_neg=2.0, margin=0.1), optim=Optim(lr=3e-3, schedule="cosine"))
    trainer, _ = fit(module, tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert isinstance(again.loss, AsymmetricLoss)
    assert (again.loss.gamma_neg, again.loss.margin) == (2.0, 0.1)
    assert (again.head.lam, len(again.head.temperatures)) == (0.4, 2)
    assert again.optim == module.optim
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(image), module.eval()(image))


class Forgetful(nn.Module):
    def __init__(self, power):
        super().__init__()
        self.exponent = power

    def forward(self, logits, targets):
        return (logits - targets).abs().pow(self.exponent).mean()


def test_an_object_that_no_checkpoint_could_rebuild_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"Forgetful does not keep its argument 'power'.*set self.power = power"):
        build(loss=Forgetful(2))


def test_every_parameter_is_in_one_group_and_norms_and_biases_do_not_decay():
    module = build(optim=Optim(lr=1.0, weight_decay=0.5, backbone_lr_scale=0.1))
    groups = {group["name"]: group for group in module.parameter_groups()}
    grouped = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in module.parameters())
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "backbone": (0.1, 0.5), "backbone_no_decay": (0.1, 0.0), "head": (1.0, 0.5), "head_no_decay": (1.0, 0.0),
    }  # fmt: skip
    assert all(p.ndim > 1 for name in ("backbone", "head") for p in groups[name]["params"])
    assert all(p.ndim == 1 for name in ("backbone_no_decay", "head_no_decay") for p in groups[name]["params"])


def test_position_embeddings_do_not_decay():
    module = Classifier("test_vit", 3, image_size=64)
    decaying = {id(p) for g in module.parameter_groups() if g["weight_decay"] for p in g["params"]}
    assert id(module.backbone.net.pos_embed) not in decaying


@pytest.mark.parametrize("freeze", [[""], ["conv1", "bn1", "layer1"]])
def test_frozen_parts_keep_their_weights_and_statistics_and_the_rest_learns(tmp_path, freeze):
    module = build(optim=Optim(lr=0.1), freeze=freeze)
    net = module.backbone.net
    frozen = {f"{part}.{name}" for part in freeze for name in net.get_submodule(part).state_dict()}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit(module, tmp_path)
    same = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
    assert {name.removeprefix(".") for name in frozen} == same


def test_a_part_that_does_not_exist_is_named_with_near_ones():
    with pytest.raises(ConfigError, match=r"model.freeze: no part 'layer9'; near: layer"):
        build(freeze=["layer9"])


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_every_optimizer_and_schedule_trains(tmp_path, name, schedule):
    module = build(optim=Optim(name=name, schedule=schedule, warmup=0.0 if name == "sgd" else 0.3))
    before = module.head.classifier.weight.clone()
    trainer, _ = fit(module, tmp_path)
    assert trainer.global_step == 4
    assert not torch.equal(before, module.head.classifier.weight)


def rates(tmp_path, **options):
    module = build(optim=Optim(lr=1.0, **options))
    seen = []
    module.on_before_optimizer_step = lambda optimizer: seen.append(optimizer.param_groups[0]["lr"])
    fit(module, tmp_path, epochs=5)
    return seen


def test_the_rate_rises_to_its_peak_and_falls(tmp_path):
    for schedule in ("onecycle", "cosine"):
        seen = rates(tmp_path, schedule=schedule, warmup=0.25)
        peak = seen.index(max(seen))
        assert 4 <= peak <= 5
        assert max(seen) == pytest.approx(1.0, abs=0.05)
        assert seen[-1] < 0.05
    constant = rates(tmp_path, schedule="constant", warmup=0.25)
    assert constant[6:] == pytest.approx([1.0] * 14)


def test_a_longer_horizon_stops_on_the_way(tmp_path):
    planned = rates(tmp_path, schedule="onecycle", horizon_epochs=10)
    assert len(planned) == 20
    assert planned[-1] > 0.5


def test_a_loss_that_counts_epochs_is_told(tmp_path):
    module = build(loss=SPLCLoss())
    fit(module, tmp_path, epochs=3)
    assert module.loss.corrects  # its one epoch of warm-up is over


def test_evaluation_does_not_depend_on_the_batch_size(tmp_path):
    module = build()
    results = []
    for batch_size in (4, 16):
        data = DigitScenesDataModule(32, 30, 16, batch_size=batch_size, image_size=32)
        trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
        results.append(trainer.validate(module, data, verbose=False)[0])
    # Rounding may swap two images of an untrained network that are all but tied.
    assert results[0] == pytest.approx(results[1], rel=1e-3, nan_ok=True)


def test_a_checkpoint_of_other_classes_is_refused_with_both_counts(tmp_path):
    trainer, _ = fit(build(class_names=[f"c{n}" for n in range(10)]), tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    data = DigitScenesDataModule(32, 16, 16, batch_size=8, image_size=32)
    other = Classifier("test_resnet", 3, class_names=["x", "y", "z"])
    with pytest.raises(ConfigError, match=r"knows 10 classes \(c0, c1, c2, ...\), the data 3 \(x, y, z\)"):
        trainer.test(other, data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="lr > 0"):
        Optim(lr=0)
    with pytest.raises(ConfigError, match="warmup"):
        Optim(warmup=1.0)
    with pytest.raises(ConfigError, match="2 class names were given for 3 classes"):
        Classifier("test_resnet", 3, class_names=["a", "b"])


def test_a_training_without_an_end_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="set trainer.max_epochs"):
        fit(build(), tmp_path, epochs=-1)
    assert issubclass(Classifier, MultiLabelModule)


class Mapless(Head):
    def __init__(self, num_features, num_classes):
        super().__init__()
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, pooled):
        return self.classifier(pooled)


@pytest.mark.parametrize("head", [LinearHead, CSRAHead])
def test_activation_maps_of_the_patches_add_up_to_the_scores(head):
    module = Classifier("test_resnet", 10, head=functools.partial(head, **{"lam": 0.0} if head is CSRAHead else {}))
    image = torch.randn(2, 3, 96, 96)
    logits, maps = module.eval().forward_with_maps(image)
    assert maps.shape == (2, 10, 3, 3)
    torch.testing.assert_close(logits, module(image))
    bias = module.head.classifier.bias if head is LinearHead else 0.0
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + bias, logits)


@pytest.mark.parametrize(
    ("backbone", "head", "side"),
    [
        ("test_resnet", functools.partial(MLDecoderHead, width=32, hidden=48), 2),
        ("test_resnet", functools.partial(Query2LabelHead, width=32, hidden=48), 2),
        ("test_resnet", functools.partial(SemanticGraphHead, width=32, hidden=48), 1),
        ("mobilenetv3_small_050", LinearHead, None),  # it widens after pooling
        ("mobilenetv3_small_050", functools.partial(LinearHead, boost=5.0), 2),
        ("test_resnet", Mapless, None),
    ],
)
def test_every_head_that_has_maps_gives_them(backbone, head, side):
    module = Classifier(backbone, 10, head=head).eval()
    image = torch.randn(2, 3, 64, 64)
    logits, maps = module.forward_with_maps(image)
    torch.testing.assert_close(logits, module(image))
    assert (maps is None) == (side is None)
    assert maps is None or maps.shape == (2, 10, side, side)


class Foreign(nn.Module):
    """Binary cross-entropy that takes -1 for a target."""

    def forward(self, logits, targets):
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)


def fit_with(loss, known_fraction, tmp_path):
    data = DigitScenesDataModule(
        32, 8, 8, image_size=32, batch_size=8, protocol=Protocol(known_fraction=known_fraction)
    )
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(Classifier("test_resnet", 10, loss=loss), data)
    return trainer


def test_a_loss_that_takes_unknown_labels_for_numbers_is_refused_while_there_are_any(tmp_path):
    loss = Foreign()
    assert "val/loss" in fit_with(loss, 1.0, tmp_path).callback_metrics
    with pytest.raises(ConfigError, match=r"model.loss: .*does not say that it knows unknown labels \(-1\)"):
        fit_with(loss, 0.5, tmp_path)
    module = Classifier("test_resnet", 2, loss=loss)
    with pytest.raises(ConfigError, match="knows_unknown = True"):  # without a data module
        module.training_step({"image": torch.zeros(1, 3, 32, 32), "target": torch.tensor([[1.0, -1.0]])}, 0)


def test_the_command_line_refuses_it_before_the_first_step(tmp_path, capsys):
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=8", "--data.num_test=8",
        "--data.batch_size=8", "--data.image_size=32", "--model=Classifier", "--model.backbone=test_resnet",
        "--model.loss=torch.nn.BCEWithLogitsLoss", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    assert main(["fit", *options, "--run_dir", str(tmp_path / "a")]) == 0
    assert main(["fit", *options, "--run_dir", str(tmp_path / "b"), "--data.protocol.known_fraction=0.5"]) == 2
    assert "model.loss: torch.nn.modules.loss.BCEWithLogitsLoss does not say that it knows" in capsys.readouterr().err
    assert not list((tmp_path / "b").rglob("*.ckpt"))


def test_own_losses_that_handle_unknown_labels_are_taken(tmp_path):
    class Own(Foreign):
        knows_unknown = True

    fit_with(Own(), 0.5, tmp_path)
    for name in mlcv.losses.__all__:
        assert getattr(getattr(mlcv.losses, name), "knows_unknown", name == "PUMixup"), name


def test_a_loss_with_a_memory_refuses_training_batches_that_do_not_say_of_which_images_they_are():
    module = build(loss=ELRLoss())
    batch = {"image": torch.randn(2, 3, 32, 32), "target": torch.randint(0, 2, (2, 10)).float()}
    module.on_labels(batch["target"])
    with pytest.raises(ConfigError, match="a training batch needs `index`"):
        module.objective(batch)
    with torch.no_grad():
        module.eval().objective(batch)


def test_a_method_without_a_loss_trains_and_is_tested_by_its_own_steps(tmp_path):
    class Own(BackboneMethod):
        def __init__(self, num_classes=10):
            super().__init__("test_resnet", num_classes)
            self.head = LinearHead(self.backbone.pooled_features, num_classes)

        def training_step(self, batch, batch_idx):
            return self(batch["image"]).square().mean()

    data = DigitScenesDataModule(32, 8, 8, image_size=32, batch_size=8)
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=tmp_path,
                      enable_checkpointing=False, accelerator="cpu")  # fmt: skip
    module = Own()
    trainer.fit(module, data)
    assert "val/loss" not in trainer.callback_metrics
    assert "val/mAP" in trainer.callback_metrics
    trainer.test(module, data, verbose=False)
    assert "test/mAP" in trainer.callback_metrics
    del Own.training_step
    with pytest.raises(ConfigError, match="Own has no `loss`, so it needs a training_step of its own"):
        module.training_step(next(iter(data.train_dataloader())), 0)


class LossMethod(BackboneMethod):
    def __init__(self, num_classes=10):
        super().__init__("test_resnet", num_classes)
        self.head = LinearHead(self.backbone.pooled_features, num_classes)

    def loss(self, logits, targets):
        return (logits.sigmoid() - targets).square().mean()


class LossProperty(LossMethod):
    loss = property(lambda self: lambda logits, targets: (logits.sigmoid() - targets).square().mean())


@pytest.mark.parametrize("cls", [LossMethod, LossProperty])
def test_a_loss_may_be_a_method_or_property(cls, tmp_path):
    trainer, _ = fit(cls(), tmp_path)
    assert trainer.callback_metrics["val/loss"] > 0


def test_without_a_head_a_method_says_what_it_needs():
    with pytest.raises(ConfigError, match="BackboneMethod builds no `head`, so it needs a forward of its own"):
        BackboneMethod("test_resnet", 10)(torch.zeros(1, 3, 32, 32))


class Fixed(Classifier):
    """Gives its base what a user then cannot."""

    def __init__(self, backbone, num_classes, **kwargs):
        super().__init__(backbone, num_classes, head=CSRAHead, freeze_batch_norm=True, **kwargs)


class Bare(BackboneMethod):
    def __init__(self, num_classes, class_names=None):
        super().__init__("test_resnet", num_classes, class_names=class_names, optim=Optim(lr=3e-3))
        self.head, self.loss = LinearHead(self.backbone.pooled_features, num_classes), BCELoss()


@pytest.mark.parametrize("module", [lambda: Fixed("test_resnet", 10, weights=None), lambda: Bare(10)])
def test_a_subclass_that_gives_its_base_an_argument_comes_back(module, tmp_path):
    module = module()
    trainer, _ = fit(module, tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = type(module).load_from_checkpoint(tmp_path / "a.ckpt").eval()
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(image), module.eval()(image))
    assert again.optim == module.optim


class Foreign10(LightningDataModule):
    """No DataModule of this project."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def train_dataloader(self):
        return self.data.train_dataloader()


@pytest.mark.parametrize("kind", ["own", "plain", "foreign"])
def test_the_labels_of_all_training_images_are_shown_once(kind, tmp_path):
    seen = []

    class Looks(Classifier):
        def on_labels(self, targets):
            seen.append(targets)

    data = DigitScenesDataModule(16, 8, 8, image_size=32, batch_size=8, num_workers=0)
    data.setup("fit")
    given = {"own": {"datamodule": data}, "plain": {"train_dataloaders": data.train_dataloader()}}
    trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.fit(Looks("test_resnet", 10), **given.get(kind, {"datamodule": Foreign10(data)}))
    assert len(seen) == 1
    assert torch.equal(seen[0], data.datasets["train"].targets)


def test_a_second_training_shows_its_own_labels(tmp_path):
    seen = []

    class Looks(Classifier):
        def on_labels(self, targets):
            seen.append(targets)

    module = Looks("test_resnet", 10)
    for _ in range(2):
        fit(module, tmp_path)
    assert len(seen) == 2


def test_batch_statistics_stay_in_a_method_whose_constructor_says_nothing_of_them(tmp_path):
    class Own(BackboneMethod):
        def __init__(self, backbone, num_classes, **kwargs):
            super().__init__(backbone, num_classes, **kwargs)
            self.head, self.loss = LinearHead(self.backbone.pooled_features, num_classes), BCELoss()

    for frozen in (True, False):
        module = Own("test_resnet", 10, freeze_batch_norm=frozen)
        before = {name: value.clone() for name, value in module.named_buffers() if "running" in name}
        fit(module, tmp_path)
        after = dict(module.named_buffers())
        assert all(torch.equal(after[name], value) for name, value in before.items()) == frozen
