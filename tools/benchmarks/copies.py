#!/usr/bin/env python
"""How many copies of images `mlcv data` finds: each kind is planted among images that set none of its thresholds.

Takes every other image of a folder, from the second on (the others set the thresholds, of VOC 2012's photographs), and
plants copies of some. Prints for each kind the share that is found with Wilson's interval, and the pairs that are no
copies. `--grey` takes the gate of radiographs, and all images of the folder. Then the time of each step.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from mlcv.data.headers import SUFFIXES
from mlcv.data.items import Files
from mlcv.labels.intervals import wilson
from mlcv.sheets.looks import look_at_all
from mlcv.sheets.near import GREY, PHOTOGRAPHS, near_pairs


def cut(image):
    """5 % off every side."""
    height, width = (round(0.05 * length) for length in image.shape[:2])
    return image[height:-height, width:-width]


KINDS = {
    "resized": lambda image: (cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 90),
    "stretched": lambda image: (cv2.resize(image, None, fx=1.25, fy=1), 90),
    "recompressed": lambda image: (image, 15),
    "grey": lambda image: (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image, 90),
    "mirrored": lambda image: (image[:, ::-1], 90),
    "cut": lambda image: (cut(image), 90),
}
"""What becomes of an image, and the quality of the JPEG."""


def planted(folder, originals, kind, flag=cv2.IMREAD_COLOR):
    """Copies of images, one each."""
    for n, path in enumerate(originals):
        image, quality = KINDS[kind](cv2.imread(str(path), flag))
        copy = folder / f"{kind}{n}.jpg"
        assert cv2.imwrite(str(copy), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        yield copy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of images, and of folders of images")
    parser.add_argument("--grey", action="store_true", help="images are radiographs")
    parser.add_argument("--originals", type=int, default=800, help="of which copies are planted (default: 800)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    images = images if options.grey else images[1::2]
    order = np.random.default_rng(options.seed).permutation(len(images))
    ordered = [images[n] for n in order]
    originals, gate = ordered[: options.originals], GREY if options.grey else PHOTOGRAPHS
    flag = cv2.IMREAD_GRAYSCALE if options.grey else cv2.IMREAD_COLOR
    count, seconds = len(originals), np.zeros(2)
    print(f"{len(images)} images, copies of {count}, seed {options.seed}")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            files = Files([*ordered, *planted(Path(folder), originals, kind, flag)])
            start = time.perf_counter()
            looks, _ = look_at_all(files, 100, 2)
            middle = time.perf_counter()
            pairs = {(pair.one, pair.other) for pair in near_pairs(files, looks, gate, 100, 2)}
            seconds += middle - start, time.perf_counter() - middle
        hits = sum((n, len(ordered) + n) in pairs for n in range(count))
        low, high = (100 * wilson(hits / count, count)).tolist()
        print(f"{kind:<13} {100 * hits / count:5.1f} % ({low:.1f} to {high:.1f}), other pairs: {len(pairs) - hits}")
    looked, compared = 1000 * seconds / (len(KINDS) * (len(ordered) + count))
    print(f"an image is looked at in {looked:.2f} ms, compared with all others in {compared:.2f} ms")


if __name__ == "__main__":
    main()
