#!/usr/bin/env python
"""A small synthetic training set: crops of real images that the teacher is surest of, with their pixels retouched.

Writes images/*.png and labels.csv (image, split, a column a class; blank where unknown), with the data set's own
validation and test images beside, so that the folder is a data set of its own:

  mlcv fit --data CSVDataModule --data.path OUT/labels.csv --data.split_column split --model Distillation ...

sources.csv says what each crop was cut from and for which class.
"""

import argparse
import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track

from mlcv.data.samples import Collate
from mlcv.data.transforms import Augment, training_transform
from mlcv.errors import ConfigError, UserError
from mlcv.methods.synthetic import choose_crops, lost_information, teacher_gap, update_pixels
from mlcv.methods.teacher import read_online_teacher
from mlcv.runs import Run

AS_PIXELS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
BATCH = 64


class Crops:
    """The crops of a training set, each by its number; the same number gives the same crop."""

    def __init__(self, data, count, min_scale, seed):
        augment = Augment(min_scale=min_scale, flip=False, strength=0.0, cutout=0.0)
        self.transform = training_transform(data.image_size, augment, data.statistics)
        self.data, self.count, self.seed = data.datasets["train"], count, seed

    def __call__(self, image, crop):
        return self.transform(self.data.load(image), (self.seed, crop, image))

    def all(self, image):
        pixels = self.data.load(image)
        return [self.transform(pixels, (self.seed, crop, image)) for crop in range(self.count)]


def teacher_probs(crops, teacher, data):
    """What the teacher says of all crops (M, K, C)."""
    collate = Collate(data.normalize)
    none = torch.zeros(0)
    found = []
    for image in track(range(len(crops.data)), "scoring crops"):
        samples = [{"image": pixels, "target": none, "index": 0} for pixels in crops.all(image)]
        found.append(teacher.net.probabilities(teacher(collate(samples))))
    return torch.stack(found)


def as_tensor(pixels):
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float() / 255


def as_pixels(tensor):
    return list((255 * tensor).round().byte().permute(0, 2, 3, 1).numpy())


def retouch(pixels, options, class_names, teacher_path):
    """Images after the update, and the objective before and after, as they are stored."""
    if options.projector is None:
        raise ConfigError("--update needs --projector, whose gap or lost information becomes smaller")
    projector = read_online_teacher(options.projector, class_names, AS_PIXELS)
    teacher = read_online_teacher(teacher_path, class_names, AS_PIXELS)
    net = projector.net
    objective = teacher_gap(projector, teacher) if options.update == "gap" else lost_information(net.tower)
    done, before, after = [], 0.0, 0.0
    for start in track(range(0, len(pixels), BATCH), "retouching"):
        image = as_tensor(pixels[start : start + BATCH])
        updated = as_pixels(update_pixels(image, objective, options.steps, options.lr, options.tv_weight, options.most))
        with torch.no_grad():
            before += len(image) * float(objective(image))
            after += len(image) * float(objective(as_tensor(updated)))
        done += updated
    return done, before / len(pixels), after / len(pixels)


def cells(target):
    return ["" if value < 0 else f"{value:g}" for value in target.tolist()]


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels[..., ::-1]):
        raise ConfigError(f"{path} cannot be written")


def evaluation_rows(data, out):
    """Rows of the validation and test images; those that are files stay where they are."""
    data.setup("test")
    for split in ("val", "test"):
        labeled = data.datasets[split].labeled
        for n, target in enumerate(data.datasets[split].targets):
            image = labeled.images[n]
            if not isinstance(image, np.ndarray):
                yield [str(Path(image).resolve()), split, *cells(target)]
            else:
                name = f"images/{split}_{n:06d}.png"
                write_image(out / name, image)
                yield [name, split, *cells(target)]


def make(options):
    out = options.out
    if (out / "labels.csv").exists():
        raise ConfigError(f"{out} holds a data set already; choose another folder with --out")
    data = Run(options.checkpoint, "checkpoint").data(num_workers=0, root=options.root)
    data.setup("fit")
    statistics = (data.statistics.mean, data.statistics.std)
    teacher = read_online_teacher(options.checkpoint, data.class_names, statistics)
    crops = Crops(data, options.crops, options.min_scale, options.seed)
    probs = teacher_probs(crops, teacher, data)
    chosen = choose_crops(probs, data.datasets["train"].targets, options.per_class)
    places = list(zip(chosen.images.tolist(), chosen.crops.tolist(), chosen.classes.tolist(), strict=True))
    pixels = [crops(image, crop) for image, crop, _ in places]
    if options.update != "none":
        pixels, before, after = retouch(pixels, options, data.class_names, options.checkpoint)
        print(f"{options.update}: {before:.4g} before, {after:.4g} after")
    rows, sources = [], []
    for n, (place, image) in enumerate(zip(places, pixels, strict=True)):
        name = f"images/train_{n:06d}.png"
        write_image(out / name, image)
        rows.append([name, "train", *cells(chosen.targets[n])])
        sources.append([name, crops.data.describe(place[0]), place[1], data.class_names[place[2]]])
    rows += evaluation_rows(data, out)
    for name, header, content in (
        ("sources.csv", ["image", "source", "crop", "class"], sources),
        ("labels.csv", ["image", "split", *data.class_names], rows),
    ):
        with (out / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *content])
    few = [name for c, name in enumerate(data.class_names) if (chosen.classes == c).sum() < options.per_class]
    if few:
        print(f"fewer than {options.per_class} crops that the teacher sees: {', '.join(few)}")
    print(f"{len(places)} images of {len(crops.data)} real ones: {out / 'labels.csv'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of the teacher, from `mlcv fit`; it knows its data set")
    parser.add_argument("--out", type=Path, default=Path("synthetic"), help="the folder (default: %(default)s)")
    parser.add_argument("--per_class", type=int, default=50, help="images of each class (default: %(default)s)")
    parser.add_argument("--crops", type=int, default=5, help="tried of each real image (default: %(default)s)")
    parser.add_argument("--min_scale", type=float, default=0.3, help="smallest crop, part of the area (%(default)s)")
    parser.add_argument(
        "--update", choices=["none", "gap", "information"], default="none",
        help="retouch pixels so that the projector says what the teacher says, or (the paper's) loses less detail",
    )  # fmt: skip
    parser.add_argument("--projector", type=Path, help="a projector.safetensors, for --update")
    parser.add_argument("--steps", type=int, default=50, help="of the update (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=0.01, help="of the update, in [0, 1] (default: %(default)s)")
    parser.add_argument("--tv_weight", type=float, default=0.1, help="of total variation (default: %(default)s)")
    parser.add_argument("--most", type=float, default=0.1, help="how far a pixel may move, in (0, 1] (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the crops")
    parser.add_argument("--root", help="data.root, if the data set has moved")
    options = parser.parse_args()
    if min(options.per_class, options.crops) < 1:
        parser.error("--per_class and --crops are at least 1")
    try:
        make(options)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
