"""The page of `mlcv audit` on which a person decides: one HTML file that needs nothing else."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader

from mlcv import __version__
from mlcv.data.corrections import COLUMNS, STATE_CELLS
from mlcv.data.images import Pixels
from mlcv.files import write_text
from mlcv.fingerprints import fingerprint_of
from mlcv.labels.states import NEGATIVE, POSITIVE

SIDE = 320
"""Longer side of a thumbnail, in pixels."""

_JPEG = b"\xff\xd8\xff"
_WORDS = (
    (0.99, "almost certainly"), (0.9, "very likely"), (0.7, "likely"), (0.5, "more likely than not"), (0.2, "perhaps"),
    (0.0, "hardly"),
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A picture that is shown beside an entry.

    Args:
        image: its name.
        thumbnail: JPEG.
        labels: names of its positive classes, as given.
    """

    image: str
    thumbnail: bytes
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassExamples:
    """What a class looks like: typical images that show it, those without it that come nearest, and doubtful ones."""

    typical: Sequence[Example] = ()
    confusing: Sequence[Example] = ()
    doubtful: Sequence[Example] = ()


@dataclass(frozen=True)
class Entry:
    """An image and a class whose label somebody should look at.

    Args:
        image: name, as files of predictions have it.
        class_name: of the class.
        given: label state, see `mlcv.labels`.
        suggested: 1 or 0.
        probability: that the suggestion is right; so, where a label is given, that it is wrong.
        reason: why it is here, in words.
        thumbnail: JPEG; None if there is no picture any more.
        heat_map: JPEG of the same picture with the class's heat map laid over it; None if there is none.
        labels: names of the image's positive classes, as given.
        nearest: images that look most like it.
        split: `train`, `val` or `test`, where images of several splits are named alike.
    """

    image: str
    class_name: str
    given: int
    suggested: int
    probability: float
    reason: str = ""
    thumbnail: bytes | None = None
    heat_map: bytes | None = None
    labels: tuple[str, ...] = ()
    nearest: Sequence[Example] = ()
    split: str = ""


def thumbnail(pixels: Pixels, side: int = SIDE, quality: int = 80) -> bytes:
    """JPEG of an image uint8 (H, W, 3 or 1), made smaller where a side is longer than `side` pixels."""
    scale = min(1.0, side / max(pixels.shape[:2]))
    image = np.ascontiguousarray(pixels[..., ::-1] if pixels.shape[2] == 3 else pixels)
    if scale < 1:
        size = [max(1, round(scale * length)) for length in pixels.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    code: Any = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return bytes(code)


def write_page(
    path: Path,
    entries: Sequence[Entry],
    examples: Mapping[str, ClassExamples] | None = None,
    title: str = "Labels to look at",
    report_after: int = 100,
    earlier: Sequence[Mapping[str, str]] = (),
) -> None:
    """Writes the page; what is in the way is kept under another name.

    Decisions stay in the browser under a fingerprint of the entries, and leave it as `corrections.csv`, which
    `data.corrections` reads.

    Args:
        path: of the HTML file.
        entries: in the order in which they are shown.
        examples: of classes, by name.
        title: of the page.
        report_after: decisions, from which on the page says how many labels were wrong, and how many it expected.
        earlier: rows of corrections by column, of labels that were decided before; the page saves them with its own,
            and of an entry that is decided again what the label was first and is to be in the end.

    Raises:
        ValueError: for a picture that is no JPEG, a suggestion other than 1 and 0, or a probability outside [0, 1].
        ConfigError: if it cannot be written.
    """
    pictures: dict[bytes, int] = {}
    shown = [_entry(entry, pictures) for entry in entries]
    classes = {name: _examples(one, pictures) for name, one in (examples or {}).items()}
    has_splits = any(entry.split for entry in entries) or any(row.get("split") for row in earlier)
    data = {
        "key": fingerprint_of([[one.image, one.split, one.class_name, one.given, one.suggested] for one in entries]),
        "entries": shown,
        "examples": classes,
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
        "columns": [*COLUMNS, "split"] if has_splits else COLUMNS,
        "cells": STATE_CELLS,
        "report_after": report_after,
        "earlier": [dict(row) for row in earlier],
    }
    folder = Environment(loader=PackageLoader("mlcv.commands", "."), autoescape=True)
    script = folder.loader.get_source(folder, "audit.js")[0]  # type: ignore[union-attr]
    page = folder.get_template("audit.html.j2").render(
        title=title,
        version=__version__,
        data=data,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, page, keep=True)


def in_words(probability: float, what: str) -> str:
    """Such as `very likely wrong (93 %)`."""
    word = next(word for least, word in _WORDS if probability >= least)
    share = 100 * probability
    return f"{word} {what} ({share:.0f} %)" if 1 <= share <= 99 else f"{word} {what} ({share:.1f} %)"


def _entry(entry: Entry, pictures: dict[bytes, int]) -> dict[str, Any]:
    if entry.suggested not in (0, 1) or not 0 <= entry.probability <= 1:
        raise ValueError(f"{entry.image}: suggested is {entry.suggested} with probability {entry.probability}")
    is_given = entry.given in (NEGATIVE, POSITIVE)
    words = (
        f"the given label is {in_words(entry.probability, 'wrong')}" if is_given else in_words(entry.probability, "so")
    )
    return {
        "image": entry.image,
        "split": entry.split,
        "class": entry.class_name,
        "given": entry.given,
        "suggested": entry.suggested,
        "probability": entry.probability,
        "words": words,
        "reason": entry.reason,
        "picture": _place(entry.thumbnail, pictures),
        "heat": _place(entry.heat_map, pictures),
        "labels": list(entry.labels),
        "nearest": _strip(entry.nearest, pictures),
    }


def _examples(examples: ClassExamples, pictures: dict[bytes, int]) -> dict[str, Any]:
    kinds = {"typical": examples.typical, "confusing": examples.confusing, "doubtful": examples.doubtful}
    return {kind: _strip(found, pictures) for kind, found in kinds.items()}


def _strip(examples: Sequence[Example], pictures: dict[bytes, int]) -> list[dict[str, Any]]:
    return [
        {"image": one.image, "picture": _place(one.thumbnail, pictures), "labels": list(one.labels)} for one in examples
    ]


def _place(picture: bytes | None, pictures: dict[bytes, int]) -> int | None:
    """Where a picture is in the page's table: each is there once, however often it is shown."""
    if picture is None:
        return None
    if not picture.startswith(_JPEG):
        raise ValueError("a picture of the page is a JPEG; `thumbnail` makes one")
    return pictures.setdefault(picture, len(pictures))
