"""What every data set shares: samples, splits, protocol and policy, loaders."""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import cv2
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from mlcv.data.images import MAX_MEGAPIXELS, Pixels, find_unreadable, read_image
from mlcv.data.transforms import Augment, ImageStatistics, Transform, evaluation_transform, training_transform
from mlcv.errors import ConfigError, DataError
from mlcv.labels.cooccurrence import cooccurrence
from mlcv.labels.policies import Policy
from mlcv.labels.protocols import Protocol, fingerprint
from mlcv.labels.states import States, check_states, count_states
from mlcv.tables import check_class_names

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
OnError = Literal["raise", "skip"]
PREFETCH = 2
"""Batches that each worker prepares ahead."""


class Sample(TypedDict, total=False):
    """One image: `image` uint8 (H, W, 3 or 1), `target` float32 (C,), `index`; or `error` alone if it was skipped.

    Where the truth knows them and nothing is random, `boxes` float32 (K, 5): class, x, y, width and height, as parts of
    the network's input.
    """

    image: Pixels
    target: Tensor
    index: int
    boxes: Tensor
    error: str


class Batch(TypedDict, total=False):
    """What a method gets: `image` float32 (B, 3, H, W) normalised, `target` float32 (B, C), `index` int64 (B,).

    `errors` lists what was wrong with images that were skipped, as text; `boxes`, where samples have them, one (K, 5)
    an image.
    """

    image: Tensor
    target: Tensor
    index: Tensor
    errors: list[str]
    boxes: list[Tensor]


@dataclass(frozen=True)
class LabeledImages:
    """One split as its annotators left it.

    Args:
        images: M paths (plain strings, where there are many: a Path takes ten times as long), or uint8 (M, H, W, 3).
        states: label states int8 (M, C).
        boxes: for each image, float32 (K, 5) of class, x, y, width and height as parts of the image's width and height,
            where the truth knows them.
        about: what else is known of each image, by name, such as its patient's age; M values each.
    """

    images: Sequence[Path | str] | NDArray[np.uint8]
    states: States
    boxes: Sequence[NDArray[np.float32]] | None = None
    about: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: NDArray[np.intp]) -> "LabeledImages":
        """The images at these positions, in this order."""
        images = self.images[rows] if isinstance(self.images, np.ndarray) else [self.images[i] for i in rows]
        boxes = None if self.boxes is None else [self.boxes[i] for i in rows]
        about = {name: column[rows] for name, column in self.about.items()}
        return LabeledImages(images, self.states[rows], boxes, about)


class MultiLabelDataset(Dataset[Sample]):
    """Images with their targets; a sample is named by its position, or by (epoch, position) to vary its augmentation.

    Args:
        labeled: M images.
        targets: float32 (M, C), see `mlcv.labels`.
        transform: from any image to one of the network's size.
        on_error: `raise` a DataError for an unreadable image, or `skip` it: the sample then holds `error` alone.
        seed: of the augmentation.
        grey: images have one channel until they are a batch.
        max_megapixels: above which an image is unreadable.
    """

    def __init__(
        self,
        labeled: LabeledImages,
        targets: Tensor,
        transform: Transform,
        on_error: OnError = "raise",
        seed: int = 0,
        grey: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        self.labeled, self.targets, self.transform = labeled, targets, transform
        self.on_error, self.seed, self.grey, self.max_megapixels = on_error, seed, grey, max_megapixels

    def __len__(self) -> int:
        return len(self.labeled)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            image = self.load(index)
        except DataError as error:
            if self.on_error == "raise":
                raise
            return {"error": str(error)}
        sample: Sample = {
            "image": self.transform(image, (self.seed, epoch, index)),
            "target": self.targets[index],
            "index": index,
        }
        if self.labeled.boxes is not None and self.transform.is_fixed:
            sample["boxes"] = torch.from_numpy(self.transform.locate(self.labeled.boxes[index], image.shape))
        return sample

    def load(self, index: int) -> Pixels:
        """The image as it is stored, before any transform: uint8 (H, W, 3), or (H, W, 1) if grey."""
        image = self.labeled.images[index]
        if isinstance(image, np.ndarray):
            return image
        return read_image(Path(image), self.transform.min_side, self.grey, self.max_megapixels)

    def describe(self, index: int) -> str:
        """How to find a sample again: its path, or its position."""
        image = self.labeled.images[index]
        return f"image {index}" if isinstance(image, np.ndarray) else str(image)


class EpochSampler(DistributedSampler[Any]):
    """A shuffle that depends on the seed and the epoch alone, so that a resumed run sees what a straight one would.

    Yields (epoch, position). Samples are dealt to the processes in turn.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


@dataclass(frozen=True)
class Collate:
    """Stacks samples into a batch and normalises it at once.

    Args:
        mean: of each channel, for pixels in [0, 1].
        std: likewise.
        filler: side of a black image, of index -1, that stands for a batch without readable images; None raises then.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    filler: int | None = None

    def __call__(self, samples: list[Sample]) -> Batch:
        """The batch of all samples without `error`.

        Raises:
            DataError: if none is left, and there is no filler.
        """
        good = [sample for sample in samples if "error" not in sample]
        errors = [sample["error"] for sample in samples if "error" in sample]
        if not good and self.filler is not None:
            black = np.zeros((self.filler, self.filler, 3), np.uint8)
            good = [{"image": black, "target": torch.zeros(0), "index": -1}]
        if not good:
            raise DataError(f"a whole batch of {len(samples)} images cannot be read; the first: {errors[0]}")
        height, width, channels = *good[0]["image"].shape[:2], 3
        rows = torch.empty(len(good), height, width * channels)
        # Mean and deviation of a whole row of pixels: three numbers at a time would leave vector units idle.
        mean, std = (255 * torch.tensor(values).repeat(width) for values in (self.mean, self.std))
        for row, sample in zip(rows, good, strict=True):
            pixels = np.ascontiguousarray(sample["image"])  # a crop is a window on its image
            if pixels.shape[2] == 1:
                pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]  # OpenCV's stubs say Mat
            row.copy_(torch.from_numpy(pixels).view(height, -1)).sub_(mean).div_(std)
        # Channels stay last in memory, as decoded: no copy here, and the layout in which convolutions are fastest.
        image = rows.view(len(good), height, width, channels).permute(0, 3, 1, 2)
        batch: Batch = {
            "image": image,
            "target": torch.stack([sample["target"] for sample in good]),
            "index": torch.tensor([sample["index"] for sample in good]),
            "errors": errors,
        }
        if "boxes" in good[0]:
            batch["boxes"] = [sample["boxes"] for sample in good]
        return batch


