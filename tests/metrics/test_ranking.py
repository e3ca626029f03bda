import pytest
import torch
from sklearn import metrics as sk

from mlcv.metrics import ranking_metrics


def by_hand(probs, targets):
    """Each metric for one image with unknown entries left out, by its definition, over pairs and ranks; or None."""
    known = [(p, t) for p, t in zip(probs.tolist(), targets.tolist(), strict=True) if t != -1]
    if not known:
        return None
    positives, negatives = [p for p, t in known if t == 1], [p for p, t in known if t == 0]
    pairs = [(a, b) for a in positives for b in negatives]
    loss = sum(b >= a for a, b in pairs) / len(pairs) if pairs else 0.0
    ranks = [sum(q >= p for q, _ in known) for p in positives]
    coverage = max(ranks, default=0)
    hits = [sum(q >= p for q in positives) for p in positives]
    precision = sum(h / r for h, r in zip(hits, ranks, strict=True)) / len(ranks) if pairs else 1.0
    return loss, coverage, precision


@pytest.mark.parametrize("levels", [4, 10**6])  # many ties, hardly any
def test_equals_scikit_learn_where_all_is_known(levels, rng):
    probs = (torch.rand(300, 9, generator=rng) * levels).round() / levels
    targets = (torch.rand(300, 9, generator=rng) < 0.3).long()
    ours = ranking_metrics(probs, targets)
    assert ours["ranking_loss"].item() == pytest.approx(sk.label_ranking_loss(targets, probs), abs=1e-6)
    assert ours["coverage_error"].item() == pytest.approx(sk.coverage_error(targets, probs), abs=1e-6)
    assert ours["LRAP"].item() == pytest.approx(sk.label_ranking_average_precision_score(targets, probs), abs=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 12])
def test_unknown_entries_are_as_if_they_were_not_there(classes, rng):
    probs = (torch.rand(200, classes, generator=rng) * 5).round() / 5
    targets = torch.randint(-1, 2, (200, classes), generator=rng)
    rows = [row for p, t in zip(probs, targets, strict=True) if (row := by_hand(p, t)) is not None]
    expected = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    ours = ranking_metrics(probs, targets)
    assert [ours[name].item() for name in ("ranking_loss", "coverage_error", "LRAP")] == pytest.approx(expected)


def test_infinite_scores_are_ranked_like_others():
    scores = torch.tensor([[-torch.inf, 0.0, torch.inf], [torch.inf, -torch.inf, 1.0]])
    targets = torch.tensor([[1, 0, -1], [1, 1, 0]])
    ours = ranking_metrics(scores, targets)
    assert ours["ranking_loss"].item() == pytest.approx((1 + 1 / 2) / 2)
    assert ours["coverage_error"].item() == pytest.approx((2 + 3) / 2)
    assert ours["LRAP"].item() == pytest.approx((1 / 2 + (1 + 2 / 3) / 2) / 2)


def test_images_without_any_known_label_are_in_no_mean():
    none = ranking_metrics(torch.rand(5, 4), torch.full((5, 4), -1))
    assert all(value.isnan() for value in none.values())


def test_chunks_do_not_change_the_result(rng, monkeypatch):
    probs, targets = torch.rand(50, 7, generator=rng), torch.randint(-1, 2, (50, 7), generator=rng)
    whole = ranking_metrics(probs, targets)
    monkeypatch.setattr("mlcv.metrics.order.ENTRIES", 20)
    for name, value in ranking_metrics(probs, targets).items():
        torch.testing.assert_close(value, whole[name])
