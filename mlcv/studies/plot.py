"""The picture of a study; shapes and places tell methods apart, so that it can be read in grey."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from mlcv.files import whole_file
from mlcv.studies.plan import Plan
from mlcv.studies.results import Row
from mlcv.studies.tables import AS_IT_IS
from mlcv.terminal import shortened

_MARKS, _LINES = "osD^vP*X<>hd", ("-", "--", ":", "-.")
_STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "text.parse_math": False, "text.usetex": False
}  # fmt: skip
_IN_A_ROW = 4
"""Panels."""


@rc_context(_STYLE)
def draw(path: Path, plan: Plan, rows: Sequence[Row]) -> None:
    """Writes a PNG: the metric that is sorted by, with intervals over seeds."""
    figure = _curves(plan, rows) if plan.plot == "curves" else _dots(plan, rows)
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=130)


def _dots(plan: Plan, rows: Sequence[Row]) -> Figure:
    """A panel a condition, a line a method in the order of the study; the baseline is dotted through each."""
    scale = _scale(plan)
    methods, conditions = plan.listed[::-1], list(plan.conditions)
    across = min(len(conditions), _IN_A_ROW)
    down = math.ceil(len(conditions) / across)
    width, height = 2.3 + 2.3 * across, 0.7 + down * (0.55 + 0.2 * len(methods))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
    for axis in axes[len(conditions) :]:
        axis.set_visible(False)
    for axis, condition in zip(axes, conditions, strict=False):
        for row in rows:
            if row.condition != condition or math.isnan(row.metrics[plan.sort_by].mean):
                continue
            value, place = row.metrics[plan.sort_by], methods.index(row.method)
            is_base = row.method == plan.baseline
            if is_base:
                axis.axvline(scale * value.mean, color="0.6", linestyle=":", linewidth=1, zorder=0)
            half = None if math.isnan(value.half) else scale * value.half
            face = "white" if row.difference.low > 0 or row.difference.high < 0 else "black"
            axis.errorbar(
                scale * value.mean, place, xerr=half, fmt="s" if is_base else "o", color="black", markersize=4,
                markerfacecolor="black" if is_base else face, elinewidth=0.8, capsize=2,
            )  # fmt: skip
        axis.set_title(shortened(condition, 34), fontsize=9)
        axis.set_yticks(range(len(methods)), [shortened(name, 34) for name in methods])
        axis.grid(axis="x", alpha=0.25)
    note = "hollow: the paired interval leaves 0 out" if plan.seeds > 1 else "one seed: no intervals"
    figure.supxlabel(f"{_unit(plan)}, dotted: {plan.baseline}; {note}", fontsize=9)
    return figure


def _curves(plan: Plan, rows: Sequence[Row]) -> Figure:
    """A line a method over the conditions in their order."""
    scale, conditions = _scale(plan), list(plan.conditions)
    figure = Figure(figsize=(2.5 + 0.9 * len(conditions) + 2.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, method in enumerate(plan.listed):
        own = {row.condition: row.metrics[plan.sort_by] for row in rows if row.method == method}
        places = [n for n, name in enumerate(conditions) if not math.isnan(own[name].mean)]
        if not places:
            continue
        values = [own[conditions[n]] for n in places]
        halves = [0.0 if math.isnan(value.half) else scale * value.half for value in values]
        name = shortened(method, 34)
        shifted = [place + 0.05 * (number - len(plan.listed) / 2) for place in places]
        grey = f"{0.55 * number / max(len(plan.listed) - 1, 1):.2f}"
        axis.errorbar(
            shifted, [scale * value.mean for value in values], halves, color=grey, label=name, capsize=2,
            elinewidth=0.7, linewidth=1.1, markersize=5, marker=_MARKS[number % len(_MARKS)],
            linestyle=_LINES[number % len(_LINES)], markerfacecolor="white",
        )  # fmt: skip
    axis.set_xticks(range(len(conditions)), [shortened(name, 28) for name in conditions], rotation=25, ha="right")
    axis.set_ylabel(_unit(plan))
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def _scale(plan: Plan) -> int:
    return 1 if plan.sort_by in AS_IT_IS else 100


def _unit(plan: Plan) -> str:
    return plan.sort_by if plan.sort_by in AS_IT_IS else f"{plan.sort_by} (%)"
