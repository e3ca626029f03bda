"""What every data set shares: samples, splits, protocol and policy, loaders."""

import logging
import os
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import DataLoader

from mlcv.data.corrections import Corrections, read_corrections
from mlcv.data.features import FeatureDataset, Features, Kind
from mlcv.data.images import MAX_MEGAPIXELS
from mlcv.data.items import Files
from mlcv.data.loading import PREFETCH, as_it_is, check_shared_memory, set_up_worker
from mlcv.data.prepared import prepared_files
from mlcv.data.samplers import SAMPLERS, Sampling
from mlcv.data.samples import Batch, Collate, LabeledImages, MultiLabelDataset, Normalize, OnError, Sample, Split
from mlcv.data.splits import Fold, check_apart, check_once, deal_folds, hold_out
from mlcv.data.transforms import Augment, ImageStatistics, evaluation_transform, training_transform
from mlcv.errors import AbsentError, ConfigError, DataError, UserError
from mlcv.fingerprints import check_note
from mlcv.labels.cooccurrence import cooccurrence
from mlcv.labels.policies import Policy
from mlcv.labels.protocols import Protocol, fingerprint
from mlcv.labels.states import UNKNOWN, check_states, count_states, evaluable
from mlcv.tables import check_class_names

logger = logging.getLogger(__name__)


