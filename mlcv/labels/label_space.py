"""Labels of data sets in one space of classes: other names, parents and children, two opinions on one image.

A class that a data set does not judge is unknown for its images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlcv.errors import ConfigError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States


def mapped(states: States, places: Sequence[int | None], count: int) -> States:
    """Label states in the columns of another space.

    Where several classes have one place it is present if any of them is, absent if all are, and else uncertain if any
    is, or unknown.

    Args:
        states: int8 (M, C).
        places: of each class among `count`; None leaves it out.
        count: classes of the space.

    Returns:
        int8 (M, count), unknown where no class leads.
    """
    found = np.full((len(states), count), UNKNOWN, np.int8)
    for place in {place for place in places if place is not None}:
        own = states[:, [c for c, other in enumerate(places) if other == place]]
        column = np.where((own == UNCERTAIN).any(axis=1), UNCERTAIN, UNKNOWN)
        column = np.where((own == NEGATIVE).all(axis=1), NEGATIVE, column)
        found[:, place] = np.where((own == POSITIVE).any(axis=1), POSITIVE, column)
    return found


def mapped_soft(soft: NDArray[np.float32], places: Sequence[int | None], states: States) -> NDArray[np.float32]:
    """Soft labels beside `mapped` states.

    Where several classes have one place it is the largest of theirs: any of them is present at least as likely.

    Args:
        soft: float32 (M, C), NaN for none.
        places: as for `mapped`.
        states: what `mapped` found, int8 (M, count).

    Returns:
        float32 (M, count), NaN where the state is not uncertain.
    """
    found = np.full(states.shape, np.nan, np.float32)
    for column, place in enumerate(places):
        if place is not None:
            found[:, place] = np.fmax(found[:, place], soft[:, column])
    return np.where(states == UNCERTAIN, found, np.nan).astype(np.float32)


def closed(states: States, parents: Sequence[tuple[int, int]]) -> tuple[States, NDArray[np.bool_]]:
    """What follows from a hierarchy: a child that is present makes its parent so, an absent parent its children absent.

    Args:
        states: int8 (M, C).
        parents: pairs of a parent's and a child's column.

    Returns:
        the states with what follows where nothing was known, and where a given label contradicts what follows (M, C).
    """
    given, found = states, states.copy()
    contradicts = np.zeros(states.shape, bool)
    for _ in range(len(parents) + 1):  # a chain is no longer than that
        before = found.copy()
        for parent, child in parents:
            up, down = found[:, child] == POSITIVE, found[:, parent] == NEGATIVE
            contradicts[:, parent] |= up & (given[:, parent] == NEGATIVE)
            contradicts[:, child] |= down & (given[:, child] == POSITIVE)
            found[up & (found[:, parent] != NEGATIVE), parent] = POSITIVE
            found[down & (found[:, child] != POSITIVE), child] = NEGATIVE
        if (before == found).all():
            break
    return found, contradicts


def hierarchy_of(given: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of columns, for `closed`.

    Args:
        given: the children of each parent, by name.
        class_names: C names.

    Raises:
        ConfigError: for a class that does not exist, or one that is above itself.
    """
    places = {name: c for c, name in enumerate(class_names)}
    for name in [*given, *(child for children in given.values() for child in children)]:
        if name not in places:
            raise ConfigError(f"hierarchy: there is no class {name!r}; there are {', '.join(class_names[:12])}, ...")
    pairs = [(places[parent], places[child]) for parent, children in given.items() for child in children]
    above = {child: {parent for parent, other in pairs if other == child} for _, child in pairs}
    for start in above:
        seen, left = set[int](), set(above[start])
        while left:
            seen |= left
            left = {up for one in left for up in above.get(one, ())} - seen
        if start in seen:
            raise ConfigError(f"hierarchy: {class_names[start]!r} is above itself")
    return pairs


def joined(one: States, other: States) -> tuple[States, NDArray[np.bool_]]:
    """Two opinions on the same images: what either knows, and where both do and differ.

    Args:
        one: int8.
        other: int8, of the same shape.

    Returns:
        what is known of either, of `one` where they differ; uncertain is less than known, and more than unknown.
    """
    differs = (one >= 0) & (other >= 0) & (one != other)
    known = np.where(one >= 0, one, other)
    either = np.where((one == UNCERTAIN) | (other == UNCERTAIN), UNCERTAIN, UNKNOWN)
    return np.where((one >= 0) | (other >= 0), known, either).astype(np.int8), differs
