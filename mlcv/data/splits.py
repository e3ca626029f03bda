"""Dividing images into splits: no image is in one twice, and none of training, nor of its group, in another."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.data.samples import LabeledImages, Split
from mlcv.data.stratified import stratified_parts
from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import POSITIVE, States, known
from mlcv.tables import is_empty, printable

_WHOLE = re.compile(r"^(\d+)\.0+$")
_NAMES: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Fold:
    """One of the parts of the training images that validates while the others train.

    Args:
        number: of the part, from 1 on.
        count: of all parts, 2 at least.
    """

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> "Fold":
        """Reads `2/5`.

        Raises:
            ConfigError: for another text.
        """
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]) or int(match[2]) < 2:
            raise ConfigError(f"data.fold is such as 2/5, the second of five parts, got {text!r}")
        return cls(int(match[1]), int(match[2]))


def deal_folds(labeled: LabeledImages, group: str | None, count: int, seed: int) -> NDArray[np.intp]:
    """The part of each image (M,), from 0 on: groups stay whole, and each label is as frequent in all parts.

    Args:
        labeled: M images.
        group: see `groups_of`; each image is its own if None.
        count: of the parts.
        seed: of the draw.

    Raises:
        DataError: if there are fewer groups than parts.
    """
    groups = _numbered(labeled, group)
    groups_there = int(groups.max(initial=-1)) + 1
    if groups_there < count:
        what = "image" if group is None else group
        raise DataError(f"data.fold: {groups_there} {what}(s) cannot be dealt into {count} parts")
    return deal_evenly(groups, labeled.states, [1 / count] * count, seed)


def deal_evenly(groups: NDArray[np.intp], states: States, fractions: Sequence[float], seed: int) -> NDArray[np.intp]:
    """As `deal`, so that each label is as frequent in all parts; fractions are of the images, and their sum is 1.

    Args:
        groups: see `deal`.
        states: label states (M, C).
        fractions: see above; a part of 0 has nothing.
        seed: of the draw.
    """
    is_known = known(states)
    # Of labels that are partly unknown, what is known counts as well as what is positive.
    marks = states == POSITIVE if is_known.all() else np.hstack([states == POSITIVE, is_known])
    places = [place for place, fraction in enumerate(fractions) if fraction > 0]
    dealt = stratified_parts(groups, marks, [fractions[place] for place in places], seed)
    return np.array(places, np.intp)[dealt]


def _numbered(labeled: LabeledImages, group: str | None) -> NDArray[np.intp]:
    """The number of each image's group (M,), from 0 on."""
    if group is None:
        return np.arange(len(labeled))
    names = told_apart(groups_of(labeled, group))
    return np.unique(np.array(names, np.str_), return_inverse=True)[1]


def hold_out(
    labeled: LabeledImages, group: str | None, fraction: float, seed: int, stratify: bool = False
) -> NDArray[np.bool_]:
    """Which images a drawn part of the groups has (M,).

    Args:
        labeled: M images.
        group: see `groups_of`; each image is its own if None.
        fraction: of the groups, in [0, 1).
        seed: of the draw.
        stratify: see `deal_evenly`; the fraction is of the images then.
    """
    groups = _numbered(labeled, group)
    if stratify:
        parts = deal_evenly(groups, labeled.states, [1 - fraction, fraction], seed)
    else:
        count = int(groups.max(initial=-1)) + 1
        parts = 1 - deal(groups, [round(count * fraction) / max(count, 1)], seed)
    is_held: NDArray[np.bool_] = parts == 1
    return is_held


def deal(groups: NDArray[np.intp], fractions: Sequence[float], seed: int) -> NDArray[np.intp]:
    """Which part each image is dealt to, all of a group to one: the one way in which images are drawn.

    Args:
        groups: the number of each image's group (M,), from 0 on without a gap.
        fractions: of the groups, one a part; together at most 1.
        seed: of the draw.

    Returns:
        (M,) the part's number; that of no part where fractions leave something.
    """
    count = int(groups.max(initial=-1)) + 1
    place = np.empty(count)
    place[np.random.default_rng(seed).permutation(count)] = (np.arange(count) + 0.5) / max(count, 1)
    parts: NDArray[np.intp] = np.searchsorted(np.cumsum(fractions), place, side="right")[groups]
    return parts


def groups_of(labeled: LabeledImages, group: str | None) -> Sequence[str | int]:
    """The group of each image, such as its patient; one without any, or of whom nobody knows it, is its own."""
    if group is None:
        return range(len(labeled))
    return group_keys(labeled.about[group].tolist())


