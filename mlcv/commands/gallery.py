"""Pictures of images for a page, with heat maps laid over them."""

import base64
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mlcv.data.images import Pixels, read_image
from mlcv.data.samples import Collate, MultiLabelDataset
from mlcv.errors import ConfigError, DataError
from mlcv.methods.base import MultiLabelModule
from mlcv.runs import Run

SIDE = 160
"""Of a picture, in pixels."""


class Gallery:
    """Pictures of images by their row, from a checkpoint's own test split or from the paths in the file."""

    def __init__(self, checkpoint: Path | None, ids: tuple[str, ...]) -> None:
        self.ids, self.has_maps = ids, False
        self.method: MultiLabelModule | None = None
        self.dataset: MultiLabelDataset | None = None
        self._maps: dict[int, Tensor | None] = {}
        if checkpoint is not None:
            run = Run(checkpoint)
            self.method, data = run.method(), run.data()
            data.setup("test")
            self.dataset, self.collate = data.datasets["test"], Collate(data.normalize)
            places = {self.dataset.describe(index): index for index in range(len(self.dataset))}
            if not set(ids) <= set(places):
                raise ConfigError(f"--ckpt_path: {checkpoint} was tested on other images than those of the predictions")
            self.places = [places[name] for name in ids]

    def picture(self, row: int, c: int) -> str | None:
        """JPEG in base 64, with the class's heat map laid over it; None if there is no such image."""
        image = self._load(row)
        if image is None:
            return None
        maps = self._heat(row)
        if maps is not None:
            self.has_maps = True
            image = laid_over(image, maps[c])
        _, code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
        return base64.b64encode(code.tobytes()).decode()

    def _load(self, row: int) -> Pixels | None:
        if self.dataset is not None:
            sample = self.dataset[self.places[row]]
            pixels = sample["image"]
        else:
            path = Path(self.ids[row])
            if not path.is_file():
                return None
            try:
                pixels = read_image(path, SIDE)
            except DataError:
                return None
        scale = SIDE / min(pixels.shape[:2])
        sized: Pixels = cv2.resize(np.ascontiguousarray(pixels), None, fx=scale, fy=scale)  # type: ignore[assignment]
        return np.repeat(sized[..., None], 3, axis=2) if sized.ndim == 2 else sized

    def _heat(self, row: int) -> Tensor | None:
        if self.method is None or self.dataset is None:
            return None
        if row not in self._maps:
            with torch.no_grad():
                _, maps = self.method.forward_with_maps(self.collate([self.dataset[self.places[row]]])["image"])
            self._maps[row] = None if maps is None else maps[0].float()
        return self._maps[row]


def laid_over(image: Pixels, heat: Tensor) -> Pixels:
    """An image uint8 (H, W, 3) with a heat map (h, w) of it in red."""
    height, width = image.shape[:2]
    sized = interpolate(heat[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    strength = ((sized - sized.min()) / (sized.max() - sized.min()).clamp_min(1e-12)).numpy()[..., None] * 0.6
    mixed = image * (1 - strength) + np.array([215, 48, 39]) * strength
    return mixed.astype(np.uint8)
