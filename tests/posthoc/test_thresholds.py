"""Thresholds of a few images, where each one counts: the best by trying them all."""

import pytest
import torch

from mlcv.posthoc.thresholds import choose_class_thresholds


def best(scores, labels, goal, level):
    """By counting at every score, of what is known."""
    if len(set(labels)) < 2:
        return 0.5
    found = []
    for threshold in sorted(set(scores)):
        chosen = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        hits, positives = sum(chosen), sum(labels)
        f1, precision, recall = 2 * hits / (len(chosen) + positives), hits / len(chosen), hits / positives
        found.append((threshold, f1, precision >= level - 1e-9, recall >= level - 1e-9))
    if goal == "f1":
        return {threshold for threshold, f1, *_ in found if f1 > max(one[1] for one in found) - 1e-9}
    if goal == "recall":
        return max(threshold for threshold, *_, is_reached in found if is_reached)
    return min((threshold for threshold, _, is_reached, _ in found if is_reached), default=1 + 1e-6)


@pytest.mark.parametrize("goal", ["f1", "precision", "recall"])
@pytest.mark.parametrize("level", [0.3, 0.5, 0.8, 1.0])
def test_the_threshold_is_the_best_of_all(numpy_rng, goal, level):
    for _ in range(60):
        count = int(numpy_rng.integers(2, 12))
        scores = torch.from_numpy(numpy_rng.integers(0, 6, (count, 3)) / 8)
        targets = torch.from_numpy(numpy_rng.integers(-1, 2, (count, 3)))
        for c, found in enumerate(choose_class_thresholds(scores, targets, goal, level).tolist()):
            known = targets[:, c] >= 0
            wanted = best(scores[known, c].tolist(), targets[known, c].tolist(), goal, level)
            assert found in wanted if isinstance(wanted, set) else found == wanted
