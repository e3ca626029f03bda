"""Every number that a multi-label result is judged by, averaged over the classes that can be judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve

from mlcv.labels.states import NEGATIVE, POSITIVE, known
from mlcv.metrics.order import AtPositives, by_classes, by_images
from mlcv.metrics.ranking import ranking_metrics
from mlcv.numerics import at_least_float32

_BINS = 15
"""Of the expected calibration error, of equal width."""

Counts = tuple[Tensor, Tensor, Tensor, Tensor]
"""True positives, false positives, false negatives and true negatives of each class, over known entries."""


@dataclass(frozen=True)
class Scores:
    """Results on one split.

    Args:
        summary: the numbers over all classes, by name; see `multilabel_scores`.
        per_class: columns of a table with one row a class, in the order of `class_names`; NaN where not evaluable.
        class_names: C names.
        excluded: classes without a known positive or without a known negative, which no mean includes.
        threshold: probability above which a class counts as predicted.
    """

    summary: dict[str, float]
    per_class: dict[str, list[float]]
    class_names: tuple[str, ...]
    excluded: tuple[str, ...]
    threshold: float = 0.5

    def rows(self) -> list[dict[str, float | str]]:
        """The per-class table, a dictionary a row."""
        columns = {"class": list(self.class_names), **self.per_class}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def multilabel_scores(
    probs: Tensor,
    targets: Tensor,
    class_names: Sequence[str] | None = None,
    threshold: float = 0.5,
    eleven_point: bool = False,
    scores: Tensor | None = None,
) -> Scores:
    """Scores of predicted probabilities against the truth; unknown entries take no part in anything.

    The summary holds, over *evaluable* classes (a known positive and a known negative at least), `mAP` and `AUROC`
    (means of the exact areas), `CP`, `CR`, `CF1` (mean precision and recall of the classes, and their harmonic mean,
    as the field defines it); over all known entries together `OP`, `OR`, `OF1`; the same six with the suffix `_top3`
    where of an image's three highest known classes those at or above the threshold are predicted, as the evaluation
    scripts of the field count (a logit of 0 or more), and with `_top3_any` where all three are, as its papers' words
    can be read; `GAP@20` (YouTube-8M); per image `ranking_loss`, `coverage_error` and `LRAP`; `ECE`, the expected
    calibration error over all known entries (15 equal bins); and `num_evaluable_classes`. Means over nothing are NaN,
    and so is all but counts where no label is known.

    Args:
        probs: probabilities, in [0, 1]; never logits.
        targets: in {0, 1}, or -1 where unknown.
        class_names: C names; numbers if None.
        threshold: probability above which a class is predicted.
        eleven_point: add `mAP_11point`, VOC 2007's interpolated average precision.
        scores: what images and classes are ranked by, where a sigmoid has rounded probabilities that differ to the
            same number: logits, or any scale that the classes share. The probabilities if None.

    Shape:
        probs, targets and scores (M, C).

    Raises:
        ValueError: for values outside the ranges above: soft targets cannot be evaluated against.
    """
    names = tuple(class_names) if class_names is not None else tuple(str(c) for c in range(targets.shape[1]))
    scores = probs if scores is None else scores
    _check(probs, targets, scores, names)
    probs, scores = (at_least_float32(each.detach().cpu()) for each in (probs, scores))
    targets = targets.detach().cpu().to(torch.int8)
    chosen, best, likely = (torch.empty_like(targets, dtype=torch.bool) for _ in range(3))
    for p, s, t, *out in by_images(probs, scores, targets, chosen, best, likely):
        p, top = p.double(), _top(s, t, 3)  # PyTorch would round a threshold to float32
        for mask, found in zip(out, (p > threshold, top, top & (p >= threshold)), strict=True):
            mask.copy_(found)
    counts = _counts(chosen, targets)
    top3, any3 = (precision_recall(_counts(mask, targets)) for mask in (likely, best))
    tp, fp, fn, tn = counts
    judged = _evaluable(counts)
    per_class = _areas(scores, targets, judged, eleven_point) | {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "F1": _ratio(2 * tp, 2 * tp + fp + fn),
    }
    summary = {
        "mAP": per_class["AP"][judged].mean(),
        "AUROC": per_class["AUROC"][judged].mean(),
        **precision_recall(counts),
        **{f"{name}_top3": value for name, value in top3.items()},
        **{f"{name}_top3_any": value for name, value in any3.items()},
        "GAP@20": global_average_precision(scores, targets, 20),
        **ranking_metrics(scores, targets),
        "ECE": expected_calibration_error(probs, targets),
        "num_evaluable_classes": judged.sum(),
    }
    if eleven_point:
        summary["mAP_11point"] = per_class["AP_11point"][judged].mean()
    table = {name: torch.where(judged, column, torch.nan) for name, column in per_class.items()}
    table |= {
        "positives": tp + fn,
        "negatives": fp + tn,
        "unknown": len(targets) - (tp + fp + fn + tn),
    }
    return Scores(
        summary={name: float(value) for name, value in summary.items()},
        per_class={name: column.tolist() for name, column in table.items()},
        class_names=names,
        excluded=tuple(name for name, is_judged in zip(names, judged.tolist(), strict=True) if not is_judged),
        threshold=threshold,
    )


def scores_of_decisions(probs: Tensor, chosen: Tensor, targets: Tensor) -> dict[str, float]:
    """`CP`, `CR`, `CF1`, `OP`, `OR`, `OF1` of predicted classes, and the `ECE` of their probabilities.

    Shape:
        probs, chosen (bool) and targets (M, C), as for `multilabel_scores`.
    """
    found = precision_recall(_counts(chosen, targets))
    return {name: float(value) for name, value in {**found, "ECE": expected_calibration_error(probs, targets)}.items()}


def global_average_precision(scores: Tensor, targets: Tensor, top: int = 20) -> Tensor:
    """GAP (Abu-El-Haija et al., YouTube-8M, 2016): average precision of every image's `top` classes pooled.

    The recall's denominator is all known positives, whether or not they were among the top ones. Unknown classes are
    not among them.

    Args:
        scores: higher where a class is likelier; any scale that images and classes share.
        targets: in {0, 1}, or -1 where unknown.
        top: of each image, >= 1.

    Shape:
        scores and targets (M, C); returns a scalar, NaN without positives.
    """
    kept = [(s[best], t[best]) for s, t in by_images(scores, targets) for best in (_top(s, t, top),)]
    pooled, answers = (torch.cat(parts).detach().cpu() for parts in zip(*kept, strict=True))
    pooled = at_least_float32(pooled)
    positives, found = (targets == POSITIVE).sum(), (answers == POSITIVE).sum()
    if positives == 0:
        return torch.tensor(torch.nan)
    area = AtPositives.of(pooled[None].numpy(), answers[None].numpy()).average_precision()
    return torch.from_numpy(area * float(found / positives))[0]


def eleven_point_average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """VOC 2007's average precision: mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or more.

    Shape:
        scores (M,) of any scale, targets (M,) in {0, 1}; returns a scalar.
    """
    precision, recall, _ = binary_precision_recall_curve(_between_0_and_1(scores), targets)
    precision, recall = precision[:-1], recall[:-1]  # the last point, precision 1 at recall 0, is no prediction
    levels = torch.arange(11, device=scores.device, dtype=torch.float64) / 10
    # Recall is a ratio of counts in float32: 0.3 must count as reaching 0.3.
    reached = recall.double()[None] >= levels[:, None] - 1e-6
    return torch.where(reached, precision[None], 0.0).amax(dim=1).mean()


def _between_0_and_1(scores: Tensor) -> Tensor:
    """Numbers in the order of the scores, which torchmetrics does not take for logits and round by a sigmoid."""
    ranks: Tensor = torch.unique(scores, return_inverse=True)[1]
    return (ranks + 1).double() / (scores.numel() + 1)


def _top(scores: Tensor, targets: Tensor, count: int) -> Tensor:
    """True for the highest of each image's known classes, the first of equals; False for others, and unknown ones."""
    is_known, count = known(targets), min(count, scores.shape[1])
    if not count:
        return is_known
    scores = scores.masked_fill(~is_known, -torch.inf)
    last = scores.topk(count, dim=1).values[:, -1:]
    above, equal = scores > last, (scores == last) & is_known
    left = count - above.sum(dim=1, keepdim=True)
    crowded = equal.sum(dim=1) > left[:, 0]
    equal[crowded] &= equal[crowded].cumsum(dim=1) <= left[crowded]
    return above.logical_or_(equal)


