"""`mlcv preview`: a batch as the network sees it in training, with its labels, as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mlcv.commands.arguments import parser_of
from mlcv.commands.unwritten import UnwrittenCLI
from mlcv.data.base import MultiLabelDataModule
from mlcv.errors import ConfigError
from mlcv.files import whole_file
from mlcv.labels.states import is_positive, is_uncertain, known
from mlcv.terminal import console, set_up_logging

_SIDE, _GAP, _FONT, _LINES = 224, 12, 14, 6
"""Of a picture in pixels; between two; height of letters; most lines of a caption."""
_BLACK, _GREY, _RED = (20, 20, 20), (125, 125, 125), (176, 40, 40)
_QUALITY = {"JPEG": {"quality": 92}}
_ANY_MODEL = ("--model=Classifier", "--model.backbone=test_resnet")
"""Where none is named: `fit` wants one, the data do not."""


class _DataCLI(UnwrittenCLI):
    """Of which the data alone are built."""

    def instantiate_classes(self) -> None:
        """A network may have to be downloaded; what it expects of images stands in the config."""
        config = self.config.clone()
        for name in ("model", "trainer"):
            config.pop(name, None)
        self.datamodule = self.parser.instantiate_classes(config).data


def preview(options: Sequence[str], output: str | Path = "batch.png", *, images: int = 16) -> Path:
    """Draws the first images of the first training batch, after augmentation, each with its labels below.

    Written are the names of positive classes, soft labels with their value, and in grey what is unknown. Normalisation
    is undone. What a method does to a batch itself, such as mixup, is not shown.

    Args:
        options: as of `mlcv fit`, such as `["--config", "configs/digits/bce.yaml"]`.
        output: the picture, such as batch.png or batch.jpg.
        images: how many, at most the batch's.

    Returns:
        the path of the picture.

    Raises:
        UserError: for a config or data that cannot be read, or a name that is no picture's.
    """
    path = Path(output)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ConfigError(f"--out: {path} is no name of a picture: let it end in .png or .jpg")
    drawn = picture(data_of(options), images)
    with whole_file(path, "wb") as file:
        drawn.save(file, format=kind, **_QUALITY.get(str(kind), {}))
    return path


def data_of(options: Sequence[str]) -> MultiLabelDataModule:
    """The data of a config, as `fit` builds it, without network or run; a config of data alone is enough.

    Args:
        options: as of `mlcv fit`.

    Raises:
        UserError: for a config that cannot be read.
    """
    set_up_logging()
    data: MultiLabelDataModule = _DataCLI.of([*_ANY_MODEL, *options]).datamodule
    return data


def main(arguments: list[str]) -> None:
    """Draws, and says where.

    Raises:
        UserError: as `preview`.
    """
    options, others = parser_of("preview").parse_known_args(arguments)
    path = preview(others, options.output, images=options.images)
    console().print(f"picture: {path}", soft_wrap=True)


def picture(data: MultiLabelDataModule, images: int = 16) -> Image.Image:
    """A grid of the first training images of any data, as `preview` draws it; `data` is not changed.

    Args:
        data: that may or may not be set up.
        images: how many, at most the batch's.
    """
    if "train" not in data.datasets:
        data.setup("fit")
    before = data.batch_size, data.num_workers
    data.batch_size, data.num_workers = min(images, data.batch_size), 0
    try:
        batch = next(iter(data.train_dataloader()))
    finally:
        data.batch_size, data.num_workers = before
    font = ImageFont.load_default(_FONT)
    cells = [
        (_shown(image, data.statistics.mean, data.statistics.std), _caption(target, data.class_names, font))
        for image, target in zip(batch["image"], batch["target"], strict=True)
    ]
    return _grid(cells, font)


Lines = list[tuple[str, tuple[int, int, int]]]


def _shown(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """One image (3, H, W) without its normalisation, in pixels that one can see."""
    pixels = image.permute(1, 2, 0).double().numpy() * np.array(std) + np.array(mean)
    whole = Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
    scale = _SIDE / max(whole.size)
    size = (max(round(whole.width * scale), 1), max(round(whole.height * scale), 1))
    return whole.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)


def _caption(target: Tensor, names: Sequence[str], font: Any) -> Lines:
    """What is said of an image: positives, soft labels, and of what is not known the names, or how many."""
    masks = (mask(target[None])[0].tolist() for mask in (is_positive, known, is_uncertain))
    positive: list[str] = []
    maybe: list[str] = []
    unknown: list[str] = []
    for name, value, is_sure, is_known, is_maybe in zip(names, target.tolist(), *masks, strict=True):
        if is_known and value > 0:
            positive.append(name if is_sure else f"{name} {value:.2g}")
        elif not is_known:
            (maybe if is_maybe else unknown).append(name)
    nothing = "nothing known to be there" if maybe or unknown else "none of the classes"
    lines: Lines = [(text, _BLACK) for text in _wrapped(", ".join(positive) or nothing, font)]
    lines += [(text, _RED) for text in (_wrapped(f"maybe: {', '.join(maybe)}", font) if maybe else [])]
    told = _wrapped(f"unknown: {', '.join(unknown)}", font) if unknown else []
    if len(lines) + len(told) > _LINES:
        told = [f"unknown: {len(unknown)} of {len(names)} classes"]
    lines = lines if len(lines) + len(told) <= _LINES else [*lines[: _LINES - len(told) - 1], ("...", _BLACK)]
    return lines + [(text, _GREY) for text in told]


def _wrapped(text: str, font: Any) -> list[str]:
    """Lines that are no wider than a picture; words that are, are cut."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _SIDE:
            lines[-1] = longer
            continue
        while font.getlength(word) > _SIDE:
            word = word[:-2] + "…"  # shorter by one letter each time
        lines += [word] if lines[-1] else []
        lines[-1] = word
    return lines


def _grid(cells: list[tuple[Image.Image, Lines]], font: Any) -> Image.Image:
    columns = min(math.ceil(math.sqrt(len(cells))), 6)
    rows = [cells[n : n + columns] for n in range(0, len(cells), columns)]
    line = _FONT + 4
    heights = [max(im.height for im, _ in row) + line * max(len(text) for _, text in row) + _GAP for row in rows]
    sheet = Image.new("RGB", (columns * (_SIDE + _GAP) + _GAP, sum(heights) + _GAP), "white")
    draw, top = ImageDraw.Draw(sheet), _GAP
    for row, height in zip(rows, heights, strict=True):
        below = top + max(image.height for image, _ in row) + 2
        for place, (image, text) in enumerate(row):
            left = _GAP + place * (_SIDE + _GAP)
            sheet.paste(image, (left, top))
            for number, (words, colour) in enumerate(text):
                draw.text((left, below + number * line), words, colour, font)
        top += height
    return sheet
