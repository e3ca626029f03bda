#!/usr/bin/env python
"""Pictures of what PatchCT looks at: heat maps of the predicted labels, and the labels of the strongest patches.

For each image one PNG. Heat maps are the backward navigator of each predicted label over the patches (brightest: where
its mass goes); the marks on the image are the patches with the surest label by the forward navigator.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from mlcv.data.images import read_image
from mlcv.data.samples import Collate
from mlcv.data.transforms import evaluation_transform
from mlcv.errors import ConfigError, UserError
from mlcv.methods import PatchCT
from mlcv.methods.checkpoints import load_method
from mlcv.runs import Run

try:
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("error: pictures need matplotlib: pip install matplotlib")

plt.switch_backend("Agg")
plt.rcParams["text.parse_math"] = False  # a name is no formula
MOST_LABELS, MARKS = 6, 5


def load(path, root):
    """The model, its thresholds, and the data set it was trained on."""
    model = load_method(path, "checkpoint")
    if not isinstance(model, PatchCT):
        raise ConfigError(f"{path} is of {type(model).__name__}; only PatchCT has transport to show")
    return model, model.thresholds, Run(path, "checkpoint").data(num_workers=0, root=root)


def from_files(paths, data):
    """Images from files, as the network gets them."""
    transform = evaluation_transform(data.image_size, data.augment, data.statistics)
    return [
        {"image": transform(read_image(path, transform.min_side), (0,)), "target": torch.zeros(0), "index": n}
        for n, path in enumerate(paths)
    ]


def from_test_split(count, data):
    """The first images of the data set's own test split, with their targets."""
    data.setup("test")
    return [data.datasets["test"][n] for n in range(min(count, len(data.datasets["test"])))]


def draw(path, pixels, title, names, probs, chosen, forward, backward):
    """One image beside the heat maps of its labels.

    Args:
        path: of the PNG.
        pixels: uint8 (H, W, 3).
        title: above the image.
        names: C class names.
        probs: (C,).
        chosen: indices of the labels to show.
        forward: navigator (N, C), or (N, C + 1) with a background.
        backward: navigator (N, C).
    """
    height, width = pixels.shape[:2]
    side = math.isqrt(len(forward))
    figure, axes = plt.subplots(1, 1 + len(chosen), figsize=(2.6 * (1 + len(chosen)), 3.0), layout="constrained")
    axes[0].imshow(pixels)
    axes[0].set_title(title, fontsize=9)
    sureness, label = forward.max(dim=1)
    shows_label = (label < len(names)).nonzero().flatten()  # the others are background
    strongest = sureness[shows_label].topk(min(MARKS, len(shows_label))).indices
    for patch in shows_label[strongest].tolist():
        x, y = (patch % side + 0.5) * width / side, (patch // side + 0.5) * height / side
        axes[0].plot(x, y, "o", markersize=4, color="cyan", markeredgecolor="black")
        offset = {"textcoords": "offset points", "xytext": (4, 2 if x < 0.7 * width else 6)}
        box = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}
        anchor = {"ha": "left" if x < 0.7 * width else "right"}
        axes[0].annotate(names[label[patch]], (x, y), color="white", fontsize=7, bbox=box, **offset, **anchor)
    for axis, c in zip(axes[1:], chosen, strict=True):
        heat = backward[:, c].reshape(1, 1, side, -1)
        heat = interpolate(heat, (height, width), mode="bilinear", align_corners=False)[0, 0]
        axis.imshow(pixels)
        axis.imshow(heat, cmap="inferno", alpha=0.6)
        axis.set_title(f"{names[c]}  p = {probs[c]:.2f}", fontsize=9)
    for axis in axes:
        axis.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run(options):
    model, thresholds, data = load(options.checkpoint, options.root)
    if options.images:
        samples, names = from_files(options.images, data), [path.stem for path in options.images]
    else:
        samples = from_test_split(options.test, data)
        names = [f"test_{n}" for n in range(len(samples))]
    collate = Collate(data.normalize)
    options.out.mkdir(parents=True, exist_ok=True)
    threshold = thresholds.get("CF1", 0.5)
    for name, sample in zip(names, samples, strict=True):
        batch = collate([sample])
        with torch.no_grad():
            logits, forward, backward = model.explain(batch["image"])
        probs = model.probabilities(logits)[0]
        order = model.ranking_scores(logits)[0].argsort(descending=True)[:MOST_LABELS].tolist()
        chosen = [c for c in order if probs[c] >= threshold] or order[:1]
        truth = [model.class_names[c] for c in (sample["target"] == 1).nonzero().flatten().tolist()]
        title = f"truth: {', '.join(truth)}" if truth else name
        path = options.out / f"{name}.png"
        draw(path, sample["image"], title, model.class_names, probs, chosen, forward[0], backward[0])
        print(f"{path}: {', '.join(f'{model.class_names[c]} {probs[c]:.2f}' for c in chosen)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of PatchCT, from `mlcv fit`")
    parser.add_argument("images", type=Path, nargs="*", help="image files; without any, the data set's test images")
    parser.add_argument("--test", type=int, default=10, metavar="N", help="how many test images (default: 10)")
    parser.add_argument("--root", help="data.root, if the data set has moved")
    parser.add_argument("--out", type=Path, default=Path("transport"), help="folder of the PNGs (default: transport)")
    try:
        run(parser.parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
