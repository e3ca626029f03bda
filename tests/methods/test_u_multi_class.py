"""U-MultiClass: three scores a class, renormalised probabilities, and a third class in the targets alone."""

import csv

import pytest
import torch

from mlcv import UMultiClass
from mlcv.cli import main
from mlcv.losses.three_way import three_way_loss
from tests.methods.test_patch_ct import step
from tests.tiny_sets import write_chexpert


def test_probabilities_are_renormalised_over_absent_and_present(rng):
    module = UMultiClass("test_resnet", 4).eval()
    image = torch.randn(3, 3, 32, 32, generator=rng)
    three = module.triples(image).softmax(dim=2)
    expected = three[:, :, 1] / (three[:, :, 0] + three[:, :, 1])
    torch.testing.assert_close(module.probabilities(module(image)), expected)


def test_the_objective_is_three_way_and_heads_keep_their_maps(rng):
    module = UMultiClass("test_resnet", 4).eval()
    batch = {"image": torch.randn(3, 3, 32, 32, generator=rng), "index": torch.arange(3)}
    batch["target"] = torch.randint(-2, 2, (3, 4), generator=rng).float()
    loss, _ = step(module, batch)
    torch.testing.assert_close(loss, three_way_loss(module.triples(batch["image"]), batch["target"]))
    logits, maps = module.forward_with_maps(batch["image"])
    torch.testing.assert_close(logits, module(batch["image"]))
    assert maps.shape[:2] == (3, 4)
    # The head is linear in the mean of the patches, so a map's mean is its logit but for the bias, 0 at first.
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["ignore", "zeros", "ones", "smoothed_zeros", "smoothed_ones", "third_class"])
def test_every_policy_trains_from_the_command_line(policy, tmp_path):
    root = write_chexpert(tmp_path)
    method = "UMultiClass" if policy == "third_class" else "Classifier"
    options = [
        "--data=CheXpertDataModule", f"--data.root={root}", "--data.image_size=32", "--data.batch_size=4",
        "--data.num_workers=0", f"--data.policy.uncertain={policy}", "--data.val_fraction=0.34", f"--model={method}",
        "--model.backbone=test_resnet", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false", "--test_after_fit=true",
    ]  # fmt: skip
    run = tmp_path / "run"
    assert main(["fit", *options, "--run_dir", str(run)]) == 0
    losses = [row["train/loss"] for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss"]]
    assert losses
    assert all(0 < float(value) < 100 for value in losses)
