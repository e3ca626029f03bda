"""`mlcv merge`: data sets that were labelled for different classes, in one table of one label space."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from mlcv.commands.arguments import parser_of
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.items import Files
from mlcv.data.samples import LabeledImages, Split
from mlcv.data.splits import group_keys
from mlcv.errors import ConfigError, DataError, check_choice
from mlcv.files import keep_earlier, write_table, write_text
from mlcv.labels.label_space import closed, hierarchy_of, joined, mapped
from mlcv.labels.states import NEGATIVE, POSITIVE, STATE_NAMES, UNCERTAIN, UNKNOWN, States
from mlcv.plain_config import build, parse, spec
from mlcv.runs import check_writable
from mlcv.tables import check_class_names, printable
from mlcv.terminal import console, print_table, set_up_logging

logger = logging.getLogger(__name__)

Conflicts = Literal["raise", "unknown", "first"]
_KEYS = ("sources", "classes", "hierarchy", "conflicts")
_OF_A_SOURCE = ("class_path", "init_args", "classes")
CELLS = {POSITIVE: "1", NEGATIVE: "0", UNKNOWN: "", UNCERTAIN: "uncertain"}


@dataclass(frozen=True)
class Source:
    """A data set to be joined.

    Args:
        name: its own.
        data: that reads it.
        splits: its images.
        places: of its classes in the joined space; None where one is left out.
    """

    name: str
    data: MultiLabelDataModule
    splits: Mapping[Split, LabeledImages]
    places: tuple[int | None, ...]


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
    conflicts: list[Conflict] = field(default_factory=list)
    unmapped: dict[str, list[str]] = field(default_factory=dict)
    given: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def merge(file: str | Path, out: str | Path = "merged.csv") -> Merged:
    """Joins data sets, and writes a table, a config of it and a list of conflicts.

    Args:
        file: YAML: `sources`, each with a `class_path` and `init_args` of a DataModule (or the arguments of a table
            reader, such as `path`) and `classes`, other names of its classes, null for one that is left out; `classes`
            of the joined space (default: all); `hierarchy`, the children of parents; `conflicts`: `raise`, `unknown`
            or `first`.
        out: CSV; beside it `<name>.yaml`, for `--data`, and `<name>_conflicts.csv` if there are any.

    Raises:
        UserError: for a file that cannot be read as meant, or conflicts that nobody has decided about.
    """
    set_up_logging()
    out = Path(out)
    if out.suffix != ".csv":
        raise ConfigError(f"--out {out}: a table's name ends with .csv")
    given = _read(Path(file))
    _check_apart(out, Path(file), given["sources"])
    check_writable(out.parent, "--out")
    sources, class_names = _sources(given["sources"], given.get("classes"))
    parents = hierarchy_of(given.get("hierarchy") or {}, class_names)
    policy = given.get("conflicts", "raise")
    check_choice("conflicts", policy, ("raise", "unknown", "first"))
    merged = Merged(class_names)
    for source in sources:
        shared = {name for other in sources if other is not source for name in _names(other, class_names)}
        merged.unmapped[source.name] = [name for name in _names(source, class_names) if name not in shared]
    _join(merged, sources)
    _follow(merged, parents, policy)
    path = out.with_name(f"{out.stem}_conflicts.csv")
    if merged.conflicts and policy == "raise":
        _write_conflicts(path, merged, policy)
        one = merged.conflicts[0]
        of_class = "" if one.column is None else f", class {class_names[one.column]!r}"
        raise DataError(
            f"merge: {len(merged.conflicts)} labels contradict each other, such as {printable(merged.images[one.row])}"
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
    if merged.conflicts:
        console().print(f"{len(merged.conflicts)} conflicts: {out.stem}_conflicts.csv")
    console().print(
        f"{len(merged.images)} images, {len(merged.class_names)} classes: {out}; train with --data "
        f"{out.with_suffix('.yaml')}",
        soft_wrap=True,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        given = parse(path.read_text(encoding="utf-8"), f"merge: {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"merge: {path} cannot be read ({type(error).__name__})") from error
    if strange := [name for name in given if name not in _KEYS]:
        raise ConfigError(f"merge: {path}: there is no key {strange[0]!r}; there are {', '.join(_KEYS)}")
    if not isinstance(given.get("sources"), dict) or len(given["sources"]) < 1:
        raise ConfigError(f"merge: {path}: `sources` names the data sets, each with class_path and init_args")
    return given


def _check_apart(out: Path, file: Path, sources: Mapping[str, Any]) -> None:
    """Refuses to write over what is read."""
    said = [str(file)]
    for one in sources.values():
        arguments = one.get("init_args", one) if isinstance(one, dict) else {}
        said += [value for value in (arguments or {}).values() if isinstance(value, str)]
    read = {Path(name).resolve() for name in said}
    for path in (out, out.with_suffix(".yaml")):
        if path.resolve() in read:
            raise ConfigError(f"--out {out}: {path} is read here, and would be written over; choose another name")


def _sources(given: Mapping[str, Any], classes: Sequence[str] | None) -> tuple[list[Source], tuple[str, ...]]:
    read: list[tuple[str, MultiLabelDataModule, dict[str, str | None]]] = []
    for name, one in given.items():
        where = f"merge: sources: {name}"
        if not isinstance(one, dict):
            raise ConfigError(f"{where}: a data set has class_path and init_args, or the arguments of a table reader")
        renamed = one.get("classes") or {}
        if "class_path" in one:
            if strange := [key for key in one if key not in _OF_A_SOURCE]:
                raise ConfigError(f"{where}: there is no key {strange[0]!r}; there are {', '.join(_OF_A_SOURCE)}")
            told = {"class_path": one["class_path"], "init_args": one.get("init_args") or {}}
        else:
            told = {"class_path": "CSVDataModule", "init_args": {k: v for k, v in one.items() if k != "classes"}}
        if "." not in str(told["class_path"]):
            told["class_path"] = f"mlcv.data.{told['class_path']}"
        data: MultiLabelDataModule = build(spec(told, MultiLabelDataModule, where), MultiLabelDataModule)
        if strange := [key for key in renamed if key not in data.class_names]:
            raise ConfigError(
                f"{where}: classes: it has no class {strange[0]!r}; it has {', '.join(data.class_names[:12])}, ..."
            )
        read.append((str(name), data, {own: renamed.get(own, own) for own in data.class_names}))
    found = dict.fromkeys(new for _, _, names in read for new in names.values() if new is not None)
    class_names = tuple(found if classes is None else classes)
    check_class_names(class_names, "merge: classes")
    if absent := [name for name in class_names if name not in found]:
        raise ConfigError(f"merge: classes: no source has {absent[0]!r}; they have {', '.join(list(found)[:12])}, ...")
    places = {name: c for c, name in enumerate(class_names)}
    return [
        Source(name, data, data.readable_splits(), tuple(places.get(new) if new else None for new in names.values()))
        for name, data, names in read
    ], class_names


def _names(source: Source, class_names: Sequence[str]) -> list[str]:
    return [class_names[place] for place in dict.fromkeys(source.places) if place is not None]


def _join(merged: Merged, sources: Sequence[Source]) -> None:
    """Fills the table, an image once, with what its sources say; what contradicts is noted."""
    count = len(merged.class_names)
    rows: list[tuple[str, Split, str, str, States]] = []
    for source in sources:
        merged.given[source.name] = np.zeros((count, 2), np.int64)
        for split, labeled in source.splits.items():
            if not isinstance(labeled.items, Files):
                raise ConfigError(f"merge: sources: {source.name}: its images are not in files, so no table names them")
            states = mapped(labeled.states, source.places, count)
            names = [str(Path(name).resolve()) for name in labeled.items]
            groups = _groups(source, labeled)
            rows += list(zip(names, [split] * len(names), [source.name] * len(names), groups, states, strict=True))
    place: dict[str, int] = {}
    joint: list[States] = []
    seen: set[tuple[str, str]] = set()
    alike: list[tuple[str, str]] = []
    for key, (name, split, source_name, group, own) in zip(_same([row[0] for row in rows]), rows, strict=True):
        if (source_name, key) not in seen:
            seen.add((source_name, key))
            merged.given[source_name] += np.stack([own == POSITIVE, own == NEGATIVE], axis=1)
        if key not in place:
            place[key] = len(merged.images)
            merged.images.append(name)
            merged.splits.append(split)
            merged.sources.append(source_name)
            merged.groups.append(group)
            joint.append(own)
            continue
        at = place[key]
        if group and merged.groups[at]:
            alike.append((merged.groups[at], group))
        _meet(merged, joint, at, (name, split, source_name, group, own))
    merged.groups = _united(merged.groups, alike)
    merged.states = np.stack(joint) if joint else np.empty((0, count), np.int8)


def _meet(merged: Merged, states: list[States], at: int, other: tuple[str, Split, str, str, States]) -> None:
    """An image that is there already, in this file or in another with the same content."""
    name, split, source, group, own = other
    if {split, merged.splits[at]} == {"val", "test"}:
        merged.splits[at] = "test"  # data sets without test labels test on what validates
    elif split != merged.splits[at]:
        what = f"it is in {merged.splits[at]} of {merged.sources[at]}, and in {split} of {source} ({name})"
        merged.conflicts.append(Conflict(at, None, what))
        if merged.splits[at] == "train":  # what is tested never trains
            merged.splits[at] = split
    states[at], differs = joined(states[at], own)
    for column in np.flatnonzero(differs).tolist():
        one, two = STATE_NAMES[int(states[at][column])], STATE_NAMES[int(own[column])]
        merged.conflicts.append(Conflict(at, column, f"{merged.sources[at]} says {one}, {source} {two} ({name})"))
    if source not in merged.sources[at].split("+"):
        merged.sources[at] += f"+{source}"
    merged.groups[at] = merged.groups[at] or group


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
    header = ["image", "split", "source", *(["group"] if has_groups else []), *merged.class_names]
    cells = np.array([CELLS[state] for state in (UNCERTAIN, UNKNOWN, NEGATIVE, POSITIVE)])[merged.states + 2]
    rows = (
        [image, split, source, *([group] if has_groups else []), *labels]
        for image, split, source, group, labels in zip(
            merged.images, merged.splits, merged.sources, merged.groups, cells.tolist(), strict=True
        )
    )
    write_table(out, header, rows, keep=True)
    arguments: dict[str, Any] = {
        "path": str(out.resolve()), "image_column": "image", "split_column": "split",
        "label_columns": list(merged.class_names), "codes": {"uncertain": ["uncertain"]},
    }  # fmt: skip
    if has_groups:
        arguments["group_column"] = "group"
    if "val" not in merged.splits:
        arguments["val_fraction"] = 0.1
    text = yaml.safe_dump({"class_path": "CSVDataModule", "init_args": arguments}, sort_keys=False, width=120)
    write_text(
        out.with_suffix(".yaml"), f"# Written by mlcv merge; --data {out.with_suffix('.yaml')}\n{text}", keep=True
    )
