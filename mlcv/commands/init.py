"""`mlcv init`: looks at a table of images and labels, and writes a config that trains on it."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mlcv.commands.arguments import parser_of
from mlcv.data.class_folders import FolderTable, read_class_folders
from mlcv.data.csv_table import CSVDataModule
from mlcv.data.headers import read_image_header
from mlcv.data.samples import Split
from mlcv.data.several_rows import Long
from mlcv.data.table_layout import SAMPLE, Layout, layout_of_folders, look_at
from mlcv.errors import ConfigError
from mlcv.files import write_text
from mlcv.labels.states import NEGATIVE, POSITIVE, States
from mlcv.models.downloads import hub_answers
from mlcv.models.packaged_weights import packaged_names
from mlcv.short_help import two_columns
from mlcv.tables import Codes, Table, is_folder, printable, read_once, read_regular, read_table

_BYTES_A_PIXEL = 2500
"""Memory that a training step takes for each pixel of its input, with a ResNet-50 or smaller in float32."""
_LARGE = 2_000_000
"""Pixels of an image that an epoch is long in decoding."""


@dataclass(frozen=True)
class Started:
    """A config, and what it was written from.

    Args:
        config: its path.
        understood: what each part of it is, and by what.
        warnings: what its results may suffer from.
    """

    config: Path
    understood: dict[str, str]
    warnings: list[str]


@dataclass(frozen=True)
class _Network:
    about: str
    arguments: dict[str, Any]
    steps: int
    """Of a training that is long enough for most."""
    size: int = 224


@read_once()
def init(
    table: str | Path,
    output: str | Path | None = None,
    image_root: str | Path | None = None,
    *,
    draw_splits: bool = False,
) -> Started:
    """Writes a config that trains on a table.

    Args:
        table: file of a table, or a folder with a folder for each class.
        output: the config; the table's name with .yaml, in the working folder, if None.
        image_root: folder that the images' paths start from; looked for if None.
        draw_splits: whatever a column says, such as one by which a patient is in two splits.

    Raises:
        UserError: if the table cannot be understood (saying what was seen, and what is needed), or the config exists.
    """
    table = Path(table)
    name = table.name.removesuffix(".gz")
    target = Path(output) if output is not None else Path(name).with_suffix(".yaml")
    if target.exists():
        raise ConfigError(f"{target} exists, and is not replaced; give another name with --out, or remove it")
    content = read_class_folders(table) if is_folder(table) else read_table(table)
    if isinstance(content, FolderTable):
        layout = layout_of_folders(content)
    else:
        layout = look_at(content, Path(image_root) if image_root is not None else None)
    if draw_splits:
        layout = replace(layout, split_column=None)
    arguments = layout.arguments(str(table))
    if arguments.get("image_root") == ".":  # which would be another folder where the config is used from one
        arguments["image_root"] = str(Path.cwd())
    if layout.split_column is None and layout.rows < 1000:
        arguments["fractions"] = [0.6, 0.2, 0.2]  # fewer would judge hardly anything
    if layout.found[0] < layout.found[1]:
        arguments["on_error"] = "skip"
    if layout.split_column is None:
        arguments["stratify"] = True
    width, height = _median_size(content, layout)
    kinds = {"codes": Codes, "long": Long}
    typed = {name: kind(**arguments[name]) for name, kind in kinds.items() if name in arguments}
    data = CSVDataModule(**{**arguments, **typed})
    for stage in ("fit", "test"):  # what would end a training ends here
        data.setup(stage)
    splits: tuple[Split, ...] = ("train", "val", "test")
    read = {split: data.datasets[split].labeled for split in splits}
    states = {split: labeled.states for split, labeled in read.items()}
    network = _network(min(width, height))
    size = min(network.size, max(32, 32 * (min(width, height) // 32)))
    batch = _batch_size(len(states["train"]), size)
    epochs = min(60, max(5, math.ceil(network.steps * batch / len(states["train"]))))
    experiment = {
        "data": {"class_path": "CSVDataModule", "init_args": {**arguments, "image_size": size, "batch_size": batch}},
        "model": {"class_path": "Classifier", "init_args": network.arguments},
        "trainer": {"max_epochs": epochs},
        "test_after_fit": True,
    }
    head = f"# {name}: {network.about}. Written by mlcv init.\n#   mlcv fit --config {target}\n"
    write_text(target, head + yaml.safe_dump(experiment, sort_keys=False, width=110, allow_unicode=True))
    yours = f"{width} x {height} in the median" + "; mlcv prepare makes them small once" * (width * height >= _LARGE)
    understood = {
        **_of_columns(layout, data.class_names),
        **_of_splits(layout, states),
        "network": network.about,
        "training": f"{epochs} epochs, {batch} images of {size} px a step (yours: {yours})",
    }
    doubts = _doubts(layout, data.class_names, states)
    if read["val"].fingerprint() == read["test"].fingerprint():
        doubts.append("validation and test are the same images: the best checkpoint is chosen by what it is tested on")
    return Started(target, understood, doubts)


def main(arguments: Sequence[str]) -> None:
    """As the command line calls it."""
    options = parser_of("init").parse_args(arguments)
    logging.getLogger("mlcv").setLevel(logging.WARNING)
    started = init(options.table, options.output, options.image_root, draw_splits=options.draw_splits)
    print(f"{options.table}\n{two_columns(started.understood)}")  # noqa: T201
    print("".join(f"note: {text}\n" for text in started.warnings), end="")  # noqa: T201
    print(f"\nwrote {started.config}; read it, change it, then\n  mlcv fit --config {started.config}")  # noqa: T201


def _median_size(table: Table, layout: Layout) -> tuple[int, int]:
    """Width and height of the image in the middle, of some."""
    column = [cell.strip().replace("\\", "/") for cell in table.column(layout.image_column) if cell.strip()]
    cells = [f"{cell}{layout.image_suffix}" for cell in column]
    root = layout.image_root or (table.path if isinstance(table, FolderTable) else table.path.parent)
    sizes = []
    for number in np.unique(np.linspace(0, len(cells) - 1, SAMPLE).astype(int)):
        try:
            header = read_image_header(read_regular(root / cells[number]))
        except Exception:  # noqa: BLE001, S112  # whatever a damaged file makes of a decoder; training names it
            continue
        if header is not None:
            sizes.append((header.width, header.height))
    if not sizes:
        raise ConfigError(
            f"{printable(root / cells[0])}: none of the first images can be read without decoding it; write a config "
            "from `mlcv configs copy csv/bce my.yaml`"
        )
    return tuple(int(side) for side in np.median(np.array(sizes), axis=0))  # type: ignore[return-value]


def _network(shorter: int) -> _Network:
    """The best one that can be had here: by its weights, what the machine computes, and what the images show."""
    has_gpu = torch.cuda.is_available()
    if shorter < 96:
        return _Network(
            "a small network from a random start, as the images are small",
            {"backbone": "test_resnet", "optim": {"lr": 5.0e-3, "weight_decay": 2.0e-2}}, 1500, 64,
        )  # fmt: skip
    installed = packaged_names(installed=True)
    if installed and not has_gpu:
        frozen = ["conv_stem", "bn1", *(f"blocks.{number}" for number in range(4))]
        return _Network(
            "EfficientNet-Lite0, weights of ImageNet from an installed package, its last stages are trained",
            {
                "backbone": installed[0], "weights": "installed", "freeze": frozen,
                "optim": {"lr": 2.0e-3, "weight_decay": 0.05, "backbone_lr_scale": 0.2},
            }, 400,
        )  # fmt: skip
    if hub_answers():
        name = "resnet50" if has_gpu else "resnet18"
        return _Network(
            f"{name}, weights of ImageNet, which are downloaded",
            {"backbone": name, "weights": "pretrained", "optim": {"lr": 1.0e-4, "weight_decay": 1.0e-2}}, 800,
            448 if has_gpu and shorter >= 400 else 224,
        )  # fmt: skip
    return _Network(
        "resnet18 from a random start: no weights can be downloaded here, and none are installed",
        {"backbone": "resnet18", "optim": {"lr": 2.0e-3, "weight_decay": 2.0e-2}}, 1500, 128,
    )  # fmt: skip


def _batch_size(images: int, size: int) -> int:
    """A power of two that fits the memory, and leaves a training several steps an epoch."""
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4 * 2**30
    fits = min(64 if torch.cuda.is_available() else 32, images // 8, int(0.5 * free / (_BYTES_A_PIXEL * size**2)))
    return int(2 ** int(math.log2(max(fits, 2))))


def _of_columns(layout: Layout, classes: Sequence[str]) -> dict[str, str]:
    there, looked = layout.found
    root = f"in {printable(layout.image_root)}" if layout.image_root is not None else "beside the table"
    files = f"{there} of {looked} are there"
    if looked < layout.rows:
        files = f"{looked} of {layout.rows} looked for, {there} are there"
    said = "column a class: 1 present, 0 absent"
    if layout.negative:
        said = f"column a class: 1 present, {layout.negative[0]} absent"
    if layout.uncertain:
        said += f", {layout.uncertain[0]} uncertain (if it means absent or unknown, change codes)"
    said += f", blank {'unknown' if layout.blank == 'unknown' else 'absent, since no cell says so'}"
    names = _some(layout.label_columns)
    labels = f"{len(layout.label_columns)}: {names}; a {said}"
    if layout.long is not None:
        labels = f"a row for each, in column {layout.long.label_column}, of {len(classes)} classes: {_some(classes)}"
    elif layout.labels_column is not None:
        labels = (
            f"names in column {layout.labels_column}, divided by {layout.delimiter!r}, of {len(classes)} classes: "
            f"{_some(classes)}; what is not named is absent, a blank cell unknown"
        )
    rows = {"images": f"column {layout.image_column}, {root}; {files}", "labels": labels}
    if layout.group_column is not None:
        rows["groups"] = f"column {layout.group_column}: none of them is in two splits"
    if layout.left_out:
        rows["left out"] = "; ".join(f"{name} ({why})" for name, why in layout.left_out.items())
    return rows


def _of_splits(layout: Layout, states: dict[Split, States]) -> dict[str, str]:
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in states.items())
    how = f"column {layout.split_column}" if layout.split_column is not None else "drawn"
    return {"splits": f"{how}: {counts}"}


def _doubts(layout: Layout, names: Sequence[str], states: dict[Split, States]) -> list[str]:
    """What a person would look at before training."""
    found = [layout.several.why] if layout.several is not None else []
    train = states["train"]
    few = [name for c, name in enumerate(names) if (train[:, c] == POSITIVE).sum() < 10]
    if few:
        found.append(f"{len(few)} of {len(names)} classes have fewer than 10 training images: {_some(few)}")
    never = [name for c, name in enumerate(names) if not (train[:, c] == NEGATIVE).any()]
    if never:
        found.append(f"no training image is known to lack {_some(never)}; a loss learns nothing from that")
    if layout.blank == "negative":
        found.append(
            "no cell says absent, so blank cells were taken for it; if they are unknown, remove codes.blank and see "
            "docs/my-labels.md on positive labels only"
        )
    found += [
        f"{name}: {why}"
        for name, why in layout.left_out.items()
        if why.startswith(("a split by", "1 and 0, but", "holds"))
    ]
    there, looked = layout.found
    if there < looked:
        text = f"{looked - there} of {looked} images are missing, and will be skipped"
        if there < looked / 2:
            text += "; so many that a training may end for it: give --image_root, or take their rows out of the table"
        found.append(text)
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
