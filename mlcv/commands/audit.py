"""`mlcv audit`: which labels are wrong, a page to decide on, what to label next."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from mlcv.audits.judge import judge, too_few
from mlcv.audits.review import to_review
from mlcv.command_line import take
from mlcv.commands.arguments import parser_of
from mlcv.commands.audit_decisions import earlier_rows, read_decisions, revised
from mlcv.commands.audit_files import (
    Entries,
    Part,
    class_rows,
    ordered,
    write_classes,
    write_entries,
    write_next,
    write_suggestions,
    write_summary,
)
from mlcv.commands.options import joined, truth_file
from mlcv.data.items import Files
from mlcv.data.samples import Split
from mlcv.errors import ConfigError, DataError, check_choice, listed
from mlcv.labels.states import UNKNOWN
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.predictions import combine
from mlcv.posthoc.truth import TruthFile
from mlcv.runs import check_writable
from mlcv.shipped_configs import find_config
from mlcv.tables import TRUTH, printable, read_table
from mlcv.terminal import console, print_table, set_up_logging

logger = logging.getLogger(__name__)

Order = Literal["errors", "mean_ap", "review"]

_OPTIONS = (
    "out", "folds", "full", "splits", "order", "show", "decisions", "budget", "unit", "sure", "image_root", "seed",
)  # fmt: skip
"""Of the command line, as arguments of `audit`."""


@dataclass(frozen=True)
class Audit:
    """What an audit has found.

    Args:
        folder: of its files.
        parts: each split, or the file, with its judgement.
        entries: all known ones, most suspicious first.
        classes: a row for each class and given value, as `classes.csv` has them.
        summary: as `audit.json` has it.
        written: names of the files for people; an earlier call may have left others in the folder.
    """

    folder: Path
    parts: list[Part]
    entries: Entries
    classes: list[dict[str, Any]]
    summary: dict[str, Any]
    written: tuple[str, ...]


def audit(  # noqa: PLR0913  # one flat list is what the command line shows
    predictions: str | Path | Sequence[str | Path] = (),
    truth: str | Path | TruthFile | None = None,
    *,
    options: Sequence[str] = (),
    out: str | Path | None = None,
    folds: int = 5,
    full: bool = False,
    splits: Sequence[Split] = ("train",),
    order: Order = "errors",
    show: int = 200,
    decisions: str | Path | None = None,
    budget: int = 0,
    unit: Literal["images", "entries"] = "images",
    sure: float | None = None,
    image_root: str | Path | None = None,
    seed: int = 0,
) -> Audit:
    """Judges every known label by models that did not see it, and writes tables and a page on which to decide.

    Args:
        predictions: files of predictions of images that their model did not train on, with the labels in them; logits
            of several are averaged. None: models are trained.
        truth: labels in another file, or how they are read.
        options: of `mlcv fit`, such as `["--config", "voc/lite0"]`, for models that are trained here: each without one
            part of the training images, which it judges.
        out: folder; `runs/audit-<config>` if None, or that of the predictions.
        folds: parts of the training images.
        full: train whole networks, not heads on features of a frozen backbone.
        splits: that are judged, of a config's data.
        order: `errors` finds most wrong labels a look; `mean_ap` serves a mean over classes; `review` mixes the most
            suspicious with others, drawn, so that a hundred decisions tell how far probabilities can be believed.
        show: entries on the page; 0 for no page.
        decisions: `corrections.csv` of earlier decisions: probabilities are mended by them.
        budget: how much is to be labelled next, see `next.csv`; 0 for nothing.
        unit: of the budget.
        sure: least probability of suggestions for unknown entries; 0.9 if None.
        image_root: folder that names in files of predictions start from.
        seed: of draws.

    Raises:
        UserError: for files or options that cannot be used, before anything is trained.
    """
    set_up_logging()
    check_choice("order", order, ("errors", "mean_ap", "review"))
    check_choice("unit", unit, ("images", "entries"))
    sure = 0.9 if sure is None else sure
    if not 0.5 <= sure <= 1:
        raise ConfigError(f"sure is a probability from 0.5 on, got {sure}")
    paths = listed(predictions) if predictions else []
    folder = _folder(out, paths, options)
    check_writable(folder, "--out")
    decided = None if decisions is None else read_decisions(Path(decisions))
    if paths:
        if options:
            raise ConfigError(f"audit: files of predictions are judged as they are; leave {' '.join(options[:2])} out")
        parts, features, heat = _of_files(paths, TruthFile.of(truth), image_root, seed)
        corrected: list[Path] = []
    else:
        parts, features, heat, corrected = _of_models(options, folder, folds, full, splits, seed)
    earlier = earlier_rows([*corrected, *([] if decisions is None else [Path(decisions)])], parts)
    if decided is not None:
        parts = revised(parts, decided)
    entries = ordered(parts, "errors" if order == "review" else order)
    if not len(entries):
        raise DataError("audit: no label is known, so there is nothing to judge")
    write_entries(folder / "entries.csv", parts, entries)
    classes = class_rows(parts)
    write_classes(folder / "classes.csv", classes)
    suggested = write_suggestions(folder / "suggestions.csv", parts, sure)
    if budget:
        write_next(folder / "next.csv", parts[0], budget, unit)
    summary = _summary(parts, len(entries), suggested)
    write_summary(folder / "audit.json", summary)
    if show:
        from mlcv.commands.audit_pictures import draw  # noqa: PLC0415  # scikit-learn

        shown = _shown(parts, entries, order, show, seed)
        absent = draw(folder / "audit.html", parts, shown, features, heat, f"Labels to look at: {folder.name}", earlier)
        if absent:
            logger.warning("%d of %d images on the page cannot be read; give --image_root", absent, len(shown))
    more = (*(["next.csv"] if budget else []), *(["audit.html"] if show else []))
    return Audit(folder, parts, entries, classes, summary, ("entries.csv", "suggestions.csv", "classes.csv", *more))


def main(arguments: list[str]) -> None:
    """Audits, and prints what was found; or what corrections were worth, or what annotators say together.

    Raises:
        UserError: as `audit`.
    """
    parser = parser_of("audit")
    options, others = parser.parse_known_args(joined(arguments, parser))
    if options.votes is not None:
        _votes(options, others)
    elif options.effect is not None:
        _effect(options, others)
    else:
        given = {name: getattr(options, name) for name in _OPTIONS}
        show_audit(audit(options.predictions, truth_file(options), options=others, **given))


def _votes(options: Any, others: Sequence[str]) -> None:
    from mlcv.commands.audit_votes import agree, show_agreed  # noqa: PLC0415
    from mlcv.commands.votes_file import VotesFile  # noqa: PLC0415

    if others:
        raise ConfigError(f"audit: --votes trains nothing; leave {' '.join(others[:2])} out")
    truth = truth_file(options)
    source = VotesFile(
        tuple(options.votes), truth.ids, options.annotator, options.class_column, options.answer, truth.classes,
        truth.codes,
    )  # fmt: skip
    given = {name: getattr(options, name) for name in ("method", "rates_of", "soft", "out", "seed")}
    given |= {} if options.sure is None else {"sure": options.sure}
    show_agreed(agree(source, [*options.predictions, *options.prior], **given))


def _effect(options: Any, others: Sequence[str]) -> None:
    from mlcv.commands.audit_effect import effect, show_effect  # noqa: PLC0415  # Lightning

    given = {name: getattr(options, name) for name in ("study", "out", "seeds", "jobs")}
    show_effect(effect(options.effect, options=others, **given))


def show_audit(found: Audit) -> None:
    """Prints the classes, and where the files are."""
    out, summary = console(), found.summary
    several = len(found.parts) > 1
    rows, doubted, blind = [], set(), set()
    for row in found.classes:
        if row["is_informed"] == "no":
            blind.add((row["class"], row["split"]))
        elif row["is_trusted"] == "no" and row["prevalence"] > 0:
            doubted.add((row["class"], row["split"]))
    for row in sorted(found.classes, key=lambda row: -row["expected"]):
        if not row["known"]:
            continue
        count = "?" if (row["class"], row["split"]) in doubted | blind else f"{row['expected']:.0f}"
        interval = f"{100 * row['low']:.1f}-{100 * row['high']:.1f}"
        split = [row["split"]] if several else []
        rows.append([f"{row['class']}: called {row['given']}", *split, str(row["known"]), count, interval])
    header = ["labels", *(["split"] if several else []), "known", "expected wrong", "error rate, %"]
    print_table(out, header, rows, everything=found.folder / "classes.csv")
    out.print(
        "error rate (95 %): called present, of all that is not there; called absent, of all that is there"
        + ("" if any(part.judgement.has_own_rates for part in found.parts) else "; all classes share it"),
        soft_wrap=True,
    )
    is_bound = "at least, where errors depend on the image"
    out.print(
        f"\n{summary['known']} known labels, {summary['expected_wrong']:.0f} expected to be wrong ({is_bound}): "
        f"{_percent(summary['health'])} % are right", soft_wrap=True,
    )  # fmt: skip
    if doubted:
        out.print(
            f"the models' probabilities do not fit the labels of {_of_splits(doubted, several)}: believe the "
            "order of entries there, not their number", soft_wrap=True,
        )  # fmt: skip
    if blind:
        out.print(
            f"nothing shows that the models know anything of {_of_splits(blind, several)}: they order its labels no "
            "better than chance; believe neither order nor number there", soft_wrap=True,
        )  # fmt: skip
    out.print(f"{', '.join(found.written)}: {found.folder}", soft_wrap=True)
    if "audit.html" in found.written:
        out.print(
            "decide in a browser, save corrections.csv, and train with --data.corrections corrections.csv",
            soft_wrap=True,
        )


def _of_splits(found: set[tuple[str, str]], several: bool) -> str:
    """Classes by name, each with its split where there are several."""
    return ", ".join(f"{name} ({split})" if several else name for name, split in sorted(found))


def _percent(share: float) -> str:
    """With as many digits as tell it from a hundred."""
    digits = next((digits for digits in (1, 2, 3) if float(f"{100 * share:.{digits}f}") < 100), 1)
    return f"{100 * share:.{digits}f}"


def _folder(out: str | Path | None, paths: Sequence[Path], options: Sequence[str]) -> Path:
    if out is not None:
        return Path(out)
    if paths:
        return paths[0].parent
    configs, _ = take(list(options), "--config", "-c")
    if not configs:
        raise ConfigError("audit: give files of predictions, or --config of an experiment, whose models judge")
    return Path("runs") / f"audit-{Path(find_config(configs[-1])).stem}"


def _of_models(
    options: Sequence[str], folder: Path, folds: int, full: bool, splits: Sequence[Split], seed: int
) -> tuple[list[Part], list[NDArray[Any]], list[Any], list[Path]]:
    """Parts with features and heat maps, and the files of corrections that their labels have."""
    from mlcv.commands.audit_folds import HeatMaps, predict_unseen  # noqa: PLC0415  # Lightning

    parts, features, heat = [], [], []
    corrected: dict[Path, None] = {}
    for one in predict_unseen(options, folder, folds, full, splits):
        names = [printable(one.labeled.name(row)) for row in range(len(one.labeled))]
        groups = None if one.groups is None else np.unique(np.array(one.groups), return_inverse=True)[1]
        _warn_of_rare(one.labeled.states, one.data.class_names, folds)
        found = judge(one.logits, one.labeled.states, groups=groups, seed=seed)
        parts.append(
            Part(one.split, names, one.labeled.items, one.data.class_names, one.labeled.states, one.logits, found)
        )
        features.append(_stored(one.data, one.split, one.labeled, one.logits))
        heat.append(HeatMaps(one).picture)
        if one.data.corrections is not None:
            corrected[one.data.corrections] = None
    return parts, features, heat, list(corrected)


def _stored(data: Any, split: Split, labeled: Any, logits: NDArray[np.float64]) -> NDArray[Any]:
    """Features by which images are alike; where there are none, logits."""
    from mlcv.data.features import Features  # noqa: PLC0415

    if data.features is None:
        return logits
    stored = Features.open(data.features)
    return np.asarray(stored.array("pooled")[stored.rows(split, labeled)], np.float32)


def _of_files(
    paths: Sequence[Path], source: TruthFile, image_root: str | Path | None, seed: int
) -> tuple[list[Part], list[NDArray[Any]], list[Any]]:
    if source.path is None and not any(name.startswith(TRUTH) for name in read_table(paths[0]).names):
        raise DataError(
            f"{paths[0]}: it holds predictions and no labels (columns `{TRUTH}<class>`); name a table of labels with "
            "--truth"
        )
    names, truth, models = read_all(paths, source)
    # Scores may be probabilities or logits; a file's are one or the other.
    models = [replace(model, scores=_logits(model, path)) for model, path in zip(models, paths, strict=True)]
    together = combine(models)
    place = {name: row for row, name in enumerate(together.ids)}
    if missing := [name for name in truth.ids if name not in place]:
        raise DataError(f"{paths[0]}: no predictions for {printable(missing[0])}, and {len(missing)} images in all")
    logits = together.scores.numpy()[[place[name] for name in truth.ids]]
    states = truth.targets.numpy().astype(np.int8)
    owners = np.unique(np.array(truth.owners[0]), return_inverse=True)[1]
    _warn_of_rare(states, names, 1)
    found = judge(logits, states, groups=owners, seed=seed)
    root = "" if image_root is None else str(image_root)
    items = Files([os.path.join(root, name) for name in truth.ids])  # noqa: PTH118  # a Path takes ten times as long
    images = [name if name.isprintable() else printable(name) for name in truth.ids]  # mlcv's own are so already
    return [Part("", images, items, tuple(names), states, logits, found)], [logits], [lambda *_: None]


def _logits(model: Any, path: Path) -> Any:
    import torch  # noqa: PLC0415

    scores = model.scores
    if not ((scores >= 0) & (scores <= 1)).all():
        logger.info("%s holds scores beyond 0 and 1, which are taken for logits", path)
        return scores
    return torch.from_numpy(logit(np.clip(scores.numpy(), 1e-15, 1 - 1e-15)))


def _warn_of_rare(states: NDArray[np.int8], class_names: Sequence[str], folds: int) -> None:
    if rare := too_few(states, class_names, folds=folds):
        logger.warning(
            "too few known labels to learn a class by itself, which is judged with what the others teach: %s",
            ", ".join(rare[:8]) + (f" and {len(rare) - 8} more" if len(rare) > 8 else ""),
        )


def _shown(parts: Sequence[Part], entries: Entries, order: Order, count: int, seed: int) -> Entries:
    """What is on the page."""
    if order == "review":
        return Entries.of([to_review(part.judgement, _open(part), count // len(parts), seed) for part in parts])
    shown = entries.take(slice(count))
    is_open = [
        not parts[part].is_decided[row, column]
        for part, row, column in zip(shown.part.tolist(), shown.row.tolist(), shown.column.tolist(), strict=True)
    ]
    return shown.take(np.flatnonzero(is_open))


def _open(part: Part) -> NDArray[np.int8]:
    """States of what nobody has decided."""
    return np.where(part.is_decided, UNKNOWN, part.states).astype(np.int8)


def _summary(parts: Sequence[Part], count: int, suggested: int) -> dict[str, Any]:
    wrong = float(sum(part.judgement.expected_wrong.sum() for part in parts))
    splits = {part.split: _summary_of(part) for part in parts}
    health = 1 - wrong / count
    return {"known": count, "expected_wrong": wrong, "health": health, "suggestions": suggested, "splits": splits}


def _summary_of(part: Part) -> dict[str, Any]:
    judged = part.judgement
    doubted = [name for name, good in zip(part.class_names, judged.is_trusted, strict=True) if not good]
    return {
        "images": len(part.names),
        "health": judged.health,
        "uses_other_labels": judged.is_stacked,
        "has_own_rates": judged.has_own_rates,
        "not_trusted": doubted,
        "not_informed": [name for name, knows in zip(part.class_names, judged.is_informed, strict=True) if not knows],
    }
