"""The cleaner: known mixtures, planted mistakes, what a batch becomes, and a training that goes on as it would have."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mlcv.callbacks import Cleaner
from mlcv.callbacks.cleaner import clean_probabilities
from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses import BCELoss, ImpreciseLoss, LogitAdjustedLoss
from tests.losses.oracles import bce

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=96", "--data.num_val=16", "--data.num_test=16",
    "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
    "--model.backbone=test_resnet", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--data.protocol.flip_positives=0.2", "--trainer.callbacks+=Cleaner",
    "--trainer.callbacks.start_epoch=1", "--trainer.callbacks.clean=all", "--trainer.callbacks.prototypes=true",
    "--model.optim.horizon_epochs=3", "--trainer.deterministic=true",
]  # fmt: skip


class Network(nn.Module):
    def __init__(self, loss=None):
        super().__init__()
        self.head, self.loss = nn.Linear(5, 3), loss or BCELoss()

    def exact_logits(self, logits):
        return self.loss.undo(logits)

    def forward(self, image):
        return self.head(image)


class Work:
    """A cleaner at work, without a Trainer."""

    def __init__(self, targets, network=None, **settings):
        self.network, self.cleaner, self.targets = network or Network(), Cleaner(**settings), targets
        train = SimpleNamespace(targets=targets)
        data = SimpleNamespace(datasets={"train": train})
        source = SimpleNamespace(_data_source=SimpleNamespace(instance=None))
        self.trainer = SimpleNamespace(datamodule=data, fit_loop=source, current_epoch=0, max_epochs=9)
        self.cleaner.setup(self.trainer, self.network, "fit")
        self.cleaner.on_train_start(self.trainer, self.network)
        self.targets = train.targets  # which may be others since

    def step(self, image, index, is_seen=True):
        batch = {"image": image, "target": self.targets[index].clone(), "index": index}
        self.cleaner.on_train_batch_start(self.trainer, self.network, batch, 0)
        seen = batch["target"].clone()
        if is_seen:
            self.network(image)
            self.network(image + 1)  # mixed images, say
        self.cleaner.on_train_batch_end(self.trainer, self.network, None, batch, 0)
        return seen

    def begin(self, losses):
        self.cleaner.memory["losses"].copy_(losses)
        self.cleaner.memory["visited"].fill_(True)
        self.trainer.current_epoch = self.cleaner.start_epoch
        self.cleaner.on_train_epoch_start(self.trainer, self.network)
        return self.cleaner.memory["dropped"]


def test_known_mixture():
    """Of an implementation of its own."""
    losses = np.array([0.05, 0.1, 0.12, 0.2, 0.25, 1.1, 1.4, 0.9, 0.08, 0.15])[:, None]
    found = clean_probabilities(losses)
    assert found[5:8].max() < 1e-6
    assert np.delete(found, [5, 6, 7]).min() > 0.9999
    np.testing.assert_allclose(clean_probabilities(100 * losses - 7), found, atol=1e-9)
    assert clean_probabilities(np.full((5, 2), 0.3)).tolist() == [1] * 5


def planted(rng, images=400, classes=3):
    """Labels, losses whose size is the class's, and which of them are wrong."""
    targets = torch.randint(-1, 2, (images, classes), generator=rng).float()
    wrong = torch.rand(images, classes, generator=rng) < 0.15
    losses = 0.1 + 0.02 * torch.randn(images, classes, generator=rng) + wrong * 0.8
    return targets, losses * torch.tensor([0.1, 1.0, 10.0])[:classes], wrong


@pytest.mark.parametrize("clean", ["negatives", "positives", "all"])
@pytest.mark.parametrize("unknown", ["ignore", "negative"])
def test_planted_mistakes_are_dropped_and_nothing_else(rng, clean, unknown):
    targets, losses, wrong = planted(rng)
    is_negative = targets == 0 if unknown == "ignore" else targets <= 0
    kinds = {"negatives": is_negative, "positives": targets == 1, "all": is_negative | (targets == 1)}
    dropped = Work(targets, clean=clean, unknown=unknown).begin(losses)
    assert torch.equal(dropped, wrong & kinds[clean])


def test_few_entries_of_a_class_are_judged_among_those_of_all(rng):
    """By themselves four would fall into two parts."""
    targets, losses, wrong = planted(rng)
    losses, rare = losses / torch.tensor([0.1, 1.0, 10.0]), torch.arange(400)[:, None] >= 4
    targets = torch.where(rare & (torch.arange(3) == 1), 1.0, targets)
    targets[:4, 1], losses[:4, 1], wrong[:4, 1] = 0, torch.tensor([0.1, 0.11, 0.14, 0.13]), False
    assert torch.equal(Work(targets).begin(losses), wrong & (targets == 0))
    assert Work(targets, min_entries=4).begin(losses)[:4, 1].any()
    assert not Work(targets[:5], min_entries=20).begin(losses[:5]).any()


