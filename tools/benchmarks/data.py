#!/usr/bin/env python
"""Training images a second and processor, from files to normalised batches: `mlcv` against others, and its past.

All read the same files, crop at random to the same size, mirror, and normalise; with --strength and --cutout `mlcv`
also varies colours and geometry. They run in turn, several times; the ratio of the medians is what counts.

- PIL + torchvision: what most code of this field does (without --strength and --cutout).
- 0.1.0: a JPEG decoded for the smallest crop there may be, and a pass of interpolation for each change of geometry.
- prepared: with --prepare, from files that `mlcv prepare` has made of the same images.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import time
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mlcv.allocator import keep_freed_memory
from mlcv.commands.prepare import prepare_data
from mlcv.data.image_files import ImageFilesDataModule
from mlcv.data.images import read_image
from mlcv.data.items import Files
from mlcv.data.prepared import prepared_files
from mlcv.data.samples import Collate, LabeledImages, MultiLabelDataset, Normalize
from mlcv.data.transforms import Augment, ImageStatistics, Transform, training_transform

RATIO = (0.75, 4 / 3)


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


class Before(Transform):
    """The augmentation of 0.1.0, which a decoder is told one size of, whatever is drawn."""

    def __init__(self, size, augment):
        strength = augment.strength
        jitter, shear, turn, shift = 0.8 * strength, 17 * strength, 30 * strength, 0.3 * strength
        steps = [A.RandomResizedCrop((size, size), (augment.min_scale, 1.0), RATIO), A.HorizontalFlip()]
        kinds = [
            A.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=0.0, p=1),
            A.RandomGamma((int(100 - 60 * strength), int(100 + 100 * strength)), p=1),
            A.Posterize(num_bits=(max(8 - round(4 * strength), 1), 8), p=1),
            A.Sharpen(alpha=(0, strength), p=1),
            A.Equalize(p=strength / 2),
            A.Affine(shear=(-shear, shear), fill=127, p=1),
            A.Affine(rotate=(-turn, turn), fill=127, p=1),
            A.Affine(translate_percent=(-shift, shift), fill=127, p=1),
        ]
        steps += [A.SomeOf(kinds, n=2, replace=False, p=1)] if strength else []
        steps += [A.CoarseDropout((1, 3), (0.1, 0.3), (0.1, 0.3), fill=127, p=augment.cutout)] if augment.cutout else []
        super().__init__(steps, int(np.ceil(size / np.sqrt(augment.min_scale))))
        self.pipeline = A.Compose(steps)

    def __call__(self, image, seed):
        generator = np.random.default_rng(seed)
        self.pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        return self.pipeline(image=image)["image"]


def enlarged(paths, size, depth, noise, folder):
    """The photographs at another size, as JPEG of usual quality, or as grey PNG of 16 bits."""
    width, height = map(int, size.split("x"))
    found = []
    for number, path in enumerate(paths):
        image = cv2.resize(cv2.imread(str(path)), (width, height), interpolation=cv2.INTER_CUBIC)
        target = folder / f"{number:05d}.{'png' if depth == 16 else 'jpg'}"
        if depth == 16:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        rough = np.random.default_rng(number).standard_normal(image.shape, np.float32)
        largest = 2**depth - 1
        image = (
            ((image + noise * rough) * (largest / 255)).clip(0, largest).astype(np.uint16 if depth == 16 else np.uint8)
        )
        cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        found.append(target)
    return found


def rate(loader, images):
    """Images a second of this process."""
    start = time.process_time()
    seen = sum(len(batch["image"] if isinstance(batch, dict) else batch) for batch in loader)
    if seen != images:
        raise SystemExit(f"{seen} of {images} images arrived")
    return images / (time.process_time() - start)


def prepared(paths, options, augment, folder):
    """The same images as `mlcv prepare` makes them, with what that takes, and what JPEG loses."""
    data = ImageFilesDataModule(list(map(str, paths)), ["a"], image_size=options.size, augment=augment)
    start = time.process_time()
    outcome = prepare_data(data, folder, side=None, form="auto", workers=1)
    spent = (time.process_time() - start) / max(outcome.made, 1)
    files = prepared_files(Files(paths), folder, data.min_side)
    off = []
    for index, path in enumerate(paths[:20]):
        small = files.read(index, None, False, 100).astype(int)
        size = small.shape[1::-1]
        whole = cv2.resize(read_image(path, data.min_side), size, interpolation=cv2.INTER_AREA)
        off.append(np.abs(whole - small).mean())
    print(
        f"{outcome.made} made with a shorter side of {data.min_side} px in {1000 * spent:.0f} ms each, off by "
        f"{np.mean(off):.2f} levels of 255 on average from what an image is at that size"
    )
    return files


def sides(paths, options, folder):
    """Loaders by name; the first is the one that others are compared to."""
    normal = ImageStatistics()
    augment = Augment(min_scale=options.min_scale, strength=options.strength, cutout=options.cutout)
    collate = Collate(Normalize(normal.mean, normal.std))

    def ours(transform, images=paths):
        labeled = LabeledImages(images, np.zeros((len(paths), 1), np.int8))
        dataset = MultiLabelDataset(labeled, torch.zeros(len(paths), 1), transform)
        return DataLoader(dataset, options.batch_size, collate_fn=collate)

    loaders = {}
    if not options.strength and not options.cutout:
        loaders["PIL + torchvision"] = DataLoader(
            Torchvision(paths, options.size, options.min_scale, normal), options.batch_size
        )
    loaders["mlcv, as in 0.1.0"] = ours(Before(options.size, augment))
    transform = training_transform(options.size, augment, normal)
    loaders["mlcv"] = ours(transform)
    if options.prepare:
        loaders["mlcv, prepared"] = ours(transform, prepared(paths, options, augment, folder / "prepared"))
    return loaders


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="any folder of JPEG files, searched in depth")
    parser.add_argument("--size", type=int, default=448, help="side of the network's input in pixels")
    parser.add_argument("--images", type=int, default=300, help="a run; files are repeated if there are fewer")
    parser.add_argument("--files", type=int, help="the first so many of the folder")
    parser.add_argument("--enlarge", metavar="WIDTHxHEIGHT", help="the photographs, made this large first")
    parser.add_argument("--depth", type=int, choices=[8, 16], default=8, help="of enlarged ones: 16 is grey PNG")
    parser.add_argument("--noise", type=float, default=0.0, help="of the sensor, in levels of 255, when enlarged")
    parser.add_argument("--prepare", action="store_true", help="compare with what `mlcv prepare` makes")
    parser.add_argument("--min_scale", type=float, default=0.5, help="smallest area of the random crop")
    parser.add_argument("--strength", type=float, default=0.0, help="of random colour and geometry")
    parser.add_argument("--cutout", type=float, default=0.0, help="how often there are holes")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    found = (sorted(options.folder.rglob("*.jpg")) + sorted(options.folder.rglob("*.jpeg")))[: options.files]
    if not found:
        raise SystemExit(f"no .jpg file under {options.folder}")
    keep_freed_memory()  # as `mlcv fit` does; it helps both
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.enlarge:
            found = enlarged(found, options.enlarge, options.depth, options.noise, Path(folder))
        measure(found, options, Path(folder))


def measure(found, options, folder):
    paths = list(itertools.islice(itertools.cycle(found), options.images))
    loaders = sides(paths, options, folder)
    rates = {name: [] for name in loaders}
    for loader in loaders.values():
        next(iter(loader))
    for _ in range(options.runs):
        for name, loader in loaders.items():
            rates[name].append(rate(loader, len(paths)))
    shorter = sorted(min(Image.open(path).size) for path in found)
    mib = sum(path.stat().st_size for path in found) / len(found) / 2**20
    print(
        f"{len(found)} files of {mib:.2f} MiB, median shorter side {shorter[len(shorter) // 2]} px, "
        f"to {options.size} px, one core"
    )
    first = next(iter(rates.values()))
    for name, values in rates.items():
        pairs = [b / a for a, b in zip(first, values, strict=True)]
        print(
            f"{name:18} {statistics.median(values):7.1f} images/s (median of {options.runs}), ratio "
            f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        )


if __name__ == "__main__":
    main()
