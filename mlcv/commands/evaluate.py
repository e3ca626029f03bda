"""`mlcv evaluate`: files of predictions against a file of truth, whoever made them."""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mlcv.commands.arguments import parser_of
from mlcv.commands.options import truth_file
from mlcv.errors import check_choice, listed
from mlcv.files import write_table, write_text
from mlcv.metrics.bootstrap import Interval
from mlcv.posthoc.judge import Judged, Study, difference, judge, match, operating_points, part, subgroups, summary
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.predictions import apart, combine, read_predictions
from mlcv.posthoc.truth import TruthFile
from mlcv.tables import read_once
from mlcv.terminal import console, print_side_by_side, print_table, shortened

_KINDS = ("AUROC", "AUPRC")


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        class_names: C names.
        models: each beside the truth, in the order given, their combination last if there is one.
        rows: of each model (and, of the last, of each group): `model`, `by`, `group`, `class` or mean, and intervals
            `AUROC` and `AUPRC`.
        points: sensitivity and specificity (C,) of readers, and of the last model at thresholds, by name.
        resamples: of the bootstrap.
    """

    class_names: tuple[str, ...]
    models: list[Judged]
    rows: list[dict[str, Any]]
    points: dict[str, dict[str, Tensor]]
    resamples: int

    @property
    def gains(self) -> dict[str, Interval]:
        """How much better the last model is than each other one, in mean AUROC."""
        last = self.models[-1]
        return {f"{last.name} - {other.name}": difference(last, other) for other in self.models[:-1]}

    @property
    def intervals(self) -> str:
        """What the intervals are, in words."""
        return self.models[0].intervals(self.resamples)

    def save(self, folder: Path, pictures: bool = True) -> None:
        """Writes results.csv and results.json, and with matplotlib roc.png and pr.png; earlier ones are kept.

        Args:
            folder: is made.
            pictures: whether curves are drawn.

        Raises:
            ConfigError: if it cannot be written.
        """
        _write(folder, self)
        if pictures and find_spec("matplotlib") is not None:
            from mlcv.posthoc.figures import draw_curves  # noqa: PLC0415  # matplotlib is an extra

            for kind in ("roc", "pr"):
                draw_curves(folder / f"{kind}.png", kind, self.models, self.class_names, self.points)


@read_once()
def evaluate(
    predictions: str | Path | Sequence[str | Path],
    truth: str | Path | TruthFile | None = None,
    *,
    study: Study = None,
    combined: Literal["none", "mean", "rank"] = "none",
    by: Sequence[str] = (),
    readers: Sequence[str | Path] = (),
    thresholds: Sequence[float] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """AUROC and AUPRC of files of predictions, with confidence intervals by bootstrap over groups.

    Args:
        predictions: CSV files, a row an image or study and a column a class.
        truth: CSV of labels, or how one is read; None if the first predictions hold them.
        study: judge whole studies by the largest (`max`) or the `mean` score of their images.
        combined: add the mean of all models' scores, or of their ranks, as a further model.
        by: columns of the truth whose groups are judged, too.
        readers: CSV files of decisions (0, 1), such as radiologists'.
        thresholds: operating points of the last model.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: for files that are missing or malformed, or do not fit together.
    """
    paths, source = listed(predictions), TruthFile.of(truth)
    check_choice("combined", combined, ("none", "mean", "rank"))
    names, labels, models = read_all(paths, source, study)
    told_apart = apart([model.name for model in models], paths)
    models = [replace(model, name=name) for model, name in zip(models, told_apart, strict=True)]
    if combined != "none":
        models.append(combine(models, combined))
    judged = [judge(model, labels, study, resamples, seed) for model in models]
    last = judged[-1]
    rows = [{"model": one.name, "by": "", "group": "", **row} for one in judged for row in summary(one, names)]
    for column in by:
        for group, members in subgroups(last.truth, column).items():
            found = part(last, members, resamples, seed)
            rows += [{"model": found.name, "by": column, "group": group, **row} for row in summary(found, names)]
    points = {
        f"{last.name} at {threshold:g}": operating_points(last.scores >= threshold, last.truth.targets)
        for threshold in thresholds
    }
    for path in map(Path, readers):
        decisions, matched = match(read_predictions(path, names, source.ids), last.truth, study)
        points[path.stem] = operating_points(decisions > 0.5, matched.targets)
    return Evaluation(names, judged, rows, points, resamples)


def main(arguments: list[str]) -> None:
    """Reads, judges, prints and writes.

    Raises:
        UserError: as `evaluate`.
    """
    options = parser_of("evaluate").parse_args(arguments)
    found = evaluate(
        options.predictions,
        truth_file(options),
        study=options.study,
        combined=options.combine,
        by=options.by,
        readers=options.readers,
        thresholds=options.thresholds,
        resamples=options.resamples,
        seed=options.seed,
    )
    _print(found, options)
    found.save(options.out, pictures=not options.no_pictures)
    if find_spec("matplotlib") is None:
        console().print('no pictures: pip install "mlcv[report]"')
    console().print(f"results: {options.out}", soft_wrap=True)


def _print(found: Evaluation, options: argparse.Namespace) -> None:
    out, last, everything = console(), found.models[-1], options.out / "results.csv"
    unit = "studies" if options.study else "rows"
    out.print(f"{len(last.truth.ids)} {unit}, {len(found.class_names)} classes; {found.intervals}")
    tables = {one.name: _ordered(row for row in found.rows if row["model"] == one.name and not row["by"])
              for one in found.models}  # fmt: skip
    mark = {name: f"{n} " if len(tables) > 1 else "" for n, name in enumerate(tables, 1)}
    means = [[mark[name] + name, *(str(table[-1][kind]) for kind in _KINDS)] for name, table in tables.items()]
    print_table(out, ["model", *(f"mean {kind}" for kind in _KINDS)], means)
    for name, gain in found.gains.items():
        out.print(f"mean AUROC, {name}: {gain}", soft_wrap=True)
    order = [row["class"] for row in tables[last.name]]
    if len(tables) == 1:
        columns = {kind: [_cell(row[kind]) for row in tables[last.name]] for kind in _KINDS}
        for header, kind in (("pos", "positives"), ("neg", "negatives")):
            columns[header] = [(str(row[kind]),) * 2 for row in tables[last.name]]
        print_side_by_side(out, "class", order, columns, "per class, lowest AUPRC first", everything)
    else:
        for kind in _KINDS:
            columns = {
                mark[name].strip(): _in_order([(row["class"], row[kind]) for row in table], order)
                for name, table in tables.items()
            }
            title = f"{kind} of each model, lowest AUPRC of {shortened(last.name, 40)} first"
            print_side_by_side(out, "class", order, columns, title, everything)
    for column in options.by:
        rows = [row for row in found.rows if row["by"] == column]
        columns = {
            group: _in_order([(row["class"], row["AUROC"]) for row in rows if row["group"] == group], order)
            for group in dict.fromkeys(row["group"] for row in rows)
        }
        title = f"AUROC of {shortened(last.name, 40)} by {column}"
        print_side_by_side(out, "class", order, columns, title, everything)
    if found.points:
        columns = {
            name: [(f"{_number(one, 2)} / {_number(other, 2)}",) * 2 for one, other in zip(*pair, strict=True)]
            for name, point in found.points.items()
            if (pair := [point[kind].tolist() for kind in ("sensitivity", "specificity")])
        }
        title, everything = "sensitivity / specificity", options.out / "results.json"
        print_side_by_side(out, "class", found.class_names, columns, title, everything)


def _ordered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Classes by AUPRC, lowest first, those that cannot be judged behind them, and last the mean."""
    *classes, mean = rows
    return [*sorted(classes, key=lambda row: (math.isnan(row["AUPRC"].value), row["AUPRC"].value)), mean]