def _check(probs: Tensor, targets: Tensor, scores: Tensor, names: Sequence[str]) -> None:
    if not probs.shape == targets.shape == scores.shape or probs.ndim != 2 or probs.shape[1] != len(names):
        shapes = ", ".join(str(tuple(x.shape)) for x in (probs, targets, scores))
        raise ValueError(f"probs and targets are (M, {len(names)}), and scores if given; got {shapes}")
    if probs.numel() and not (probs.min() >= 0 and probs.max() <= 1):  # of NaN, neither
        raise ValueError("probs lie in [0, 1] and are no NaN; logits need a sigmoid first")
    if scores is not probs and scores.isnan().any():
        raise ValueError("scores to rank by hold NaN, which has no rank")
    if not torch.isin(targets, torch.tensor([0, 1, -1], device=targets.device, dtype=targets.dtype)).all():
        raise ValueError("evaluation targets are 0, 1, or -1 where unknown; soft targets have no truth to rank by")


def _areas(scores: Tensor, targets: Tensor, judged: Tensor, eleven_point: bool) -> dict[str, Tensor]:
    """Exact areas of each class; torchmetrics' are those of float32."""
    found = [
        (part.average_precision(), 1 - part.sums((part.negatives + part.above) / 2) / part.pairs())
        for part in by_classes(scores, targets)
    ]
    precision, auroc = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
    areas = {"AP": precision, "AUROC": auroc}
    if eleven_point:
        areas["AP_11point"] = torch.full_like(auroc, torch.nan)
        for c in judged.nonzero().flatten().tolist():
            rows = known(targets[:, c])
            areas["AP_11point"][c] = eleven_point_average_precision(scores[rows, c], targets[rows, c])
    return areas


