"""MS-COCO 2014 and 2017: 80 classes, from the official `instances_*.json`."""

import codecs
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlcv.cache import cached, file_key
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.paths import canonical
from mlcv.data.samples import LabeledImages, Split
from mlcv.errors import AbsentError, ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, States
from mlcv.tables import is_file, is_folder, printable, read_regular

logger = logging.getLogger(__name__)

# In the order of COCO's category ids, which run from 1 to 90 with gaps.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

_SOURCE = "https://cocodataset.org/#download"


PARSED = 2
"""Goes up when `parse_instances` makes something else of a file, so that nothing older is taken from a cache."""

_Id = int | float | str
_NO_NAME = re.compile("[\0\ud800-\udfff]")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: str | None = None
    coco_url: str | None = None  # LVIS names no file


class _Category(msgspec.Struct, gc=False):
    id: _Id
    name: str


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id
    id: _Id | None = None


class _Instances(msgspec.Struct):
    """What the label matrix needs; the decoder passes over the rest (polygons, licences) without building it."""

    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] | None = None


class COCODataModule(MultiLabelDataModule):
    """MS-COCO as a multi-label data set: a class is present if any object of it is annotated, crowds included.

    Images without any object are kept, as in the partial-label literature (82,783 and 40,504 images in 2014). COCO's
    test labels are not public, so `test` is the validation split, as everywhere in this field; hold out
    `val_fraction` of the training images to choose checkpoints and thresholds on something else.

    The label matrix is cached in $MLCV_CACHE (default ~/.cache/mlcv), keyed by the file's path, size and time.

    Args:
        root: folder with `annotations/` and `train2014/`, `val2014/` (or 2017), these perhaps under `images/`.
        year: 2014 or 2017.
        kwargs: see `MultiLabelDataModule`.
    """

    class_names = COCO_CLASSES

    def __init__(self, root: str, year: int = 2014, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if year not in (2014, 2017):
            raise ConfigError(f"data.year is 2014 or 2017, got {year}")
        self.root, self.year = Path(root), year

    def read_split(self, split: Split) -> LabeledImages:
        part = f"{'train' if split == 'train' else 'val'}{self.year}"
        annotations = self.root / "annotations" / f"instances_{part}.json"
        if not is_file(annotations):
            raise AbsentError(
                f"COCO {self.year}: {annotations} not found. Point data.root at the folder that holds annotations/ "
                f"(annotations_trainval{self.year}.zip of {_SOURCE})"
            )
        folder = next((f for f in (self.root / part, self.root / "images" / part) if is_folder(f)), None)
        if folder is None:
            raise AbsentError(
                f"COCO {self.year}: no folder {self.root / part} with images; it comes from {part}.zip of {_SOURCE}"
            )
        names, states = read_instances(annotations)
        if not states.any():
            logger.warning("%s: no image has an object, so all labels are negative", annotations)
        images, missing = find_files(names, folder)
        if missing and self.on_error == "raise":
            raise DataError(
                f"{annotations} lists {len(names)} images, of which {len(missing)} are not in {folder}; the first: "
                f"{printable(missing[0])}. Unpack {part}.zip again, or set data.on_error to skip"
            )
        return LabeledImages([Path(image) for image in images], states)


def find_files(names: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """Paths of the images, and the names of those that are missing.

    A name may hold folders, from the split's own on or from those around it, as in `train2017/1.jpg`.
    """
    listings: dict[str, set[str]] = {}
    paths, missing = [], []
    for name in names:
        for base in (folder, folder.parent) if "/" in name else (folder,):
            path = canonical(f"{base}/{name}")
            parent, _, file = path.rpartition("/")
            # One listing of each folder: a question for each of 80,000 names would take seconds.
            if parent not in listings:
                listings[parent] = set(os.listdir(parent)) if is_folder(parent) else set()  # noqa: PTH208
            if file in listings[parent]:
                paths.append(path)
                break
        else:
            paths.append(canonical(f"{folder}/{name}"))
            missing.append(name)
    return paths, missing


def read_instances(path: Path) -> tuple[list[str], States]:
    """File names and label states (M, 80) of an `instances_*.json`, in the file's order; from the cache if it is there.

    Raises:
        DataError: if the file is no JSON of that kind, or an annotation names no image or no class.
    """

    def parse() -> dict[str, Any]:
        names, states = parse_instances(path)
        return {"names": np.array([name.encode() for name in names], np.bytes_), "states": states}

    stored = cached(path.stem, f"{file_key(path)}|{PARSED}", parse)
    return [name.decode() for name in stored["names"].tolist()], stored["states"]


def parse_instances(path: Path) -> tuple[list[str], States]:
    """As `read_instances`, always from the JSON.

    Ids may be whole numbers in any spelling: 1, 1.0 or "1"; those of images may be other texts, too. Categories are
    known by their names, in any case; others than COCO's 80 are passed over as long as no annotation is of them.
    """
    content = _decode(path)
    if content.annotations is None:
        raise DataError(
            f"{path}: there is no list of annotations, so nothing is known of any label (as in image_info_*.json of "
            f"COCO's test images); take an instances_*.json of {_SOURCE}"
        )
    if not content.images:
        raise DataError(f"{path}: it lists no image; take an instances_*.json of {_SOURCE}")
    names = [_file_name(image, place, path) for place, image in enumerate(content.images)]
    _number_texts(content, path)
    image_ids = _ids([image.id for image in content.images], "images", path)
    _check_once(image_ids.tolist(), "id", names, "images", path)
    _check_once([canonical(name) for name in names], "file name", image_ids.tolist(), "images", path)
    column_of, category_ids = _categories(content.categories, path)
    annotations = content.annotations
    owners = _ids([annotation.image_id for annotation in annotations], "annotations", path)
    categories = _ids([annotation.category_id for annotation in annotations], "annotations", path)
    rows = _positions(owners, image_ids, annotations, "image_id", path)
    places = _positions(categories, category_ids, annotations, "category_id", path)
    columns = column_of[places]
    strange = np.flatnonzero(columns < 0)
    if len(strange):
        raise DataError(
            f"{path}: annotation {annotations[strange[0]].id} is of category "
            f"{content.categories[places[strange[0]]].name!r}, which is none of COCO's 80; for classes of your own use "
            "CSVDataModule"
        )
    states = np.full((len(names), len(COCO_CLASSES)), NEGATIVE, np.int8)
    states[rows, columns] = POSITIVE
    return names, states


def _number_texts(content: _Instances, path: Path) -> None:
    """Gives images numbers in place of their ids, if all of these are texts, and some no numbers; in place."""
    ids = [image.id for image in content.images]
    if not all(isinstance(one, str) for one in ids) or all(_WHOLE.fullmatch(str(one)) for one in ids):
        return
    _check_once(ids, "id", [image.file_name for image in content.images], "images", path)
    number = {one: place for place, one in enumerate(ids)}
    for annotation in content.annotations or ():
        if annotation.image_id not in number:
            raise DataError(
                f"{path}: annotation {annotation.id} has image_id {annotation.image_id!r}, which the file does not "
                "define; add it, or leave the annotation out"
            )
        annotation.image_id = number[annotation.image_id]
    for image in content.images:
        image.id = number[image.id]


def _decode(path: Path) -> _Instances:
    data = read_regular(path).removeprefix(codecs.BOM_UTF8)
    for name in (b"images", b"categories", b"annotations"):
        if data.count(b'"%s"' % name) > 1 and len(re.findall(rb'"%s"\s*:' % name, data)) > 1:
            raise DataError(f"{path}: there are two lists of {name.decode()}, of which one would be lost; join them")
    try:
        try:
            return msgspec.json.decode(data, type=_Instances)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # what Python writes for a missing number, NaN, is no JSON, but can be understood
            return msgspec.convert(json.loads(data), _Instances)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not a COCO instances file ({type(error).__name__}: {error}); mend that entry, or download the "
            f"file again from {_SOURCE}"
        ) from error


def _file_name(image: _Image, place: int, path: Path) -> str:
    name = image.file_name or (image.coco_url or "").rpartition("/")[2]
    if not name or _NO_NAME.search(name):
        raise DataError(
            f"{path}: images[{place}], of id {image.id!r}, has the file name {name!r}; give it its file's name as "
            "file_name (or a coco_url that ends with it)"
        )
    return name


def _ids(values: list[Any], where: str, path: Path) -> NDArray[np.int64]:
    """Whole numbers, however they are written."""
    if not {type(value) for value in values} <= {int}:
        values = [_whole(value, place, where, path) for place, value in enumerate(values)]
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: {where} have an id beyond 64 bits; give them smaller ones") from error


def _whole(value: Any, place: int, where: str, path: Path) -> int:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise DataError(f"{path}: {where}[{place}] has the id {value!r}; ids are whole numbers, so renumber them")


def _check_once(values: Sequence[Any], what: str, others: Sequence[Any], where: str, path: Path) -> None:
    """Refuses a value that stands in two entries: labels of one would go to the other."""
    if len(set(values)) == len(values):
        return
    first: dict[Any, int] = {}
    again = next(place for place, value in enumerate(values) if first.setdefault(value, place) != place)
    before = first[values[again]]
    raise DataError(
        f"{path}: {where}[{before}] ({others[before]!r}) and {where}[{again}] ({others[again]!r}) have one {what}, "
        f"{values[again]!r}, as in merged files; give one of them another, in its annotations, too, or drop it"
    )


def _categories(categories: list[_Category], path: Path) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Column of each category, -1 for those that are not COCO's, and their ids."""
    names = [" ".join(category.name.lower().split()) for category in categories]
    ids = _ids([category.id for category in categories], "categories", path)
    _check_once(ids.tolist(), "id", names, "categories", path)
    _check_once(names, "name", ids.tolist(), "categories", path)
    absent = [name for name in COCO_CLASSES if name not in names]
    if absent:
        strange = [name for name in names if name not in COCO_CLASSES] or ["nothing else"]
        raise DataError(
            f"{path}: its categories are not COCO's 80: {absent[0]!r} is missing, and there is {strange[0]!r}. Give it "
            "COCO's name if it means the same; for classes of your own use CSVDataModule"
        )
    place = {name: column for column, name in enumerate(COCO_CLASSES)}
    return np.array([place.get(name, -1) for name in names], np.intp), ids


def _positions(wanted: Any, ids: Any, annotations: list[_Annotation], key: str, path: Path) -> Any:
    """Position in `ids` of each wanted id."""
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, wanted, sorter=order)
    found = order[np.minimum(place, len(ids) - 1)] if len(ids) else np.zeros(len(wanted), np.intp)
    wrong = np.flatnonzero(ids[found] != wanted) if len(ids) else np.arange(len(wanted))
    if len(wrong):
        annotation = annotations[wrong[0]]
        raise DataError(
            f"{path}: annotation {annotation.id} has {key} {getattr(annotation, key)}, which the file does not define "
            f"({len(wrong)} such annotations); add it, or download the file again from {_SOURCE}"
        )
    return found
