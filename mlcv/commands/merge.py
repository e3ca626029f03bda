"""`mlcv merge`: data sets that were labelled for different classes, in one table of one label space."""

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from mlcv.commands.arguments import parser_of
from mlcv.commands.merge_sources import Source, build_sources, check_apart, judged, read_plan
from mlcv.data.corrections import STATE_CELLS
from mlcv.data.items import Files
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.splits import group_keys
from mlcv.errors import ConfigError, DataError, check_choice
from mlcv.files import keep_earlier, whole_file, write_table, write_text
from mlcv.labels.label_space import closed, hierarchy_of, joined, mapped, mapped_soft
from mlcv.labels.states import NEGATIVE, POSITIVE, STATE_NAMES, UNCERTAIN, UNKNOWN, States
from mlcv.runs import check_writable
from mlcv.tables import printable
from mlcv.terminal import console, print_table, set_up_logging

logger = logging.getLogger(__name__)

Conflicts = Literal["raise", "unknown", "first"]
_ENDINGS = (".csv", ".parquet")
_LEAST = 1e-7
"""Of a soft label that is written."""


@dataclass(frozen=True)
class Conflict:
    """Labels, or splits, of an image that contradict each other.

    Args:
        row: of the image.
        column: of the class; None of splits.
        what: in words.
    """

    row: int
    column: int | None
    what: str


class _Row(NamedTuple):
    """An image as one data set has it, in the classes of the space."""

    image: str
    split: Split
    source: str
    group: str
    states: States
    soft: NDArray[np.float32] | None


@dataclass
class Merged:
    """The joined table.

    Args:
        class_names: C names.
        images: M paths.
        splits: of each.
        sources: of each, joined by + where an image is in several.
        groups: whose each is, such as a patient of a source; empty where nobody says.
        states: (M, C).
        soft: soft labels of uncertain entries float32 (M, C), NaN for none; None if no source has any.
        conflicts: what contradicts.
        unmapped: of each source the classes that the space has under no other source's name.
        given: of each source positive and negative labels (C, 2), as it gives them.
    """

    class_names: tuple[str, ...]
    images: list[str] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    states: States = field(default_factory=lambda: np.empty((0, 0), np.int8))
    soft: NDArray[np.float32] | None = None
    conflicts: list[Conflict] = field(default_factory=list)
    unmapped: dict[str, list[str]] = field(default_factory=dict)
    given: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def merge(file: str | Path, out: str | Path = "merged.csv") -> Merged:
    """Joins data sets, and writes a table, a config of it and a list of conflicts.

    Args:
        file: YAML: `sources`, each with a `class_path` and `init_args` of a DataModule (or the arguments of a table
            reader, such as `path`) and `classes`, other names of its classes, null for one that is left out; `classes`
            of the joined space (default: all); `hierarchy`, the children of parents, which no source has to judge;
            `conflicts`: `raise`, `unknown` or `first`.
        out: CSV or Parquet; beside it `<name>.yaml`, for `--data`, and `<name>_conflicts.csv` if there are any.

    Raises:
        UserError: for a file that cannot be read as meant, or conflicts that nobody has decided about.
    """
    set_up_logging()
    out = Path(out)
    if out.suffix not in _ENDINGS:
        raise ConfigError(f"--out {out}: a table's name ends with {' or '.join(_ENDINGS)}")
    given = read_plan(Path(file))
    check_apart(out, Path(file), given["sources"])
    check_writable(out.parent, "--out")
    hierarchy = given.get("hierarchy") or {}
    sources, class_names = build_sources(given["sources"], given.get("classes"), list(hierarchy))
    parents = hierarchy_of(hierarchy, class_names)
    policy = given.get("conflicts", "raise")
    check_choice("conflicts", policy, ("raise", "unknown", "first"))
    merged = Merged(class_names)
    for source in sources:
        shared = {name for other in sources if other is not source for name in judged(other, class_names)}
        merged.unmapped[source.name] = [name for name in judged(source, class_names) if name not in shared]
    _join(merged, sources)
    _follow(merged, parents, policy)
    path = out.with_name(f"{out.stem}_conflicts.csv")
    if merged.conflicts and policy == "raise":
        _write_conflicts(path, merged, policy)
        one = merged.conflicts[0]
        of_class = "" if one.column is None else f", class {class_names[one.column]!r}"
        raise DataError(
            f"merge: {_counted(merged.conflicts)}, such as {printable(merged.images[one.row])}"
            f"{of_class}: {one.what}. All are in {path}; put them right, or say conflicts: unknown or first"
        )
    _write(out, merged)
    if merged.conflicts:
        _write_conflicts(path, merged, policy)
    elif path.is_file():
        keep_earlier(path)  # it is of an earlier table
    return merged


