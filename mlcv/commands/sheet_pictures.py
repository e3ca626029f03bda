"""Pictures of images on the page of `mlcv data`."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.audits.instructions import examples_of_class
from mlcv.commands.audit_page import thumbnail
from mlcv.errors import DataError
from mlcv.labels.states import POSITIVE
from mlcv.sheets.collection import Collection
from mlcv.sheets.labels import rows_of_rare_sets
from mlcv.tables import printable

_SIDE, _QUALITY = 128, 75
"""Of a picture: its longer side in pixels, and of the JPEG."""


class Album:
    """Pictures of images, each read once.

    Args:
        collection: of the images.
        max_megapixels: see `read_image`.
        looks: what was seen; None if no image is to be opened.
    """

    def __init__(self, collection: Collection, max_megapixels: float, looks: NDArray[Any] | None) -> None:
        self.collection, self.max_megapixels, self.looks = collection, max_megapixels, looks
        self._found: dict[int, str | None] = {}

    def picture(self, row: int) -> str | None:
        """JPEG in base64; None if there is none."""
        if row not in self._found:
            self._found[row] = self._read(row)
        return self._found[row]

    def _read(self, row: int) -> str | None:
        if self.looks is None or not self.looks["good"][row]:
            return None
        try:
            pixels = self.collection.items.read(row, _SIDE, False, self.max_megapixels)
        except DataError:
            return None
        return base64.b64encode(thumbnail(pixels, _SIDE, _QUALITY)).decode()

    def figure(self, row: int, caption: str = "") -> dict[str, Any] | None:
        """A picture with what is known of it; None if there is none."""
        picture = self.picture(row)
        if picture is None:
            return None
        names = self.collection.names
        labels = ", ".join(names[c] for c in np.flatnonzero(self.collection.states[row] == POSITIVE))
        where = printable(self.collection.where(row))
        return {"data": picture, "title": f"{where}: {labels or 'no positive label'}", "caption": caption or labels}

    def strip(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Figures of those that there are."""
        return [figure for row in rows if (figure := self.figure(row)) is not None]


def balanced(album: Album, count: int, most: int) -> list[dict[str, Any]]:
    """Of each class as many images, the rarest class first, and none twice while there are others.

    Args:
        album: of the images.
        count: of each class.
        most: classes.
    """
    collection = album.collection
    if album.looks is None or not count:
        return []
    random, strips = np.random.default_rng(0), []
    shown: set[int] = set()
    positive = collection.states == POSITIVE
    totals = positive.sum(axis=0)
    for c in sorted(np.flatnonzero(totals).tolist(), key=lambda c: totals[c])[:most]:
        drawn: list[int] = random.permutation(np.flatnonzero(positive[:, c] & album.looks["good"])).tolist()
        rows = sorted(drawn, key=shown.__contains__)[:count]
        shown.update(rows)
        strips.append({"name": collection.names[c], "count": int(totals[c]), "images": album.strip(rows)})
    rare = album.strip(rows_of_rare_sets(collection.states, count).tolist())
    return [*strips, *([{"name": "rare combinations", "count": 0, "images": rare}] if rare else [])]


def typical_and_confusing(album: Album, features: NDArray[Any], count: int, most: int) -> list[dict[str, Any]]:
    """Of each class images in the middle of its clusters, and without it those nearest to them; the rarest class first.

    Args:
        album: of the images.
        features: (M, D), NaN where an image has none.
        count: of each kind.
        most: classes.
    """
    if album.looks is None or not count:
        return []
    rows = np.flatnonzero(album.looks["good"] & np.isfinite(features).all(axis=1))
    states, own = album.collection.states[rows], features[rows]
    totals = (states == POSITIVE).sum(axis=0)
    strips = []
    for c in sorted(np.flatnonzero(totals).tolist(), key=lambda c: totals[c])[:most]:
        found = examples_of_class(own, states[:, c], np.zeros(len(rows)), count)
        strips.append({
            "name": album.collection.names[c],
            "typical": album.strip(rows[found.typical].tolist()),
            "confusing": album.strip(rows[found.confusing].tolist()),
        })  # fmt: skip
    return strips
