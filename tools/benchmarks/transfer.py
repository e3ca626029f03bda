#!/usr/bin/env python
"""Batches from a loader's process as bytes that the device normalises, against floats that the loader has normalised.

Both ways bring the same float32 images to the training step, on the CPU; in turn. Time by the clock, the main process's
own processor time, and the bytes that a batch takes in shared memory.
"""

import argparse
import time

import numpy as np
import torch
from measuring import where
from torch.utils.data import DataLoader

from mlcv.data.samples import Collate, LabeledImages, MultiLabelDataset, Normalize
from mlcv.data.transforms import Augment, ImageStatistics, evaluation_transform


def epoch(loader, normalize):
    """Seconds by the clock and of this process, and bytes a batch."""
    start, own = time.perf_counter(), time.process_time()
    for batch in loader:
        image = batch["image"]
        size = image.nbytes
        if normalize is not None:
            image = normalize(image)
        if image.dtype != torch.float32:
            raise SystemExit(f"images of {image.dtype} arrived")
    return time.perf_counter() - start, time.process_time() - own, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (32, options.size, options.size, 3), dtype=np.uint8)
    images = np.lib.stride_tricks.as_strided(
        pixels, (options.images // 32, *pixels.shape), (0, *pixels.strides)
    ).reshape(-1, *pixels.shape[1:])
    normal = ImageStatistics()
    normalize = Normalize(normal.mean, normal.std)
    data = MultiLabelDataset(
        LabeledImages(images, np.zeros((len(images), 1), np.int8)),
        torch.zeros(len(images), 1),
        evaluation_transform(options.size, Augment(), normal),
    )
    ways = {"floats": (Collate(normalize), None), "bytes": (Collate(None), normalize)}
    loaders = {
        name: DataLoader(data, options.batch_size, num_workers=1, persistent_workers=True, collate_fn=collate)
        for name, (collate, _) in ways.items()
    }
    found = {name: [] for name in ways}
    for _ in range(options.runs + 1):
        for name, (_, after) in ways.items():
            found[name].append(epoch(loaders[name], after))
    print(f"{len(images)} images of {options.size} px, one loader process; {where('cpu')}")
    for name, values in found.items():
        wall, own, size = np.min(values[1:], axis=0)
        print(f"{name:7} {wall:6.2f} s, of which the main process {own:6.2f} s; a batch {size / 2**20:.1f} MiB")
    (wall, own, size), (less, ours, small) = (np.min(values[1:], axis=0) for values in found.values())
    print(f"ratio   {wall / less:6.2f}{'':24}{own / ours:6.2f}{'':11}{size / small:.1f}")


if __name__ == "__main__":
    main()
