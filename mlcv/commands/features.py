"""`mlcv features`: what a config's backbone makes of its images, stored once, so that epochs need neither of them."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader, Dataset

from mlcv.callbacks.progress import Progress
from mlcv.commands.arguments import parser_of
from mlcv.commands.unwritten import UnwrittenCLI
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.features import MANIFEST, NAMES, Features, Kind
from mlcv.data.samples import Batch, Collate, LabeledImages, MultiLabelDataset, Sample, Split
from mlcv.errors import ConfigError, UserError
from mlcv.files import read_json, write_text
from mlcv.fingerprints import weights_fingerprint
from mlcv.models.backbones import Backbone
from mlcv.runs import check_writable
from mlcv.terminal import console, set_up_logging

logger = logging.getLogger(__name__)


class _Extractor(LightningModule):
    """Writes what a backbone makes of a batch into rows of arrays, which processes share."""

    def __init__(self, backbone: Backbone, features: Features, kinds: Sequence[Kind], are_views: bool) -> None:
        super().__init__()
        self.backbone = backbone
        arrays: list[Kind | Literal["done"]] = [*kinds, "done"]
        self.arrays = {kind: np.load(features.path(kind, are_views), mmap_mode="r+") for kind in arrays}

    @torch.no_grad()
    def predict_step(self, batch: Batch, batch_idx: int) -> int:  # Lightning warns of None
        index = batch["index"].cpu().numpy()
        good = index >= 0
        places = self.backbone.places(batch["image"]) if "places" in self.arrays else None
        found = {"places": places, "pooled": self.backbone.pooled(batch["image"] if places is None else places)}
        for kind, array in self.arrays.items():
            rows = array.reshape(-1, *array.shape[array.ndim - self._dims(kind) :])
            rows[index[good]] = 1 if kind == "done" else found[kind].float().cpu().numpy()[good]  # type: ignore[union-attr]
        return int(good.sum())

    @staticmethod
    def _dims(kind: str) -> int:
        return {"done": 0, "pooled": 1, "places": 2}[kind]


@dataclass
class _Chosen(Dataset[Sample]):
    """Images of some views: sample n is named by its place in the array.

    Args:
        dataset: of all images of a split.
        keys: (n, 2), view and position.
        places: (n,), rows of the array.
    """

    dataset: MultiLabelDataset
    keys: Any
    places: Any

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        view, position = map(int, self.keys[index])
        sample = self.dataset[position] if view < 0 else self.dataset[view, position]
        if "error" in sample:  # beside it training would have the next image
            return {"error": sample["error"]}
        return {**sample, "index": int(self.places[index])}


def features(
    options: Sequence[str],
    out: str | Path = "features",
    *,
    views: int = 0,
    patches: bool = False,
    dtype: str = "float16",
) -> Features:
    """Runs the backbone of a config once over all images of its splits, and stores what it makes of them.

    What is there already is kept, so that a call that was stopped goes on.

    Args:
        options: as of `mlcv fit`, such as `["--config", "voc/lite0"]`.
        out: folder, for `data.features`.
        views: augmented views of each training image, of which each epoch draws one; 0: images as evaluation sees them.
        patches: also store the places of the feature map, for heads that read patches.
        dtype: `float16` or `float32`.

    Returns:
        the folder, opened.

    Raises:
        UserError: for a config or data that cannot be read, or a folder of other features.
    """
    if dtype not in ("float16", "float32"):
        raise ConfigError(f"--dtype is float16 or float32, got {dtype!r}")
    set_up_logging()
    quiet = [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing", "enable_model_summary")]
    cli = UnwrittenCLI.of([*options, *quiet])
    data, backbone = cli.datamodule, getattr(cli.model, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError(f"model: {type(cli.model).__name__} has no backbone of which features could be stored")
    if cli.model.hparams.get("weights") is None:
        logger.warning(
            "the backbone has random weights, which a seed draws: give model.weights, or use these features with this "
            "seed_everything alone"
        )
    backbone.freeze()
    data.features, data.check = None, False  # each image keeps its place
    splits = data.readable_splits()
    kinds: list[Kind] = ["pooled", *(["places"] if patches else [])]  # type: ignore[list-item]
    stored = _begun(Path(out), data, backbone, splits, kinds, views, dtype)
    trainer = Trainer(
        accelerator=cli.config.trainer.accelerator, devices=cli.config.trainer.devices,
        strategy=cli.config.trainer.strategy, precision=cli.config.trainer.precision,
        logger=False, enable_checkpointing=False, enable_model_summary=False, callbacks=[Progress()],
    )  # fmt: skip
    for are_views in (False, True)[: 1 + bool(views)]:
        done = np.load(stored.path("done", are_views), mmap_mode="r")
        for split, labeled in splits.items():
            if are_views and split != "train":
                continue
            left = _left(stored, split, done, are_views)
            if len(left):
                dataset = data._build(split, labeled, training=are_views)
                start, count = stored.about["splits"][split]["start"], len(labeled)
                plain = np.stack([np.full_like(left, -1), left - start], axis=1)
                keys = np.stack(np.divmod(left, count), axis=1) if are_views else plain
                loader = DataLoader(
                    _Chosen(dataset, keys, left), data.batch_size, num_workers=data.num_workers,
                    collate_fn=Collate(data.normalize, data._filler(dataset)),
                )  # fmt: skip
                trainer.predict(_Extractor(backbone, stored, kinds, are_views), loader, return_predictions=False)
    return stored


def main(arguments: list[str]) -> None:
    """Stores features, and says how to use them.

    Raises:
        UserError: as `features`.
    """
    options, others = parser_of("features").parse_known_args(arguments)
    stored = features(others, options.out, views=options.views, patches=options.patches, dtype=options.dtype)
    counts = ", ".join(f"{split['count']} {name}" for name, split in stored.about["splits"].items())
    size = sum(path.stat().st_size for path in stored.folder.glob("*.npy")) / 2**20
    said = f"features of {stored.about['backbone']}: {counts} images, {size:.0f} MiB"
    console().print(f"{said}\nuse them: --data.features {options.out}", soft_wrap=True)


def _begun(
    folder: Path,
    data: MultiLabelDataModule,
    backbone: Backbone,
    splits: dict[Split, LabeledImages],
    kinds: Sequence[Kind],
    views: int,
    dtype: str,
) -> Features:
    """The folder, with arrays of the right size; those of an earlier call, if it was of the same."""
    with torch.no_grad():
        image = torch.zeros(1, 3, data.image_size, data.image_size)
        shapes = {"pooled": backbone.pooled(image).shape[1:]}
        if "places" in kinds:
            shapes["places"] = backbone.places(image).shape[1:]
    about: dict[str, Any] = {
        "backbone": backbone.name, "weights": weights_fingerprint(backbone.state_dict()),
        "image_size": data.image_size, "statistics": asdict(data.statistics), "augment": asdict(data.augment),
        "grey": data.grey, "dtype": dtype, "views": views,
        "shapes": {kind: list(shape) for kind, shape in shapes.items()}, "splits": {},
    }  # fmt: skip
    names: list[str] = []
    for split, labeled in splits.items():
        fingerprint = labeled.fingerprint()
        same = next((one for one in about["splits"].values() if one["fingerprint"] == fingerprint), None)
        about["splits"][split] = same or {"start": len(names), "count": len(labeled), "fingerprint": fingerprint}
        names += [] if same else [labeled.name(row) for row in range(len(labeled))]
    about = json.loads(json.dumps(about))
    stored = Features(folder, about)
    if (folder / MANIFEST).is_file():
        earlier = Features.open(folder)
        changed = [name for name in about if earlier.about.get(name) != about[name]]
        if changed:
            raise ConfigError(
                f"--out: {folder} has features of another {', '.join(changed)}; choose another folder, or remove it"
            )
        if _is_whole(stored, kinds):
            return stored
        logger.warning("%s is damaged; all of it is stored again", folder)
    check_writable(folder, "--out")
    for are_views in (False, True)[: 1 + bool(views)]:
        arrays: list[Kind | Literal["done"]] = ["done", *kinds]
        for kind in arrays:
            numbers = np.dtype(np.uint8 if kind == "done" else dtype)
            open_memmap(stored.path(kind, are_views), "w+", numbers, stored.shape(kind, are_views)).flush()
    write_text(folder / NAMES, json.dumps(names))
    write_text(folder / MANIFEST, json.dumps(about, indent=1) + "\n")
    return stored


def _is_whole(stored: Features, kinds: Sequence[Kind]) -> bool:
    """Whether all files that an earlier call began can be read; what was damaged would never be done again."""
    arrays: list[Kind | Literal["done"]] = ["done", *kinds]
    try:
        read_json(stored.folder / NAMES, "list of images")
        for are_views in (False, True)[: 1 + bool(stored.about["views"])]:
            for kind in arrays:
                stored.array(kind, are_views)
    except UserError:
        return False
    return True


def _left(stored: Features, split: str, done: Any, are_views: bool) -> Any:
    """Rows of a split that are not there yet."""
    if are_views:
        return np.flatnonzero(done.reshape(-1) == 0)
    about = stored.about["splits"][split]
    return about["start"] + np.flatnonzero(done[about["start"] : about["start"] + about["count"]] == 0)
