import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from mlcv.metrics import global_average_precision, multilabel_scores, ranking_metrics
from mlcv.metrics.scores import eleven_point_average_precision

X = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]]).sigmoid()
Y = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]])


def case(rng, images=400, classes=8, unknown=0.3, levels=10**6):
    probs = (torch.rand(images, classes, generator=rng) * levels).round() / levels
    targets = (torch.rand(images, classes, generator=rng) < 0.25).long()
    return probs, torch.where(torch.rand(images, classes, generator=rng) < unknown, -1, targets)


def per_class(metric, probs, targets):
    """A scikit-learn metric of each class over its known entries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = zip(targets.T.numpy(), probs.T.numpy(), strict=True)
        return [metric(t[t >= 0], p[t >= 0]) for t, p in columns]


@pytest.mark.parametrize("levels", [10, 10**6])
@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_areas_equal_scikit_learn(rng, levels, unknown):
    probs, targets = case(rng, levels=levels, unknown=unknown)
    scores = multilabel_scores(probs, targets)
    for name, metric in (("AP", sk.average_precision_score), ("AUROC", sk.roc_auc_score)):
        expected = per_class(metric, probs, targets)
        assert scores.per_class[name] == pytest.approx(expected, abs=1e-6)
        summary = {"AP": "mAP", "AUROC": "AUROC"}[name]
        assert scores.summary[summary] == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("levels", [0.1, 10**6])  # many ties, hardly any
def test_what_is_ranked_goes_by_scores_that_no_sigmoid_has_rounded(rng, levels):
    """Above 17 the sigmoid is 1 in float32, above 37 in float64; below, it is 0 or nearly so."""
    logits = (30 * torch.randn(300, 6, generator=rng) * levels).round() / levels + 20
    targets = torch.where(torch.rand(300, 6, generator=rng) < 0.3, -1, (torch.rand(300, 6, generator=rng) < 0.3).long())
    targets[:2] = torch.tensor([[1], [0]])
    found = multilabel_scores(logits.sigmoid(), targets, eleven_point=True, scores=logits)
    for name, metric in (("AP", sk.average_precision_score), ("AUROC", sk.roc_auc_score)):
        assert found.per_class[name] == pytest.approx(per_class(metric, logits, targets), abs=1e-9)
    # The order is all that counts, so a flat function of it, whose sigmoid rounds nothing, ranks alike.
    flat = multilabel_scores(torch.full_like(logits, 0.9), targets, eleven_point=True, scores=logits.double() / 100)
    ranked = ("mAP_11point", "GAP@20", "ranking_loss", "coverage_error", "LRAP", "OF1_top3_any", "CF1_top3_any")
    assert [found.summary[name] for name in ranked] == [flat.summary[name] for name in ranked]
    assert [found.summary[name] for name in ranked] != [
        multilabel_scores(logits.sigmoid(), targets, eleven_point=True).summary[name] for name in ranked
    ]


@pytest.mark.parametrize("top", ["", "_top3", "_top3_any"])
def test_precision_recall_and_f1_equal_scikit_learn(rng, top):
    probs, targets = case(rng)
    chosen = (probs > 0.5).long()
    least = 0.5 if top == "_top3" else 0.0
    for row, (p, t) in enumerate(zip(probs.tolist(), targets.tolist(), strict=True)) if top else ():
        highest = sorted((-value, c) for c, value in enumerate(p) if t[c] != -1)[:3]
        chosen[row] = torch.tensor([c in [place for value, place in highest if -value >= least] for c in range(len(p))])
    summary = multilabel_scores(probs, targets).summary
    cp = np.mean(per_class(lambda t, p: sk.precision_score(t, p, zero_division=0), chosen, targets))
    cr = np.mean(per_class(lambda t, p: sk.recall_score(t, p, zero_division=0), chosen, targets))
    flat = targets >= 0
    op, recall = (metric(targets[flat], chosen[flat]) for metric in (sk.precision_score, sk.recall_score))
    expected = [cp, cr, 2 * cp * cr / (cp + cr), op, recall, 2 * op * recall / (op + recall)]
    ours = [summary[f"{name}{top}"] for name in ("CP", "CR", "CF1", "OP", "OR", "OF1")]
    assert ours == pytest.approx(expected, abs=1e-6)


def test_gap_equals_the_official_code_on_its_check_values():
    assert global_average_precision(X, Y).item() == pytest.approx(0.942857, abs=1e-6)
    assert global_average_precision(X, Y, top=1).item() == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_scored_as_the_numbers_that_it_holds(dtype, rng):
    logits, targets = torch.randn(30, 4, generator=rng).to(dtype), torch.randint(-1, 2, (30, 4), generator=rng)
    probs = logits.sigmoid()
    assert multilabel_scores(probs, targets, scores=logits) == multilabel_scores(
        probs.double(), targets, scores=logits.double()
    )
    assert global_average_precision(logits, targets) == global_average_precision(logits.double(), targets)
    assert ranking_metrics(logits, targets) == ranking_metrics(logits.double(), targets)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_a_threshold_is_no_float32(threshold):
    near = torch.tensor([[threshold]])  # 0.3 is rounded up, 0.7 down
    chosen = multilabel_scores(near, torch.ones(1, 1).long(), threshold=threshold).summary["OR"]
    assert chosen == float(near.double().item() > threshold)


def test_gap_counts_every_known_positive_of_the_set(rng):
    _, targets = case(rng, images=60, classes=40)
    probs = torch.randperm(60 * 40, generator=rng).view(60, 40) / 2400  # none are equal
    pooled = []
    for p, t in zip(probs.tolist(), targets.tolist(), strict=True):
        row = sorted(((a, b) for a, b in zip(p, t, strict=True) if b != -1), reverse=True)[:20]
        pooled += row
    pooled.sort(reverse=True)
    hits, area, positives = 0, 0.0, int((targets == 1).sum())
    for rank, (_, t) in enumerate(pooled, 1):
        hits += t
        area += t * hits / rank
    assert global_average_precision(probs, targets).item() == pytest.approx(area / positives, abs=1e-5)


def test_classes_that_cannot_be_judged_are_in_no_mean_and_named(rng):
    probs, targets = case(rng, classes=5, unknown=0.0)
    whole = multilabel_scores(probs[:, :2], targets[:, :2])
    targets[:, 2], targets[:, 3], targets[:, 4] = 1, 0, -1
    scores = multilabel_scores(probs, targets, ["a", "b", "all", "none", "nobody"])
    assert scores.excluded == ("all", "none", "nobody")
    assert scores.summary["num_evaluable_classes"] == 2
    for name in ("mAP", "AUROC", "CP", "CR", "CF1"):
        assert scores.summary[name] == pytest.approx(whole.summary[name])
    assert math.isnan(scores.per_class["AP"][2])
    assert scores.rows()[4]["unknown"] == len(targets)


def test_nothing_to_judge_gives_nan_and_no_crash():
    scores = multilabel_scores(torch.rand(4, 3), -torch.ones(4, 3, dtype=torch.long), eleven_point=True)
    assert scores.summary.pop("num_evaluable_classes") == 0
    assert all(math.isnan(value) for value in scores.summary.values())


def test_one_class_and_one_image_work(rng):
    probs, targets = case(rng, classes=1)
    assert multilabel_scores(probs, targets).summary["mAP"] == pytest.approx(
        per_class(sk.average_precision_score, probs, targets)[0], abs=1e-6
    )
    assert multilabel_scores(probs[:1], targets[:1]).summary["num_evaluable_classes"] == 0


def test_eleven_point_average_precision_is_vocs(rng):
    probs, targets = torch.rand(50, generator=rng), (torch.rand(50, generator=rng) < 0.3).long()
    order = probs.argsort(descending=True).tolist()
    precisions, recalls, hits = [], [], 0
    for rank, i in enumerate(order, 1):
        hits += int(targets[i])
        precisions.append(hits / rank)
        recalls.append(hits / int(targets.sum()))
    levels = [
        max((p for p, r in zip(precisions, recalls, strict=True) if r >= k / 10 - 1e-9), default=0) for k in range(11)
    ]
    assert eleven_point_average_precision(probs, targets).item() == pytest.approx(sum(levels) / 11, abs=1e-6)
    both = multilabel_scores(probs[:, None], targets[:, None], eleven_point=True)
    assert both.summary["mAP_11point"] == pytest.approx(sum(levels) / 11, abs=1e-6)


@pytest.mark.parametrize(
    ("probs", "targets", "problem"),
    [
        (torch.tensor([[1.5]]), torch.tensor([[1]]), "logits need a sigmoid"),
        (torch.tensor([[float("nan")]]), torch.tensor([[1]]), "no NaN"),
        (torch.tensor([[0.5]]), torch.tensor([[0.3]]), "soft targets"),
        (torch.tensor([[0.5, 0.1]]), torch.tensor([[1]]), "probs and targets are"),
    ],
)
def test_what_cannot_be_scored_is_refused(probs, targets, problem):
    with pytest.raises(ValueError, match=problem):
        multilabel_scores(probs, targets)


def test_scores_to_rank_by_are_of_the_same_entries_and_no_nan():
    probs, targets = torch.rand(2, 3), torch.ones(2, 3).long()
    with pytest.raises(ValueError, match="scores if given"):
        multilabel_scores(probs, targets, scores=probs[:1])
    with pytest.raises(ValueError, match="scores to rank by hold NaN"):
        multilabel_scores(probs, targets, scores=torch.full((2, 3), torch.nan))


def test_calibration_error_is_the_gap_between_probability_and_frequency_over_known_entries(rng):
    probs = torch.rand(60, 3, generator=rng)
    targets = torch.randint(-1, 2, (60, 3), generator=rng)
    bins = [[] for _ in range(15)]
    for p, t in zip(probs.flatten().tolist(), targets.flatten().tolist(), strict=True):
        if t != -1:
            bins[min(int(p * 15), 14)].append((p, t))
    entries = sum(map(len, bins))
    expected = sum(abs(sum(p - t for p, t in part)) for part in bins) / entries
    assert multilabel_scores(probs, targets).summary["ECE"] == pytest.approx(expected, abs=1e-6)


def test_calibration_error_of_nothing_is_no_number():
    assert math.isnan(multilabel_scores(torch.rand(2, 3), torch.full((2, 3), -1)).summary["ECE"])
