"""MS-COCO 2014 and 2017: 80 classes, from the official `instances_*.json`."""

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mlcv.cache import cached, file_key
from mlcv.data.base import LabeledImages, MultiLabelDataModule, Split
from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, States

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


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    id: int | None = None


class _Instances(msgspec.Struct):
    """What the label matrix needs; the decoder passes over the rest (polygons, licences) without building it."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


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
        if not annotations.is_file():
            raise DataError(
                f"COCO {self.year}: {annotations} not found. Point data.root at the folder that holds annotations/ "
                f"(annotations_trainval{self.year}.zip of {_SOURCE})"
            )
        folder = next((f for f in (self.root / part, self.root / "images" / part) if f.is_dir()), None)
        if folder is None:
            raise DataError(
                f"COCO {self.year}: no folder {self.root / part} with images; it comes from {part}.zip of {_SOURCE}"
            )
        names, states = read_instances(annotations)
        images = [folder / name for name in names]
        # One listing of the folder: a question for each of 80,000 names would take seconds.
        present = {entry.name for entry in os.scandir(folder)}
        missing = [name for name in names if name not in present]
        if missing and self.on_error == "raise":
            raise DataError(
                f"{annotations} lists {len(names)} images, of which {len(missing)} are not in {folder}; the first: "
                f"{missing[0]}. Unpack {part}.zip again, or set data.on_error to skip"
            )
        return LabeledImages(images, states)


def read_instances(path: Path) -> tuple[list[str], States]:
    """File names and label states (M, 80) of an `instances_*.json`, in the file's order; from the cache if it is there.

    Raises:
        DataError: if the file is no JSON of that kind, or an annotation names no image or no class.
    """

    def parse() -> dict[str, Any]:
        names, states = parse_instances(path)
        return {"names": np.array(names, dtype=np.bytes_), "states": states}

    stored = cached(path.stem, file_key(path), parse)
    return stored["names"].astype(str).tolist(), stored["states"]


def parse_instances(path: Path) -> tuple[list[str], States]:
    """As `read_instances`, always from the JSON."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Instances)
        annotations = content.annotations
        image_ids = np.array([image.id for image in content.images], np.int64)
        owners = np.array([annotation.image_id for annotation in annotations], np.int64)
        categories = np.array([annotation.category_id for annotation in annotations], np.int64)
        names = [image.file_name for image in content.images]
        np.array(names, dtype=np.bytes_)  # as they are cached
        category_of = {category.name: category.id for category in content.categories}
        np.array(list(category_of.values()), np.int64)
    except (msgspec.DecodeError, UnicodeError, OverflowError) as error:
        raise DataError(
            f"{path}: not a COCO instances file ({type(error).__name__}: {error}); download it again from {_SOURCE}"
        ) from error
    if set(category_of) != set(COCO_CLASSES):
        strange = sorted(set(category_of) - set(COCO_CLASSES)) or sorted(set(COCO_CLASSES) - set(category_of))
        raise DataError(
            f"{path}: its categories are not COCO's 80 (the first that differs: {strange[0]!r}). For classes of your "
            "own use CSVDataModule"
        )
    category_ids = np.array([category_of[name] for name in COCO_CLASSES], np.int64)
    rows = _positions(owners, image_ids, annotations, "image_id", path)
    columns = _positions(categories, category_ids, annotations, "category_id", path)
    states = np.full((len(names), len(COCO_CLASSES)), NEGATIVE, np.int8)
    states[rows, columns] = POSITIVE
    return names, states


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
            f"({len(wrong)} such annotations); download it again from {_SOURCE}"
        )
    return found
