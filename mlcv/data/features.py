"""What a frozen backbone makes of images, stored once by `mlcv features`, in their place: `data.features`."""

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mlcv.data.items import Files
from mlcv.data.paths import end_of
from mlcv.data.samples import Batch, LabeledImages, MultiLabelDataset, OnError, Sample
from mlcv.errors import ConfigError, DataError
from mlcv.files import read_json
from mlcv.tables import is_file, printable

logger = logging.getLogger(__name__)

MANIFEST, NAMES = "features.json", "images.json"
Kind = Literal["pooled", "places"]
_FACTS = (
    "backbone", "weights", "image_size", "statistics", "augment", "grey", "dtype", "views", "shapes", "splits"
)  # fmt: skip


@dataclass(frozen=True)
class Features:
    """A folder of `mlcv features`: arrays of M images, mapped from their files.

    Args:
        folder: that was given.
        about: what they are of: `backbone`, `weights` (a fingerprint), `image_size`, `statistics`, `augment`, `grey`,
            `dtype`, `views` K, `shapes` of the kinds, and `splits` with where each begins, its count and fingerprint.
    """

    folder: Path
    about: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Features":
        """What lies there.

        Raises:
            ConfigError: if it is none.
        """
        path = folder / MANIFEST
        about = read_json(path, "manifest of `mlcv features`") if is_file(path) else None
        if not isinstance(about, dict) or not set(_FACTS) <= set(about) or not isinstance(about["splits"], dict):
            raise ConfigError(f"data.features: {folder} has no {MANIFEST}; `mlcv features --out {folder}` makes it")
        return cls(folder, about)

    def path(self, kind: Kind | Literal["done"], are_views: bool = False) -> Path:
        """Of an array: (M, ...) of images as evaluation sees them, or (K, M of training, ...) of augmented ones."""
        return self.folder / f"{kind}{'.views' if are_views else ''}.npy"

    def shape(self, kind: Kind | Literal["done"], are_views: bool = False) -> tuple[int, ...]:
        """Of an array, see `path`."""
        splits = self.about["splits"]
        images = max((one["start"] + one["count"] for one in splits.values()), default=0)
        train = splits["train"]["count"] if "train" in splits else 0
        return (*((self.about["views"], train) if are_views else (images,)), *self.about["shapes"].get(kind, ()))

    def array(self, kind: Kind | Literal["done"], are_views: bool = False) -> NDArray[Any]:
        """Of which only what is looked at is read.

        Raises:
            ConfigError: if there is none, or of another size.
        """
        path = self.path(kind, are_views)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            why = "" if array.shape == self.shape(kind, are_views) else "it is of another size"
        except (OSError, ValueError) as error:
            why = type(error).__name__
        if why:
            more = " with --patches" if kind == "places" else ""
            raise ConfigError(
                f"data.features: {path} cannot be read ({why}); give `mlcv features --out {self.folder}` again, with "
                f"this config{more}"
            )
        return array

    @cached_property
    def _places(self) -> dict[str, int]:
        """Rows by the ends of paths; empty if these do not tell all images apart."""
        names = read_json(self.folder / NAMES, "list of images")
        found = {end_of(name): row for row, name in enumerate(names)}
        return found if len(found) == len(names) else {}

    def rows(self, split: str, labeled: LabeledImages) -> NDArray[np.intp]:
        """Where a split's images are: by its fingerprint, else each by the end of its path.

        Raises:
            DataError: if not all are there.
        """
        stored = self.about["splits"].get(split)
        if stored is not None and stored["fingerprint"] == labeled.fingerprint():
            return np.arange(stored["start"], stored["start"] + stored["count"])
        again = f"give `mlcv features --out FOLDER` again, with this config ({self.folder} is of others)"
        if not isinstance(labeled.items, Files):
            raise DataError(f"data.features: the images of the {split} split are not those of {self.folder}; {again}")
        found = [self._places.get(end_of(name), -1) for name in labeled.items]
        if not self._places:
            raise DataError(f"data.features: images in {self.folder} cannot be told apart by their paths; {again}")
        if -1 in found:
            absent = printable(labeled.name(found.index(-1)))
            raise DataError(
                f"data.features: {found.count(-1)} of {len(found)} images of the {split} split are not in "
                f"{self.folder}, such as {absent}; {again}"
            )
        return np.array(found, np.intp)

    def find(
        self, split: str, labeled: LabeledImages, on_error: OnError, training: bool
    ) -> tuple[LabeledImages, NDArray[np.intp]]:
        """The images of a split that have features, and where these are; in training all views are asked for.

        Raises:
            DataError: if images are not there, or have none and may not be left out.
        """
        rows = self.rows(split, labeled)
        good = self.array("done")[rows] > 0
        if training and self.about["views"]:
            train = self.about["splits"].get("train", {"start": 0, "count": 0})
            places = rows - train["start"]
            if not ((places >= 0) & (places < train["count"])).all():
                raise DataError(
                    f"data.features: {self.folder} has augmented views of the images that trained when it was made, "
                    "and now others train, by another data.seed or data.val_fraction: give --data.seed of then, or "
                    "store them in another folder (for every seed: --data.val_fraction 0, or --views 0)"
                )
            good &= (self.array("done", are_views=True)[:, places] > 0).all(axis=0)
        if good.all():
            return labeled, rows
        first = labeled.name(int(np.flatnonzero(~good)[0]))
        absent = f"data.features: {(~good).sum()} of {len(good)} images have none, such as {printable(first)}"
        if on_error == "raise":
            raise DataError(f"{absent}; give `mlcv features --out {self.folder}` again, or set data.on_error to skip")
        logger.warning("%s", absent)
        return labeled.select(np.flatnonzero(good)), rows[good]

    def check(self, **facts: Any) -> None:
        """Refuses features of something else.

        Raises:
            ConfigError: naming the first fact that differs.
        """
        for name, value in facts.items():
            then, value = self.about.get(name), json.loads(json.dumps(value))  # as it is there
            if then != value:
                raise ConfigError(
                    f"data.features: {self.folder} is of {name} {then}, and now it is {value}; store features of this "
                    "config in another folder, or leave data.features out"
                )


