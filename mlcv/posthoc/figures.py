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
from scipy.special import logit
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from mlcv.files import whole_file
from mlcv.labels.states import NEGATIVE, POSITIVE, known
from mlcv.posthoc.judge import Judged
from mlcv.posthoc.reliability import entries, isotonic, log_odds_bins, miscalibration
from mlcv.terminal import shortened

COLOURS = ("#1f5fa8", "#d1602d", "#2f8f5b", "#8a4fa3", "#b3892b", "#5b6770")
"""Of runs, in their order."""
_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_FINER_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
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
def reliability(models: Sequence[Judged], names: Sequence[str]) -> str:
    """How often labels of a probability are there, over all known entries, and how often it is said; in log-odds.

    Curves are isotonic regressions; points are bins of the first model, with their intervals.
    """
    figure, (axis, below) = _figure(9.0, 4.0, 2)
    found = [entries(model.scores, model.truth.targets) for model in models]
    low, high = _range(np.concatenate([probs for probs, _ in found]))
    for number, ((probs, labels), name) in enumerate(zip(found, names, strict=True)):
        _calibration(axis, probs, labels, low, high, colour(number), legible(name), number == 0)
        edges = np.linspace(logit(low), logit(high), 31)
        places = logit(probs.clip(low, high))
        style = {"bins": edges, "histtype": "step", "color": colour(number)}
        below.hist(places, **style, label="all" if number == 0 else None)
        below.hist(places[labels == 1], **style, linestyle=":", label="there" if number == 0 else None)
    below.set_yscale("log")
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # others write formulas
    below.yaxis.set_minor_formatter(NullFormatter())
    ticks = _TICKS if low < 0.01 else _FINER_TICKS
    _log_odds(axis, low, high, "xy", ticks)
    _log_odds(below, low, high, "x", ticks)
    axis.set(xlabel="predicted probability", ylabel="part that is there")
    axis.legend(frameon=False, loc="upper left")
    below.legend(frameon=False, loc="upper right")
    below.set(xlabel="predicted probability", ylabel="entries")
    return _svg(figure)


@rc_context(_STYLE)
def reliability_of_classes(model: Judged, class_names: Sequence[str], most: int = 10) -> str:
    """The same of the classes whose probabilities are furthest off, see `miscalibration`; bars say how often."""
    off = miscalibration(model.scores, model.truth.targets).nan_to_num(-1)
    worst = [c for c in off.argsort(descending=True, stable=True).tolist() if off[c] >= 0][:most]
    if not worst:
        return ""
    across = min(len(worst), 5)
    figure = Figure(figsize=(1.9 * across, 2.1 * -(-len(worst) // across)), layout="constrained")
    axes = figure.subplots(-(-len(worst) // across), across, squeeze=False, sharex=True, sharey=True).flatten()
    low, high = _range(entries(model.scores, model.truth.targets)[0])
    for n, axis in enumerate(axes):
        if n >= len(worst):
            axis.axis("off")
            continue
        c = worst[n]
        probs, labels = entries(model.scores[:, c], model.truth.targets[:, c])
        _calibration(axis, probs, labels, low, high, colour(0), "", True, 6)
        counts, edges = np.histogram(logit(probs.clip(low, high)), np.linspace(logit(low), logit(high), 21))
        tall = 0.25 * (logit(high) - logit(low)) * counts / counts.max()
        axis.bar(edges[:-1], tall, np.diff(edges), logit(low), align="edge", color="#dfe5ea", zorder=0)
        _log_odds(axis, low, high, "xy", _TICKS[1:-1], 7)
        axis.set_title(f"{shortened(class_names[c], 22)}\n{int(labels.sum())} of {len(labels)}", fontsize=8)
    return _svg(figure)


@rc_context(_STYLE)
def matrices(tables: dict[str, Tensor], class_names: Sequence[str], most: int = 30) -> str:
    """Heat maps of numbers in [0, 1], each (C, C), columns and rows classes; of many, those that `strongest` finds."""
    chosen = strongest(tables, most)
    tables = {title: table[chosen][:, chosen] for title, table in tables.items()}
    names, size = [shortened(class_names[c], 28) for c in chosen], 8 if len(chosen) <= 20 else 6.5
    side = max(4.6, 0.155 * len(chosen) + 2)
    # Below each other where names would be too small beside each other on a page.
    down, across = (len(tables), 1) if len(chosen) > 12 else (1, len(tables))
    figure = Figure(figsize=(side * 1.15 * across, side * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    peak = max(float(table.nan_to_num().max()) for table in tables.values()) or 1.0  # one scale, to compare them
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        image = axis.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=peak)
        axis.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axis, shrink=0.7).ax.tick_params(labelsize=7)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axis.set_yticks(range(len(names)), names, fontsize=size)
        axis.spines[:].set_visible(False)
    return _svg(figure)


def strongest(tables: dict[str, Tensor], most: int) -> list[int]:
    """Classes of the largest numbers beside the diagonals, in their order: all, or `most` of them."""
    count = len(next(iter(tables.values())))
    if count <= most:
        return list(range(count))
    largest = torch.stack([table.nan_to_num().fill_diagonal_(0) for table in tables.values()]).amax(dim=0)
    found: list[int] = []
    for place in largest.flatten().argsort(descending=True, stable=True).tolist():
        found += [c for c in dict.fromkeys(divmod(place, count)) if c not in found]
        if len(found) >= most:
            break
    return sorted(found[:most])


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


def _calibration(
    axis: Any, probs: Any, labels: Any, low: float, high: float, shade: str, name: str, has_points: bool, bins: int = 12
) -> None:
    """Curve and points of one model or class, in log-odds; what lies beyond the range is drawn at its ends."""

    def place(values: Any) -> Any:
        return logit(np.clip(values, low, high))

    axis.plot(place([low, high]), place([low, high]), color="#888", linewidth=0.8, linestyle="--")
    order = probs.argsort(kind="stable")
    keep = np.unique(np.linspace(0, len(order) - 1, 2000).round().astype(int))  # what a screen can show
    said, fitted = probs[order][keep], isotonic(probs, labels)[order][keep]
    axis.plot(place(said), place(fitted), color=shade, linewidth=1.4, label=name)
    for one in log_odds_bins(probs, labels, low, high, bins) if has_points else ():
        ends = place([one.low, one.high])
        axis.plot(place([one.said] * 2), ends, color=shade, linewidth=1, alpha=0.6)
        axis.plot(place(one.said), place(one.there / one.count), "o", color=shade, markersize=3.5)


def _range(probs: Any) -> tuple[float, float]:
    """Where a diagram begins and ends: where nearly all probabilities lie, from 1/10,000 to 999/1,000 at most."""
    low, high = np.quantile(probs, (0.01, 0.999))
    return float(np.clip(low, 1e-4, 0.05)), float(np.clip(high, 0.9, 0.999))


def _log_odds(axis: Any, low: float, high: float, which: str, ticks: Sequence[float], size: int = 8) -> None:
    ticks = [tick for tick in ticks if low <= tick <= high]
    for name in which:
        limits, places = (logit(low) - 0.25, logit(high) + 0.25), logit(ticks)
        labels = [f"{tick:g}".removeprefix("0") for tick in ticks]
        getattr(axis, f"set_{name}ticks")(places, labels, fontsize=size)
        getattr(axis, f"set_{name}lim")(*limits)
    axis.grid(alpha=0.2)


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