def group_keys(cells: Sequence[str]) -> list[str | int]:
    """Names of groups as one spelling each (blanks, case, `1.0` for `1`); the row's number where a cell is empty."""

    def key(cell: str) -> str | None:
        text = unicodedata.normalize("NFC", cell.strip()).casefold()
        return None if is_empty(cell) else _WHOLE.sub(r"\1", text)

    keys = {cell: key(cell) for cell in set(cells)}  # few cells stand in many rows
    return [row if (found := keys[cell]) is None else found for row, cell in enumerate(cells)]


def order_as_texts(count: int) -> NDArray[np.intp]:
    """The place of each number below `count` (M,), if they are sorted as texts: 0, 1, 10, 11, 2.

    By it a table's images are drawn that have no group.
    """
    numbers = np.arange(count)
    digits = np.searchsorted(10 ** np.arange(1, 19), numbers, side="right") + 1
    order = np.lexsort((digits, numbers * 10 ** (digits.max(initial=1) - digits)))
    places = np.empty(count, np.intp)
    places[order] = numbers
    return places


def told_apart(keys: Sequence[str | int]) -> list[str]:
    """Keys of groups as texts, where the number of a row is nobody's name."""
    return [key if isinstance(key, str) else f"\0{key}" for key in keys]


def check_once(labeled: LabeledImages, class_names: Sequence[str], source: str) -> None:
    """Refuses a split that has an image twice, whether its labels agree or not.

    Args:
        labeled: the split.
        class_names: C names.
        source: of the split, for the error.

    Raises:
        DataError: naming the image, where it is, and a class of which the labels contradict each other.
    """
    first: dict[Any, int] = {}
    pairs = [(first[key], row) for row, key in enumerate(labeled.items.keys()) if first.setdefault(key, row) != row]
    if not pairs:
        return
    one, other = next((pair for pair in pairs if _contradiction(labeled, pair) is not None), pairs[0])
    place = _contradiction(labeled, (one, other))
    differ = "" if place is None else f"; its labels contradict each other, as in {class_names[place]!r}"
    raise DataError(
        f"{source}: {printable(labeled.name(one))} is there twice ({labeled.where(one)} and {labeled.where(other)}; "
        f"{len(pairs)} such images){differ}. Give an image one row: drop the others, or put together what several "
        "annotators say first"
    )


def check_apart(splits: dict[Split, LabeledImages], group: str | None) -> None:
    """Refuses two splits that share images or groups; validation and test may be the same images.

    Args:
        splits: two, by name.
        group: name of what must not be in both, in `LabeledImages.about`; only images are looked at if None.

    Raises:
        DataError: naming an image or group that is in both, and how many there are.
    """
    (name, one), (other_name, other) = splits.items()
    place = {key: row for row, key in enumerate(one.items.keys())}
    keys = other.items.keys()
    shared = [(place[key], row) for row, key in enumerate(keys) if key in place]
    if "train" not in splits and len(shared) == len(keys) == len(place):
        return
    names = f"the {_NAMES[name]} and the {_NAMES[other_name]} split"
    if shared:
        first, row = shared[0]
        differ = sum(_contradicts(one.states[a], other.states[b]) for a, b in shared)
        raise DataError(
            f"{printable(one.name(first))} is in {names} ({one.where(first)} and {other.where(row)}), as "
            f"{len(shared)} of the {len(keys)} {_NAMES[other_name]} images are"
            + (f", {differ} of them with other labels" if differ else "")
            + "; results would be too good. Leave each image in one split"
        )
    if group is None:
        return
    mine = {cell: row for row, cell in enumerate(groups_of(one, group))}
    twice = [
        (mine[cell], row) for row, cell in enumerate(groups_of(other, group)) if isinstance(cell, str) and cell in mine
    ]
    if twice:
        first, row = twice[0]
        raise DataError(
            f"{group} {str(one.about[group][first])!r} is in {names} ({one.where(first)} and {other.where(row)}), as "
            f"that of {len(twice)} of the {len(keys)} {_NAMES[other_name]} images is; results would be too good. Leave "
            f"each {group} in one split, or have splits drawn by it: data.split_column null, mlcv init --draw_splits"
        )


def _contradiction(labeled: LabeledImages, pair: tuple[int, int]) -> int | None:
    one, other = (labeled.states[row] for row in pair)
    places = np.flatnonzero(known(one) & known(other) & (one != other))
    return int(places[0]) if len(places) else None


def _contradicts(one: NDArray[np.int8], other: NDArray[np.int8]) -> bool:
    return bool((known(one) & known(other) & (one != other)).any())