class MultiLabelDataModule(LightningDataModule):
    """Splits, label protocol, policy, transforms and loaders; a data set adds `class_names` and `read_split`.

    Args:
        image_size: side of the network's square input in pixels.
        batch_size: images a step and process.
        num_workers: loader processes; None takes one a processor core, 8 at most.
        val_fraction: part of the training images that validates instead of the data set's own validation split,
            in [0, 1); drawn with the seed, before any protocol.
        protocol: what is done to the training labels.
        policy: what uncertain labels mean in training; in evaluation they judge nobody.
        augment: how training images are varied.
        statistics: what the backbone expects; the command line fills it in.
        check: decode every image before training and report all that fail.
        on_error: `raise` on an unreadable image, or `skip` it (logged and counted).
        seed: of the split, the order and the augmentation.
        max_megapixels: images of more, by their headers, are unreadable: they would take the memory of the machine.
    """

    class_names: tuple[str, ...] = ()
    group: str | None = None
    """Name of what `LabeledImages.about` says that must not be in two splits, such as the patient; None for nothing."""
    keeps_going = False
    """Whether a batch of unreadable images stops nothing."""
    grey = False
    """Whether all images are grey, so that one channel of them is decoded and augmented."""

    def __init__(  # noqa: PLR0913  # one flat list is what the command line and a config show
        self,
        image_size: int = 448,
        batch_size: int = 32,
        num_workers: int | None = None,
        val_fraction: float = 0.0,
        protocol: Protocol = Protocol(),  # noqa: B008  # frozen
        policy: Policy = Policy(),  # noqa: B008
        augment: Augment = Augment(),  # noqa: B008
        statistics: ImageStatistics | None = None,
        check: bool = False,
        on_error: OnError = "raise",
        seed: int = 0,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"data.val_fraction lies in [0, 1), got {val_fraction}")
        for name, value in (("image_size", image_size), ("batch_size", batch_size), ("max_megapixels", max_megapixels)):
            if not value >= 1:
                raise ConfigError(f"data.{name} is at least 1, got {value}")
        self.image_size, self.batch_size = image_size, batch_size
        self.num_workers = min(len(os.sched_getaffinity(0)), 8) if num_workers is None else num_workers
        self.val_fraction, self.protocol, self.policy, self.augment = val_fraction, protocol, policy, augment
        self.statistics = statistics or ImageStatistics()
        self.check, self.on_error, self.seed, self.max_megapixels = check, on_error, seed, max_megapixels
        self.datasets: dict[Split, MultiLabelDataset] = {}
        self.label_summary: dict[str, dict[str, int | str]] = {}
        self.skipped: set[str] = set()

    @property
    def num_classes(self) -> int:
        """Label columns."""
        return len(self.class_names)

    @property
    def cooccurrence(self) -> Tensor:
        """How often training labels occur together (C, C), see `mlcv.labels.cooccurrence`; after `setup("fit")`."""
        return cooccurrence(self.datasets["train"].targets)

    def read_split(self, split: Split) -> LabeledImages:
        """Reads a split's images and label states, without protocol or policy.

        Raises:
            DataError: naming the file and row that is missing or malformed, and the remedy.
        """
        raise ConfigError(f"{type(self).__name__} does not say how to read {split!r}: it must define read_split")

    def setup(self, stage: str) -> None:
        check_class_names(self.class_names, type(self).__name__)
        wanted: tuple[Split, ...] = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))  # type: ignore[assignment]
        self.datasets |= {split: self._build(split) for split in wanted if split not in self.datasets}

    def _build(self, split: Split) -> MultiLabelDataset:
        labeled = self._read(split)
        source = f"{type(self).__name__}, {split} split"
        check_states(labeled.states, self.class_names, source)
        if len(labeled) == 0:
            raise DataError(f"{source}: there is no image; look at data.root and the split's list")
        if self.check:
            labeled = self._without_unreadable(labeled, source)
        states = self.protocol.apply(labeled.states) if split == "train" else labeled.states
        counts = count_states(states)
        self.label_summary[split] = {"images": len(labeled), **counts, "fingerprint": fingerprint(states)}
        shares = ", ".join(
            f"{100 * count / max(states.size, 1):.1f} % {name}" for name, count in counts.items() if count
        )
        logger.info("%s: %d images, %d classes; %s", source, len(labeled), self.num_classes, shares)
        make = training_transform if split == "train" else evaluation_transform
        transform = make(self.image_size, self.augment, self.statistics)
        policy = self.policy if split == "train" else Policy()
        targets = policy.resolve(states, self.class_names)
        return MultiLabelDataset(labeled, targets, transform, self.on_error, self.seed, self.grey, self.max_megapixels)

    def _read(self, split: Split) -> LabeledImages:
        if not self.val_fraction or split == "test":
            return self.read_split(split)
        labeled = self.read_split("train")
        groups = np.arange(len(labeled))
        if self.group is not None:
            _, groups = np.unique(labeled.about[self.group], return_inverse=True)
        order = np.random.default_rng(self.seed).permutation(groups.max(initial=-1) + 1)
        is_held_out = np.isin(groups, order[: round(len(order) * self.val_fraction)])
        return labeled.select(np.flatnonzero(is_held_out == (split == "val")))

    def _without_unreadable(self, labeled: LabeledImages, source: str) -> LabeledImages:
        if isinstance(labeled.images, np.ndarray):
            return labeled
        bad = find_unreadable(labeled.images, self.image_size, max(self.num_workers, 1), self.max_megapixels)
        for error in bad.values():
            logger.warning("%s", error)
        if bad and self.on_error == "raise":
            first = next(iter(bad.values()))
            raise DataError(f"{source}: {len(bad)} of {len(labeled)} images cannot be read; the first: {first}")
        self.skipped.update(str(error) for error in bad.values())
        return labeled.select(np.setdiff1d(np.arange(len(labeled)), list(bad)))

    def train_dataloader(self) -> DataLoader[Sample]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        return self._loader("test")

    def _loader(self, split: Split) -> DataLoader[Sample]:
        dataset = self.datasets[split]
        self._check_shared_memory()
        sampler, filler = None, self.image_size if self.keeps_going else None
        if split == "train":
            processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
            if len(dataset) < self.batch_size * processes:
                raise ConfigError(
                    f"{len(dataset)} training images do not fill one batch of {self.batch_size} on {processes} "
                    f"process(es); set data.batch_size to at most {len(dataset) // processes}"
                )
            sampler = EpochSampler(dataset, num_replicas=processes, rank=rank, seed=self.seed)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=split == "train",  # a small last batch would weigh its images more, and unsettle BatchNorm
            num_workers=self.num_workers,
            collate_fn=Collate(self.statistics.mean, self.statistics.std, filler),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            prefetch_factor=PREFETCH if self.num_workers else None,
            worker_init_fn=_one_thread,
        )

    def _check_shared_memory(self) -> None:
        """Too little of it kills workers with a bus error in the middle of an epoch."""
        shared = Path("/dev/shm")  # noqa: S108  # where Linux keeps it
        if not self.num_workers or not shared.is_dir():
            return
        batch = self.batch_size * 3 * self.image_size**2 * 4
        needed = batch * (PREFETCH * self.num_workers + 1)
        free = shutil.disk_usage(shared).free
        if free < needed:
            raise ConfigError(
                f"{self.num_workers} loader workers pass batches of {batch / 2**20:.0f} MiB through /dev/shm: that "
                f"takes up to {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free. Give the container more "
                "(docker run --shm-size=8g), or lower data.num_workers (0 needs none) or data.batch_size"
            )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for error in batch["errors"]:
            if error not in self.skipped:
                self.skipped.add(error)
                logger.warning("skipped, %d so far: %s", len(self.skipped), error)
        return batch

    def teardown(self, stage: str) -> None:
        if self.skipped:
            logger.warning("%d unreadable images were skipped in all", len(self.skipped))


def _one_thread(_worker: int) -> None:
    """Each worker is one core's work; OpenCV's own threads would fight with the other workers."""
    cv2.setNumThreads(0)