def main(arguments: list[str]) -> None:
    """Joins data sets, and says what came of it.

    Raises:
        UserError: as `merge`.
    """
    options = parser_of("merge").parse_args(arguments)
    merged = merge(options.file, options.out)
    rows = [
        [name, *(f"{counts[c][0]}/{counts[c][1]}" if counts[c].any() else "" for counts in merged.given.values())]
        for c, name in enumerate(merged.class_names)
    ]
    print_table(console(), ["positive/negative", *merged.given], rows, everything=options.out)
    _print_rest(merged, Path(options.out))


def _print_rest(merged: Merged, out: Path) -> None:
    for name, classes in merged.unmapped.items():
        if classes:
            console().print(f"only {name} judges {', '.join(classes)}", soft_wrap=True)
    judged_by_some = np.any(list(merged.given.values()), axis=(0, 2))
    if alone := [name for name, is_one in zip(merged.class_names, judged_by_some, strict=True) if not is_one]:
        console().print(f"no source has labels of {', '.join(alone)}: what follows from other classes", soft_wrap=True)
    if count := len(merged.conflicts):
        console().print(f"{count} conflict{'' if count == 1 else 's'}: {out.stem}_conflicts.csv")
    counts = Counter(merged.splits)
    splits = ", ".join(f"{counts[split]} {split}" for split in get_args(Split) if counts[split])
    console().print(
        f"{len(merged.images)} images ({splits}), {len(merged.class_names)} classes: {out}; train with --data "
        f"{out.with_suffix('.yaml')}",
        soft_wrap=True,
    )


def _counted(conflicts: Sequence[Conflict]) -> str:
    """How many are of labels, and how many of splits."""
    labels = sum(one.column is not None for one in conflicts)
    counts = {"of labels": labels, "of splits": len(conflicts) - labels}
    kinds = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{len(conflicts)} contradiction{'' if len(conflicts) == 1 else 's'} ({kinds})"


def _join(merged: Merged, sources: Sequence[Source]) -> None:
    """Fills the table, an image once, with what its sources say; what contradicts is noted."""
    count = len(merged.class_names)
    rows = [row for source in sources for row in _rows(source, count)]
    for row in rows:
        if row.image.encode(errors="replace") != os.fsencode(row.image):
            name = printable(row.image)
            raise DataError(f"merge: sources: {row.source}: no table can hold {name}, which is no UTF-8: rename it")
    merged.given = {source.name: np.zeros((count, 2), np.int64) for source in sources}
    place: dict[str, int] = {}
    joint: list[_Row] = []
    seen: set[tuple[str, str]] = set()
    alike: list[tuple[str, str]] = []
    own: dict[tuple[str, str], _Row] = {}
    for key, row in zip(_same([row.image for row in rows]), rows, strict=True):
        if (row.source, key) not in seen:
            seen.add((row.source, key))
            merged.given[row.source] += np.stack([row.states == POSITIVE, row.states == NEGATIVE], axis=1)
        at = place.setdefault(key, len(joint))
        if at == len(joint):
            joint.append(row)
            own[row.source, row.image] = row
            continue
        if row.group and joint[at].group:
            alike.append((joint[at].group, row.group))
        first = own.setdefault((row.source, row.image), row)
        if {first.split, row.split} == {"val", "test"} and np.array_equal(first.states, row.states):
            # The same row again, of a data set that tests on what validates: what it contradicts is noted.
            joint[at] = joint[at]._replace(split="test" if joint[at].split == "val" else joint[at].split)
            continue
        joint[at], conflicts = _met(joint[at], row, at)
        merged.conflicts += conflicts
    merged.images, merged.splits = [row.image for row in joint], [row.split for row in joint]
    merged.sources, merged.groups = [row.source for row in joint], _united([row.group for row in joint], alike)
    _hold_out_groups(merged)
    merged.states = np.stack([row.states for row in joint]) if joint else np.empty((0, count), np.int8)
    if any(row.soft is not None for row in joint):
        none = np.full(count, np.nan, np.float32)
        merged.soft = np.stack([none if row.soft is None else row.soft for row in joint])