def expected_calibration_error(probs: Tensor, targets: Tensor) -> Tensor:
    """ECE (Guo et al., ICML 2017): of all known entries together, over 15 bins of equal width; NaN without any.

    Shape:
        probs (M, C) in [0, 1], targets (M, C) in {0, 1, -1}; a scalar.
    """
    gaps = torch.zeros(_BINS, dtype=torch.float64)
    for some, answers in by_images(probs, targets):
        p = some.double().flatten()
        gap = (answers.flatten() - p).mul_(known(answers).flatten())
        gaps += torch.bincount((p * _BINS).long().clamp_(max=_BINS - 1), gap, minlength=_BINS)
    return gaps.abs().sum() / known(targets).sum()


def _counts(chosen: Tensor, targets: Tensor) -> Counts:
    """Of predicted classes against targets, (M, C)."""
    sides = (targets == POSITIVE, targets == NEGATIVE)
    # PyTorch takes ten times as long for counts along rows.
    (tp, positives), (fp, negatives) = (
        (torch.from_numpy(np.count_nonzero(each.cpu().numpy(), axis=0)) for each in (chosen & side, side))
        for side in sides
    )
    return tp, fp, positives - tp, negatives - fp


def _evaluable(counts: Counts) -> Tensor:
    """As `mlcv.labels.evaluable`."""
    tp, fp, fn, tn = counts
    return (tp + fn > 0) & (fp + tn > 0)


def precision_recall(counts: Counts) -> dict[str, Tensor]:
    """`CP`, `CR`, `CF1`, `OP`, `OR`, `OF1`, as `multilabel_scores` defines them.

    Args:
        counts: true positives, false positives, false negatives and true negatives among known entries.

    Shape:
        counts (..., C); each result (...).
    """
    tp, fp, fn, tn = counts
    judged = _evaluable(counts)
    cp, cr = (torch.where(judged, _ratio(tp, tp + wrong), torch.nan).nanmean(dim=-1) for wrong in (fp, fn))
    op, recall = (_ratio(tp.sum(dim=-1), (tp + wrong).sum(dim=-1)) for wrong in (fp, fn))
    if not (tp + fp + fn + tn).any():
        op, recall = torch.full_like(op, torch.nan), torch.full_like(recall, torch.nan)
    cf1, of1 = (_ratio(2 * p * r, p + r) for p, r in ((cp, cr), (op, recall)))
    return {"CP": cp, "CR": cr, "CF1": cf1, "OP": op, "OR": recall, "OF1": of1}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 / 0 is 0: a class that is never predicted has precision 0."""
    return torch.where(whole == 0, 0.0, part.double() / whole)
