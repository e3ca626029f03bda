#!/usr/bin/env python
"""Bytes of soft labels that are stored for every augmented view of every image, and of a projector in their place.

A view gets a label of its own, so E epochs of N images of C classes store E N C numbers; the k largest need a class
number each as well. A projector is its file (HeLlO: Yu et al., ICCV 2025, arXiv 2408.08201).
"""

import argparse
import sys
from pathlib import Path

from mlcv.errors import UserError
from mlcv.models.clip_projector import read_projector

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def stored(images, epochs, classes, top):
    """Bytes by kind of storage."""
    views = images * epochs
    bits = max((classes - 1).bit_length(), 1)
    index = next(size for size in (1, 2, 4) if bits <= 8 * size)
    return {
        "float32": 4 * views * classes,
        "float16": 2 * views * classes,
        f"float16, top {top}": views * min(top, classes) * (2 + index),
    }


def readable(size):
    power = 0
    while size >= 1024 and power < len(UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:,.0f} bytes" if power == 0 else f"{size:,.1f} {UNITS[power]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, required=True, help="N, training images")
    parser.add_argument("--epochs", type=int, required=True, help="E, epochs with views of their own")
    parser.add_argument("--classes", type=int, help="C (default: the projector's)")
    parser.add_argument("--top", type=int, default=10, help="k of the largest probabilities (default: 10)")
    parser.add_argument("--projector", type=Path, help="a projector.safetensors, to be compared")
    options = parser.parse_args()
    size = None
    try:
        if options.projector is not None:
            about, _ = read_projector(options.projector)
            size = options.projector.stat().st_size
            options.classes = options.classes or len(about["class_names"])
    except UserError as error:
        sys.exit(f"error: {error}")
    if options.classes is None:
        parser.error("give --classes or --projector")
    if min(options.images, options.epochs, options.classes, options.top) < 1:
        parser.error("images, epochs, classes and top are at least 1")
    print(f"{options.images:,} images, {options.epochs:,} epochs, {options.classes:,} classes\n")
    print("| labels | storage | projector / labels |\n|---|---|---|")
    for name, total in stored(options.images, options.epochs, options.classes, options.top).items():
        print(f"| {name} | {readable(total)} | {f'{100 * size / total:.3g} %' if size else ''} |")
    if size:
        print(f"| projector | {readable(size)} | |")


if __name__ == "__main__":
    main()
