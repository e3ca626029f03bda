"""What a merge is told: the data sets, with other names for their classes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.samples import LabeledImages, Split
from mlcv.errors import ConfigError
from mlcv.places import above, find_files
from mlcv.plain_config import build, parse, spec
from mlcv.tables import check_class_names

logger = logging.getLogger(__name__)

_KEYS = ("sources", "classes", "hierarchy", "conflicts")
_COLUMNS = ("split", "source")
_OF_A_SOURCE = ("class_path", "init_args", "classes")


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


def read_plan(path: Path) -> dict[str, Any]:
    """What the YAML file says; its paths as a config's, from where it lies upwards.

    Raises:
        ConfigError: if it cannot be read, has another key, or no `sources`.
    """
    try:
        given = parse(path.read_text(encoding="utf-8"), f"merge: {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"merge: {path} cannot be read ({type(error).__name__})") from error
    if strange := [name for name in given if name not in _KEYS]:
        raise ConfigError(f"merge: {path}: there is no key {strange[0]!r}; there are {', '.join(_KEYS)}")
    if not isinstance(given.get("sources"), dict) or len(given["sources"]) < 1:
        raise ConfigError(f"merge: {path}: `sources` names the data sets, each with class_path and init_args")
    if joint := [name for name in given["sources"] if "+" in str(name)]:
        raise ConfigError(f"merge: sources: {joint[0]}: + joins the names of sources; give it another")
    classes, hierarchy = given.get("classes") or [], given.get("hierarchy") or {}
    if not _are_names(classes):
        raise ConfigError(
            f"merge: {path}: `classes` is a list of names, as in [cat, dog]; quote numbers, yes and no. Got {classes!r}"
        )
    if not isinstance(hierarchy, dict) or not all(map(_are_names, [list(hierarchy), *hierarchy.values()])):
        raise ConfigError(
            f"merge: {path}: `hierarchy` has of each parent a list of its children, as in 'animal: [cat, dog]'; quote "
            f"numbers, yes and no. Got {hierarchy!r}"
        )
    for note in find_files(given["sources"], above(path)):
        logger.info(note)
    return given


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def check_apart(out: Path, file: Path, sources: Mapping[str, Any]) -> None:
    """Refuses to write over what is read."""
    said = [str(file)]
    for one in sources.values():
        arguments = one.get("init_args", one) if isinstance(one, dict) else {}
        said += [value for value in (arguments or {}).values() if isinstance(value, str)]
    read = {Path(name).resolve() for name in said}
    for path in (out, out.with_suffix(".yaml")):
        if path.resolve() in read:
            raise ConfigError(f"--out {out}: {path} is read here, and would be written over; choose another name")


def build_sources(
    given: Mapping[str, Any], classes: Sequence[str] | None, parents: Sequence[str]
) -> tuple[list[Source], tuple[str, ...]]:
    """The data sets, and the classes of the joined space.

    Args:
        given: of each name its `sources` entry.
        classes: of the space; all if None.
        parents: classes of the space even if no data set judges them, since they follow from others.

    Raises:
        UserError: for one that cannot be built or read, or a class that nobody judges and that does not follow.
    """
    read: list[tuple[str, MultiLabelDataModule, dict[str, str | None]]] = []
    for name, one in given.items():
        where = f"merge: sources: {name}"
        if not isinstance(one, dict):
            raise ConfigError(
                f"{where}: a data set has class_path and init_args (what stands below data: in a config), or the "
                "arguments of a table reader"
            )
        renamed = one.get("classes") or {}
        if not isinstance(renamed, dict) or not all(new is None or isinstance(new, str) for new in renamed.values()):
            raise ConfigError(
                f"{where}: classes: of each class that is called otherwise its own name and ours, as in 'cats: cat', "
                f"or null; quote numbers, yes and no. Got {renamed!r}"
            )
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
    known = dict.fromkeys([*found, *parents])
    class_names = tuple(known if classes is None else classes)
    check_class_names(class_names, "merge: classes")
    if taken := [name for name in class_names if name.lower() in _COLUMNS]:
        raise ConfigError(
            f"merge: classes: {taken[0]!r} is a column of the merged table: give the class another name, or name the "
            "source's split_column and label_columns if it is none"
        )
    if absent := [name for name in class_names if name not in known]:
        raise ConfigError(f"merge: classes: no source has {absent[0]!r}; they have {', '.join(list(found)[:12])}, ...")
    places = {name: c for c, name in enumerate(class_names)}
    return [
        Source(
            name,
            data,
            data.readable_splits(strict=True),
            tuple(places.get(new) if new else None for new in names.values()),
        )
        for name, data, names in read
    ], class_names


def judged(source: Source, class_names: Sequence[str]) -> list[str]:
    """The classes of the space that a data set has labels of."""
    return [class_names[place] for place in dict.fromkeys(source.places) if place is not None]
