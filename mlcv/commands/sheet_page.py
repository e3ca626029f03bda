"""The page of `mlcv data`: one HTML file that needs nothing else."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from mlcv.commands.sheet_pictures import Album, balanced, typical_and_confusing
from mlcv.files import write_text
from mlcv.sheets.collection import Collection
from mlcv.sheets.findings import KINDS, Finding, contradicted
from mlcv.sheets.labels import ClassFacts
from mlcv.sheets.looks import kinds_of_looks
from mlcv.sheets.measure import Compared, Facts
from mlcv.tables import printable

_PAIRS, _CLASSES, _ROWS, _SHORT, _KIND = 24, 40, 30, 12, 6
"""At most: pairs of copies, classes in the heat map, and with examples, rows of a table and of one in which nothing is
marked, images of a kind."""
_CELL, _LETTER, _LONGEST = 18, 6.6, 18
"""Of the heat map, in units of its drawing: side of a cell, width of a letter; and letters of a name."""
_FEW = 3.0
"""Images that are expected to show two classes, below which that none does means nothing (Poisson: 5 %)."""
_FULL = 3.0
"""Powers of two of a lift that have the full colour."""


def write_sheet_page(
    path: Path,
    collection: Collection,
    facts: Facts,
    findings: Sequence[Finding],
    what: dict[str, Any],
    examples: int,
    max_megapixels: float,
    features: NDArray[Any] | None = None,
) -> None:
    """Writes the page; an earlier one is kept under another name.

    Args:
        path: of the HTML file.
        collection: of the images.
        facts: on them.
        findings: to look at.
        what: the data are: by name, see the template.
        examples: images of each class.
        max_megapixels: see `read_image`.
        features: (M, D), by which typical and confusing images are chosen; NaN where an image has none.

    Raises:
        ConfigError: if it cannot be written.
    """
    album = Album(collection, max_megapixels, facts.looks)
    names = list(collection.names)
    page = (
        Environment(loader=PackageLoader("mlcv.commands", "."), autoescape=True)
        .get_template("sheet.html.j2")
        .render(
            what=what,
            names=names,
            findings=findings,
            kinds=KINDS,
            splits=_splits(facts, what),
            classes=_classes(facts, names),
            sizes=_sizes(facts),
            combinations=_combinations(facts),
            heat=heat_map(facts, names),
            heat_note=f"Of {len(names)} classes, the {_CLASSES} commonest are drawn." if len(names) > _CLASSES else "",
            seen=facts.looks is not None,
            is_grey=facts.is_grey,
            further=features is not None,
            kinds_of_images=_kinds(facts, album),
            images=_images(facts, collection),
            pairs=_pairs(facts, collection, album),
            pair_count=len(facts.pairs),
            errors=[str(why) for why in list(facts.errors.values())[:_ROWS]],
            error_count=len(facts.errors),
            compared=[_compared(one, names) for one in facts.compared if len(one.parts) > 1],
            areas=_areas(facts, names),
            strips=balanced(album, examples, _CLASSES),
            typical=[] if features is None else typical_and_confusing(album, features, examples, _CLASSES),
        )
    )
    write_text(path, page, keep=True)


def _splits(facts: Facts, what: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, labels in facts.labels.items():
        about = what["splits"][name]
        total = sum(about[state] for state in ("positive", "negative", "unknown", "uncertain"))
        shares = (about["positive"] + about["negative"], about["unknown"], about["uncertain"])
        rows.append([
            name, f"{labels.images}", f"{about['groups']}" if what["group"] else "",
            *(f"{100 * share / total:.1f} %" if total else "-" for share in shares),
            _number(labels.positives_an_image, ".2f"), _number(labels.imbalance, ".1f"), f"{len(labels.unjudged)}",
            f"{about['fingerprint']} {about['labels']}",
        ])  # fmt: skip
    return rows


def _classes(facts: Facts, names: list[str]) -> dict[str, Any]:
    """A row a class: of each split the rate with its interval, and counts of what is not known."""
    head = ["class"]
    for split in facts.labels:
        head += [f"{split}: positive", "known", "rate"]
    rows = []
    for c, name in enumerate(names):
        row: list[dict[str, Any]] = [{"text": name, "sort": name}]
        for labels in facts.labels.values():
            row += _cells(labels.classes[c])
        rows.append(row)
    return {"head": head, "rows": rows}


def _cells(one: ClassFacts) -> list[dict[str, Any]]:
    counts = {state: getattr(one, state) for state in ("unknown", "uncertain", "soft")}
    others = ", ".join(f"{count}\N{NO-BREAK SPACE}{state}" for state, count in counts.items() if count)
    rate, interval = (
        (f"{100 * one.rate:.1f} %", f"{100 * one.low:.1f} to {100 * one.high:.1f}".replace(" ", "\N{NO-BREAK SPACE}"))
        if one.known
        else ("-", "")
    )
    return [
        {"text": one.positive, "sort": one.positive},
        {"text": one.known, "sort": one.known, "more": others},
        {
            "text": rate,
            "sort": one.rate if one.known else -1,
            "more": interval,
            "class": "" if one.is_judged else "warn",
        },
    ]


def _sizes(facts: Facts) -> list[dict[str, Any]]:
    """How many images have so many labels, as parts of each split."""
    most = min(max((len(one.sizes) for one in facts.labels.values()), default=0), 12)
    return [
        {
            "name": name,
            "bars": [
                {"size": f"{n}{'+' if n == most - 1 and len(one.sizes) > most else ''}", "count": count,
                 "part": 100 * count / max(one.images, 1)}
                for n in range(most)
                for count in [sum(one.sizes[n:]) if n == most - 1 else one.sizes[n] if n < len(one.sizes) else 0]
            ],
        }
        for name, one in facts.labels.items()
    ]  # fmt: skip


def _combinations(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "name": name, "sets": one.sets, "single": one.single,
            "rows": [
                (" + ".join(names) or "none", count, f"{100 * count / one.images:.1f} %")
                for names, count in one.combinations
            ],
        }
        for name, one in facts.labels.items()
        if one.images
    ]  # fmt: skip


def heat_map(facts: Facts, names: Sequence[str]) -> str:
    """The lift of each two classes as SVG, like beside like; nothing if no class occurs."""
    both, lift, expected = facts.together.both, facts.together.lift, facts.together.expected
    occurs = np.diag(both)
    commonest = set(np.argsort(-occurs, kind="stable")[:_CLASSES].tolist())
    order = [c for c in facts.together.order.tolist() if c in commonest and occurs[c] > 0]
    if len(order) < 2:
        return ""
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in map(printable, names)]
    left = round(_LETTER * max(len(short[c]) for c in order)) + 12
    top, side = left, _CELL * len(order)
    width = left + side + left // 2
    parts = [
        f'<svg viewBox="0 0 {width} {top + side}" role="img" aria-label="Lift of classes that occur together" '
        f'style="min-width:{width}px;max-width:{int(1.3 * width)}px;width:100%">'
    ]
    for n, c in enumerate(order):
        name = escape(short[c])
        middle = _CELL * (n + 0.5)
        parts.append(f'<text x="{left - 5}" y="{top + middle + 4}" text-anchor="end">{name}</text>')
        x = left + middle + 3
        parts.append(f'<text transform="translate({x} {top - 5}) rotate(-60)">{name}</text>')
    for i, one in enumerate(order):
        for j, other in enumerate(order):
            title = f"{names[one]} and {names[other]}: {both[one, other]} images"
            if one == other:
                title, colour = f"{names[one]}: {both[one, one]} images", "#b9c3cd"
            else:
                says = both[one, other] > 0 or expected[one, other] >= _FEW
                colour = _colour(float(lift[one, other]) if says else np.nan)
                title += "" if np.isnan(lift[one, other]) else f", lift {lift[one, other]:.2f}"
            parts.append(
                f'<rect x="{left + _CELL * j}" y="{top + _CELL * i}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'fill="{colour}"><title>{escape(printable(title))}</title></rect>'
            )
    return "".join([*parts, "</svg>"])


def _colour(lift: float) -> str:
    """Blue where two classes avoid each other, orange where they seek each other, white where neither."""
    if np.isnan(lift):
        return "#f6f8fa"
    power = float(np.clip(np.log2(max(lift, 1e-9)), -_FULL, _FULL)) / _FULL
    full = (209, 96, 45) if power > 0 else (31, 95, 168)
    red, green, blue = (round(255 + abs(power) * (level - 255)) for level in full)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _kinds(facts: Facts, album: Album) -> list[dict[str, Any]]:
    if facts.looks is None:
        return []
    return [
        {
            "name": kind,
            "count": len(rows),
            "images": album.strip(rows[:_KIND]) if not (kind == "grey" and facts.is_grey) else [],
        }
        for kind, rows in kinds_of_looks(facts.looks).items()
        if rows
    ]


def _images(facts: Facts, collection: Collection) -> list[list[str]]:
    """Of each split and quantity the 5th, 50th and 95th percentile."""
    if facts.looks is None:
        return []
    rows = []
    for name, chosen in collection.parts().items():
        looks = facts.looks[chosen]
        looks = looks[looks["good"]]
        cells = [name, f"{len(looks)}", f"{len(chosen) - len(looks)}"]
        if len(looks):
            ratio = looks["width"] / looks["height"]
            for values, form in (
                (looks["width"], ".0f"),
                (looks["height"], ".0f"),
                (ratio, ".2f"),
                (looks["mean"], ".0f"),
            ):
                low, middle, high = np.percentile(values, (5, 50, 95))
                cells.append(f"{middle:{form}} ({low:{form}} to {high:{form}})")
            cells.append(f"{100 * looks['grey'].mean():.0f} %")
            bits, counts = np.unique(looks["bits"], return_counts=True)
            cells.append(", ".join(f"{bit} ({count})" for bit, count in zip(bits, counts, strict=True)))
        rows.append(cells + ["-"] * (9 - len(cells)))
    return rows


def _pairs(facts: Facts, collection: Collection, album: Album) -> list[dict[str, Any]]:
    """Those between splits first, then those that contradict each other, then the most alike."""

    def order(pair: Any) -> tuple[bool, bool, float]:
        same = collection.split_of(pair.one) == collection.split_of(pair.other)
        return same, not contradicted(collection, pair), -pair.fit

    shown = []
    for pair in sorted(facts.pairs, key=order)[:_PAIRS]:
        figures = [album.figure(row, collection.split_of(row)) for row in (pair.one, pair.other)]
        said = "same file content" if pair.is_exact else f"alike {pair.fit:.3f}"
        shown.append({
            "images": [figure for figure in figures if figure is not None],
            "said": f"{said}{', mirrored' if pair.is_mirrored else ''}",
            "conflict": ", ".join(contradicted(collection, pair)),
            "between": collection.split_of(pair.one) != collection.split_of(pair.other),
        })  # fmt: skip
    return shown


def _compared(one: Compared, names: list[str]) -> dict[str, Any]:
    gaps = one.gaps[: max(_SHORT, min(sum(gap.is_one for gap in one.gaps), _ROWS))]
    return {
        "what": one.what,
        "rates": [
            [names[gap.column], *one.names(gap), *(f"{100 * rate:.1f} %" for rate in gap.rates), f"{gap.odds:.2f}",
             _p(gap.p), gap.is_one]
            for gap in gaps
        ],
        "more": len(one.gaps) - len(gaps),
        "shifts": [
            [name, *one.names(shift), *(f"{value:.3g}" for value in shift.medians), f"{shift.distance:.3f}",
             _p(shift.p), shift.is_one]
            for name, shifts in one.shifts.items()
            for shift in shifts[:3]
        ],
    }  # fmt: skip


def _areas(facts: Facts, names: list[str]) -> list[list[Any]]:
    """The classes and quantities that are furthest from telling nothing."""
    found = [
        (
            abs(one.value - 0.5),
            [names[c], quantity, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}", one.follows],
        )
        for quantity, areas in facts.areas.items()
        for c, one in enumerate(areas)
        if not np.isnan(one.value)
    ]
    found.sort(key=lambda pair: (not pair[1][-1], -pair[0]))
    return [row for n, (_, row) in enumerate(found[:_ROWS]) if n < _SHORT or row[-1]]


def _number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else f"{value:{form}}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}" if value > 1e-99 else "< 1e-99"