class FeatureDataset(MultiLabelDataset):
    """Stored features with their targets, in whole batches; `image` is float32 (B, D), or (B, P, D) if `use` says so.

    Args:
        given: as `MultiLabelDataset`, of the images that they are of.
        features: of the folder.
        rows: (M,), of the images among all.
        training: whether augmented views are taken, if there are any: in each epoch one of an image, at random.
    """

    def __init__(self, *given: Any, features: Features, rows: NDArray[np.intp], training: bool) -> None:
        super().__init__(*given)
        self.features, self.views = features, features.about["views"] if training else 0
        self.rows = rows - features.about["splits"]["train"]["start"] if self.views else rows
        self.use("pooled")

    def use(self, kind: Kind) -> None:
        """Chooses what samples are: `pooled` (D,), or `places` (P, D)."""
        self.array = self.features.array(kind, are_views=bool(self.views))

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        batch = self.__getitems__([key])
        return {"image": batch["image"][0].numpy(), "target": batch["target"][0], "index": int(batch["index"][0])}

    def __getitems__(self, keys: list[int | tuple[int, int]]) -> Batch:
        """A batch; PyTorch's loaders ask for all of its samples at once."""
        epochs, indices = zip(*(key if isinstance(key, tuple) else (0, key) for key in keys), strict=True)
        index = np.array(indices)
        if self.views:
            drawn = np.random.default_rng((self.seed, epochs[0])).integers(self.views, size=len(self.rows))
            found = self.array[drawn[index], self.rows[index]]
        else:
            found = self.array[self.rows[index]]
        return {
            "image": torch.from_numpy(found.astype(np.float32)),
            "target": self.targets[index],
            "index": torch.from_numpy(index),
            "errors": [],
        }
