"""`mlcv report`: runs side by side in one HTML file that needs nothing else."""

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from torch import Tensor

from mlcv import __version__
from mlcv.commands.arguments import REPORT_TITLE, parser_of
from mlcv.commands.gallery import Gallery
from mlcv.commands.options import truth_file
from mlcv.errors import ConfigError, listed
from mlcv.files import read_json, unshielded, write_text
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN
from mlcv.metrics.bootstrap import Interval
from mlcv.metrics.scores import multilabel_scores, scores_of_decisions
from mlcv.posthoc.columns import read_ids
from mlcv.posthoc.judge import Judged, difference, judge, match, part, summary
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.predictions import Predictions, apart
from mlcv.posthoc.truth import TruthFile, label_states
from mlcv.tables import read_once, read_table
from mlcv.terminal import console

_PREDICTIONS = "_predictions.csv"
_FILE = f"test{_PREDICTIONS}"
_MOST = 30
"""Classes in a heat map, so that names can be read."""
_KINDS = {"good": (POSITIVE, True), "missed": (POSITIVE, False), "false": (NEGATIVE, True)}
"""Which images are shown: their label, and whether the likeliest or the unlikeliest."""


@read_once()
def report(
    predictions: str | Path | Sequence[str | Path],
    truth: str | Path | TruthFile | None = None,
    *,
    checkpoint: str | Path | None = None,
    examples: int = 3,
    resamples: int = 1000,
    title: str = REPORT_TITLE,
    out: str | Path = "report.html",
) -> Path:
    """One HTML file on one or more runs, which needs nothing else; the first one is shown in detail.

    Args:
        predictions: folders of tested runs, or CSV files of probabilities.
        truth: CSV of labels, or how one is read; None if the first predictions hold them.
        checkpoint: of the first run: for its images, and heat maps if its head has any.
        examples: images of each kind and class.
        resamples: of the bootstrap.
        title: of the page.
        out: the file; an earlier one is kept under another name.

    Returns:
        `out`.

    Raises:
        UserError: for files that are missing or malformed or do not fit together, or without matplotlib.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError('a report needs matplotlib: pip install "mlcv[report]"')
    paths = [_file(path) for path in listed(predictions)]
    source = TruthFile.of(truth)
    names, labels, found = read_all(paths, source)
    states = torch.from_numpy(label_states(read_table(source.path or paths[0]), names, source.codes)).long()
    models = [judge(model, labels, None, resamples) for model in _named(paths, found)]
    if not all(((model.scores >= 0) & (model.scores <= 1)).all() for model in models):
        raise ConfigError("a report needs probabilities in [0, 1]; mlcv evaluate judges scores of any scale")
    chosen = [_chosen(path, model, names) for path, model in zip(paths, models, strict=True)]
    gallery = Gallery(None if checkpoint is None else Path(checkpoint), models[0].truth.ids)
    strips = _examples(gallery, examples, models[0], names)
    labels_of = [_calibrated(path) + _corrected(path) for path in paths]
    page = _page(title, models, labels_of, chosen, states, names, resamples, strips, gallery.has_maps)
    write_text(Path(out), page, keep=True)
    return Path(out)


def main(arguments: list[str]) -> None:
    """Reads, judges and writes.

    Raises:
        UserError: as `report`.
    """
    options = parser_of("report").parse_args(arguments)
    out = report(
        options.predictions,
        truth_file(options),
        checkpoint=options.ckpt_path,
        examples=options.examples,
        resamples=options.resamples,
        title=options.title,
        out=options.out,
    )
    console().print(f"report: {out} ({out.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True)


def _file(path: Path) -> Path:
    """Of a run its predictions."""
    if not path.is_dir():
        return path
    if not (path / _FILE).is_file():
        raise ConfigError(
            f"{path} holds no {_FILE}: `mlcv test --ckpt_path {path}/checkpoints/best.ckpt` writes it, and so does "
            "training with --test_after_fit true"
        )
    return path / _FILE


def _named(paths: list[Path], models: list[Predictions]) -> list[Predictions]:
    """Runs are called by their folders, where files are called alike."""
    stems = [path.stem for path in paths]
    is_run = [path.name == _FILE or stems.count(path.stem) > 1 for path in paths]
    names = apart(["" if run else model.name for run, model in zip(is_run, models, strict=True)], paths, 2)
    return [replace(model, name=name) for model, name in zip(models, names, strict=True)]


def _chosen(path: Path, model: Judged, names: tuple[str, ...]) -> Tensor:
    """What the file says was predicted, if it does; else what is above one half: bool (M, C), in the truth's order."""
    table = read_table(path)
    if "labels" not in table.names:
        return model.scores > 0.5
    cells = [set(unshielded(cell).split("|")) for cell in table.column("labels")]
    said = torch.tensor([[float(name in cell) for name in names] for cell in cells])
    decisions = Predictions(model.name, read_ids(table), said, names)
    return match(decisions, model.truth)[0] > 0.5


