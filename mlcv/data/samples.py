"""Images with their labels, as samples and batches."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mlcv.data.images import MAX_MEGAPIXELS, Pixels
from mlcv.data.items import Files, Items, items_of
from mlcv.data.transforms import TrainingTransform, Transform
from mlcv.errors import ConfigError, DataError
from mlcv.labels.states import States

Split = Literal["train", "val", "test"]
OnError = Literal["raise", "skip"]
_TRIES = 100
"""Images in a row that may be unreadable."""


class Sample(TypedDict, total=False):
    """One image: `image` uint8 (H, W, 3 or 1), `target` float32 (C,), `index`; or `error` alone if it was skipped.

    In training an image that is skipped gives place to the next one, beside its `error`.

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

    Under a Trainer images travel to their device as they were decoded, uint8 (B, H, W, 3 or 1), to be normalised there.

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
        images: M paths (plain strings, where there are many: a Path takes ten times as long), uint8 (M, H, W, 3), or
            `mlcv.data.items.Items`.
        states: label states int8 (M, C).
        boxes: for each image, float32 (K, 5) of class, x, y, width and height as parts of the image's width and height,
            where the truth knows them.
        about: what else is known of each image, by name, such as its patient's age; M values each.
        file: what they were read from, for errors.
        lines: of each image in that file.
        soft: soft labels float32 (M, C) in [0, 1] of uncertain entries, NaN for none: what training takes for them,
            whatever its policy is; they judge nobody.
    """

    images: Sequence[Path | str] | NDArray[np.uint8] | Items
    states: States
    boxes: Sequence[NDArray[np.float32]] | None = None
    about: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    file: str = ""
    lines: NDArray[np.intp] | None = None
    soft: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def items(self) -> Items:
        """The images, whatever they are."""
        return items_of(self.images)

    def select(self, rows: NDArray[np.intp]) -> "LabeledImages":
        """The images at these positions, in this order."""
        boxes = None if self.boxes is None else [self.boxes[i] for i in rows]
        about = {name: column[rows] for name, column in self.about.items()}
        lines = None if self.lines is None else self.lines[rows]
        soft = None if self.soft is None else self.soft[rows]
        return LabeledImages(self.items.select(rows), self.states[rows], boxes, about, self.file, lines, soft)

    def name(self, index: int) -> str:
        """How to find an image again: its path, or its position."""
        return self.items.name(index)

    def fingerprint(self) -> str:
        """Of which images there are, in which order, wherever their folder lies; see `mlcv.fingerprints`."""
        return self.items.fingerprint()

    def where(self, index: int) -> str:
        """The line that an image's labels are from, or its position."""
        return f"image {index}" if self.lines is None else f"{self.file}:{self.lines[index]}"


