"""`mlcv data`: what a data set is and what is wrong with it, before anything is trained."""

import json
import logging
import math
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv import __version__
from mlcv.command_line import take
from mlcv.commands.arguments import parser_of
from mlcv.commands.preview import data_of
from mlcv.commands.sheet_page import write_sheet_page
from mlcv.data.base import MultiLabelDataModule, usable_cores
from mlcv.data.csv_table import CSVDataModule
from mlcv.data.features import Features
from mlcv.errors import ConfigError, check_choice
from mlcv.files import write_text
from mlcv.labels.protocols import fingerprint
from mlcv.labels.states import count_states
from mlcv.runs import check_writable
from mlcv.sheets.collection import Collection
from mlcv.sheets.findings import KINDS, Finding, contradicted, find
from mlcv.sheets.looks import kinds_of_looks
from mlcv.sheets.measure import Compared, Facts, measure
from mlcv.tables import printable, read_once
from mlcv.terminal import console, print_table

logger = logging.getLogger(__name__)

SOURCE = "source"
"""Header of the column by which data are compared, unless another is named."""
_LINES = 24
"""Of splits and findings in a terminal, so that no more than 30 are printed."""


@dataclass(frozen=True)
class Sheet:
    """What was found.

    Args:
        path: of the page.
        numbers: all that was measured, as in the JSON file beside it.
        findings: what to look at.
    """

    path: Path
    numbers: dict[str, Any]
    findings: list[Finding]

    def failed(self, kinds: Sequence[str]) -> list[Finding]:
        """The findings of these kinds, see `mlcv.sheets.KINDS`."""
        return [one for one in self.findings if one.kind in kinds]


@read_once()
def data_sheet(
    options: Sequence[str],
    out: str | Path = "sheet.html",
    *,
    by: str | None = None,
    about: str = "",
    fail_on: Sequence[str] = (),
    images: bool = True,
    examples: int = 6,
    workers: int | None = None,
) -> Sheet:
    """Looks at all labels and images of a config, and writes a page on them, and a JSON file of all numbers.

    Args:
        options: as of `mlcv fit`, such as `["--config", "configs/voc/bce.yaml"]`.
        out: the page; an earlier one is kept under another name. Beside it are a `.json`, and a `.npz` of looks at
            images, by which the next sheet need not look again.
        by: column whose values are compared, as splits are (default: source, if there is one).
        about: where the data are from, and their licence, for the page.
        fail_on: kinds of findings that `Sheet.failed` will be asked for; checked before anything is read.
        images: whether they are opened; labels and groups alone take seconds.
        examples: images of each class on the page.
        workers: threads, which decode at the same time; one a core if None.

    Returns:
        what was found.

    Raises:
        UserError: for a config or data that cannot be read, or a word that is no kind or column.
    """
    for kind in fail_on:
        check_choice("fail_on", kind, list(KINDS))
    path = Path(out)
    if path.suffix.lower() not in {".html", ".htm"}:
        raise ConfigError(f"--out {path}: a page's name ends with .html; a .json and a .npz of its name lie beside it")
    check_writable(path.parent, "--out")
    config = next(iter(take(list(options), "--config", "-c")[0][-1:]), "")
    data = data_of(options)
    data.on_error = "skip"  # what cannot be read is listed
    if by is not None and isinstance(data, CSVDataModule):
        data.kept_columns = [by]
    collection = Collection(
        {str(name): one for name, one in data.readable_splits(strict=True).items()}, data.class_names, data.group
    )
    cache = path.with_suffix(".npz")
    features = _features(data, collection) if images else None
    column, threads = _column(collection, by), workers or usable_cores()
    facts = measure(collection, column, images, data.max_megapixels, threads, cache, features)
    findings = find(collection, facts)
    numbers = _numbers(data, collection, facts, findings, about, config)
    write_sheet_page(path, collection, facts, findings, numbers["what"], examples, data.max_megapixels, features)
    write_text(path.with_suffix(".json"), json.dumps(_plain(numbers), indent=1, allow_nan=False) + "\n", keep=True)
    return Sheet(path, numbers, findings)


def main(arguments: list[str]) -> int:
    """Prints a summary; 1 if there is a finding of a kind that is not to be, else 0.

    Raises:
        UserError: as `data_sheet`.
    """
    options, others = parser_of("data").parse_known_args(arguments)
    kinds = [kind.strip() for kind in options.fail_on.split(",") if kind.strip()]
    given = {name: getattr(options, name) for name in ("by", "about", "images", "examples", "workers")}
    sheet = data_sheet(others, options.out, fail_on=kinds, **given)
    _print(sheet, kinds)
    return int(bool(sheet.failed(kinds)))


def _column(collection: Collection, by: str | None) -> str | None:
    if by is None:
        return SOURCE if SOURCE in collection.columns else None
    if by not in collection.columns:
        there = ", ".join(collection.columns) or "none"
        raise ConfigError(f"--by {by}: there is no such column; besides labels the data have {there}")
    return by


def _features(data: MultiLabelDataModule, collection: Collection) -> NDArray[np.float32] | None:
    """What `data.features` stores of each image (M, D), NaN where nothing."""
    if data.features is None:
        return None
    stored = Features.open(data.features)
    found = []
    for name, labeled in collection.splits.items():
        rows = stored.rows(name.partition(" = ")[0], labeled)
        values = np.asarray(stored.array("pooled")[rows], np.float32)
        values[stored.array("done")[rows] == 0] = np.nan
        found.append(values)
    return np.concatenate(found)


