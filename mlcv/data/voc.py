"""PASCAL VOC 2007 and 2012, from the official image lists or the XML annotations."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

import numpy as np
from numpy.typing import NDArray

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.samples import LabeledImages, Split
from mlcv.errors import AbsentError, ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, States
from mlcv.tables import exists, is_file, is_folder, read_lines, read_regular

logger = logging.getLogger(__name__)

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

# The lists' codes: 0 is "difficult", which nobody is asked to see.
_CODES = {1.0: POSITIVE, -1.0: NEGATIVE, 0.0: UNKNOWN}
_COCO_SPELLINGS = {
    "airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor",
    "potted plant": "pottedplant", "dining table": "diningtable",
}  # fmt: skip
_DIFFICULT = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
_DIFFICULT |= {"1.0": True, "0.0": False, "unspecified": False}
_SHAPE = {"folder", "filename", "size", "source", "segmented", "owner"}
"""What a file of VOC holds besides objects, of which there may be none."""
_ARCHIVES = {
    (2007, "test"): "VOCtest_06-Nov-2007.tar",
    (2007, ""): "VOCtrainval_06-Nov-2007.tar",
    (2012, ""): "VOCtrainval_11-May-2012.tar",
}


class VOCDataModule(MultiLabelDataModule):
    """PASCAL VOC's 20 classes; an image that shows a class only as difficult objects is unknown for it.

    Labels come from `ImageSets/Main/<class>_<list>.txt`, or, where these are absent, from the XML files of the images
    in `ImageSets/Main/<list>.txt`. By default 2007 trains on `train`, validates on `val` and tests on `test`; 2012,
    whose test labels are not public, tests on `val`. Papers on 2007 train on `trainval`: set `train_list` to that, and
    `val_fraction` to hold some of it out.

    Args:
        root: folder that holds `VOC2007/` or `VOC2012/` (or `VOCdevkit/` with these), or that folder itself.
        year: 2007 or 2012.
        train_list: name of the list to train on.
        val_list: name of the list to validate on.
        test_list: name of the list to test on; `test` for 2007 and `val` for 2012 if None.
        kwargs: see `MultiLabelDataModule`.
    """

    class_names = VOC_CLASSES

    def __init__(
        self,
        root: str,
        year: int = 2007,
        train_list: str = "train",
        val_list: str = "val",
        test_list: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if year not in (2007, 2012):
            raise ConfigError(f"data.year is 2007 or 2012, got {year}")
        self.root, self.year = Path(root), year
        self.lists: dict[Split, str] = {
            "train": train_list,
            "val": val_list,
            "test": test_list or ("test" if year == 2007 else "val"),
        }

    def read_split(self, split: Split) -> LabeledImages:
        folder = self._folder()
        name = self.lists[split]
        per_class = [folder / "ImageSets" / "Main" / f"{cls}_{name}.txt" for cls in VOC_CLASSES]
        found = [path for path in per_class if is_file(path)]
        if found and len(found) < len(per_class):
            absent = next(path for path in per_class if not is_file(path))
            raise DataError(
                f"VOC {self.year}: {absent} is missing beside {len(found)} of its kind; {self._remedy(name)}"
            )
        ids, states = read_class_lists(per_class) if found else self._read_xml(folder, name)
        if not ids:
            raise DataError(f"VOC {self.year}: {per_class[0] if found else name} lists no image; {self._remedy(name)}")
        images = [folder / "JPEGImages" / f"{image_id}.jpg" for image_id in ids]
        missing = [path for path in images if not is_file(path)]
        if missing and self.on_error == "raise":
            raise DataError(
                f"VOC {self.year}: {len(missing)} of the {len(images)} images of the list {name!r} are missing; "
                f"the first: {missing[0]}; {self._remedy(name)}"
            )
        annotations = [folder / "Annotations" / f"{image_id}.xml" for image_id in ids]
        is_judged_by_boxes = split != "train" and self.features is None  # features have no places on their images
        has_boxes = is_judged_by_boxes and all(is_file(path) for path in annotations)
        return LabeledImages(images, states, _boxes(annotations) if has_boxes else None)

    def _folder(self) -> Path:
        year = f"VOC{self.year}"
        for folder in (self.root / year, self.root / "VOCdevkit" / year, self.root):
            if is_folder(folder / "ImageSets" / "Main"):
                return folder
        raise DataError(
            f"VOC {self.year}: no ImageSets/Main under {self.root / year} or {self.root}. Point data.root at the "
            f"folder that holds {year}/; {self._remedy('')}"
        )

    def _read_xml(self, folder: Path, name: str) -> tuple[list[str], States]:
        path = folder / "ImageSets" / "Main" / f"{name}.txt"
        if not is_file(path):
            raise AbsentError(f"VOC {self.year}: {path} not found, nor the lists of the classes; {self._remedy(name)}")
        ids = read_ids(path)
        rows = [read_annotation(folder / "Annotations" / f"{image_id}.xml") for image_id in ids]
        return ids, np.array(rows, np.int8).reshape(-1, len(VOC_CLASSES))

    def _remedy(self, name: str) -> str:
        archive = _ARCHIVES.get((self.year, name), _ARCHIVES[self.year, ""])
        return f"it comes from {archive} of http://host.robots.ox.ac.uk/pascal/VOC/voc{self.year}/"


def read_ids(path: Path) -> list[str]:
    """Image ids from a list of one a line.

    Raises:
        DataError: naming the line that holds more, or an id that was there before.
    """
    lines = read_lines(path)
    for number, words in lines:
        if len(words) != 1:
            raise DataError(f"{path}:{number}: expected '<image id>' alone, got {' '.join(words)!r}")
    return _once(lines, path)


def read_class_lists(paths: list[Path]) -> tuple[list[str], States]:
    """Image ids and label states (M, C) from one list a class, `<id> 1 | -1 | 0`, all of the same images in order.

    Raises:
        DataError: naming the file and line that is malformed, names an image again or another one, or a file in which
            0 seems to stand for absent.
    """
    columns, ids = [], None
    for path in paths:
        lines = read_lines(path)
        codes = [_code(words) for _, words in lines]
        if None in codes:
            number, words = lines[codes.index(None)]
            raise DataError(f"{path}:{number}: expected '<image id> 1, -1 or 0', got {' '.join(words)!r}")
        if UNKNOWN in codes and NEGATIVE not in codes:
            number, words = lines[codes.index(UNKNOWN)]
            raise DataError(
                f"{path}:{number}: {' '.join(words)!r} says that {words[0]} is difficult, but no line says absent; "
                "VOC's codes are 1 (present), -1 (absent) and 0 (difficult), so write -1 where 0 stands for absent"
            )
        mine = _once(lines, path)
        if ids is None:
            ids = mine
        elif mine != ids:
            place = next(
                (n for n, (a, b) in enumerate(zip(mine, ids, strict=False)) if a != b), min(len(mine), len(ids))
            )
            line = lines[place][0] if place < len(lines) else len(lines) + 1
            raise DataError(f"{path}:{line}: not the image of the same line of {paths[0]}; the lists must go together")
        columns.append(codes)
    return ids or [], np.array(columns, np.int8).T.reshape(-1, len(paths))


def read_annotation(path: Path) -> States:
    """Label states (20,) of one image from its XML: positive if any object is not difficult, unknown if all are.

    Names of tags and classes may be in any case, in a namespace, and the annotation inside of another element.

    Raises:
        DataError: naming the file, if it is no annotation, or the object's class if VOC has none of that name.
    """
    states = np.full(len(VOC_CLASSES), NEGATIVE, np.int8)
    for item in _parse(path).findall("object"):
        column = _column(item, path)
        if not _is_difficult(item, path):
            states[column] = POSITIVE
        elif states[column] == NEGATIVE:
            states[column] = UNKNOWN
    return states


def read_boxes(path: Path) -> NDArray[np.float32]:
    """Boxes (K, 5) of one image from its XML, difficult ones too: class, x, y, width and height as parts of the image.

    Corners may come in any order, and with decimal commas.

    Raises:
        DataError: naming the file, if a box or the image's size is missing or no number.
    """
    root = _parse(path)
    try:
        width, height = (_number(root, f"size/{name}", above=0) for name in ("width", "height"))
        rows = []
        for item in root.findall("object"):
            xs, ys = (sorted(_number(item, f"bndbox/{axis}{end}") for end in ("min", "max")) for axis in "xy")
            # VOC counts pixels from 1, and both ends belong to the box.
            sides = (
                (xs[0] - 1) / width,
                (ys[0] - 1) / height,
                (xs[1] - xs[0] + 1) / width,
                (ys[1] - ys[0] + 1) / height,
            )
            rows.append((_column(item, path), *sides))
    except ValueError as error:
        raise DataError(f"{path}: a box or the image's size is missing or no number ({error})") from error
    return np.array(rows, np.float32).reshape(-1, 5)


def _boxes(paths: Sequence[Path]) -> list[NDArray[np.float32]]:
    """Boxes of each image; none where one cannot be used, so that heat maps are not judged by the others."""
    found = [_boxes_or_error(path) for path in paths]
    errors = [boxes for boxes in found if isinstance(boxes, DataError)]
    if errors:
        logger.warning("%d of %d images have no boxes that can be used: %s", len(errors), len(paths), errors[0])
    return [np.empty((0, 5), np.float32) if isinstance(boxes, DataError) else boxes for boxes in found]


def _boxes_or_error(path: Path) -> NDArray[np.float32] | DataError:
    try:
        return read_boxes(path)
    except DataError as error:
        return error


def _once(lines: list[tuple[int, list[str]]], path: Path) -> list[str]:
    first: dict[str, int] = {}
    for number, (image_id, *_) in lines:
        if first.setdefault(image_id, number) != number:
            raise DataError(f"{path}:{number}: {image_id} is in line {first[image_id]} already; drop one of the two")
    return list(first)


def _code(words: list[str]) -> int | None:
    try:
        return _CODES.get(float(words[1])) if len(words) == 2 else None
    except ValueError:
        return None


def _parse(path: Path) -> Element:
    """The element `annotation`, its tags without namespaces and in small letters.

    Entities, which may expand to any size, can only be defined in a DOCTYPE: with one, nothing is parsed.
    """
    if not exists(path):
        raise DataError(f"{path} not found; it belongs to the same archive as the image lists")
    data = read_regular(path)
    if b"<!DOCTYPE" in data.replace(b"\0", b""):  # in UTF-16 or UTF-32, too
        raise DataError(f"{path}: it has a DOCTYPE, as web pages have, not VOC's annotations; unpack the archive again")
    try:
        root = fromstring(data)  # noqa: S314  # without entities
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not a readable XML file ({error}); unpack the archive again") from error
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2].lower()
    found = list(root.iter("annotation"))
    found = [one for one in found if len(one)] or found  # <source> names its <annotation>, a text, in official files
    if len(found) != 1 or not ({"object"} | _SHAPE) & {child.tag for child in found[0]}:
        what = f"<{root.tag}> with {len(found)} annotations in it" if len(found) != 1 else "an empty annotation"
        raise DataError(
            f"{path}: {what}, not one <annotation> with objects, or at least a filename or size; unpack the "
            "archive again"
        )
    return found[0]


def _is_difficult(item: Element, path: Path) -> bool:
    text = (item.findtext("difficult") or "").strip().lower()
    if text not in _DIFFICULT:
        raise DataError(f"{path}: an object with <difficult>{text}</difficult>; it is 0 or 1")
    return _DIFFICULT[text]


def _column(item: Element, path: Path) -> int:
    name = " ".join((item.findtext("name") or "").lower().split())
    if name in _COCO_SPELLINGS:
        raise DataError(f"{path}: an object of class {name!r}, which VOC spells {_COCO_SPELLINGS[name]!r}; rename it")
    if name not in VOC_CLASSES:
        raise DataError(f"{path}: an object of class {name!r}; VOC's classes are {', '.join(VOC_CLASSES)}")
    return VOC_CLASSES.index(name)


def _number(item: Element, place: str, above: float = -math.inf) -> float:
    text = (item.findtext(place) or "").strip()
    value = float(text.replace(",", ".") or "nan")
    if not above < value < math.inf:
        raise ValueError(f"{place} is {text!r}")
    return value
