"""The table of a study: in the terminal, as CSV and as Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mlcv.files import write_table, write_text
from mlcv.studies.plan import KL, STORED, Plan, direction
from mlcv.studies.results import Interval, Row
from mlcv.terminal import print_table

AS_IT_IS = ("coverage_error", KL)
"""Metrics that are no parts of one, and not shown in percent."""


def write_csv(path: Path, plan: Plan, rows: Sequence[Row]) -> None:
    """A row for each condition and method; numbers as they are, blank where there are none."""
    header = ["condition", "method", "seeds"]
    for name in plan.metrics:
        header += [name, f"{name}_low", f"{name}_high"]
    header += ["baseline", "difference", "difference_low", "difference_high", "wins", "losses", "classes", "seconds"]
    header += ["settings", "fallen", "error"]
    cells = []
    for row in rows:
        numbers = [number for name in plan.metrics for number in _three(row.metrics[name])]
        compared = [plan.baseline, *_three(row.difference), row.wins, row.losses]
        classes = " ".join(map(str, sorted(set(row.judged))))
        about = [classes, *_three(row.seconds)[:1], " | ".join(row.settings), *_three(row.fallen)[:1]]
        cells.append([row.condition, row.method, row.seeds, *numbers, *compared, *about, _errors(row)])
    write_table(path, header, cells)


def write_runs(path: Path, plan: Plan, rows: Sequence[Sequence[Any]]) -> None:
    """A row for each run; see `results.all_runs`."""
    write_table(
        path, ["condition", "method", "seed", "setting", "val", "fallen", "seconds", "folder", *plan.metrics], rows
    )


def write_markdown(path: Path, plan: Plan, rows: Sequence[Row]) -> None:
    """A table of all conditions, if there are several, and one for each, with a sentence on what it shows."""
    lines = _overview(plan, rows) if len(plan.conditions) > 1 else []
    for condition, own in _by_condition(plan, rows):
        header, cells = _cells(plan, own)
        lines += [
            f"### {condition}",
            "",
            f"{about(plan, own)}.",
            "",
            f"| {' | '.join(header)} |",
            "|---" * len(header) + "|",
        ]
        lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in cells]
        lines += ["", *(f"{row.method}: {_first_error(row)}" for row in own if row.errors), ""]
    write_text(path, "\n".join([*lines, legend(plan)]) + "\n")


def _overview(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Methods in the study's order, a column a condition: the metric that is sorted by, with its mark."""
    lines = [
        f"### {plan.sort_by} under all conditions",
        "",
        f"| method | {' | '.join(map(_escaped, plan.conditions))} |",
    ]
    lines.append("|---" * (len(plan.conditions) + 1) + "|")
    of = {(row.condition, row.method): row for row in rows}
    for method in plan.listed:
        cells = [method]
        for condition in plan.conditions:
            row = of[condition, method]
            value = _with_half(row.metrics[plan.sort_by], plan.sort_by) if row.seeds else _absent(row)
            cells.append(f"{value} {_mark(row.difference, plan.sort_by)}".strip())
        lines.append(f"| {' | '.join(map(_escaped, cells))} |")
    return [*lines, "", f"+ or -: better or worse than {plan.baseline}, by the interval of the paired difference.", ""]


def show(out: Console, plan: Plan, rows: Sequence[Row], everything: Path) -> None:
    """Prints a table for each condition."""
    for condition, own in _by_condition(plan, rows):
        out.print(f"\n{condition}: {about(plan, own)}", soft_wrap=True)
        print_table(out, *_cells(plan, own), "", everything)
        for row in own:
            if row.errors:
                out.print(f"{row.method}: {_first_error(row)}", soft_wrap=True)
    out.print(f"\n{legend(plan)}")


def about(plan: Plan, rows: Sequence[Row]) -> str:
    """What the numbers of a condition are."""
    counts = sorted({count for row in rows for count in row.judged})
    least = f" with at least {plan.min_positives} test positives" if plan.min_positives > 1 else ""
    classes = f"{counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} classes{least}" if counts else "no classes"
    seeds = max((row.seeds for row in rows), default=0)
    return f"{classes}, {seeds} seed{'' if seeds == 1 else 's'}"


def legend(plan: Plan) -> str:
    """What a table's columns are."""
    return (
        f"Sorted by {plan.sort_by}; percent. ±: 95 % over seeds (t). difference: from {plan.baseline}, seed by seed; + "
        "(better) or - where its interval leaves 0 out. won: seeds that are better. s: seconds of a training."
    )


def _cells(plan: Plan, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    others = [name for name in plan.metrics if name != plan.sort_by]
    header = ["method", plan.sort_by, "difference", "won", *others, "chosen", "s"]
    cells = []
    for row in rows:
        if not row.seeds:
            cells.append([row.method, _absent(row), *[""] * (len(header) - 2)])
            continue
        own = row.metrics[plan.sort_by]
        compared = ["", ""]
        if row.difference.values:
            compared = [_differs(row.difference, plan.sort_by), f"{row.wins}/{row.wins + row.losses}"]
        chosen = " ".join(dict.fromkeys(row.settings))
        means = [shown(row.metrics[name].mean, name) for name in others]
        cells.append([row.method, _with_half(own, plan.sort_by), *compared, *means, chosen, f"{row.seconds.mean:.0f}"])
    return header, cells


def _with_half(value: Interval, name: str) -> str:
    half = "" if math.isnan(value.half) else f" ± {shown(value.half, name)}"
    return f"{shown(value.mean, name)}{half}"


def _differs(value: Interval, name: str) -> str:
    half = "" if math.isnan(value.half) else f" ± {shown(value.half, name)}"
    return f"{shown(value.mean, name, sign='+')}{half}{_mark(value, name)}"


def _mark(value: Interval, name: str) -> str:
    """Whether the interval of a difference in a metric leaves 0 out, and on which side."""
    low, high = sorted((direction(name) * value.low, direction(name) * value.high))
    return "+" if low > 0 else "-" if high < 0 else ""


def _absent(row: Row) -> str:
    return "failed" if row.errors else "not run"


def shown(value: float, name: str, sign: str = "") -> str:
    """A metric as text: in percent, but for those that are no parts of one."""
    if math.isnan(value):
        return "-"
    if name == STORED:
        return f"{value / 1024:{sign},.0f} KiB"
    return f"{value:{sign}.3f}" if name in AS_IT_IS else f"{100 * value:{sign}.1f}"


def _by_condition(plan: Plan, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(name, [row for row in rows if row.condition == name]) for name in plan.conditions]


def _three(value: Interval) -> list[Any]:
    return ["" if math.isnan(one) else one for one in (value.mean, value.low, value.high)]


def _errors(row: Row) -> str:
    return " ".join(dict.fromkeys(row.errors))


def _first_error(row: Row) -> str:
    """Seeds fail alike, each with its own numbers; table.csv has all."""
    others = len(dict.fromkeys(row.errors)) - 1
    return row.errors[0] + (f" (and {others} more seeds, see table.csv)" if others else "")


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
