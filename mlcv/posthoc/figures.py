"""Figures: of a report, as SVG that a page can hold; of an evaluation, as PNG with readers' operating points."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from mlcv.files import whole_file
from mlcv.labels.states import NEGATIVE, POSITIVE, known
from mlcv.posthoc.judge import Judged

COLOURS = ("#1f5fa8", "#d1602d", "#2f8f5b", "#8a4fa3", "#b3892b", "#5b6770")
"""Of runs, in their order."""
_STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "svg.fonttype": "none",
    "text.parse_math": False, "text.usetex": False,
}  # fmt: skip
"""A `$` in a class's name is no formula."""


def legible(name: str) -> str:
    """A name that matplotlib shows in a legend as it is: it leaves out those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


@rc_context(_STYLE)
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
            _line(
                axis, kind, targets.flatten(), scores.flatten(), color=colour(number), linewidth=2, label=legible(name)
            )
        names = ("1 - specificity", "sensitivity") if kind == "roc" else ("recall", "precision")
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=names[0], ylabel=names[1])
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, loc="lower right")
    return _svg(figure)


@rc_context(_STYLE)
def draw_curves(
    path: Path, kind: str, models: Sequence[Judged], class_names: Sequence[str], readers: dict[str, dict[str, Any]]
) -> None:
    """One panel a class.

    Args:
        path: of the PNG.
        kind: `roc` or `pr`.
        models: whose curves are drawn; the last one stands out.
        class_names: C names.
        readers: operating points by name, see `mlcv.posthoc.judge.operating_points`.
    """
    across = min(len(class_names), 5)
    down = -(-len(class_names) // across)
    figure = Figure(figsize=(3.1 * across, 3.2 * down + 0.6), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for c, axis in enumerate(axes):
        if c >= len(class_names):
            axis.axis("off")
            continue
        for number, model in enumerate(models):
            rows = known(model.truth.targets[:, c])
            targets, scores = model.truth.targets[rows, c].numpy(), model.scores[rows, c].numpy()
            if 0 < targets.sum() < len(targets):
                stands_out = number == len(models) - 1
                style = {"color": "C3", "linewidth": 1.8} if stands_out else {"color": "0.6", "linewidth": 0.8}
                axis.plot(*_points(kind, targets, scores), label=legible(model.name), **style)
        for number, (name, points) in enumerate(readers.items()):
            recall = float(points["sensitivity"][c])
            other = float(points["precision"][c]) if kind == "pr" else 1 - float(points["specificity"][c])
            place = (recall, other) if kind == "pr" else (other, recall)
            axis.plot(*place, "os^Dv<>"[number % 7], color="black", markersize=5, label=legible(name))
        labels = ("recall", "precision") if kind == "pr" else ("1 - specificity", "sensitivity")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=labels[0], title=class_names[c])
        axis.set_ylabel(labels[1] if c % across == 0 else "")
        axis.grid(alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 7), frameon=False, fontsize=8)
    with whole_file(path, "wb", keep=True) as file:
        figure.savefig(file, format="png", dpi=110)


@rc_context(_STYLE)
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
        axis.plot(
            *zip(*points, strict=True), "o-", color=colour(number), markersize=4, linewidth=1.2, label=legible(name)
        )
        below.hist(said.numpy(), bins=np.linspace(0, 1, 31), histtype="step", color=colour(number), log=True)
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # others write formulas
    below.yaxis.set_minor_formatter(NullFormatter())
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="part that is there")
    axis.legend(frameon=False, loc="upper left")
    below.set(xlim=(0, 1), xlabel="predicted probability", ylabel="entries")
    return _svg(figure)


@rc_context(_STYLE)
def matrices(tables: dict[str, Tensor], class_names: Sequence[str]) -> str:
    """Heat maps of numbers in [0, 1], each (C, C); columns and rows are classes."""
    count = len(class_names)
    figure, axes = _figure(4.6 * len(tables), 4.6, len(tables))
    most = max(float(table.nan_to_num().max()) for table in tables.values()) or 1.0  # one scale, to compare them
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        image = axis.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=most)
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
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]


def _points(kind: str, targets: Any, scores: Any) -> tuple[Any, Any]:
    if kind == "roc":
        false_positive, true_positive, _ = roc_curve(targets, scores)
        return false_positive, true_positive
    precision, recall, _ = precision_recall_curve(targets, scores)
    return recall, precision