def _calibrated(path: Path) -> str:
    """Whether a file's numbers are calibrated, by what, and where its labels come from, in a sentence."""
    facts = _facts(path)
    has_labels = "labels" in read_table(path).names
    if "calibration" not in facts:
        labels = "Predicted labels are the file's own" if has_labels else "Predicted is what is above 0.5"
        return f"{labels}; whether its probabilities are calibrated it does not say."
    if facts["calibration"]:
        return f"Calibrated by {facts['calibration']}. Predicted labels are by these thresholds."
    return "Not calibrated: probabilities are the network's own, and predicted is what is above 0.5."


def _corrected(path: Path) -> str:
    """Whether a model was trained with corrected labels, and judged by some, in a sentence; nothing if neither."""
    facts = _facts(path)
    labels = facts.get("labels")
    tested = labels.get("test") if isinstance(labels, dict) else None
    tested = tested if isinstance(tested, dict) and "corrections" in tested else None
    trained = facts.get("trained_with_corrections")
    by = f"judged by labels of which {tested['corrected']} are corrected ({tested['corrections']})" if tested else ""
    said = [f"trained with corrections {trained}" if trained else "", by]
    return f" Labels: {', '.join(filter(None, said))}." if any(said) else ""


def _facts(path: Path) -> dict[str, Any]:
    """What a run wrote beside its predictions; nothing of others."""
    file = path.with_name(f"{path.name.removesuffix(_PREDICTIONS)}.json")
    facts = read_json(file, "result") if path.name.endswith(_PREDICTIONS) and file.is_file() else None
    return facts if isinstance(facts, dict) else {}


def _page(
    title: str,
    models: list[Judged],
    calibrated: list[str],
    chosen: list[Tensor],
    states: Tensor,
    names: tuple[str, ...],
    resamples: int,
    examples: list[dict[str, Any]],
    has_maps: bool,
) -> str:
    import mlcv.posthoc.figures as figures  # noqa: PLC0415  # matplotlib is an extra

    first, targets = models[0], models[0].truth.targets
    scores = [multilabel_scores(model.scores, targets, names) for model in models]
    labels = [model.name for model in models]
    facts = {
        "title": title,
        "version": __version__,
        "images": len(targets),
        "class_count": len(names),
        "intervals": models[0].intervals(resamples),
        "shares": ", ".join(f"{100 * row['count'] / states.numel():.1f} % {row['name']}" for row in _states(states)),
        "excluded": f"Not judged: {', '.join(scores[0].excluded)}." if scores[0].excluded else "",
        "models": [
            {
                "name": model.name,
                "colour": figures.COLOURS[n % len(figures.COLOURS)],
                "cards": _cards(model, found, said),
                "calibrated": about,
            }
            for n, (model, found, said, about) in enumerate(zip(models, scores, chosen, calibrated, strict=True))
        ],
        "gains": {f"{first.name} - {other.name}": difference(first, other) for other in models[1:]},
        **_classes(models, chosen, states, names),
        "curves": figures.curves(models, labels),
        "reliability": figures.reliability(models, labels),
        "reliability_of_classes": figures.reliability_of_classes(first, names),
        "named": f"Of {len(names)} classes, the {_MOST} of the largest numbers are drawn."
        if len(names) > _MOST
        else "",
        "confusion": figures.matrices({"": figures.confusion(chosen[0], targets)}, names, _MOST),
        "together": figures.matrices(
            {
                "truth": figures.together(targets == POSITIVE, targets),
                "predicted": figures.together(chosen[0], targets),
            },
            names,
            _MOST,
        ),
        "entries": [
            {
                "name": row["name"],
                "count": row["count"],
                "mean": f"{float(first.scores[row['at']].mean()):.3f}",
                "chosen": f"{100 * float(chosen[0][row['at']].double().mean()):.1f} %",
            }
            for row in _states(states)
        ],
        "groups": _groups(first, states, resamples, names),
        "examples": examples,
        "maps": has_maps,
    }
    template = Environment(loader=PackageLoader("mlcv.commands", "."), autoescape=True).get_template("report.html.j2")
    page: str = template.render(facts)
    return page