def _rows(source: Source, count: int) -> Iterator[_Row]:
    for split, labeled in source.splits.items():
        if not isinstance(labeled.items, Files):
            raise ConfigError(f"merge: sources: {source.name}: its images are not in files, so no table names them")
        states = mapped(labeled.states, source.places, count)
        soft = None if labeled.soft is None else mapped_soft(labeled.soft, source.places, states)
        for n, (name, group) in enumerate(zip(labeled.items, _groups(source, labeled), strict=True)):
            own = None if soft is None else soft[n]
            yield _Row(str(Path(name).resolve()), split, source.name, group, states[n], own)


def _met(one: _Row, other: _Row, at: int) -> tuple[_Row, list[Conflict]]:
    """What two rows say of one image, in this file or in another with the same content; and what contradicts."""
    conflicts = []
    split = one.split
    if {split, other.split} == {"val", "test"}:
        split = "test"  # data sets without test labels test on what validates
    elif split != other.split:
        what = f"it is in {split} of {one.source}, and in {other.split} of {other.source} ({other.image})"
        conflicts.append(Conflict(at, None, what))
        if split == "train":  # what is tested never trains
            split = other.split
    states, differs = joined(one.states, other.states)
    for column in np.flatnonzero(differs).tolist():
        first, second = STATE_NAMES[int(states[column])], STATE_NAMES[int(other.states[column])]
        what = f"{one.source} says {first}, {other.source} {second} ({other.image})"
        conflicts.append(Conflict(at, column, what))
    names = dict.fromkeys([*one.source.split("+"), other.source])
    soft = one.soft if other.soft is None else other.soft
    if one.soft is not None and other.soft is not None:
        soft = np.where(np.isnan(one.soft), other.soft, one.soft)
    return _Row(one.image, split, "+".join(names), one.group or other.group, states, soft), conflicts


def _united(groups: Sequence[str], alike: Sequence[tuple[str, str]]) -> list[str]:
    """Groups of which two have an image in common are one, named by the first."""
    head: dict[str, str] = {}

    def find(name: str) -> str:
        while name in head:
            name = head[name]
        return name

    for one, other in alike:
        first, second = find(one), find(other)
        if first != second:
            head[second] = first
    return [find(name) for name in groups]


def _hold_out_groups(merged: Merged) -> None:
    """An image that is held out takes its whole group with it: to test if any of it is there, else to val."""
    held: dict[str, int] = {}
    for row, (group, split) in enumerate(zip(merged.groups, merged.splits, strict=True)):
        if group and split != "train" and (group not in held or split == "test"):
            held[group] = row
    for row, group in enumerate(merged.groups):
        first = held.get(group, row)
        split = merged.splits[first]
        if merged.splits[row] == "train" != split:
            what = f"it is in train, and another image of its group {group} in {split} ({merged.images[first]})"
            merged.conflicts.append(Conflict(row, None, what))
        merged.splits[row] = split


def _groups(source: Source, labeled: LabeledImages) -> list[str]:
    """Patients of two sources are never the same."""
    if source.data.group is None:
        return [""] * len(labeled)
    keys = group_keys(labeled.about[source.data.group].tolist())
    return [f"{source.name}:{key}" if isinstance(key, str) else "" for key in keys]


def _same(names: Sequence[str]) -> list[str]:
    """A key for each file: its path, or its content where files of one size have the same."""
    sizes = defaultdict(set)
    for name in names:
        sizes[_size(name)].add(name)
    keys = {}
    for alike in sizes.values():
        for name in alike:
            # Reading all files takes long; those of a size of their own are like no other.
            keys[name] = hashlib.sha256(Path(name).read_bytes()).hexdigest() if len(alike) > 1 else name
    return [keys[name] for name in names]


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size  # noqa: PTH116  # of many paths
    except OSError as error:
        raise DataError(f"merge: {printable(name)} cannot be read ({type(error).__name__})") from error