def _numbers(
    data: MultiLabelDataModule,
    collection: Collection,
    facts: Facts,
    findings: Sequence[Finding],
    about: str,
    config: str,
) -> dict[str, Any]:
    """All that the page says, and more."""
    what = {
        "made_by": f"mlcv {__version__}",
        "data": type(data).__name__,
        "config": config,
        "about": about,
        "protocol": _said(data.protocol) or "none",
        "policy": _said(data.policy) or "as is usual: uncertain labels are left out",
        "blank": getattr(getattr(data, "codes", None), "blank", "unknown"),
        "group": collection.group,
        "splits": {
            name: {
                "images": len(labeled), "fingerprint": labeled.fingerprint(),
                "labels": fingerprint(labeled.states, labeled.soft), "file": labeled.file,
                "groups": len(np.unique(collection.groups[rows])),
                **count_states(labeled.states),
            }
            for (name, labeled), rows in zip(collection.splits.items(), collection.parts().values(), strict=True)
        },
    }  # fmt: skip
    found: dict[str, Any] = {
        "what": what,
        "findings": [asdict(one) for one in findings],
        "labels": {
            name: asdict(one)
            | {"positives_an_image": one.positives_an_image, "imbalance": one.imbalance, "unjudged": one.unjudged}
            for name, one in facts.labels.items()
        },
        "together": {
            "classes": list(collection.names), "order": facts.together.order.tolist(),
            "both": facts.together.both.tolist(), "lift": facts.together.lift.tolist(),
        },
        "shared_groups": [asdict(one) for one in facts.shared],
        "compared": {one.what: _compared(one, collection.names) for one in facts.compared},
        "follows": {
            quantity: {name: asdict(one) for name, one in zip(collection.names, areas, strict=True)}
            for quantity, areas in facts.areas.items()
        },
    }  # fmt: skip
    if facts.looks is not None:
        kinds = kinds_of_looks(facts.looks)
        found["images"] = {
            "compared_as": "radiographs" if facts.is_grey else "photographs",
            "unreadable": {printable(collection.where(row)): str(why) for row, why in facts.errors.items()},
            **{
                kind: [printable(collection.where(row)) for row in rows]
                for kind, rows in kinds.items()
                if kind != "grey"
            },
            "grey": len(kinds["grey"]),
            "copies": [
                asdict(pair)
                | {
                    "names": [printable(collection.where(row)) for row in (pair.one, pair.other)],
                    "splits": [collection.split_of(row) for row in (pair.one, pair.other)],
                    "contradict": contradicted(collection, pair),
                }
                for pair in facts.pairs
            ],
        }
    return found


def _said(settings: Any) -> str:
    """What of a dataclass is not as it is by default."""
    own = [one for one in fields(settings) if getattr(settings, one.name) != one.default]
    own = [one for one in own if one.default_factory is MISSING or getattr(settings, one.name) != one.default_factory()]
    return ", ".join(f"{one.name} {getattr(settings, one.name)}" for one in own)


def _compared(compared: Compared, names: Sequence[str]) -> dict[str, Any]:
    return {
        "parts": {name: len(rows) for name, rows in compared.parts.items()},
        "rates": [
            {"class": names[gap.column], "rates": dict(zip(compared.names(gap), gap.rates, strict=True)),
             "p": gap.p, "odds": gap.odds, "differs": gap.is_one}
            for gap in compared.gaps
        ],
        "quantities": {
            quantity: [
                {"medians": dict(zip(compared.names(one), one.medians, strict=True)), "distance": one.distance,
                 "p": one.p, "differs": one.is_one}
                for one in shifts
            ]
            for quantity, shifts in compared.shifts.items()
        },
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """What JSON knows: no number is none there."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(sheet: Sheet, kinds: Sequence[str]) -> None:
    """At most 30 lines."""
    out = console()
    rows = [
        [
            split, str(one["images"]), f"{labels['positives_an_image']:.2f}" if one["images"] else "-",
            *(_share(one, states) for states in (("positive", "negative"), ("unknown",), ("uncertain",))),
            str(len(labels["unjudged"])),
        ]
        for (split, one), labels in zip(
            sheet.numbers["what"]["splits"].items(), sheet.numbers["labels"].values(), strict=True
        )
    ]  # fmt: skip
    what, classes = sheet.numbers["what"], sheet.numbers["together"]["classes"]
    title = f"{what['config'] or what['data']}: {len(classes)} classes"
    print_table(out, ["split", "images", "positives", "known", "unknown", "uncertain", "unjudged"], rows, title)
    shown = sorted(sheet.findings, key=lambda one: one.kind not in kinds)
    room = _LINES - len(rows)
    for n, one in enumerate(shown):
        lines = textwrap.wrap(f"{'FAILS' if one.kind in kinds else '-'} {one.kind}: {one.text}", max(out.width, 40))
        if len(lines) > room:
            out.print(f"and {len(shown) - n} more findings")
            break
        out.print("\n".join(lines))
        room -= len(lines)
    if not shown:
        out.print("nothing stands out")
    out.print(f"sheet: {sheet.path}, all numbers: {sheet.path.with_suffix('.json')}", soft_wrap=True)


def _share(counts: dict[str, Any], states: Sequence[str]) -> str:
    total = sum(counts[name] for name in ("positive", "negative", "unknown", "uncertain"))
    return f"{100 * sum(counts[name] for name in states) / total:.1f} %" if total else "-"
