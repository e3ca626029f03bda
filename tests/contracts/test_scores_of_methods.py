"""What every method's probabilities and the scores it is ranked by must be to each other."""

import inspect
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import mlcv.methods
from mlcv.commands.export import Deployed
from mlcv.methods import CLIPPretraining, LabelProjector, Student
from mlcv.methods.base import MultiLabelModule
from mlcv.models import LoRA
from mlcv.posthoc.calibrated import Calibration
from tests.contracts.test_methods import METHODS

CLASSES = 6
# Each method, and each of its ways to make probabilities.
CASES = [
    (name, options)
    for name in METHODS
    for options in ([{}, {"single_label": True}] if issubclass(getattr(mlcv.methods, name), Student) else [{}])
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *case[1]]))
def method(request, tiny_clip):
    name, options = request.param
    cls = getattr(mlcv.methods, name)
    if "backbone" in inspect.signature(cls).parameters:
        options = {"backbone": "test_resnet", **options}
    if issubclass(cls, (CLIPPretraining, LabelProjector)):
        options |= {"backbone": f"open_clip:{tiny_clip[0]}", "image_size": 32}
    if issubclass(cls, LabelProjector):
        options |= {"weights": str(tiny_clip[1]), "lora": LoRA(1, 1)}
    return cls(num_classes=CLASSES, **options).eval()


def drawn(method, rng, count=40):
    """Logits as large as the method can have: a cosine times a scale, or anything."""
    logits = 30 * torch.randn(count, CLASSES, generator=rng)
    if isinstance(method, CLIPPretraining):
        return logits.clamp(-80, 80) / 80 * (method.clip.logit_scale.exp().item() - 0.01)
    return logits


def by_definition(method, logits):
    """The logit of each probability, one entry at a time."""
    if isinstance(method, CLIPPretraining):
        cosines = logits.double() / method.clip.logit_scale.exp().item()
        return ((1 + cosines) / (1 - cosines)).log()
    if not getattr(method, "single_label", False):
        return logits.double()
    rows = []
    for row in logits.tolist():
        others = [row[:c] + row[c + 1 :] for c in range(CLASSES)]
        sums = [max(rest) + math.log(math.fsum(math.exp(z - max(rest)) for z in rest)) for rest in others]
        rows.append([z - total for z, total in zip(row, sums, strict=True)])
    return torch.tensor(rows, dtype=torch.float64)


def test_exact_logits_are_those_of_the_probabilities_in_their_precision(method, rng):
    logits = drawn(method, rng) / 5
    for dtype, expected, near in (
        (torch.float64, torch.float64, 1e-9),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 1e-5),
    ):
        given = logits.to(dtype)
        probs, exact = method.probabilities(given), method.exact_logits(given)
        assert probs.dtype == exact.dtype == expected
        torch.testing.assert_close(exact.sigmoid(), probs, rtol=0, atol=near)
    precise = method.precise_probabilities(logits.bfloat16())
    assert not precise.requires_grad
    torch.testing.assert_close(precise, method.probabilities(logits.bfloat16().double()), rtol=0, atol=0)


def test_what_it_is_ranked_by_is_exact_where_probabilities_are_rounded(method, rng):
    logits = drawn(method, rng)
    ranked = method.ranking_scores(logits)
    assert not ranked.requires_grad
    torch.testing.assert_close(ranked, by_definition(method, logits), rtol=1e-9, atol=1e-9)
    # A greater probability never ranks lower, among images and classes alike.
    order = ranked.flatten().argsort()
    assert (method.precise_probabilities(logits).flatten()[order].diff() >= 0).all()


def test_equal_logits_of_an_image_rank_alike(method, rng):
    logits = drawn(method, rng)
    logits[:, 1], logits[:20, 2] = logits[:, 0], logits[:20].amax(dim=1)
    ranked = method.ranking_scores(logits)
    assert torch.equal(ranked[:, 1], ranked[:, 0])
    top = logits[:20] == logits[:20].amax(dim=1, keepdim=True)
    assert ((ranked[:20] == ranked[:20].amax(dim=1, keepdim=True)) == top).all()


def test_an_evaluation_tells_apart_what_probabilities_cannot(method, rng):
    logits = drawn(method, rng)
    if not isinstance(method, CLIPPretraining):
        logits[0], logits[1] = 40, 50
    targets = torch.randint(-1, 2, logits.shape, generator=rng).float()
    targets[:2] = torch.tensor([[0.0], [1.0]])
    method.log = method.log_dict = lambda *arguments, **options: None
    method.collected.update(torch.arange(len(logits)), logits, targets)
    method.on_test_epoch_end()
    expected = by_definition(method, logits).numpy()
    for name, metric in (("AP", average_precision_score), ("AUROC", roc_auc_score)):
        columns = [(targets[:, c] >= 0).numpy() for c in range(CLASSES)]
        ours = method.scores.per_class[name]
        theirs = [metric(targets[rows, c].numpy(), expected[rows, c]) for c, rows in enumerate(columns)]
        assert np.allclose(ours, theirs, rtol=0, atol=1e-9)


def test_predictions_tell_apart_what_float32_cannot(method):
    logits = torch.zeros(3, CLASSES)
    logits[:, 2] = torch.tensor([20.0, 20.5, 25.0])
    if isinstance(method, CLIPPretraining):
        logits[:, 2] = method.clip.logit_scale.exp().item() * (1 - torch.tensor([3e-6, 2e-6, 1e-6]))
    method.forward = lambda image: logits
    probs = method.predict_step({"image": None, "index": torch.arange(3)}, 0)["probs"]
    assert probs.dtype == torch.float64
    assert (probs[:, 2].diff() > 0).all()
    assert (probs[:, 2] < 1).all()


def test_an_exported_model_says_what_a_calibration_makes_of_its_probabilities(method, rng):
    logits = drawn(method, rng) * 2 if not isinstance(method, CLIPPretraining) else drawn(method, rng)
    slope = (0.1 + 3 * torch.rand(CLASSES, generator=rng)).tolist()
    slope[0], offset = 1.0, [0.0, *(2 * torch.rand(CLASSES - 1, generator=rng) - 1).tolist()]
    names = tuple(map(str, range(CLASSES)))
    calibration = Calibration(
        names, tuple(slope), tuple(offset), ("own",) * CLASSES, (0.4,) * CLASSES, "f1", 0.1, 0.1, {}, None, "", 9
    )
    deployed = Deployed(method, (0.5,) * 3, (0.5,) * 3, calibration)
    expected, chosen = calibration.decide(method.precise_probabilities(logits))
    probs, labels = deployed.decide(logits.float())
    torch.testing.assert_close(probs.double(), expected, rtol=0, atol=2e-5)
    clear = (expected - 0.4).abs() > 1e-4
    assert torch.equal(labels[clear], chosen[clear])


def test_whoever_overrides_probabilities_overrides_their_logits():
    for name in METHODS:
        cls = getattr(mlcv.methods, name)
        assert (cls.probabilities is MultiLabelModule.probabilities) == (
            cls.exact_logits is MultiLabelModule.exact_logits
        )