def _follow(merged: Merged, parents: Sequence[tuple[int, int]], policy: Conflicts) -> None:
    """Decides what contradicts, and adds what follows from the hierarchy; from no label that is contested.

    So nothing is absent only because of a label that does not stand.
    """
    contested = np.zeros(merged.states.shape, bool)
    for one in merged.conflicts:
        if one.column is not None:
            contested[one.row, one.column] = True
    stands = merged.states.copy()
    if policy == "unknown":
        stands[contested] = UNKNOWN
    firm = stands.copy()
    while True:
        found, contradicts = closed(firm, parents)
        if not contradicts.any():
            break
        for row, column in np.argwhere(contradicts).tolist():
            said = STATE_NAMES[int(firm[row, column])]
            what = f"{merged.sources[row]} says {said}, which the hierarchy does not allow"
            merged.conflicts.append(Conflict(row, column, what))
        firm[contradicts] = UNKNOWN  # each turn takes a given label away, so there is an end
    # A contested label that is believed stays, though nothing follows from it.
    merged.states = found if policy == "unknown" else np.where(stands != firm, stands, found).astype(np.int8)
    if merged.soft is not None:
        merged.soft[merged.states != UNCERTAIN] = np.nan


def _write_conflicts(path: Path, merged: Merged, policy: Conflicts) -> None:
    done = {"raise": "", "unknown": "unknown", "first": "as it is first given"}[policy]
    rows = (
        [
            printable(merged.images[one.row]),
            "" if one.column is None else merged.class_names[one.column],
            one.what,
            done if one.column is not None or not done else "never trains",
        ]
        for one in merged.conflicts
    )
    write_table(path, ["image", "class", "what", "done"], rows, keep=True)


def _write(out: Path, merged: Merged) -> None:
    has_groups = any(merged.groups)
    about: dict[str, Sequence[str]] = {"image": merged.images, "split": merged.splits, "source": merged.sources}
    if has_groups:
        about["group"] = merged.groups
    words = [STATE_CELLS[state] for state in (UNCERTAIN, UNKNOWN, NEGATIVE, POSITIVE)]
    cells = np.array(words, object)[merged.states + 2]  # objects: numbers may be longer than words
    if merged.soft is not None:
        some = ~np.isnan(merged.soft)
        # As a plain 0 or 1 it would be absent or present.
        cells[some] = [str(value) for value in np.clip(merged.soft[some], np.float32(_LEAST), np.float32(1 - _LEAST))]
    if out.suffix == ".csv":
        rows = zip(*about.values(), *cells.T.tolist(), strict=True)
        write_table(out, [*about, *merged.class_names], rows, keep=True, shield=False)
    else:
        from mlcv.tables.polars_columns import write_parquet  # noqa: PLC0415  # polars takes 0.1 s

        with whole_file(out, "wb", keep=True) as file:
            write_parquet(file, about, dict(zip(merged.class_names, cells.T.tolist(), strict=True)))
    arguments: dict[str, Any] = {
        "path": str(out.resolve()), "image_column": "image", "split_column": "split",
        "label_columns": list(merged.class_names), "labels_column": None, "long": None, "duplicates": "raise",
        "group_column": "group" if has_groups else None, "val_fraction": 0.0 if "val" in merged.splits else 0.1,
        "codes": {"positive": ["1"], "negative": ["0"], "uncertain": ["uncertain"], "unknown": ["unknown"],
                  "blank": "unknown", "fractions": "soft"},
    }  # fmt: skip
    # All that another config's data may say, over which these go.
    text = yaml.safe_dump({"class_path": "CSVDataModule", "init_args": arguments}, sort_keys=False, width=120)
    write_text(
        out.with_suffix(".yaml"), f"# Written by mlcv merge; --data {out.with_suffix('.yaml')}\n{text}", keep=True
    )
