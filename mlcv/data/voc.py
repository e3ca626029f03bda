"""PASCAL VOC 2007 and 2012, from the official image lists or the XML annotations."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcv.data.base import LabeledImages, MultiLabelDataModule, Split
from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, States

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

# The lists' codes: 0 is "difficult", which nobody is asked to see.
_CODES = {"1": POSITIVE, "-1": NEGATIVE, "0": UNKNOWN}
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
        found = [path for path in per_class if path.is_file()]
        if found and len(found) < len(per_class):
            absent = next(path for path in per_class if not path.is_file())
            raise DataError(
                f"VOC {self.year}: {absent} is missing beside {len(found)} of its kind; {self._remedy(name)}"
            )
        ids, states = read_class_lists(per_class) if found else self._read_xml(folder, name)
        images = [folder / "JPEGImages" / f"{image_id}.jpg" for image_id in ids]
        missing = [path for path in images if not path.is_file()]
        if missing and self.on_error == "raise":
            raise DataError(
                f"VOC {self.year}: {len(missing)} of the {len(images)} images of the list {name!r} are missing; "
                f"the first: {missing[0]}; {self._remedy(name)}"
            )
        annotations = [folder / "Annotations" / f"{image_id}.xml" for image_id in ids]
        has_boxes = split != "train" and all(path.is_file() for path in annotations)
        return LabeledImages(images, states, [read_boxes(path) for path in annotations] if has_boxes else None)

    def _folder(self) -> Path:
        year = f"VOC{self.year}"
        for folder in (self.root / year, self.root / "VOCdevkit" / year, self.root):
            if (folder / "ImageSets" / "Main").is_dir():
                return folder
        raise DataError(
            f"VOC {self.year}: no ImageSets/Main under {self.root / year} or {self.root}. Point data.root at the "
            f"folder that holds {year}/; {self._remedy('')}"
        )

    def _read_xml(self, folder: Path, name: str) -> tuple[list[str], States]:
        path = folder / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            raise DataError(f"VOC {self.year}: {path} not found, nor the lists of the classes; {self._remedy(name)}")
        ids = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        rows = [read_annotation(folder / "Annotations" / f"{image_id}.xml") for image_id in ids]
        return ids, np.array(rows, np.int8).reshape(-1, len(VOC_CLASSES))

    def _remedy(self, name: str) -> str:
        archive = _ARCHIVES.get((self.year, name), _ARCHIVES[self.year, ""])
        return f"it comes from {archive} of http://host.robots.ox.ac.uk/pascal/VOC/voc{self.year}/"


def read_class_lists(paths: list[Path]) -> tuple[list[str], States]:
    """Image ids and label states (M, C) from one list a class, `<id> 1 | -1 | 0`, all of the same images in order.

    Raises:
        DataError: naming the file and line that is malformed or of another image.
    """
    columns, ids = [], None
    for path in paths:
        lines = path.read_text().splitlines()
        pairs = [line.split() for line in lines if line.strip()]
        bad = next((n for n, pair in enumerate(pairs, 1) if len(pair) != 2 or pair[1] not in _CODES), None)
        if bad is not None:
            raise DataError(f"{path}:{bad}: expected '<image id> 1, -1 or 0', got {' '.join(pairs[bad - 1])!r}")
        mine = [pair[0] for pair in pairs]
        if ids is None:
            ids = mine
        elif mine != ids:
            line = next(
                (n for n, (a, b) in enumerate(zip(mine, ids, strict=False), 1) if a != b), min(len(mine), len(ids)) + 1
            )
            raise DataError(f"{path}:{line}: not the image of the same line of {paths[0]}; the lists must go together")
        columns.append([_CODES[pair[1]] for pair in pairs])
    return ids or [], np.array(columns, np.int8).T.reshape(-1, len(paths))


def read_annotation(path: Path) -> States:
    """Label states (20,) of one image from its XML: positive if any object is not difficult, unknown if all are.

    Raises:
        DataError: naming the file, and the object's class if VOC has none of that name.
    """
    objects = _parse(path).findall("object")
    states = np.full(len(VOC_CLASSES), NEGATIVE, np.int8)
    for item in objects:
        column = _column(item, path)
        if (item.findtext("difficult") or "0").strip() != "1":
            states[column] = POSITIVE
        elif states[column] == NEGATIVE:
            states[column] = UNKNOWN
    return states


def read_boxes(path: Path) -> NDArray[np.float32]:
    """Boxes (K, 5) of one image from its XML, difficult ones too: class, x, y, width and height as parts of the image.

    Raises:
        DataError: naming the file, if a box or the image's size is missing or no number.
    """
    root = _parse(path)
    try:
        width, height = (float(root.findtext(f"size/{name}") or "") for name in ("width", "height"))
        rows = []
        for item in root.findall("object"):
            ends = (item.findtext(f"bndbox/{name}") or "" for name in ("xmin", "ymin", "xmax", "ymax"))
            x0, y0, x1, y1 = map(float, ends)
            # VOC counts pixels from 1, and both ends belong to the box.
            sides = ((x0 - 1) / width, (y0 - 1) / height, (x1 - x0 + 1) / width, (y1 - y0 + 1) / height)
            rows.append((_column(item, path), *sides))
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path}: a box or the image's size is missing or no number ({error})") from error
    return np.array(rows, np.float32).reshape(-1, 5)


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()  # noqa: S314  # the user's own files
    except FileNotFoundError as error:
        raise DataError(f"{path} not found; it belongs to the same archive as the image lists") from error
    except ET.ParseError as error:
        raise DataError(f"{path}: not a readable XML file ({error}); unpack the archive again") from error


def _column(item: ET.Element, path: Path) -> int:
    name = (item.findtext("name") or "").strip()
    if name not in VOC_CLASSES:
        raise DataError(f"{path}: an object of class {name!r}; VOC's classes are {', '.join(VOC_CLASSES)}")
    return VOC_CLASSES.index(name)
