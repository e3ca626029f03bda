"""Labels a folder of images with a file of `mlcv export`; needs onnxruntime and OpenCV alone.

Usage: python label_folder.py model.onnx FOLDER > labels.csv
"""

import csv
import json
import sys
from pathlib import Path

import cv2
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["mlcv"])
size, names = about["image_size"], about["classes"]
FLAGS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST}
writer = csv.writer(sys.stdout)
writer.writerow(["image", *names, "labels"])
for path in sorted(Path(sys.argv[2]).rglob("*.*g")):
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    larger = size if about["resize"] == "squash" else int(size / about["crop_fraction"])
    scale = larger / min(image.shape[:2])
    sides = (size, size) if about["resize"] == "squash" else [round(side * scale) for side in image.shape[1::-1]]
    shrinks = sides[0] < image.shape[1] or sides[1] < image.shape[0]
    image = cv2.resize(image, sides, interpolation=cv2.INTER_AREA if shrinks else FLAGS[about["interpolation"]])
    top, left = ((side - size) // 2 for side in image.shape[:2])
    pixels = image[None, top : top + size, left : left + size]
    probs, labels = session.run(None, {"pixels": pixels})
    chosen = "|".join(name for name, is_there in zip(names, labels[0], strict=True) if is_there)
    writer.writerow([path, *probs[0].tolist(), chosen])
