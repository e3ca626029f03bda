"""One threshold a class, chosen on validation data for what it is to achieve."""

from typing import Literal, get_args

import torch
from torch import Tensor

from mlcv.errors import ConfigError, check_choice
from mlcv.labels.states import POSITIVE, evaluable, known

Goal = Literal["f1", "precision", "recall"]


def choose_class_thresholds(probs: Tensor, targets: Tensor, goal: Goal = "f1", level: float = 0.9) -> Tensor:
    """Thresholds t (C,), a class being predicted where its probability is >= t.

    Args:
        probs: of the validation images.
        targets: in {0, 1}, or -1 where unknown.
        goal: `f1` is the threshold with the highest F1; `precision` the lowest one at which precision is at least
            `level`, and so is it above infinitely many nothing: a class that never reaches it gets 1 + 1e-6, which
            predicts none; `recall` the highest one at which recall is at least `level`.
        level: in (0, 1], for precision and recall.

    Shape:
        probs and targets (M, C). A class without a known positive or negative gets 0.5.

    Raises:
        ConfigError: for a level outside (0, 1].
    """
    check_choice("goal", goal, get_args(Goal))
    if not 0 < level <= 1:
        raise ConfigError(f"the level of {goal} lies in (0, 1], got {level}")
    thresholds = torch.full((probs.shape[1],), 0.5, dtype=torch.float64)
    for c in evaluable(targets).nonzero().flatten().tolist():
        rows = known(targets[:, c])
        scores, order = probs[rows, c].double().sort(descending=True)
        hits = (targets[rows, c] == POSITIVE)[order].cumsum(dim=0)
        # Equal scores are predicted together: only the last of them is a threshold.
        is_last = torch.ones_like(scores, dtype=torch.bool)
        is_last[:-1] = scores[1:] < scores[:-1]
        chosen, hits = torch.arange(1, len(scores) + 1)[is_last], hits[is_last]
        candidates, positives = scores[is_last], hits[-1]
        precision, recall = hits / chosen, hits / positives
        if goal == "f1":
            thresholds[c] = candidates[(2 * hits / (chosen + positives)).argmax()]
        elif goal == "recall":
            thresholds[c] = candidates[recall >= level - 1e-9].max()
        else:
            good = candidates[precision >= level - 1e-9]
            thresholds[c] = good.min() if len(good) else 1 + 1e-6
    return thresholds


def top_k(probs: Tensor, k: int) -> Tensor:
    """The k likeliest classes of each image: bool (M, C); all where C <= k."""
    chosen = torch.zeros_like(probs, dtype=torch.bool)
    return chosen.scatter_(1, probs.topk(min(k, probs.shape[1]), dim=1).indices, True)
