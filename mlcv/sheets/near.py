"""Copies among images: exact ones, and those that were resized, stretched, compressed, made grey, mirrored or cut."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcv.data.at_once import mapped
from mlcv.data.images import Pixels
from mlcv.data.items import Files, Items
from mlcv.errors import DataError
from mlcv.sheets.looks import SIDE, THUMB, flat, to_grey
from mlcv.tables import read_regular

_SHRUNK = (64, 62, 61, 60, 58, 57)
"""Sides in pixels at which one image is looked for in the other, of 64: up to 5.5 % is cut off every side."""
_FURTHER = tuple(range(64, 37, -1))
"""Likewise of an image and the one nearest to it by features: up to a fifth is cut off every side;"""
_FURTHER_FIT, _DETAIL, _COARSER = 0.95, 0.75, 3.0
"""how well it fits at least, and how well what is finer than that many of 64 pixels does: two pictures of meadow and
sky fit by 0.97. Of all 3,426 photographs of VOC 2012 and the nearest to each, the details of those that fit do so by
0.67 at most; those of 900 cut copies by 0.77 at least."""
_COARSE, _LIKELY = (32, 30, 29), 0.8
"""Likewise, of 32; and how well an image fits there at least if it is to be looked at in full, which takes seven times
as long. Of 800 cut copies all fitted by 0.82. It is for the nearest by features: what passes `fit_levels` does."""
_LESS = THUMB - 1
_SHRINK = cv2.resize(np.eye(THUMB), (THUMB, _LESS), interpolation=cv2.INTER_AREA).astype(np.float32)
"""Makes that many of the pixels of a column of grey levels."""
_ROOM = 2**21
"""Comparisons of hashes at once."""
_PART = 256
"""Pairs that one thread compares at once: a task takes longer to be given than a pair to be compared."""
_MANY = 4096
"""Images or pairs from which on a bar shows how far they are compared."""


@dataclass(frozen=True)
class Gate:
    """From when on two images are copies of each other, the better of as they are and one mirrored.

    Args:
        bits: of 64, in which their perceptual hashes differ at most.
        distance: 1 - correlation of their 16 x 16 grey levels at most.
        inside: see `fit_levels`, at least; None asks for none, as for the next.
        fit: correlation at the best scale of one inside the other at least.
    """

    bits: int
    distance: float
    inside: float | None
    fit: float | None


PHOTOGRAPHS = Gate(22, 0.35, 0.9, 0.95)
"""Set on every other of 3,426 photographs of VOC 2012: 99 % of copies that were cut on every side pass, and no others
do, of which the best fits by 0.92. Of others that pass the first two tests the third lets one in forty through: they
are what takes long. docs/data-sheet.md has what it does on the others."""
GREY = Gate(10, 0.05, None, None)
"""Of radiographs, which are all alike: images of the same person are near each other, cut ones are not found."""


@dataclass(frozen=True)
class Pair:
    """Two images that are copies.

    Args:
        one: position of the first.
        other: of the second, larger.
        fit: how alike, at most 1; exactly 1 where they are the same to the last byte.
        is_exact: whether they are.
        is_mirrored: whether one is the other's mirror image.
    """

    one: int
    other: int
    fit: float
    is_exact: bool = False
    is_mirrored: bool = False


def exact_pairs(items: Items, looks: NDArray[Any]) -> list[Pair]:
    """Images of the same content, each with the first of its kind; only what looks the same is read.

    Args:
        items: M images.
        looks: (M,) of `LOOK`.
    """
    alike = defaultdict(list)
    for row in np.flatnonzero(looks["good"]).tolist():
        alike[int(looks["size"][row]), looks["thumb"][row].tobytes()].append(row)
    keys = None if isinstance(items, Files) else items.keys()
    first: dict[Any, int] = {}
    pairs = []
    for row in (row for rows in alike.values() if len(rows) > 1 for row in rows):
        key = hashlib.sha256(read_regular(items[row])).digest() if keys is None else keys[row]  # type: ignore[index]
        if first.setdefault(key, row) != row:
            pairs.append(Pair(first[key], row, 1.0, is_exact=True))
    return pairs


def near_pairs(
    items: Items,
    looks: NDArray[Any],
    gate: Gate,
    max_megapixels: float,
    threads: int,
    features: NDArray[Any] | None = None,
) -> list[Pair]:
    """Copies that are not exact, and exact ones; of an image with nothing in it exact ones alone.

    All pairs are compared by their hashes; what passes is compared by 256 grey levels, and what passes that is read
    again. The first takes a minute for 100,000 images, and grows with their square. With features each image
    is compared with the one nearest to it, too, where a gate asks for a fit: more may be cut off then.

    Args:
        items: M images.
        looks: (M,) of `LOOK`.
        gate: what a copy is.
        max_megapixels: see `read_image`.
        threads: at work at the same time.
        features: (M, D) of a frozen network; NaN for an image that has none.
    """
    exact = exact_pairs(items, looks)
    copies = {pair.other for pair in exact}
    rows = np.array([r for r in np.flatnonzero(looks["good"] & ~flat(looks)).tolist() if r not in copies], np.intp)
    found = [
        Pair(int(rows[i]), int(rows[j]), 1 - distance, is_mirrored=mirrored)
        for i, j, distance, mirrored in candidates(looks[rows], gate, threads)
    ]
    if gate.fit is not None:
        found = _fitting(items, found, gate.fit, max_megapixels, threads)
        if features is not None:
            known = {(pair.one, pair.other) for pair in found}
            nearest = [Pair(int(rows[i]), int(rows[j]), 0.0) for i, j in nearest_pairs(features[rows])]
            likely = [pair for pair in nearest if (pair.one, pair.other) not in known]
            likely += [replace(pair, is_mirrored=True) for pair in likely]
            coarse = [side // 2 for side in _FURTHER[::2]]
            fits = _fitting(items, likely, _FURTHER_FIT, max_megapixels, threads, _FURTHER, coarse, _DETAIL)
            found += {(pair.one, pair.other): pair for pair in sorted(fits, key=lambda pair: pair.fit)}.values()
    return sorted([*exact, *found], key=lambda pair: (-pair.fit, pair.one, pair.other))


def nearest_pairs(features: NDArray[Any]) -> list[tuple[int, int]]:
    """Of each image and the one nearest to it by the cosine of features without their mean, both positions, sorted.

    Args:
        features: (M, D); rows that are not finite are nobody's nearest.
    """
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(rows) < 2:
        return []
    units = _normed((features[rows] - features[rows].mean(axis=0, dtype=np.float64)).astype(np.float32), centre=False)
    step = max(1, _ROOM // len(rows))
    pairs = set()
    for start in range(0, len(rows), step):
        likeness = units[start : start + step] @ units.T
        own = np.arange(len(likeness))
        likeness[own, start + own] = -np.inf
        pairs |= {(min(pair), max(pair)) for pair in zip(start + own, likeness.argmax(axis=1), strict=True)}
    return sorted((int(rows[i]), int(rows[j])) for i, j in pairs)


def candidates(looks: NDArray[Any], gate: Gate, threads: int) -> list[tuple[int, int, float, bool]]:
    """Pairs that pass a gate's first two tests: both positions, distance, and whether mirrored is nearer."""
    count = len(looks)
    hashes, mirrors = np.ascontiguousarray(looks["hash"]), np.ascontiguousarray(looks["mirror"])
    levels = looks["thumb"].astype(np.float32)
    plain, turned = (_normed(one.reshape(count, THUMB**2)) for one in (levels, levels[:, :, ::-1]))
    step = max(1, _ROOM // max(count, 1))

    def block(start: int) -> list[tuple[int, int, float, bool]]:
        best: dict[tuple[int, int], tuple[float, bool]] = {}
        for codes, thumbs, mirrored in ((hashes, plain, False), (mirrors, turned, True)):
            stop = min(start + step, count)
            differ = np.bitwise_count(codes[start:stop, None] ^ hashes[None, start:])
            i, j = np.nonzero(differ <= gate.bits)
            i, j = i[i < j], j[i < j]
            for part in range(0, len(i), _ROOM // 256):
                here = slice(part, part + _ROOM // 256)
                one, other = i[here] + start, j[here] + start
                distance = 1 - _products(thumbs[one], plain[other])
                likely = np.flatnonzero(distance <= gate.distance)
                if gate.inside is not None:
                    likely = likely[fit_levels(thumbs[one[likely]], plain[other[likely]]) >= gate.inside]
                for k in likely.tolist():
                    pair, value = (int(one[k]), int(other[k])), float(distance[k])
                    if pair not in best or value < best[pair][0]:
                        best[pair] = value, mirrored
        return [(*pair, *value) for pair, value in best.items()]

    with ThreadPoolExecutor(threads) as pool:
        blocks = mapped(pool, block, range(0, count, step), "comparing images", count > _MANY)
        return [pair for found in blocks for pair in found]


def fit_levels(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlation of N pairs of 16 x 16 grey levels, as they are or with one of either shrunk to 15 x 15 pixels.

    That lies in a corner of the other or, between its pixels, in the middle.

    Args:
        one: float32 (N, 256).
        other: likewise.

    Returns:
        float32 (N,).
    """
    shape = len(one), _LESS**2
    best = _products(_normed(one), _normed(other))
    squares = [levels.reshape(-1, THUMB, THUMB) for levels in (one, other)]
    for inner, outer in (squares, squares[::-1]):
        shrunk = _normed(np.asarray(_SHRINK @ inner @ _SHRINK.T, np.float32).reshape(shape))
        corners = [outer[:, y : y + _LESS, x : x + _LESS].reshape(shape) for y in (0, 1) for x in (0, 1)]
        for part in (*corners, np.mean(corners, axis=0)):
            best = np.maximum(best, _products(shrunk, _normed(part)))
    return best


def _products(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row of one and the same of the other."""
    found: NDArray[np.float32] = np.einsum("nd,nd->n", one, other)
    return found


def fit(one: NDArray[Any], other: NDArray[Any], sides: Sequence[int] = _SHRUNK) -> float:
    """Correlation of two grey images where one, at the best of some sides, lies best inside the other.

    Args:
        one: of the first of the sides in pixels, either way.
        other: likewise.
        sides: the largest first.

    Returns:
        at most 1, but for rounding.
    """
    best = -1.0
    for inner, outer in ((one, other), (other, one)):
        for side in sides:
            part = cv2.resize(inner, (side, side), interpolation=cv2.INTER_AREA) if side < len(inner) else inner
            best = max(best, cv2.minMaxLoc(cv2.matchTemplate(outer, part, cv2.TM_CCOEFF_NORMED))[1])
    return best


def _details(image: Pixels) -> NDArray[np.float32]:
    """What is left without what is coarse."""
    levels = image.astype(np.float32)
    return np.asarray(levels - cv2.GaussianBlur(levels, (0, 0), _COARSER), np.float32)


def _halved(image: Pixels) -> Pixels:
    return np.asarray(cv2.resize(image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA), np.uint8)


def _normed(levels: NDArray[np.float32], centre: bool = True) -> NDArray[np.float32]:
    """Each row, without its mean, of length 1."""
    levels = levels - levels.mean(axis=1, keepdims=True) if centre else levels
    normed: NDArray[np.float32] = levels / np.maximum(np.linalg.norm(levels, axis=1, keepdims=True), 1e-6)
    return normed


def _fitting(
    items: Items,
    found: list[Pair],
    least: float,
    max_megapixels: float,
    threads: int,
    sides: Sequence[int] = _SHRUNK,
    coarse: Sequence[int] = _COARSE,
    detail: float | None = None,
) -> list[Pair]:
    """Those that fit, and whose details do, with how well; images are read once for all of their pairs."""

    def square(row: int) -> Pixels | None:
        try:
            grey = to_grey(items.read(row, SIDE, False, max_megapixels))
        except DataError:  # it has gone since it was looked at
            return None
        return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)

    with ThreadPoolExecutor(threads) as pool:
        rows = sorted({row for pair in found for row in (pair.one, pair.other)})
        squares = dict(zip(rows, mapped(pool, square, rows, "reading likely copies", len(rows) > _MANY), strict=True))

        def judged(pair: Pair) -> Pair | None:
            one, other = squares[pair.one], squares[pair.other]
            if one is None or other is None:
                return None
            one = np.ascontiguousarray(one[:, ::-1]) if pair.is_mirrored else one
            if fit(_halved(one), _halved(other), coarse) < _LIKELY:
                return None
            value = fit(one, other, sides)
            if value >= least and detail is not None and fit(_details(one), _details(other), sides) < detail:
                return None
            return Pair(pair.one, pair.other, min(value, 1.0), False, pair.is_mirrored) if value >= least else None

        def judged_all(part: list[Pair]) -> list[Pair]:
            return [fitting for pair in part if (fitting := judged(pair))]

        parts = [found[start : start + _PART] for start in range(0, len(found), _PART)]
        fits = mapped(pool, judged_all, parts, "comparing likely copies", len(found) > _MANY)
        return list(chain.from_iterable(fits))
