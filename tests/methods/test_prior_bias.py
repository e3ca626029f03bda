"""Heads that begin at each class's log-odds among the known training labels."""

import math

import pytest
import torch

from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.labels.states import log_odds
from mlcv.losses import BCELoss, LogitAdjustedLoss
from mlcv.methods import Classifier, UMultiClass
from mlcv.models import CSRAHead, LinearHead, MLDecoderHead, Query2LabelHead, SemanticGraphHead
from mlcv.runs import Run

TARGETS = torch.tensor([[1.0, 0, -1], [0, 0, -1], [1, -1, 1], [0, 0, -2], [0.5, 0, 1]])


def odds(positive, known):
    p = (positive + 0.5) / (known + 2)
    return math.log(p / (1 - p))


def test_log_odds_are_those_of_what_is_known():
    expected = [odds(2.5, 5), odds(0, 4), odds(2, 2)]
    assert log_odds(TARGETS).tolist() == pytest.approx(expected)


def test_where_only_positives_are_known_all_images_count():
    only = torch.where(TARGETS == 1, 1.0, -1.0)
    assert log_odds(only).tolist() == pytest.approx([odds(2, 5), odds(0, 5), odds(2, 5)])
    assert log_odds(torch.full((4, 2), -1.0)).isfinite().all()
    assert log_odds(torch.empty(0, 2)).isfinite().all()


@pytest.mark.parametrize("head", [LinearHead, MLDecoderHead, Query2LabelHead, SemanticGraphHead])
def test_a_head_begins_there(head):
    method = Classifier("test_resnet", 3, head=head, prior_bias=True)
    method.on_labels(TARGETS)
    assert method.head.class_bias.tolist() == pytest.approx(log_odds(TARGETS).tolist())
    method.eval()
    before, bias = method(torch.zeros(1, 3, 64, 64)), method.head.class_bias
    with torch.no_grad():
        bias += 1
    torch.testing.assert_close(method(torch.zeros(1, 3, 64, 64)), before + 1)  # it is what is added


@pytest.mark.parametrize("loss", [
    BCELoss(pos_weight="auto"), BCELoss(pos_weight=3.0), LogitAdjustedLoss(), LogitAdjustedLoss(tau=0.4),
], ids=["auto", "a weight", "logits adjusted", "by a part"])  # fmt: skip
def test_probabilities_begin_at_the_classes_frequencies_whatever_the_loss_moves(loss):
    method = Classifier("test_resnet", 3, loss=loss, prior_bias=True)
    method.on_labels(TARGETS)
    begun = method.probabilities(method.head.class_bias.detach()[None])[0]
    assert begun.tolist() == pytest.approx(log_odds(TARGETS).sigmoid().tolist(), rel=1e-5)


@pytest.mark.parametrize("method", [
    lambda: Classifier("test_resnet", 3, head=CSRAHead, prior_bias=True),
    lambda: UMultiClass("test_resnet", 3, prior_bias=True),
], ids=["no bias", "three a class"])  # fmt: skip
def test_a_head_without_a_bias_for_each_class_is_refused(method):
    with pytest.raises(ConfigError, match="has no bias for each class"):
        method().on_labels(TARGETS)


def test_it_begins_so_once_and_never_when_a_training_goes_on(tmp_path):
    small = [
        "--data.num_train=32",
        "--data.num_val=8",
        "--data.num_test=8",
        "--data.batch_size=8",
        "--data.image_size=32",
    ]
    small += ["--test_after_fit=false", "--data.num_workers=0", "--trainer.max_epochs=1"]
    first, second = tmp_path / "first", tmp_path / "second"
    still = ["--model.optim.lr=1e-12", "--model.prior_bias=true"]
    assert main(["fit", "--config=digits/bce", *small, *still, "--run_dir", str(first)]) == 0
    last = first / "checkpoints" / "last.ckpt"
    begun = Run(last).contents["state_dict"]["head.classifier.bias"]
    assert (begun < -0.3).all()  # a fifth of the labels are positive
    moved = ["--model.optim.lr=0.1", "--model.prior_bias=true", "--model.optim.weight_decay=0"]
    assert main(["fit", "--config=digits/bce", *small, *moved, "--run_dir", str(second)]) == 0
    learnt = Run(second / "checkpoints" / "last.ckpt").contents["state_dict"]["head.classifier.bias"]
    third = tmp_path / "third"
    other = ["--start_from", str(second / "checkpoints" / "last.ckpt"), "--run_dir", str(third)]
    assert main(["fit", "--config=digits/bce", *small, *still, *other]) == 0
    again = Run(third / "checkpoints" / "last.ckpt").contents["state_dict"]["head.classifier.bias"]
    torch.testing.assert_close(again, learnt)
    assert not torch.allclose(learnt, begun, atol=1e-3)