def _in_order(found: list[tuple[str, Interval]], order: list[str]) -> list[tuple[str, str]]:
    """Cells of classes, and last of their mean, whose name says of how many it is."""
    cells = {name: _cell(interval) for name, interval in found}
    return [*(cells[name] for name in order[:-1]), _cell(found[-1][1])]


def _cell(interval: Interval) -> tuple[str, str]:
    """In full, and without the interval."""
    value = _number(interval.value, 3)
    if math.isnan(interval.low):
        return value, value
    low, high = (f"{end:.2f}".removeprefix("0") for end in (interval.low, interval.high))
    return f"{value} ({low}-{high})", value


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _write(folder: Path, found: Evaluation) -> None:
    flat = []
    for row in found.rows:
        numbers: dict[str, float] = {}
        for kind in _KINDS:
            interval = row[kind]
            numbers |= {kind: interval.value, f"{kind}_low": interval.low, f"{kind}_high": interval.high}
        flat.append({**{k: v for k, v in row.items() if k not in _KINDS}, **numbers})
    write_table(folder / "results.csv", list(flat[0]), [list(_without_nan(row).values()) for row in flat], keep=True)
    points = {
        name: {kind: dict(zip(found.class_names, column.tolist(), strict=True)) for kind, column in point.items()}
        for name, point in found.points.items()
    }
    content = _without_nan(
        {
            "intervals": found.intervals,
            "results": flat,
            "operating_points": points,
            "gains": {name: asdict(gain) for name, gain in found.gains.items()},
        }
    )
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n", keep=True)


def _without_nan(node: Any) -> Any:
    """JSON has no NaN, and in a table a cell without a number is empty."""
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and node != node else node
