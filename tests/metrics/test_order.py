import numpy as np
import pytest
import torch

from mlcv.metrics import order
from mlcv.metrics.order import AtPositives, by_classes, by_images


def case(rng, rows, length, levels=5):
    scores = (torch.rand(rows, length, generator=rng) * levels).round() / levels
    return scores, torch.randint(-2, 2, (rows, length), generator=rng).to(torch.int8)


def by_hand(scores, targets):
    """Row, positives and negatives with at least, and negatives with more than each positive's score; sorted."""
    found = []
    for row, (values, answers) in enumerate(zip(scores.tolist(), targets.tolist(), strict=True)):
        up, down = ([v for v, t in zip(values, answers, strict=True) if t == side] for side in (1, 0))
        found += [(row, sum(u >= v for u in up), sum(d >= v for d in down), sum(d > v for d in down)) for v in up]
    return sorted(found)


def listed(found):
    return sorted(zip(*(x.tolist() for x in (found.row, found.positives, found.negatives, found.above)), strict=True))


@pytest.mark.parametrize("levels", [1, 4, 10**6])  # all equal, many ties, hardly any
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (40, 7), (3, 300), (200, 1)])
def test_counts_at_positives_are_those_of_the_definition(levels, dtype, rows, length, rng):
    scores, targets = case(rng, rows, length, levels)
    found = AtPositives.of(scores.to(dtype).numpy(), targets.numpy())
    assert listed(found) == by_hand(scores, targets)
    assert found.positives_of_rows.tolist() == (targets == 1).sum(dim=1).tolist()
    assert found.negatives_of_rows.tolist() == (targets == 0).sum(dim=1).tolist()


@pytest.mark.parametrize(("rows", "length"), [(0, 4), (4, 0)])
def test_nothing_has_no_positives(rows, length):
    found = AtPositives.of(np.zeros((rows, length)), np.zeros((rows, length), np.int8))
    assert listed(found) == []
    assert found.average_precision().tolist() == [0.0] * rows


@pytest.mark.parametrize("entries", [1, 20, 10**6])
def test_blocks_of_classes_are_all_classes_in_their_order(entries, rng, monkeypatch):
    monkeypatch.setattr(order, "ENTRIES", entries)
    scores, targets = case(rng, 9, 5)
    parts = [part.average_precision() for part in by_classes(scores, targets)]
    expected = AtPositives.of(scores.T.contiguous().numpy(), targets.T.contiguous().numpy()).average_precision()
    assert np.concatenate(parts).tolist() == expected.tolist()
    assert len(list(by_images(scores))) == {1: 9, 20: 3}.get(entries, 1)


def test_zeros_of_either_sign_are_equal():
    found = AtPositives.of(np.array([[0.0, -0.0, 1.0]]), np.array([[1, 0, 0]], np.int8))
    assert listed(found) == [(0, 1, 2, 1)]