class MultiLabelDataset(Dataset[Sample]):
    """Images with their targets; a sample is named by its position, or by (epoch, position) to vary its augmentation.

    Args:
        labeled: M images.
        targets: float32 (M, C), see `mlcv.labels`.
        transform: from any image to one of the network's size.
        on_error: `raise` a DataError for an unreadable image, or `skip` it, see `Sample`.
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
        # A list of paths would grow in each loader process.
        self.labeled = replace(labeled, images=labeled.items) if isinstance(labeled.items, Files) else labeled
        self.targets, self.transform = targets, transform
        self.on_error, self.seed, self.grey, self.max_megapixels = on_error, seed, grey, max_megapixels

    def __len__(self) -> int:
        return len(self.labeled)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            return self._sample(epoch, index)
        except DataError as error:
            if self.on_error == "raise":
                raise
            problem = str(error)
        if not isinstance(key, tuple):
            return {"error": problem}
        for step in range(1, min(_TRIES, len(self))):
            with suppress(DataError):
                return {**self._sample(epoch, (index + step) % len(self)), "error": problem}
        raise DataError(f"none of {min(_TRIES, len(self))} images in a row can be read; the first: {problem}")

    def _sample(self, epoch: int, index: int) -> Sample:
        seed = (self.seed, epoch, index)
        if isinstance(self.transform, TrainingTransform) and isinstance(self.labeled.items, Files):
            draw = self.transform.draw(seed)
            image = self.labeled.items.read(index, draw.min_side, self.grey, self.max_megapixels)
            out = draw(image)
        else:
            image = self.load(index)
            out = self.transform(image, seed)
        sample: Sample = {
            "image": out,
            "target": self.targets[index],
            "index": index,
        }
        if self.labeled.boxes is not None and self.transform.is_fixed:
            sample["boxes"] = torch.from_numpy(self.transform.locate(self.labeled.boxes[index], image.shape))
        return sample

    def load(self, index: int) -> Pixels:
        """The image as it is stored, before any transform: uint8 (H, W, 3), or (H, W, 1) if grey."""
        return self.labeled.items.read(index, self.transform.min_side, self.grey, self.max_megapixels)

    def describe(self, index: int) -> str:
        """How to find a sample again: its path, or its position."""
        return self.labeled.name(index)


@dataclass(frozen=True)
class Normalize:
    """What a backbone expects of decoded pixels.

    Args:
        mean: of each channel, for pixels in [0, 1].
        std: likewise.

    Shape:
        uint8 (B, H, W, 3 or 1) to float32 (B, 3, H, W), on the same device; channels stay last in memory, the layout in
        which convolutions are fastest.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        batch, height, width, channels = pixels.shape
        # Mean and deviation of a whole row of pixels: three numbers at a time would leave vector units idle.
        mean, std = (self._row(255 * torch.tensor(one), width, pixels.device) for one in (self.mean, self.std))
        rows = torch.empty(batch, height, 3 * width, device=pixels.device)
        rows.view(batch, height, width, 3).copy_(pixels) if channels == 1 else rows.copy_(pixels.flatten(2))
        return rows.sub_(mean).div_(std).view(batch, height, width, 3).permute(0, 3, 1, 2)

    @staticmethod
    def _row(values: Tensor, width: int, device: torch.device) -> Tensor:
        if device.type == "cuda":
            return values.pin_memory().to(device, non_blocking=True).repeat(width)
        return values.to(device).repeat(width)


@dataclass(frozen=True)
class Collate:
    """Stacks samples into a batch, and normalises it at once, unless its device does.

    Args:
        normalize: how; None leaves pixels as they are.
        filler: a sample of index -1 that stands for a batch without readable images; None raises then.
    """

    normalize: Normalize | None
    filler: Sample | None = None

    def __call__(self, samples: list[Sample]) -> Batch:
        """The batch of all samples that have an image.

        Raises:
            DataError: if none is left, and there is no filler.
        """
        good = [sample for sample in samples if "image" in sample]
        errors = [sample["error"] for sample in samples if "error" in sample]
        if not good and self.filler is not None:
            good = [self.filler]
        if not good:
            raise DataError(f"a whole batch of {len(samples)} images cannot be read; the first: {errors[0]}")
        strange = next((sample["image"].dtype for sample in good if sample["image"].dtype != np.uint8), None)
        if strange is not None:
            raise ConfigError(f"a transform gives images of {strange}, and uint8 is needed: they are normalised later")
        channels = max(sample["image"].shape[2] for sample in good)  # a filler may have others than grey images
        pixels = torch.empty(len(good), *good[0]["image"].shape[:2], channels, dtype=torch.uint8)
        for image, sample in zip(pixels, good, strict=True):
            image.copy_(torch.from_numpy(np.ascontiguousarray(sample["image"])))  # a crop is a window on its image
        batch: Batch = {
            "image": pixels if self.normalize is None else self.normalize(pixels),
            "target": torch.stack([sample["target"] for sample in good]),
            "index": torch.tensor([sample["index"] for sample in good]),
            "errors": errors,
        }
        if "boxes" in good[0]:
            batch["boxes"] = [sample["boxes"] for sample in good]
        return batch
