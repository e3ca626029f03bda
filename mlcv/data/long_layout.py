"""What tables with several rows an image seem to be: a row for each label, box or annotator."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlcv.data.several_rows import Long
from mlcv.labels.states import NEGATIVE
from mlcv.tables import Codes, Table

BOXES = ({"x", "y", "width", "height"}, {"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"})
"""Headers of boxes, without case and underscores."""

_CONFIDENCE = re.compile(r"conf(idence)?|score|prob(ability)?|present|value|state", re.IGNORECASE)
_SOURCE = re.compile(r"source|origin|method", re.IGNORECASE)
_ANNOTATOR = re.compile(
    r"(rad|rater|reader|annotator|worker|labell?er|expert|doctor|radiologist|user)([ _]?(id|name|nr))?", re.IGNORECASE
)


@dataclass(frozen=True)
class SeveralRows:
    """How a table with several rows an image is read.

    Args:
        long: what its columns mean, if each row has one label.
        duplicates: what several annotators, or rows, of an image are put together by; None if nothing is.
        why: of what is taken for absent, or put together; for a person to look at.
    """

    long: Long | None
    duplicates: str | None
    why: str


def box_columns(names: Sequence[str]) -> list[str]:
    """Headers of a box's corners or sides, if all four are there."""
    folded = {name.lower().replace("_", "").replace(" ", ""): name for name in names}
    found = next((box for box in BOXES if box <= set(folded)), set())
    return [name for key, name in folded.items() if key in found]


def several_rows(table: Table, image_column: str, names: Sequence[str], labels: Sequence[str]) -> SeveralRows | None:
    """How its rows belong together; None if each image has one.

    Args:
        table: with a header.
        image_column: with the images' paths.
        names: columns of words that are used again and again, those of labels first.
        labels: columns of codes.
    """
    cells = table.spelled(image_column).cells
    if len({cell.strip() for cell in cells}) == len(table):
        return None
    annotator = next((name for name in table.names if _ANNOTATOR.fullmatch(name)), None)
    classes = [name for name in labels if not _CONFIDENCE.fullmatch(name)]
    if not names or classes:
        return SeveralRows(None, "majority", "rows of one image are put together by majority, a tie is uncertain")
    confidence = next((name for name in labels if _CONFIDENCE.fullmatch(name)), None)
    source = next((name for name in table.names if _SOURCE.fullmatch(name)), None) if confidence else None
    says_absent = confidence is not None and NEGATIVE in map(Codes().table().get, table.spelled(confidence).cells)
    why = (
        "a class of which an image has no row is unknown, as some rows say absent"
        if says_absent
        else "a class of which an image has no row is absent; if not every image was searched for every class, make it "
        "long.absent unknown"
    )
    absent: Literal["unknown", "negative"] = "unknown" if says_absent else "negative"
    long = Long(names[0], absent, confidence, source, annotator_column=annotator)
    if source and any(cell.strip().lower() in long.machines for cell in table.spelled(source).cells):
        why += f"; what a machine says ({source}) is unknown, or a soft label with long.machine soft"
    if annotator is not None:
        return SeveralRows(
            long, "majority", f"{why}; annotators ({annotator}) are put together by majority, a tie is uncertain"
        )
    return SeveralRows(long, None, why + ("; boxes are left out" if box_columns(table.names) else ""))
