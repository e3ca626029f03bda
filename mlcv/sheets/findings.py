"""What somebody should look at, and what a pipeline may be stopped for."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlcv.data.paths import end_of
from mlcv.labels.states import known
from mlcv.sheets.collection import Collection
from mlcv.sheets.measure import Compared, Facts
from mlcv.sheets.near import Pair
from mlcv.tables import printable

KINDS = {
    "leakage": "an image, a near-duplicate of it or its group is in two splits",
    "conflicts": "copies of an image have labels that contradict each other",
    "duplicates": "an image is there twice within a split, exactly or nearly",
    "unreadable": "images that cannot be decoded",
    "unjudged": "classes that no metric can judge in a split that evaluates",
    "drift": "label rates or images differ between splits, or values of a column",
    "shortcuts": "a label follows brightness, borders, sizes or a column",
}
"""Each with what it means."""
_NAMED = 5
"""Of classes in a sentence."""


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Args:
        kind: one of `KINDS`.
        text: a sentence.
    """

    kind: str
    text: str


def contradicted(collection: Collection, pair: Pair) -> list[str]:
    """Classes of which two copies are known to say different things."""
    one, other = collection.states[pair.one], collection.states[pair.other]
    return [collection.names[c] for c in np.flatnonzero(known(one) & known(other) & (one != other))]


def find(collection: Collection, facts: Facts) -> list[Finding]:
    """All findings, in the order of `KINDS`."""
    order = list(KINDS)
    found = [*_of_images(collection, facts), *_of_labels(facts)]
    return sorted(found, key=lambda one: order.index(one.kind))


def _of_images(collection: Collection, facts: Facts) -> Iterator[Finding]:
    numbers = collection.split_numbers

    def named(pair: Pair) -> str:
        return " and ".join(printable(end_of(collection.where(row), 2)) for row in (pair.one, pair.other))

    by_splits = defaultdict(list)
    for pair in facts.pairs:
        one, other = sorted((int(numbers[pair.one]), int(numbers[pair.other])))
        by_splits[one, other].append(pair)
    splits = list(collection.splits)
    for (one, other), chosen in sorted(by_splits.items(), key=lambda item: item[0]):
        exact = sum(pair.is_exact for pair in chosen)
        what = f"{_many(len(chosen), 'pair')} of copies ({exact} exact)"
        if one == other:
            yield Finding("duplicates", f"{what} within {splits[one]}, such as {named(chosen[0])}")
        else:
            yield Finding("leakage", f"{what} between {splits[one]} and {splits[other]}, such as {named(chosen[0])}")
    for shared in facts.shared:
        where = " and ".join(shared.splits)
        yield Finding(
            "leakage",
            f"{shared.count} of {collection.group} in both {where}, such as {printable(shared.names[0])!r}",
        )
    conflicts = [(pair, said) for pair in facts.pairs if (said := contradicted(collection, pair))]
    if conflicts:
        pair, said = conflicts[0]
        yield Finding(
            "conflicts",
            f"{_many(len(conflicts), 'pair')} of copies with labels that contradict each other, such as {named(pair)} "
            f"in {_some(said)}",
        )
    if facts.errors:
        first_error = next(iter(facts.errors.values()))
        yield Finding("unreadable", f"{_many(len(facts.errors), 'image')} cannot be read; the first: {first_error}")


def _of_labels(facts: Facts) -> Iterator[Finding]:
    for split, labels in facts.labels.items():
        if split != "train" and labels.unjudged and labels.images:
            text = f"{split}: {len(labels.unjudged)} of {len(labels.classes)} classes have no known positive or no "
            yield Finding("unjudged", f"{text}known negative: {_some(labels.unjudged)}")
    for compared in facts.compared:
        yield from _drift(facts, compared)
    names = [one.name for one in next(iter(facts.labels.values())).classes]
    for quantity, areas in facts.areas.items():
        follow = {name: one for name, one in zip(names, areas, strict=True) if one.follows}
        if follow:
            worst = sorted(follow, key=lambda name: -abs(follow[name].value - 0.5))
            first = follow[worst[0]]
            yield Finding(
                "shortcuts",
                f"{quantity} alone tells {_some(worst)}: AUROC of the first {first.value:.2f} ({first.low:.2f} to "
                f"{first.high:.2f})",
            )


def _drift(facts: Facts, compared: Compared) -> Iterator[Finding]:
    names = [one.name for one in next(iter(facts.labels.values())).classes]
    gaps = [gap for gap in compared.gaps if gap.is_one]
    if gaps:
        parts = compared.names(gaps[0])
        rates = " and ".join(f"{100 * rate:.1f} % in {part}" for part, rate in zip(parts, gaps[0].rates, strict=True))
        classes = list(dict.fromkeys(names[gap.column] for gap in gaps))
        plural = "differ" if len(classes) > 1 else "differs"
        yield Finding("drift", f"by {compared.what}, how often {_some(classes)} is there {plural}: the first {rates}")
    for quantity, shifts in compared.shifts.items():
        moved = [shift for shift in shifts if shift.is_one]
        if moved:
            one, other = compared.names(moved[0])
            before, after = moved[0].medians
            yield Finding(
                "drift",
                f"by {compared.what}, {quantity} differs: median {before:.3g} in {one} and {after:.3g} in {other} "
                f"(distance of the distributions {moved[0].distance:.2f})",
            )


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