def test_batches_have_what_is_left_and_losses_are_of_the_given_values(rng):
    targets = torch.randint(-1, 2, (30, 3), generator=rng).float()
    loss = LogitAdjustedLoss()
    loss.on_labels(targets, "abc")
    index, image = torch.randperm(30, generator=rng)[:8], torch.randn(8, 5, generator=rng)
    targets[index[0], 1] = 1
    work = Work(targets, Network(loss), unknown="negative")
    assert torch.equal(work.step(image, index), targets[index].clamp(min=0))
    logits = loss.undo(work.network.head(image)).tolist()
    for place, i in enumerate(index.tolist()):
        expected = [bce(z, max(t, 0)) for z, t in zip(logits[place], targets[i].tolist(), strict=True)]
        assert work.cleaner.memory["losses"][i].tolist() == pytest.approx(expected, rel=2e-3)
    assert int(work.cleaner.memory["visited"].sum()) == 8
    work.cleaner.memory["dropped"][index[0], 1] = True
    before = work.cleaner.memory["losses"].clone()
    seen = work.step(image, index)
    assert seen[0, 1] == -1
    assert torch.equal(seen[1:], targets[index].clamp(min=0)[1:])
    assert torch.equal(work.cleaner.memory["losses"], before)  # still of the given value, so that it may come back


def test_images_that_were_not_seen_yet_are_not_judged(rng):
    targets, losses, _ = planted(rng)
    work = Work(targets)
    work.cleaner.memory["losses"].copy_(losses)
    work.cleaner.memory["visited"][:50] = True
    work.cleaner.refit()
    assert work.cleaner.memory["dropped"][:50].any()
    assert not work.cleaner.memory["dropped"][50:].any()


@pytest.mark.parametrize("patches", [(), (4,)])
def test_nearness_equals_its_formula(rng, patches):
    targets = torch.randint(-1, 2, (30, 3), generator=rng).float()
    work = Work(targets, prototypes=True)
    work.cleaner.memory["dropped"][:5] = True
    work.cleaner.memory["dropped"][targets == -1] = False
    sums = np.zeros((2, 3, 5))
    for _ in range(3):
        index, image = torch.randperm(30, generator=rng)[:8], torch.randn(8, *patches, 5, generator=rng)
        if patches:
            work.network.forward = lambda image: work.network.head(image).mean(dim=1)
        work.step(image, index)
        features = image.mean(dim=1).numpy() if patches else image.numpy()
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        sums *= 0.99
        for c in range(3):
            for i, f in zip(index.tolist(), features, strict=True):
                if targets[i, c] >= 0 and i >= 5:
                    sums[int(targets[i, c]), c] += f
        for c in range(3):
            means = [s / max(np.linalg.norm(s), 1e-12) for s in sums[:, c]]
            for i, f in zip(index.tolist(), features, strict=True):
                sign = 1 if targets[i, c] == 1 else -1
                expected = sign * (f @ means[1] - f @ means[0])
                assert work.cleaner.memory["nearness"][i, c].item() == pytest.approx(expected, abs=2e-3)


def test_features_tell_what_losses_do_not(rng):
    """Losses overlap; mistakes lie on the other side of the prototypes."""
    targets, _, wrong = planted(rng)
    losses = 0.3 + 0.15 * torch.randn(400, 3, generator=rng).abs() + 0.2 * wrong
    work = Work(targets, prototypes=True)
    work.cleaner.memory["nearness"].copy_(0.5 + 0.1 * torch.randn(400, 3, generator=rng) - wrong.float())
    by_both, by_losses = work.begin(losses).clone(), Work(targets).begin(losses)
    expected = wrong & (targets == 0)
    mistakes = [(found ^ expected).sum() for found in (by_both, by_losses)]
    assert mistakes[0] < mistakes[1] / 2


def test_what_it_cannot_work_with_is_told(rng):
    targets = torch.zeros(4, 3)
    with pytest.raises(ConfigError, match=r"BCELoss takes those for labels \(unknown: negative\)"):
        Work(targets, Network(BCELoss("negative")))
    with pytest.raises(ConfigError, match=r"ImpreciseLoss takes .*auto\).*latent of ImpreciseLoss"):
        Work(targets, Network(ImpreciseLoss()))
    Work(targets, Network(ImpreciseLoss(unknown="latent")))  # which leaves unknown entries out
    with pytest.raises(ConfigError, match="does not call the method itself"):
        Work(targets).step(torch.zeros(2, 5), torch.arange(2), is_seen=False)
    with pytest.raises(ConfigError, match="have no `targets`"):
        Work([0.0])
    for wrong in ({"start_epoch": 0}, {"threshold": 1.0}, {"min_entries": 1}, {"clean": "some"}, {"unknown": "weak"}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}"):
            Cleaner(**wrong)


def test_a_resumed_training_cleans_what_a_straight_one_would(tmp_path, capsys):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert main(["fit", *RUN, "--trainer.max_epochs=3", f"--run_dir={straight}"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Cleaner")]
    assert len(told) == 2
    assert main(["fit", *RUN, "--trainer.max_epochs=2", f"--run_dir={broken}"]) == 0
    last = broken / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=3"]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("Cleaner")] == told
    states = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (straight, broken)]
    ours, theirs = (state["callbacks"]["Cleaner"] for state in states)
    for name in ours["memory"].keys() - {"labels"}:
        assert torch.equal(ours["memory"][name], theirs["memory"][name])
    assert ours["memory"]["dropped"].any()
    assert torch.equal(ours["sums"], theirs["sums"])
    for name, value in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], value)
    assert math.isfinite(float(ours["memory"]["losses"].max()))
