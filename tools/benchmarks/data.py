#!/usr/bin/env python
"""Training images a second from files to normalised batches, on one core: `mlcv` against PIL and torchvision.

Both read the same JPEGs, crop at random to the same size, mirror, and normalise; neither changes colours. They run in
turn, several times; the ratio of the medians is what counts.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mlcv.allocator import keep_freed_memory
from mlcv.data.samples import Collate, LabeledImages, MultiLabelDataset, Normalize
from mlcv.data.transforms import Augment, ImageStatistics, training_transform


class Torchvision(Dataset):
    """What most code of this field does: PIL decodes, torchvision crops, mirrors and normalises."""

    def __init__(self, paths, size, min_scale, statistics_):
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=(min_scale, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(statistics_.mean, statistics_.std),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def rate(loader, images):
    start = time.perf_counter()
    seen = sum(len(batch["image"] if isinstance(batch, dict) else batch) for batch in loader)
    if seen != images:
        raise SystemExit(f"{seen} of {images} images arrived")
    return images / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="any folder of JPEG files, searched in depth")
    parser.add_argument("--size", type=int, default=448, help="side of the network's input in pixels")
    parser.add_argument("--images", type=int, default=300, help="a run; files are repeated if there are fewer")
    parser.add_argument("--min_scale", type=float, default=0.5, help="smallest area of the random crop")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    found = sorted(options.folder.rglob("*.jpg")) + sorted(options.folder.rglob("*.jpeg"))
    if not found:
        raise SystemExit(f"no .jpg file under {options.folder}")
    paths = list(itertools.islice(itertools.cycle(found), options.images))
    keep_freed_memory()  # as `mlcv fit` does; it helps both
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    normal = ImageStatistics()
    augment = Augment(min_scale=options.min_scale, strength=0.0, cutout=0.0)
    labeled = LabeledImages(paths, np.zeros((len(paths), 1), np.int8))
    ours = MultiLabelDataset(labeled, torch.zeros(len(paths), 1), training_transform(options.size, augment, normal))
    theirs = Torchvision(paths, options.size, options.min_scale, normal)
    loaders = {
        "PIL + torchvision": DataLoader(theirs, options.batch_size),
        "mlcv": DataLoader(ours, options.batch_size, collate_fn=Collate(Normalize(normal.mean, normal.std))),
    }
    rates = {name: [] for name in loaders}
    for loader in loaders.values():
        next(iter(loader))
    for _ in range(options.runs):
        for name, loader in loaders.items():
            rates[name].append(rate(loader, len(paths)))
    sides = sorted(min(Image.open(path).size) for path in found)
    print(f"{len(found)} files, median shorter side {sides[len(sides) // 2]} px, to {options.size} px, one core")
    for name, values in rates.items():
        print(f"{name:18} {statistics.median(values):7.1f} images/s (median of {options.runs})")
    pairs = [b / a for a, b in zip(*rates.values(), strict=True)]
    print(
        f"ratio              {statistics.median(pairs):7.2f} (median over pairs; {min(pairs):.2f} to {max(pairs):.2f})"
    )


if __name__ == "__main__":
    main()
