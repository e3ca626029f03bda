#!/usr/bin/env python
"""Label matrix of a COCO annotation file: `mlcv` cold and warm, against pycocotools and a loop.

Generates an `instances_*.json` of train2014's size (82,783 images, 604,907 annotations with polygons and boxes) unless
one is given. Each way runs in a process of its own; all must give the same matrix.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

OURS = """
import sys, time
from pathlib import Path
from mlcv.data.coco import read_instances
start = time.perf_counter()
names, states = read_instances(Path(sys.argv[1]))
print(time.perf_counter() - start, int(states.sum()), states.shape)
"""

PYCOCOTOOLS = """
import contextlib, io, sys, time
import numpy as np
from pycocotools.coco import COCO
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(sys.argv[1])
column = {c: n for n, c in enumerate(sorted(coco.getCatIds()))}
images = coco.getImgIds()
states = np.zeros((len(images), len(column)), np.int8)
names = []
for row, image in enumerate(images):
    names.append(coco.loadImgs(image)[0]["file_name"])
    for annotation in coco.loadAnns(coco.getAnnIds(image)):
        states[row, column[annotation["category_id"]]] = 1
print(time.perf_counter() - start, int(states.sum()), states.shape)
"""


def generate(path: Path, images: int, annotations: int) -> None:
    from mlcv.data.coco import COCO_CLASSES

    rng = np.random.default_rng(0)
    categories = [{"supercategory": "thing", "id": n + 1, "name": name} for n, name in enumerate(COCO_CLASSES)]
    listed = [
        {
            "license": 1, "file_name": f"COCO_train2014_{n:012d}.jpg", "height": 480, "width": 640, "id": n,
            "coco_url": f"http://images.cocodataset.org/train2014/COCO_train2014_{n:012d}.jpg",
            "date_captured": "2013-11-14 16:28:13", "flickr_url": f"http://farm5.staticflickr.com/4153/{n}_z.jpg",
        }
        for n in range(images)
    ]  # fmt: skip
    owners = rng.integers(0, images, annotations).tolist()
    kinds = rng.integers(1, 81, annotations).tolist()
    # Real polygons have 25 points on average.
    polygons = (rng.random((1000, 50)) * 640).round(2).tolist()
    marks = [
        {
            "segmentation": [polygons[n % 1000]], "area": 702.1057, "iscrowd": 0, "image_id": owner,
            "bbox": [473.07, 395.93, 38.65, 28.67], "category_id": kind, "id": n,
        }
        for n, (owner, kind) in enumerate(zip(owners, kinds, strict=True))
    ]  # fmt: skip
    content = {"info": {}, "images": listed, "licenses": [], "annotations": marks, "categories": categories}
    path.write_text(json.dumps(content))


def measure(code: str, path: Path, cache: str) -> tuple[float, str]:
    environment = {**os.environ, "MLCV_CACHE": cache}
    command = [sys.executable, "-c", code, str(path)]
    seconds, _, result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.partition(" ")
    return float(seconds), result.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="an instances_*.json (default: generate one)")
    parser.add_argument("--images", type=int, default=82783)
    parser.add_argument("--annotations", type=int, default=604907)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "instances_train2014.json"
        if options.file is None:
            generate(path, options.images, options.annotations)
        path.read_bytes()  # the same start for all: the file is in the page cache
        cache = str(Path(folder) / "cache")
        baseline, expected = measure(PYCOCOTOOLS, path, cache)
        cold, first = measure(OURS, path, cache)
        warm, second = measure(OURS, path, cache)
        if not expected == first == second:
            sys.exit(f"the matrices differ: {expected}, {first}, {second}")
        print(f"{path.name}: {path.stat().st_size / 2**20:.0f} MiB, matrix {expected.partition(' ')[2]}")
        print(f"pycocotools and a loop {baseline:7.2f} s")
        print(f"mlcv, cold             {cold:7.2f} s   {baseline / cold:6.1f} x faster")
        print(f"mlcv, warm             {warm:7.3f} s   {baseline / warm:6.0f} x faster")


if __name__ == "__main__":
    main()
