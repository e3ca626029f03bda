"""All images of a data set in one row, and the parts in which they are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.data.images import Pixels
from mlcv.data.items import Files, Items
from mlcv.data.samples import LabeledImages
from mlcv.data.splits import groups_of
from mlcv.errors import DataError
from mlcv.labels.states import States

MOST_PARTS = 20
"""Values of a column of which each is a part; all others together are one more."""
_OTHERS = "others"
MOST_NAMED = 100
"""Shared groups of which the names are kept."""


@dataclass(frozen=True)
class Shared:
    """Groups, such as patients, that are in two splits.

    Args:
        splits: names of the two.
        count: of the groups.
        names: of the first of them, as the data have them.
    """

    splits: tuple[str, str]
    count: int
    names: list[str]


class Joined:
    """Images of several kinds, one after the other; see `mlcv.data.items.Items`."""

    def __init__(self, parts: Sequence[Items]) -> None:
        self.items = parts
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _find(self, index: int) -> tuple[Items, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.items[part], index - int(self.starts[part])

    def read(self, index: int, min_side: int | None, grey: bool, max_megapixels: float) -> Pixels:
        items, row = self._find(index)
        return items.read(row, min_side, grey, max_megapixels)

    def name(self, index: int) -> str:
        items, row = self._find(index)
        return items.name(row)

    def keys(self) -> list[Any]:
        return list(chain.from_iterable(items.keys() for items in self.items))

    def select(self, rows: NDArray[np.intp]) -> Any:
        raise NotImplementedError("parts of a joined row are selected by themselves")

    def fingerprint(self) -> str:
        return "-".join(items.fingerprint() for items in self.items)

    def unreadable(self, min_side: int, threads: int, max_megapixels: float) -> Mapping[int, DataError]:
        found = [items.unreadable(min_side, threads, max_megapixels) for items in self.items]
        return {
            int(start) + row: why for start, bad in zip(self.starts, found, strict=False) for row, why in bad.items()
        }


class Collection:
    """The images of all splits in one row.

    Args:
        splits: by name; two of the same images and labels, as validation and test may be, are one.
        names: of the C classes.
        group: name of what must not be in two splits, in `LabeledImages.about`; None for nothing.
    """

    def __init__(self, splits: Mapping[str, LabeledImages], names: Sequence[str], group: str | None = None) -> None:
        self.splits = _distinct(splits)
        self.names, self.group = tuple(names), group
        self._starts = np.cumsum([0, *map(len, self.splits.values())])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def states(self) -> States:
        """Of all images (M, C)."""
        return np.concatenate([labeled.states for labeled in self.splits.values()])

    @cached_property
    def items(self) -> Items:
        """Of all images."""
        parts = [labeled.items for labeled in self.splits.values()]
        if all(isinstance(items, Files) for items in parts):
            return Files(chain.from_iterable(parts))  # type: ignore[arg-type]
        return Joined(parts)

    @cached_property
    def split_numbers(self) -> NDArray[np.intp]:
        """Which split each image is in (M,)."""
        return np.repeat(np.arange(len(self.splits)), np.diff(self._starts))

    def split_of(self, row: int) -> str:
        """The name of an image's split."""
        return list(self.splits)[int(self.split_numbers[row])]

    def where(self, row: int) -> str:
        """How to find an image again."""
        number = int(self.split_numbers[row])
        return list(self.splits.values())[number].name(row - int(self._starts[number]))

    @property
    def columns(self) -> list[str]:
        """What is known of the images of every split beside their labels."""
        tables = [labeled.about for labeled in self.splits.values()]
        return [name for name in tables[0] if all(name in table for table in tables)] if tables else []

    def cells(self, column: str) -> NDArray[np.str_]:
        """What a column says of each image (M,)."""
        return np.concatenate([labeled.about[column] for labeled in self.splits.values()])

    def parts(self, column: str | None = None) -> dict[str, NDArray[np.intp]]:
        """Positions of the images of each split, or of each value of a column, the commonest first."""
        if column is None:
            return {name: np.flatnonzero(self.split_numbers == n) for n, name in enumerate(self.splits)}
        values, codes, counts = np.unique(self.cells(column), return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        found = {str(values[n]) or "(blank)": np.flatnonzero(codes == n) for n in order[:MOST_PARTS]}
        rest = np.flatnonzero(np.isin(codes, order[MOST_PARTS:]))
        return found | ({_OTHERS: rest} if len(rest) else {})

    @cached_property
    def groups(self) -> NDArray[np.intp]:
        """The number of each image's group (M,); a negative one of its own where nobody knows it."""
        if self.group is None or self.group not in self.columns:
            return -1 - np.arange(len(self))
        numbers: dict[str, int] = {}
        keys = (key for labeled in self.splits.values() for key in groups_of(labeled, self.group))
        found = (numbers.setdefault(key, len(numbers)) if isinstance(key, str) else -1 for key in keys)
        groups = np.fromiter(found, np.intp, len(self))
        return np.where(groups < 0, -1 - np.arange(len(self)), groups)

    def shared_groups(self) -> list[Shared]:
        """Of each two splits the groups that are in both, if there are any."""
        found = []
        parts = {name: np.unique(self.groups[rows], return_index=True) for name, rows in self.parts().items()}
        for (one, (numbers, _)), (other, (others, _)) in combinations(parts.items(), 2):
            both = np.intersect1d(numbers, others, assume_unique=True)
            if len(both):
                first = self.parts()[one][parts[one][1][np.searchsorted(numbers, both[:MOST_NAMED])]]
                names = self.cells(str(self.group))[first].tolist()
                found.append(Shared((one, other), len(both), names))
        return found


def _distinct(splits: Mapping[str, LabeledImages]) -> dict[str, LabeledImages]:
    found: dict[str, LabeledImages] = {}
    for name, labeled in splits.items():
        same = next(
            (
                other
                for other, earlier in found.items()
                if len(earlier) == len(labeled)
                and np.array_equal(earlier.states, labeled.states)
                and earlier.items.keys() == labeled.items.keys()
            ),
            None,
        )
        if same is None:
            found[name] = labeled
        else:
            found = {f"{same} = {name}" if other == same else other: one for other, one in found.items()}
    return found
