"""Labels a folder of images with a file of `mlcv export`; needs onnxruntime and OpenCV alone.

Usage: python label_folder.py model.onnx FOLDER > labels.csv

Decodes as `mlcv predict` does: the rotation in EXIF is applied, and a JPEG is decoded at 1/2, 1/4 or 1/8 of its size as
long as its shorter side is no smaller than what the network's input is made from. What cannot be read, and what has
more than 8 bits (of which `mlcv predict` chooses), is named at the end, with exit status 1.
"""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST}
COLOUR = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
GREY = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}
SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd9]")


def jpeg_side(data: bytes) -> int:
    """Shorter side of a JPEG by its header, from segment to segment; 0 if none says it."""
    place = 2
    while found := SEGMENT.search(data, place):
        kind, place = data[found.end() - 1], found.end()
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return min(int.from_bytes(data[place + n : place + n + 2], "big") for n in (3, 5))
        place += int.from_bytes(data[place : place + 2], "big")
    return 0


def read(path: Path, about: dict[str, Any], enough: int) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3)."""
    data = path.read_bytes()
    whole, reduced = (cv2.IMREAD_GRAYSCALE, GREY) if about["grey"] else (cv2.IMREAD_COLOR, COLOUR)
    side = jpeg_side(data) if data.startswith(b"\xff\xd8\xff") else 0
    factor = next((f for f in reduced if side // f >= enough), 1)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), reduced.get(factor, whole | cv2.IMREAD_ANYDEPTH))
    if image is None or image.dtype != np.uint8:
        raise ValueError("not an image of 8 bits that OpenCV reads")
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if about["grey"] else cv2.COLOR_BGR2RGB)


def pixels_of(path: Path, about: dict[str, Any]) -> NDArray[np.uint8]:
    """The network's input, uint8 (1, S, S, 3)."""
    size, is_squashed = about["image_size"], about["resize"] == "squash"
    enough = int(size / about["crop_fraction"])
    image = read(path, about, enough)
    scale = enough / min(image.shape[:2])
    sides = (size, size) if is_squashed else [round(side * scale) for side in image.shape[1::-1]]
    shrinks = sides[0] < image.shape[1] or sides[1] < image.shape[0]
    how = cv2.INTER_AREA if shrinks else INTERPOLATION[about["interpolation"]]
    image = cv2.resize(image, sides, interpolation=how)
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[None, top : top + size, left : left + size]


def main() -> None:
    """Reads, labels and prints."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["mlcv"])
    writer, bad = csv.writer(sys.stdout), []
    writer.writerow(["image", *about["classes"], "labels"])
    for path in sorted(path for path in Path(sys.argv[2]).rglob("*") if path.suffix.lower() in SUFFIXES):
        try:
            pixels = pixels_of(path, about)
        except (OSError, ValueError, cv2.error) as error:
            bad.append(f"{path}: {error}")
            continue
        probs, labels = session.run(None, {"pixels": pixels})
        chosen = "|".join(name for name, is_there in zip(about["classes"], labels[0], strict=True) if is_there)
        writer.writerow([path, *probs[0].tolist(), chosen])
    if bad:
        sys.exit("\n".join([f"{len(bad)} could not be read:", *bad]))


if __name__ == "__main__":
    main()
