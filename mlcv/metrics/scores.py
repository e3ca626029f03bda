"""Every number that a multi-label result is judged by, averaged over the classes that can be judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_calibration_error,
    binary_precision_recall_curve,
)

from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, evaluable, known
from mlcv.metrics.bootstrap import weighted_areas
from mlcv.metrics.ranking import dense_ranks, ranking_metrics_of_ranks


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
    # Not every accelerator has float64, in which nothing that was told apart becomes equal.
    probs, scores = probs.detach().cpu().double(), scores.detach().cpu().double()
    targets = targets.detach().cpu().to(torch.int64)
    judged = evaluable(targets)
    ranks = dense_ranks(scores)  # in the order of the scores; found once, it sorts all of them
    per_class = _areas(ranks, targets, judged, eleven_point)
    counts = _counts(probs > threshold, targets)
    top = _top(ranks, targets, 3)
    top3, any3 = (precision_recall(_counts(chosen, targets), targets) for chosen in (top & (probs >= threshold), top))
    tp, fp, fn = counts
    per_class |= {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "F1": _ratio(2 * tp, 2 * tp + fp + fn),
    }
    summary = {
        "mAP": per_class["AP"][judged].mean(),
        "AUROC": per_class["AUROC"][judged].mean(),
        **precision_recall(counts, targets),
        **{f"{name}_top3": value for name, value in top3.items()},
        **{f"{name}_top3_any": value for name, value in any3.items()},
        "GAP@20": _global_average_precision(ranks, targets, 20),
        **ranking_metrics_of_ranks(ranks, targets),
        "ECE": expected_calibration_error(probs, targets),
        "num_evaluable_classes": judged.sum(),
    }
    if eleven_point:
        summary["mAP_11point"] = per_class["AP_11point"][judged].mean()
    table = {name: torch.where(judged, column, torch.nan) for name, column in per_class.items()}
    table |= {
        "positives": (targets == POSITIVE).sum(dim=0),
        "negatives": (targets == NEGATIVE).sum(dim=0),
        "unknown": (targets == UNKNOWN).sum(dim=0),
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
    found = precision_recall(_counts(chosen, targets), targets)
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
    return _global_average_precision(dense_ranks(scores), targets, top)


def _global_average_precision(ranks: Tensor, targets: Tensor, top: int) -> Tensor:
    kept = _top(ranks, targets, top)
    pooled, positives = targets[kept], (targets == POSITIVE).sum()
    found = (pooled == POSITIVE).sum()
    if positives == 0:
        return torch.tensor(torch.nan)
    if found == 0:
        return torch.tensor(0.0)
    return binary_average_precision(_between_0_and_1(ranks[kept]), pooled) * found / positives


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
    return (dense_ranks(scores) + 1).double() / (scores.numel() + 1)


def _top(ranks: Tensor, targets: Tensor, count: int) -> Tensor:
    """True for the highest of each image's known classes, the first of equals; False for others, and unknown ones."""
    is_known, classes = known(targets), ranks.shape[1]
    # Of equals an earlier class has a higher place, so that none are equal.
    places = torch.where(is_known, ranks, -1) * classes + torch.arange(classes - 1, -1, -1, device=ranks.device)
    best = places.topk(min(count, classes), dim=1).indices
    return torch.zeros_like(is_known).scatter_(1, best, True) & is_known


def _check(probs: Tensor, targets: Tensor, scores: Tensor, names: Sequence[str]) -> None:
    if not probs.shape == targets.shape == scores.shape or probs.ndim != 2 or probs.shape[1] != len(names):
        shapes = ", ".join(str(tuple(x.shape)) for x in (probs, targets, scores))
        raise ValueError(f"probs and targets are (M, {len(names)}), and scores if given; got {shapes}")
    if not ((probs >= 0) & (probs <= 1)).all():
        raise ValueError("probs lie in [0, 1] and are no NaN; logits need a sigmoid first")
    if scores.isnan().any():
        raise ValueError("scores to rank by hold NaN, which has no rank")
    if not torch.isin(targets, torch.tensor([0, 1, -1], device=targets.device, dtype=targets.dtype)).all():
        raise ValueError("evaluation targets are 0, 1, or -1 where unknown; soft targets have no truth to rank by")


def _areas(scores: Tensor, targets: Tensor, judged: Tensor, eleven_point: bool) -> dict[str, Tensor]:
    """Exact areas of each class; torchmetrics' are those of float32."""
    auroc, precision = weighted_areas(scores, targets, torch.ones(1, len(scores), dtype=torch.float64))[0]
    areas = {"AP": precision, "AUROC": auroc}
    if eleven_point:
        areas["AP_11point"] = torch.full_like(auroc, torch.nan)
        for c in judged.nonzero().flatten().tolist():
            rows = known(targets[:, c])
            areas["AP_11point"][c] = eleven_point_average_precision(scores[rows, c], targets[rows, c])
    return areas


def expected_calibration_error(probs: Tensor, targets: Tensor) -> Tensor:
    """ECE: of all known entries together, over 15 bins of equal width; NaN without any.

    Shape:
        probs (M, C) in [0, 1], targets (M, C) in {0, 1, -1}; a scalar.
    """
    entries = known(targets)
    if not entries.any():
        return torch.tensor(torch.nan)
    return binary_calibration_error(probs[entries], targets[entries], n_bins=15)


def _counts(chosen: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives and false negatives of each class, over known entries: (C,) each."""
    positive, negative = targets == POSITIVE, targets == NEGATIVE
    tp, fp = ((chosen & side).sum(dim=0) for side in (positive, negative))
    return tp, fp, positive.sum(dim=0) - tp


def precision_recall(counts: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> dict[str, Tensor]:
    """`CP`, `CR`, `CF1`, `OP`, `OR`, `OF1`, as `multilabel_scores` defines them.

    Args:
        counts: true positives, false positives and false negatives among known entries.
        targets: of which they are.

    Shape:
        counts (..., C), targets (M, C) in {0, 1, -1}; each result (...).
    """
    tp, fp, fn = counts
    judged = evaluable(targets)
    cp, cr = (_ratio(tp, tp + wrong)[..., judged].mean(dim=-1) for wrong in (fp, fn))
    op, recall = (_ratio(tp.sum(dim=-1), (tp + wrong).sum(dim=-1)) for wrong in (fp, fn))
    if not known(targets).any():
        op, recall = torch.full_like(op, torch.nan), torch.full_like(recall, torch.nan)
    cf1, of1 = (_ratio(2 * p * r, p + r) for p, r in ((cp, cr), (op, recall)))
    return {"CP": cp, "CR": cr, "CF1": cf1, "OP": op, "OR": recall, "OF1": of1}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 / 0 is 0: a class that is never predicted has precision 0."""
    return torch.where(whole == 0, 0.0, part.double() / whole)
