"""Every number that a multi-label result is judged by, averaged over the classes that can be judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_precision_recall_curve,
    multilabel_stat_scores,
)

from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, evaluable, known
from mlcv.metrics.ranking import ranking_metrics


@dataclass(frozen=True)
class Scores:
    """Results on one split.

    Args:
        summary: the numbers over all classes, by name; see `multilabel_scores`.
        per_class: columns of a table with one row a class, in the order of `class_names`; NaN where not evaluable.
        class_names: C names.
        excluded: classes without a known positive or without a known negative, which no mean includes.
    """

    summary: dict[str, float]
    per_class: dict[str, list[float]]
    class_names: tuple[str, ...]
    excluded: tuple[str, ...]

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
) -> Scores:
    """Scores of predicted probabilities against the truth; unknown entries take no part in anything.

    The summary holds, over *evaluable* classes (a known positive and a known negative at least), `mAP` and `AUROC`
    (means of the exact areas), `CP`, `CR`, `CF1` (mean precision and recall of the classes, and their harmonic mean,
    as the field defines it); over all known entries together `OP`, `OR`, `OF1`; the same six with the suffix `_top3`
    where the three highest classes of an image are predicted; `GAP@20` (YouTube-8M); per image `ranking_loss`,
    `coverage_error` and `LRAP`; `ECE`, the expected calibration error over all known entries (15 equal bins); and
    `num_evaluable_classes`. Means over nothing are NaN.

    Args:
        probs: probabilities, in [0, 1]; never logits.
        targets: in {0, 1}, or -1 where unknown.
        class_names: C names; numbers if None.
        threshold: probability above which a class is predicted.
        eleven_point: add `mAP_11point`, VOC 2007's interpolated average precision.

    Shape:
        probs and targets (M, C).

    Raises:
        ValueError: for values outside the ranges above: soft targets cannot be evaluated against.
    """
    names = tuple(class_names) if class_names is not None else tuple(str(c) for c in range(targets.shape[1]))
    _check(probs, targets, names)
    probs, targets = probs.detach().float(), targets.detach().to(torch.int64)
    judged = evaluable(targets)
    per_class = _areas(probs, targets, judged, eleven_point)
    chosen = (probs > threshold).long()
    top3 = torch.zeros_like(chosen).scatter_(1, probs.topk(min(3, probs.shape[1]), dim=1).indices, 1)
    counts = _counts(chosen, targets)
    tp, fp, fn = counts
    per_class |= {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "F1": _ratio(2 * tp, 2 * tp + fp + fn),
    }
    summary = {
        "mAP": per_class["AP"][judged].mean(),
        "AUROC": per_class["AUROC"][judged].mean(),
        **precision_recall(counts, judged),
        **{f"{name}_top3": value for name, value in precision_recall(_counts(top3, targets), judged).items()},
        "GAP@20": global_average_precision(probs, targets),
        **ranking_metrics(probs, targets),
        "ECE": _calibration_error(probs, targets),
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
    )


def scores_of_decisions(probs: Tensor, chosen: Tensor, targets: Tensor) -> dict[str, float]:
    """`CP`, `CR`, `CF1`, `OP`, `OR`, `OF1` of predicted classes, and the `ECE` of their probabilities.

    Shape:
        probs, chosen (bool) and targets (M, C), as for `multilabel_scores`.
    """
    found = precision_recall(_counts(chosen.long(), targets), evaluable(targets))
    return {name: float(value) for name, value in {**found, "ECE": _calibration_error(probs, targets)}.items()}


def global_average_precision(probs: Tensor, targets: Tensor, top: int = 20) -> Tensor:
    """GAP (Abu-El-Haija et al., YouTube-8M, 2016): average precision of every image's `top` classes pooled.

    The recall's denominator is all known positives, whether or not they were among the top ones.

    Shape:
        probs (M, C), targets (M, C) in {0, 1, -1}; returns a scalar, NaN without positives.
    """
    is_known = known(targets)
    best = torch.where(is_known, probs, -1.0).topk(min(top, probs.shape[1]), dim=1).indices
    kept = is_known.gather(1, best)
    pooled_probs, pooled = probs.gather(1, best)[kept], targets.gather(1, best)[kept]
    found, positives = (pooled == POSITIVE).sum(), (targets == POSITIVE).sum()
    if positives == 0:
        return probs.new_tensor(torch.nan)
    if found == 0:
        return probs.new_tensor(0.0)
    return binary_average_precision(pooled_probs, pooled) * found / positives


def eleven_point_average_precision(probs: Tensor, targets: Tensor) -> Tensor:
    """VOC 2007's average precision: mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or more.

    Shape:
        probs (M,), targets (M,) in {0, 1}; returns a scalar.
    """
    precision, recall, _ = binary_precision_recall_curve(probs, targets)
    precision, recall = precision[:-1], recall[:-1]  # the last point, precision 1 at recall 0, is no prediction
    levels = torch.arange(11, device=probs.device, dtype=torch.float64) / 10
    # Recall is a ratio of counts in float32: 0.3 must count as reaching 0.3.
    reached = recall.double()[None] >= levels[:, None] - 1e-6
    return torch.where(reached, precision[None], 0.0).amax(dim=1).mean()


def _check(probs: Tensor, targets: Tensor, names: Sequence[str]) -> None:
    if probs.shape != targets.shape or probs.ndim != 2 or probs.shape[1] != len(names):
        raise ValueError(
            f"probs and targets are (M, {len(names)}), got {tuple(probs.shape)} and {tuple(targets.shape)}"
        )
    if not ((probs >= 0) & (probs <= 1)).all():
        raise ValueError("probs lie in [0, 1] and are no NaN; logits need a sigmoid first")
    if not torch.isin(targets, torch.tensor([0, 1, -1], device=targets.device, dtype=targets.dtype)).all():
        raise ValueError("evaluation targets are 0, 1, or -1 where unknown; soft targets have no truth to rank by")


def _areas(probs: Tensor, targets: Tensor, judged: Tensor, eleven_point: bool) -> dict[str, Tensor]:
    columns: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"AP": binary_average_precision, "AUROC": binary_auroc}
    if eleven_point:
        columns["AP_11point"] = eleven_point_average_precision
    areas = {name: torch.full((targets.shape[1],), torch.nan, device=probs.device) for name in columns}
    for c in judged.nonzero().flatten().tolist():
        rows = known(targets[:, c])
        for name, area in columns.items():
            areas[name][c] = area(probs[rows, c], targets[rows, c])
    return areas


def _calibration_error(probs: Tensor, targets: Tensor) -> Tensor:
    entries = known(targets)
    if not entries.any():
        return torch.tensor(torch.nan)
    return binary_calibration_error(probs[entries], targets[entries], n_bins=15)


def _counts(chosen: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives and false negatives of each class, over known entries: (C,) each."""
    if targets.shape[1] == 1:  # torchmetrics' multi-label functions want two columns at least
        chosen, targets = chosen.repeat(1, 2), targets.repeat(1, 2)
        tp, fp, _, fn, _ = _stat_scores(chosen, targets)[:1].unbind(dim=1)
    else:
        tp, fp, _, fn, _ = _stat_scores(chosen, targets).unbind(dim=1)
    return tp, fp, fn


