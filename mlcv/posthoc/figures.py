"""Figures of a report, as SVG that a page can hold."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from mlcv.labels.states import NEGATIVE, POSITIVE, known
from mlcv.posthoc.judge import Judged

COLOURS = ("#1f5fa8", "#d1602d", "#2f8f5b", "#8a4fa3", "#b3892b", "#5b6770")
"""Of runs, in their order."""
_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "svg.fonttype": "none"}


def curves(models: Sequence[Judged], path: Sequence[str]) -> str:
    """ROC and precision-recall curves of all known entries together, and thinly of each class of the first model.

    Args:
        models: one or more.
        path: a name for each.
    """
    figure, axes = _figure(9.0, 4.0, 2)
    for axis, kind in zip(axes, ("roc", "pr"), strict=True):
        for number, (model, name) in enumerate(zip(models, path, strict=True)):
            targets, scores = model.truth.targets, model.scores
            if number == 0:
                for c in range(targets.shape[1]):
                    _line(axis, kind, targets[:, c], scores[:, c], color="#b9c3cf", linewidth=0.6)
            _line(axis, kind, targets.flatten(), scores.flatten(), color=colour(number), linewidth=2, label=name)
        names = ("1 - specificity", "sensitivity") if kind == "roc" else ("recall", "precision")
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=names[0], ylabel=names[1])
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, loc="lower right")
    return _svg(figure)


def reliability(models: Sequence[Judged], names: Sequence[str], bins: int = 15) -> str:
    """How often labels of a probability are there, over bins of equal mass of all known entries."""
    figure, (axis, below) = _figure(9.0, 4.0, 2)
    axis.plot([0, 1], [0, 1], color="#888", linewidth=0.8, linestyle="--")
    for number, (model, name) in enumerate(zip(models, names, strict=True)):
        rows = known(model.truth.targets)
        order = model.scores[rows].argsort()
        said, true = model.scores[rows][order], model.truth.targets[rows].double()[order]
        points = [
            (p.mean(), t.mean())
            for p, t in zip(said.tensor_split(bins), true.tensor_split(bins), strict=True)
            if len(p)
        ]
        axis.plot(*zip(*points, strict=True), "o-", color=colour(number), markersize=4, linewidth=1.2, label=name)
        below.hist(said.numpy(), bins=np.linspace(0, 1, 31), histtype="step", color=colour(number), log=True)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="part that is there")
    axis.legend(frameon=False, loc="upper left")
    below.set(xlim=(0, 1), xlabel="predicted probability", ylabel="entries")
    return _svg(figure)


def matrices(tables: dict[str, Tensor], class_names: Sequence[str]) -> str:
    """Heat maps of numbers in [0, 1], each (C, C); columns and rows are classes."""
    count = len(class_names)
    figure, axes = _figure(4.6 * len(tables), 4.6, len(tables))
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        image = axis.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=max(float(table.nan_to_num().max()), 1e-6))
        axis.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axis, shrink=0.7).ax.tick_params(labelsize=7)
        if count <= 30:
            axis.set_xticks(range(count), class_names, rotation=90, fontsize=7)
            axis.set_yticks(range(count), class_names, fontsize=7)
        axis.spines[:].set_visible(False)
    return _svg(figure)


def confusion(chosen: Tensor, targets: Tensor) -> Tensor:
    """How often class j is predicted though absent, among images that have class i: (C, C), NaN where there is none.

    Shape:
        chosen bool and targets in {0, 1, -1}, both (M, C).
    """
    there, absent = (targets == POSITIVE).double(), (targets == NEGATIVE).double()
    return (there.T @ (absent * chosen)) / (there.T @ absent)


def together(present: Tensor, targets: Tensor) -> Tensor:
    """How often class j is there among images that have class i: (C, C), NaN where there is none and where i is j.

    Only images count that both classes are known of.

    Shape:
        present bool, of the truth or as predicted, and targets in {0, 1, -1}, both (M, C).
    """
    is_known = known(targets)
    there = (present & is_known).double()
    return ((there.T @ there) / (there.T @ is_known.double())).fill_diagonal_(torch.nan)


def _line(axis: Any, kind: str, targets: Tensor, scores: Tensor, **style: Any) -> None:
    rows = known(targets)
    truth = targets[rows].numpy()
    if not 0 < truth.sum() < len(truth):
        return
    if kind == "roc":
        x, y, _ = roc_curve(truth, scores[rows].numpy())
    else:
        y, x, _ = precision_recall_curve(truth, scores[rows].numpy())
    keep = np.unique(np.linspace(0, len(x) - 1, 400).round().astype(int))  # what a screen can show
    axis.plot(x[keep], y[keep], **style)


def colour(number: int) -> str:
    """Of a run."""
    return COLOURS[number % len(COLOURS)]


def _figure(width: float, height: float, panels: int) -> tuple[Figure, Any]:
    from matplotlib import rc_context  # noqa: PLC0415

    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(1, panels, squeeze=False)[0]


def _svg(figure: Figure) -> str:
    from matplotlib import rc_context  # noqa: PLC0415

    file = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]
