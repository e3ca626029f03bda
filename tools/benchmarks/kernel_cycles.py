#!/usr/bin/env python
"""The transport kernels on paper: what each needs of a GPU that need not be here, and how fast none can be faster.

Registers, spilled bytes, shared memory and whether Hopper's matrix instructions are used are read off what Triton
compiles (`tests/ops/transport/compile_offline.py`). The roof of a kernel is the longer of moving its bytes once and of
its multiplications at the rates given; what the caches or the tiles cost comes on top.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
PROGRAM = Path(__file__).parents[2] / "tests" / "ops" / "transport" / "compile_offline.py"


def roofs(dtype, images, patches, labels, dim):
    """Bytes moved and multiplications, by kernel: forward and gradients of patches and labels that images share."""
    wide = 16 * -(-labels // 16)
    x, y, dots = images * patches * dim * BYTES[dtype], labels * dim * BYTES[dtype], images * patches * wide * 4
    gradient = dots // 2 if dtype == "bf16" else dots
    tile = 32 if labels <= 32 else 16
    tiles = images * -(-patches // tile) * labels * 4 * 3
    product = images * patches * labels * dim * (3 if dtype == "fp32" else 1)  # TF32 three times
    return {
        "dots": (x + y + dots, product),
        "statistics": (dots + tiles, 0),
        "combine": (tiles, 0),
        "gradient": (dots + gradient, 0),
        "patches": (2 * x + y + gradient, product),
        "labels": (x + gradient, product),
        "gather": (2 * y, 0),
        "length": (y, 0),
    }


def block(labels):
    """Labels in a block."""
    return min(max(1 << (labels - 1).bit_length(), 16), 128)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capabilities", nargs="+", type=int, default=[80, 90])
    parser.add_argument("--size", nargs=4, type=int, default=[64, 784, 80, 512], metavar=("B", "N", "C", "D"))
    parser.add_argument("--bandwidth", type=float, default=3.8e12, help="bytes a second (default: an H200's in a copy)")
    parser.add_argument("--products", type=float, default=395e12, help="multiplications a second of 16-bit numbers")
    options = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, PROGRAM, *map(str, options.capabilities)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    heads = [
        "kernel",
        "dtype",
        "labels",
        "patches weigh",
        "sm",
        "registers",
        "spilled",
        "shared KiB",
        "wgmma",
        "roof us",
        "bound by",
    ]
    print(f"B x N x C x D = {' x '.join(map(str, options.size))}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in map(json.loads, said.splitlines()):
        labels = options.size[2]
        if row["labels"] not in (None, block(labels)) or row["few"] not in (None, labels <= 128):
            continue
        moved, products = roofs(row["dtype"], *options.size)[row["kernel"]]
        # TF32 and float32's three products of it run at half the rate of 16-bit numbers.
        by_bytes, by_products = moved / options.bandwidth, products / options.products * (1 + (row["dtype"] == "fp32"))
        cells = [
            row["kernel"], row["dtype"], row["labels"] or "any",
            "unlike" if row["weighs_patches"] else "alike", row["capability"], row["registers"], row["spilled"],
            f"{row['shared'] / 1024:.1f}", "yes" if row["wgmma"] else "no", f"{1e6 * max(by_bytes, by_products):.1f}",
            "bytes" if by_bytes >= by_products else "products",
        ]  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
