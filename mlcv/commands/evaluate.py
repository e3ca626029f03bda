"""`mlcv evaluate`: files of predictions against a file of truth, whoever made them."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rich.table import Column
from rich.table import Table as Grid
from torch import Tensor

from mlcv.commands.options import add_truth_options, truth_file, whole_number
from mlcv.errors import check_choice, listed
from mlcv.files import write_table, write_text
from mlcv.metrics.bootstrap import Interval
from mlcv.posthoc.judge import Judged, Study, difference, judge, match, operating_points, part, subgroups, summary
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.predictions import apart, combine, read_predictions
from mlcv.posthoc.truth import TruthFile
from mlcv.terminal import console


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
        return f"95 % intervals of {self.resamples} resamples of {self.models[0].resampled}"

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
    options = _parser().parse_args(arguments)
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
        console().print("no pictures: pip install matplotlib")
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


def _print(found: Evaluation, options: argparse.Namespace) -> None:
    out, names, first = console(), found.class_names, found.models[0]
    unit = "studies" if options.study else "rows"
    for kind in ("AUROC", "AUPRC"):
        title = f"{kind}, {len(first.truth.ids)} {unit}, {found.intervals}"
        grid = Grid(Column("model", overflow="fold"), *names, "mean", title=title)
        for one in found.models:
            own = [row for row in found.rows if row["model"] == one.name and not row["by"]]
            grid.add_row(one.name, *(_cell(row[kind]) for row in own))
        out.print(grid)
    for name, gain in found.gains.items():
        out.print(f"mean AUROC, {name}: {gain}", soft_wrap=True)
    for column in options.by:
        grid = Grid("group", *names, "mean", title=f"AUROC of {found.models[-1].name} by {column}")
        for group in dict.fromkeys(row["group"] for row in found.rows if row["by"] == column):
            own = [row for row in found.rows if (row["by"], row["group"]) == (column, group)]
            grid.add_row(group, *(_cell(row["AUROC"]) for row in own))
        out.print(grid)
    if found.points:
        grid = Grid("reader", *names, title="sensitivity / specificity")
        for name, point in found.points.items():
            pairs = zip(point["sensitivity"].tolist(), point["specificity"].tolist(), strict=True)
            grid.add_row(name, *(f"{sensitivity:.2f} / {specificity:.2f}" for sensitivity, specificity in pairs))
        out.print(grid)


def _cell(interval: Interval) -> str:
    low, high = (f"{end:.2f}".lstrip("0") for end in (interval.low, interval.high))
    return f"{interval.value:.3f}\n{low}-{high}"


def _write(folder: Path, found: Evaluation) -> None:
    flat = []
    for row in found.rows:
        numbers: dict[str, float] = {}
        for kind in ("AUROC", "AUPRC"):
            interval = row[kind]
            numbers |= {kind: interval.value, f"{kind}_low": interval.low, f"{kind}_high": interval.high}
        flat.append({**{k: v for k, v in row.items() if k not in ("AUROC", "AUPRC")}, **numbers})
    write_table(folder / "results.csv", list(flat[0]), [list(row.values()) for row in flat], keep=True)
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
    """JSON has no NaN."""
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and node != node else node