def _stat_scores(chosen: Tensor, targets: Tensor) -> Tensor:
    return multilabel_stat_scores(chosen, targets, targets.shape[1], average="none", ignore_index=UNKNOWN)


def precision_recall(counts: tuple[Tensor, Tensor, Tensor], judged: Tensor) -> dict[str, Tensor]:
    """`CP`, `CR`, `CF1`, `OP`, `OR`, `OF1`, as `multilabel_scores` defines them.

    Args:
        counts: true positives, false positives and false negatives.
        judged: the classes over which CP and CR are means.

    Shape:
        counts (..., C), judged bool (C,); each result (...).
    """
    tp, fp, fn = counts
    cp, cr = (_ratio(tp, tp + wrong)[..., judged].mean(dim=-1) for wrong in (fp, fn))
    op, recall = (_ratio(tp.sum(dim=-1), (tp + wrong).sum(dim=-1)) for wrong in (fp, fn))
    cf1, of1 = (_ratio(2 * p * r, p + r) for p, r in ((cp, cr), (op, recall)))
    return {"CP": cp, "CR": cr, "CF1": cf1, "OP": op, "OR": recall, "OF1": of1}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 / 0 is 0: a class that is never predicted has precision 0."""
    return torch.where(whole == 0, 0.0, part / whole)