class MultiLabelDataModule(LightningDataModule):
    """Splits, label protocol, policy, transforms and loaders; a data set adds `class_names` and `read_split`.

    Args:
        image_size: side of the network's square input in pixels.
        batch_size: images a step and process.
        num_workers: loader processes; None takes one a processor core, 8 at most.
        val_fraction: part of the training images that validates instead of the data set's own validation split,
            in [0, 1); drawn with the seed, before any protocol.
        fold: such as `2/5`: in place of both, the training images are dealt into five parts that have the same share of
            each label, of which the second validates and the others train; all of a group to one.
        protocol: what is done to the training labels.
        policy: what uncertain labels mean in training; in evaluation they judge nobody.
        augment: how training images are varied.
        statistics: what the backbone expects of images; if None, it is asked under a Trainer (ImageNet's without one).
        check: decode every image before training and report all that fail.
        on_error: `raise` on an unreadable image, or `skip` it (logged, counted; in training the next takes its place).
        seed: of the split, the order and the augmentation.
        max_megapixels: images of more, by their headers, are unreadable: they would take the memory of the machine.
        prepared: folder of `mlcv prepare`, from which images are read that it has made small.
        features: folder of `mlcv features`, of what a frozen backbone makes of the images: none is opened then.
        sampling: of training images: each once an epoch, or `class_aware`, all classes as often; then probabilities are
            not the labels' frequencies before `mlcv calibrate`.
        corrections: CSV file of the page of `mlcv audit`: labels of any split that somebody has put right, see
            `mlcv.data.corrections`; training goes on from these, and evaluation judges by them.
        stratify: splits that are drawn have each label as often, as far as groups allow; else labels play no part.
    """

    class_names: tuple[str, ...] = ()
    group: str | None = None
    """Name of what `LabeledImages.about` says that must not be in two splits, such as the patient; None for nothing."""
    draws_splits = False
    """Whether the test images are others with another seed."""
    is_apart = False
    """Whether no image can be in two splits, so that nobody need look."""
    grey = False
    """Whether all images are grey, so that one channel of them is decoded and augmented."""

    def __init__(  # noqa: PLR0913  # one flat list is what the command line and a config show
        self,
        image_size: int = 448,
        batch_size: int = 32,
        num_workers: int | None = None,
        val_fraction: float = 0.0,
        fold: str | None = None,
        protocol: Protocol = Protocol(),  # noqa: B008  # frozen
        policy: Policy = Policy(),  # noqa: B008
        augment: Augment = Augment(),  # noqa: B008
        statistics: ImageStatistics | None = None,
        check: bool = False,
        on_error: OnError = "raise",
        seed: int = 0,
        max_megapixels: float = MAX_MEGAPIXELS,
        prepared: str | None = None,
        features: str | None = None,
        sampling: Sampling = "uniform",
        corrections: str | None = None,
        stratify: bool = False,
    ) -> None:
        super().__init__()
        if sampling not in SAMPLERS:
            raise ConfigError(f"data.sampling is one of {', '.join(SAMPLERS)}; got {sampling!r}")
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"data.val_fraction lies in [0, 1), got {val_fraction}")
        for name, value in (("image_size", image_size), ("batch_size", batch_size), ("max_megapixels", max_megapixels)):
            if not value >= 1:
                raise ConfigError(f"data.{name} is at least 1, got {value}")
        for name, whole in (("num_workers", num_workers or 0), ("seed", seed)):
            if whole < 0:
                raise ConfigError(f"data.{name} is at least 0, got {whole}")
        self.image_size, self.batch_size = image_size, batch_size
        self.num_workers = min(usable_cores(), 8) if num_workers is None else num_workers
        self.fold, self._fold = fold, None if fold is None else Fold.of(fold)
        self.stratify = stratify
        self.val_fraction, self.protocol, self.policy, self.augment = val_fraction, protocol, policy, augment
        self.statistics, self._has_statistics = statistics or ImageStatistics(), statistics is not None
        self.check, self.on_error, self.seed, self.max_megapixels = check, on_error, seed, max_megapixels
        self.prepared, self.features = (None if path is None else Path(path) for path in (prepared, features))
        self.sampling, self.corrections = sampling, None if corrections is None else Path(corrections)
        self._corrections: Corrections | None = None
        self.stored: Features | None = None
        self.predict_split: Split = "test"
        self.datasets: dict[Split | Literal["predict"], MultiLabelDataset] = {}
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
        self._ask_backbone()
        if stage == "predict":  # which judges nothing, so that no other split is read
            labeled = self._given(self.predict_split)
            check_once(labeled, self.class_names, f"{type(self).__name__}, {self.predict_split} split")
            self.datasets["predict"] = self._build(self.predict_split, labeled, training=False)
            return
        wanted: tuple[Split, ...] = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))  # type: ignore[assignment]
        read = {split: self._read(split) for split in wanted if split not in self.datasets}
        self._check_splits(read)
        self.datasets |= {split: self._build(split, labeled, split == "train") for split, labeled in read.items()}

    def predicted_images(self) -> str:
        """Fingerprint of the images that `predict` shows, after `setup("predict")`."""
        return self.datasets["predict"].labeled.fingerprint()

    @property
    def min_side(self) -> int:
        """Shorter side in pixels of an image of which neither training nor evaluation would lose anything."""
        training = training_transform(self.image_size, self.augment, self.statistics).min_side
        seen = self.statistics.crop_fraction if self.augment.resize == "crop" else 1
        return max(training, int(self.image_size / seen))

    def image_files(self) -> Files:
        """Paths of the images of all splits that can be read, each once.

        Raises:
            UserError: if no split can be read, or images are no files.
        """
        found: dict[str, None] = {}
        for labeled in self.readable_splits().values():
            if not isinstance(labeled.items, Files):
                raise ConfigError(
                    f"{type(self).__name__}: its images are not in files, and there is nothing to prepare"
                )
            found |= dict.fromkeys(labeled.items)
        return Files(found)

    def readable_splits(self, *, strict: bool = False) -> dict[Split, LabeledImages]:
        """The images of each split that can be read; of the others a warning.

        Args:
            strict: only splits that are not there are left out; what is wrong with one is an error.

        Raises:
            UserError: if there is none.
        """
        found: dict[Split, LabeledImages] = {}
        errors: dict[Split, UserError] = {}
        splits: tuple[Split, ...] = ("train", "val", "test")
        for split in splits:
            try:
                found[split] = self._read(split)
            except UserError as error:  # noqa: PERF203  # it may not be on this machine, or there be none
                if strict and not isinstance(error, AbsentError):
                    raise
                errors[split] = error
        if not found:  # that one is not there says less
            raise min(errors.values(), key=lambda error: isinstance(error, AbsentError))
        for split, why in errors.items():
            logger.warning("%s: the %s split cannot be read (%s)", type(self).__name__, split, why)
        return found

    def _ask_backbone(self) -> None:
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        expected = getattr(getattr(module, "backbone", None), "image_statistics", None)
        if self._has_statistics or expected is None:
            return
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in expected.items()}
        statistics = ImageStatistics(**given)
        if statistics != self.statistics:
            self.statistics = statistics
            self.datasets.clear()  # which were made with others

    def _check_splits(self, read: dict[Split, LabeledImages]) -> None:
        """No image twice, none of training in another split, nor any of its group; in splits that can be read."""
        for split, labeled in read.items():
            check_once(labeled, self.class_names, f"{type(self).__name__}, {split} split")
        if self.is_apart:
            return
        others: tuple[Split, ...] = ("train", "val", "test")
        known = {split: self.datasets[split].labeled for split in others if split in self.datasets} | read
        for split in others:
            if split not in known:
                try:
                    known[split] = self._read(split)
                except UserError as error:  # it may not be on this machine
                    logger.warning(
                        "%s: the %s split cannot be read, and whether it shares images with others is not checked (%s)",
                        type(self).__name__, split, error,
                    )  # fmt: skip
        for one, other in combinations((split for split in others if split in known), 2):
            if one in read or other in read:
                check_apart({one: known[one], other: known[other]}, self.group)

    def _build(self, split: Split, labeled: LabeledImages, training: bool) -> MultiLabelDataset:
        source = f"{type(self).__name__}, {split} split"
        check_states(labeled.states, self.class_names, source)
        if len(labeled) == 0:
            raise DataError(f"{source}: there is no image; look at data.root and the split's list")
        if self.prepared is not None:
            labeled = replace(labeled, images=prepared_files(labeled.items, self.prepared, self.min_side))
        if self.features is not None:
            self.stored = Features.open(self.features)
            facts: dict[str, Any] = {"image_size": self.image_size, "grey": self.grey}
            facts |= {"statistics": asdict(self.statistics)} if self._has_statistics else {}
            facts |= {"augment": asdict(self.augment)} if self.stored.about["views"] else {}
            self.stored.check(**facts)
            labeled, rows = self.stored.find(split, labeled, self.on_error, training)
        elif self.check:
            labeled = self._without_unreadable(labeled, source)
        states = self.protocol.apply(labeled.states) if training else labeled.states
        counts = count_states(states)
        soft = labeled.soft if training else None
        self.label_summary[split] = {"images": len(labeled), **counts, "fingerprint": fingerprint(states, soft)}
        if self._corrections is not None:
            self.label_summary[split] |= self._corrections.facts(split)
        shares = ", ".join(f"{100 * n / max(states.size, 1):.1f} % {name}" for name, n in counts.items() if n)
        if counts["unknown"] == states.size:
            logger.info("%d images without labels", len(labeled))
        else:
            judges = training or evaluable(torch.from_numpy(states)).any()
            shares += "" if judges else "; no class has a known positive and a known negative, so nothing can be judged"
            logger.info("%s: %d images, %d classes; %s", split, len(labeled), self.num_classes, shares)
        make = training_transform if training else evaluation_transform
        transform = make(self.image_size, self.augment, self.statistics)
        policy = self.policy if training else Policy()
        if policy.soft_labels is not None:
            again = "make it again from the model that it is of"
            check_note(Path(policy.soft_labels), "data.policy.soft_labels", again, images=labeled.fingerprint())
        targets = policy.resolve(states, self.class_names, soft)
        given = labeled, targets, transform, self.on_error, self.seed, self.grey, self.max_megapixels
        if self.stored is None:
            return MultiLabelDataset(*given)
        return FeatureDataset(*given, features=self.stored, rows=rows, training=training)

    @property
    def _kind(self) -> Kind:
        """What the method reads: places where its head, or the method, reads patches."""
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        head = getattr(module, "head", None)
        return "pooled" if module is None or getattr(head, "features", "patches") == "pooled" else "places"

    def _read(self, split: Split) -> LabeledImages:
        """With corrected labels."""
        if self.corrections is None:
            return self._given(split)
        if self._corrections is None:
            self._corrections = read_corrections(self.corrections, self._given, self.class_names)
            logger.info("%s", self._corrections)
        return self._corrections.apply(split, self._given(split))

    def _given(self, split: Split) -> LabeledImages:
        if split == "test" or not (self.val_fraction or self._fold):
            return self.read_split(split)
        labeled = self.read_split("train")
        if self._fold is not None:
            is_held_out = deal_folds(labeled, self.group, self._fold.count, self.seed) == self._fold.number - 1
        else:
            is_held_out = hold_out(labeled, self.group, self.val_fraction, self.seed, self.stratify)
        return labeled.select(np.flatnonzero(is_held_out == (split == "val")))

    def _without_unreadable(self, labeled: LabeledImages, source: str) -> LabeledImages:
        bad = labeled.items.unreadable(self.image_size, max(self.num_workers, 1), self.max_megapixels)
        if not bad:
            return labeled
        for error in bad.values():
            logger.warning("%s", error)
        if self.on_error == "raise":
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
        return self._loader("predict")

    def _loader(self, split: Split | Literal["predict"]) -> DataLoader[Sample]:
        dataset = self.datasets[split]
        if is_stored := isinstance(dataset, FeatureDataset):
            dataset.use(self._kind)
        workers = 0 if is_stored else self.num_workers  # reading an array is no work
        check_shared_memory(workers, self.batch_size * 3 * self.image_size**2 * (1 if self._is_driven else 4))
        sampler, filler = None, self._filler(dataset) if self.on_error == "skip" else None
        if split == "train":
            processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
            if len(dataset) < self.batch_size * processes:
                raise ConfigError(
                    f"{len(dataset)} training images do not fill one batch of {self.batch_size} on {processes} "
                    f"process(es); set data.batch_size to at most {len(dataset) // processes}"
                )
            sampler = SAMPLERS[self.sampling](dataset, num_replicas=processes, rank=rank, seed=self.seed)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=split == "train",  # a small last batch would weigh its images more, and unsettle BatchNorm
            num_workers=workers,
            collate_fn=as_it_is if is_stored else Collate(None if self._is_driven else self.normalize, filler),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            worker_init_fn=set_up_worker,
        )

    def _filler(self, dataset: MultiLabelDataset) -> Sample:
        """A black image of which nothing is known, where a batch of an evaluation has no other."""
        side = self.image_size
        black, unknown = np.zeros((side, side, 3), np.uint8), torch.full((self.num_classes,), float(UNKNOWN))
        filler: Sample = {"image": black, "target": unknown, "index": -1}
        return filler if dataset.labeled.boxes is None else {**filler, "boxes": torch.zeros(0, 5)}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for error in batch["errors"]:
            if error not in self.skipped:
                self.skipped.add(error)
                logger.warning("skipped, %d so far: %s", len(self.skipped), error)
        return batch

    @property
    def _is_driven(self) -> bool:
        """Whether a Trainer is at work: then pixels travel as bytes, and are normalised where they arrive."""
        return self.trainer is not None and self.trainer.state.status == TrainerStatus.RUNNING

    @property
    def normalize(self) -> Normalize:
        """From decoded pixels to what the backbone expects."""
        return Normalize(self.statistics.mean, self.statistics.std)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        plugin, module = (getattr(self.trainer, name, None) for name in ("precision_plugin", "lightning_module"))
        if batch["image"].dtype == torch.uint8:
            image = self.normalize(batch["image"])
            batch["image"] = image if plugin is None else plugin.convert_input(image)
        if module is not None and is_overridden("on_after_batch_transfer", module):  # Lightning calls one of the two
            batch = module.on_after_batch_transfer(batch, dataloader_idx)
        return batch

    def teardown(self, stage: str) -> None:
        if self.skipped:
            logger.warning("%d unreadable images were skipped in all", len(self.skipped))


def usable_cores() -> int:
    """Of the processor, by this process; where the system does not say (macOS, Windows), all that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
