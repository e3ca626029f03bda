#!/usr/bin/env python
"""What a trained method says of each training image, once and without augmentation, as a file to learn from.

Writes a .npy of float32 probabilities (N, C), a row for each training image in the order of the data set, which
`--model.teacher` of Distillation and LabelProjector reads.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader

from mlcv.data.samples import Collate, MultiLabelDataset
from mlcv.data.transforms import evaluation_transform
from mlcv.errors import UserError
from mlcv.files import read_checkpoint, whole_file
from mlcv.fingerprints import note, weights_fingerprint
from mlcv.methods.checkpoints import load_method
from mlcv.runs import Run


def soft_labels(checkpoint, data, device):
    """Probabilities (N, C) of the training images as an evaluation would show them."""
    method = load_method(checkpoint, "checkpoint").to(device)
    data.setup("fit")
    train = data.datasets["train"]
    transform = evaluation_transform(data.image_size, data.augment, data.statistics)
    images = MultiLabelDataset(train.labeled, train.targets, transform, grey=train.grey)
    collate = Collate(data.statistics.mean, data.statistics.std)
    batches = DataLoader(images, batch_size=data.batch_size, collate_fn=collate)
    with torch.no_grad():
        probs = [method.probabilities(method(b["image"].to(device))).cpu() for b in track(batches, "teacher")]
    return torch.cat(probs).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of the teacher, from `mlcv fit`; it knows its data set")
    parser.add_argument("--out", type=Path, default=Path("soft_labels.npy"), help="the file (default: %(default)s)")
    parser.add_argument("--root", help="data.root, if the data set has moved")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    try:
        data = Run(options.checkpoint, "checkpoint").data(num_workers=0, root=options.root)
        probs = soft_labels(options.checkpoint, data, options.device)
    except UserError as error:
        sys.exit(f"error: {error}")
    with whole_file(options.out, "wb") as file:
        np.save(file, probs)
    weights = read_checkpoint(options.checkpoint)["state_dict"]
    images = data.datasets["train"].labeled.fingerprint()
    note(options.out, images=images, model=weights_fingerprint(weights))
    print(f"{probs.shape[0]} images, {probs.shape[1]} classes: {options.out}")


if __name__ == "__main__":
    main()