def _states(states: Tensor) -> list[dict[str, Any]]:
    kinds = {"positive": POSITIVE, "negative": NEGATIVE, "unknown": UNKNOWN, "uncertain": UNCERTAIN}
    found = [
        {"name": name, "at": states == value, "count": int((states == value).sum())} for name, value in kinds.items()
    ]
    return [row for row in found if row["count"]]


def _cards(model: Judged, scores: Any, chosen: Tensor) -> list[dict[str, str]]:
    columns = [c for c in range(model.scores.shape[1]) if not model.areas.value[0, c].isnan()]
    areas = {kind: model.areas.interval(k, columns) for k, kind in enumerate(("mean AUROC", "mAP"))}
    cards = [
        {"name": kind, "value": _number(one.value), "interval": _range(one)} for kind, one in reversed(areas.items())
    ]
    decided = scores_of_decisions(model.scores, chosen, model.truth.targets)
    plain = {"CF1": decided["CF1"], "OF1": decided["OF1"], "ECE": decided["ECE"], "LRAP": scores.summary["LRAP"]}
    return cards + [{"name": name, "value": _number(value), "interval": ""} for name, value in plain.items()]


def _classes(models: list[Judged], chosen: list[Tensor], states: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """Columns and rows of the table of classes."""
    columns = ["class", "positives", "negatives", "known"]
    for number, _ in enumerate(models):
        mark = f" {number + 1}" if len(models) > 1 else ""
        columns += [f"AP{mark}", f"AUROC{mark}", f"precision{mark}", f"recall{mark}"]
    tables = [summary(model, names) for model in models]
    rows = []
    for c, name in enumerate(names):
        counts = [int((states[:, c] == value).sum()) for value in (POSITIVE, NEGATIVE)]
        row = [{"text": name, "sort": name}, *({"text": count, "sort": count} for count in counts)]
        row.append({"text": f"{100 * sum(counts) / max(len(states), 1):.0f} %", "sort": sum(counts)})
        for table, said in zip(tables, chosen, strict=True):
            row += [_cell(table[c][kind]) for kind in ("AUPRC", "AUROC")]
            hits = float((said[:, c] & (states[:, c] == POSITIVE)).sum())
            alarms = float((said[:, c] & (states[:, c] == NEGATIVE)).sum())
            for whole in (hits + alarms, counts[0]):
                value = hits / whole if whole else math.nan
                row.append({"text": _number(value), "sort": value})
        rows.append(row)
    return {"columns": columns, "rows": rows}


def _groups(model: Judged, states: Tensor, resamples: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Results on images whose labels are all known, partly unknown, or partly uncertain."""
    is_uncertain, is_unknown = (states == UNCERTAIN).any(dim=1), (states == UNKNOWN).any(dim=1)
    kinds = {
        "all labels known": ~is_uncertain & ~is_unknown,
        "some unknown": is_unknown,
        "some uncertain": is_uncertain,
    }
    rows = []
    for name, members in kinds.items():
        if members.any():
            mean = summary(part(model, members.nonzero().flatten().tolist(), resamples, 0), names)[-1]
            rows.append(
                {"name": name, "count": int(members.sum()), "auroc": str(mean["AUROC"]), "auprc": str(mean["AUPRC"])}
            )
    return rows


def _examples(gallery: Gallery, count: int, model: Judged, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """For each class its best and worst images; none where no image can be had."""
    strips = []
    for c, name in enumerate(names):
        images = []
        for kind, (state, is_likely) in _KINDS.items():
            rows = (model.truth.targets[:, c] == state).nonzero().flatten()
            order = rows[model.scores[rows, c].argsort(descending=is_likely)][:count]
            for row in order.tolist():
                picture = gallery.picture(row, c)
                if picture is not None:
                    prob = f"{float(model.scores[row, c]):.3f}"
                    title = f"{model.truth.ids[row]}: {name} {prob}"
                    images.append({"kind": kind, "title": title, "prob": prob, "data": picture})
        if images:
            strips.append({"name": name, "images": images})
    return strips


def _cell(interval: Interval) -> dict[str, Any]:
    return {"text": _number(interval.value), "sort": interval.value, "more": _range(interval)}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _range(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}"
