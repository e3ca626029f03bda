"""`mlcv evaluate`: files of predictions against a file of truth, whoever made them."""

import argparse
import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Column
from rich.table import Table as Grid

from mlcv.files import write_table, write_text
from mlcv.metrics.bootstrap import Interval
from mlcv.posthoc.judge import Judged, difference, judge, match, operating_points, part, subgroups, summary
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.predictions import Predictions, combine, read_predictions
from mlcv.posthoc.truth import add_truth_options, whole_number
from mlcv.terminal import console


def main(arguments: list[str]) -> None:
    """Reads, judges, prints and writes.

    Raises:
        UserError: for files that are missing or malformed, or do not fit together.
    """
    options = _parser().parse_args(arguments)
    names, truth, models = read_all(options)
    models = _named_apart(models, options.predictions)
    if options.combine != "none":
        models.append(combine(models, options.combine))
    judged = [judge(model, truth, options.study, options.resamples, options.seed) for model in models]
    readers = {path.stem: _reader(path, names, judged[0], options) for path in options.readers}
    rows = [{"model": one.name, "by": "", "group": "", **row} for one in judged for row in summary(one, names)]
    for column in options.by:
        for group, members in subgroups(judged[-1].truth, column).items():
            found = part(judged[-1], members, options.resamples, options.seed)
            rows += [{"model": found.name, "by": column, "group": group, **row} for row in summary(found, names)]
    last = judged[-1]
    points = {
        f"{last.name} at {threshold:g}": operating_points(last.scores >= threshold, last.truth.targets)
        for threshold in options.thresholds
    } | readers
    _print(judged, rows, points, names, options)
    _write(options.out, rows, points, names, _gains(judged), _intervals(judged[0], options.resamples))
    if find_spec("matplotlib") is None:
        console().print("no pictures: pip install matplotlib")
    elif not options.no_pictures:
        from mlcv.posthoc.figures import draw_curves  # noqa: PLC0415  # matplotlib is an extra

        for kind in ("roc", "pr"):
            draw_curves(options.out / f"{kind}.png", kind, judged, names, points)
    console().print(f"results: {options.out}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv evaluate",
        description="AUROC and AUPRC of files of predictions, with confidence intervals by bootstrap over groups.",
    )
    parser.add_argument("predictions", type=Path, nargs="+", help="CSV: a row an image or study, a column a class")
    add_truth_options(parser)
    parser.add_argument(
        "--study", choices=["max", "mean"], help="judge whole studies: the largest or mean of their images"
    )
    parser.add_argument("--combine", choices=["none", "mean", "rank"], default="none", help="add all models in one")
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN", help="also by a column of the truth: Sex Age ..."
    )
    parser.add_argument("--readers", type=Path, nargs="+", default=[], help="CSV of decisions (0, 1) of radiologists")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[], help="operating points of the last model")
    parser.add_argument("--resamples", type=whole_number(1), default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder of the results (default: evaluation)"
    )
    parser.add_argument("--no_pictures", action="store_true", help="draw no curves")
    return parser


def _named_apart(models: list[Predictions], paths: list[Path]) -> list[Predictions]:
    """Files of one name are told apart by their folders."""
    names = [model.name for model in models]
    return [
        replace(model, name=f"{path.parent.name}/{model.name}") if names.count(model.name) > 1 else model
        for model, path in zip(models, paths, strict=True)
    ]


def _reader(path: Path, names: tuple[str, ...], judged: Judged, options: argparse.Namespace) -> Any:
    decisions, truth = match(read_predictions(path, names, options.id), judged.truth, options.study)
    return operating_points(decisions > 0.5, truth.targets)


def _print(judged: list[Judged], rows: list[dict[str, Any]], points: Any, names: tuple[str, ...], options: Any) -> None:
    out = console()
    unit = "studies" if options.study else "rows"
    for kind in ("AUROC", "AUPRC"):
        title = f"{kind}, {len(judged[0].truth.ids)} {unit}, {_intervals(judged[0], options.resamples)}"
        grid = Grid(Column("model", overflow="fold"), *names, "mean", title=title)
        for one in judged:
            own = [row for row in rows if row["model"] == one.name and not row["by"]]
            grid.add_row(one.name, *(_cell(row[kind]) for row in own))
        out.print(grid)
    for name, gain in _gains(judged).items():
        out.print(f"mean AUROC, {name}: {gain}", soft_wrap=True)
    for column in options.by:
        grid = Grid("group", *names, "mean", title=f"AUROC of {judged[-1].name} by {column}")
        for group in dict.fromkeys(row["group"] for row in rows if row["by"] == column):
            own = [row for row in rows if (row["by"], row["group"]) == (column, group)]
            grid.add_row(group, *(_cell(row["AUROC"]) for row in own))
        out.print(grid)
    if points:
        grid = Grid("reader", *names, title="sensitivity / specificity")
        for name, found in points.items():
            pairs = zip(found["sensitivity"].tolist(), found["specificity"].tolist(), strict=True)
            grid.add_row(name, *(f"{sensitivity:.2f} / {specificity:.2f}" for sensitivity, specificity in pairs))
        out.print(grid)


def _intervals(judged: Judged, resamples: int) -> str:
    return f"95 % intervals of {resamples} resamples of {judged.resampled}"


def _gains(judged: list[Judged]) -> dict[str, Interval]:
    """How much better the last model is than each other one."""
    last = judged[-1]
    return {f"{last.name} - {other.name}": difference(last, other) for other in judged[:-1]}


def _cell(interval: Interval) -> str:
    low, high = (f"{end:.2f}".lstrip("0") for end in (interval.low, interval.high))
    return f"{interval.value:.3f}\n{low}-{high}"


def _write(
    folder: Path,
    rows: list[dict[str, Any]],
    points: Any,
    names: tuple[str, ...],
    gains: dict[str, Interval],
    intervals: str,
) -> None:
    flat = []
    for row in rows:
        numbers: dict[str, float] = {}
        for kind in ("AUROC", "AUPRC"):
            interval = row[kind]
            numbers |= {kind: interval.value, f"{kind}_low": interval.low, f"{kind}_high": interval.high}
        flat.append({**{k: v for k, v in row.items() if k not in ("AUROC", "AUPRC")}, **numbers})
    write_table(folder / "results.csv", list(flat[0]), [list(row.values()) for row in flat], keep=True)
    readers = {
        name: {kind: dict(zip(names, column.tolist(), strict=True)) for kind, column in found.items()}
        for name, found in points.items()
    }
    content = _without_nan(
        {
            "intervals": intervals,
            "results": flat,
            "operating_points": readers,
            "gains": {k: asdict(v) for k, v in gains.items()},
        }
    )
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n", keep=True)


def _without_nan(node: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and node != node else node
