#!/usr/bin/env python
"""Drawn radiographs for CheXpert's real label table, in its official layout: to compare policies where truth is known.

Each observation that is present leaves a mark of its own place and shape on a noisy grey image. An uncertain one is
truly present with a probability of its own (hidden from training) and its mark is faint; if it is not, a fainter one is
there all the same. Absent ones sometimes leave such a shadow, too. Rows, observations and which of them are uncertain
are those of the real table; the test table, of other patients, holds the truth.
"""

import argparse
import csv
import sys
from pathlib import Path

import cv2
import numpy as np

from mlcv.data.chexpert import OBSERVATIONS
from mlcv.errors import DataError, UserError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN
from mlcv.tables import Codes, Table, column_states

TRUE_WHEN_UNCERTAIN = {
    "Atelectasis": 0.85,
    "Edema": 0.7,
    "Pleural Effusion": 0.7,
    "Cardiomegaly": 0.3,
    "Consolidation": 0.15,
}
"""How often an uncertain label is a finding; 0.5 for the others."""
STRONG, FAINT, SHADOW = (30.0, 10.0), (18.0, 6.0), (9.0, 5.0)
"""Mean and deviation of a mark's contrast in grey levels: of a sure finding, an uncertain one, and none."""
SHADOWS, FAINT_FINDINGS = 0.15, 0.3
"""Parts of absent labels with a shadow, and of present ones whose mark is faint."""


def read_rows(path, count, random):
    """Frontal images of that many studies, one a study, and their states."""
    table = Table(path)
    states = column_states(table, OBSERVATIONS, Codes(uncertain=("-1",), blank="negative"))
    paths = np.array(table.column("Path"))
    frontal = np.flatnonzero(["view1_frontal" in path for path in paths])
    if len(frontal) < count:
        raise DataError(f"{path}: {len(frontal)} studies with a frontal view, {count} are wanted")
    chosen = np.sort(random.choice(frontal, count, replace=False))
    return paths[chosen], states[chosen]


def hidden_truth(states, random):
    """1 or 0 for every entry: of uncertain ones by chance, of the others what the label says."""
    rates = np.array([TRUE_WHEN_UNCERTAIN.get(name, 0.5) for name in OBSERVATIONS])
    drawn = random.random(states.shape) < rates
    return np.where(states == UNCERTAIN, drawn, states == POSITIVE)


def contrasts(states, truth, random):
    """How strong each mark is, (M, 14)."""
    rare = random.random(states.shape)
    is_faint = (states == UNCERTAIN) | (rare < FAINT_FINDINGS)
    has_shadow = (states == UNCERTAIN) | (rare < SHADOWS)
    kinds = np.where(truth, np.where(is_faint, 1, 0), np.where(has_shadow, 2, 3))
    means, deviations = (np.array([*column, 0.0])[kinds] for column in zip(STRONG, FAINT, SHADOW, strict=True))
    return np.clip(means + deviations * random.standard_normal(states.shape), 0, None)


def draw(contrast, size, random):
    """One image: a bright chest with dark lungs, marks, noise."""
    canvas = np.full((size, size), 120, np.float32)
    for side in (0.3, 0.7):
        axes = (int(0.16 * size), int(0.33 * size))
        cv2.ellipse(canvas, (int(side * size), size // 2), axes, 0, 0, 360, 60.0, -1, cv2.LINE_AA)
    for number, strength in enumerate(contrast):
        if strength > 0:
            column, row = number % 4, number // 4
            place = (np.array([0.17 + 0.22 * column, 0.17 + 0.22 * row]) + random.normal(0, 0.02, 2)) * size
            axes = (size * (0.05 + 0.02 * (number % 3)), size * (0.09 - 0.02 * (number % 3)))
            mark = np.zeros_like(canvas)
            cv2.ellipse(
                mark, tuple(map(int, place)), tuple(map(int, axes)), 25.0 * number, 0, 360, 1.0, -1, cv2.LINE_AA
            )
            canvas += strength * cv2.GaussianBlur(mark, (0, 0), size / 64)
    canvas += random.normal(0, 18, canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8)


def write_split(folder, split, paths, states, images, size, random):
    cells = {POSITIVE: "1.0", NEGATIVE: "0.0", UNCERTAIN: "-1.0"}
    rows = []
    for path, row, contrast in zip(paths, states, images, strict=True):
        inside = "/".join([split, *path.split("/")[2:]])
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), draw(contrast, size, random))
        rows.append([f"{folder.name}/{inside}", *(cells[int(state)] for state in row)])
    with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["Path", *OBSERVATIONS], *rows])


def render(options):
    random = np.random.default_rng(options.seed)
    paths, states = read_rows(options.table, options.train + options.valid, random)
    patients = np.array([path.split("/")[2] for path in paths])
    names = random.permutation(np.unique(patients))
    cut = np.isin(patients, names[: round(len(names) * options.train / len(paths))])
    truth = hidden_truth(states, random)
    strength = contrasts(states, truth, random)
    folder = options.out / "CheXpert-v1.0-small"
    if (folder / "valid.csv").exists():
        raise DataError(f"{folder} exists already; choose another folder with --out")
    write_split(folder, "train", paths[cut], states[cut], strength[cut], options.size, random)
    write_split(folder, "valid", paths[~cut], truth[~cut].astype(np.int8), strength[~cut], options.size, random)
    print(f"{cut.sum()} training and {(~cut).sum()} test images: {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CheXpert's train.csv or train.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("data/drawn"), help="folder (default: %(default)s)")
    parser.add_argument("--train", type=int, default=4000, help="training images (default: %(default)s)")
    parser.add_argument("--valid", type=int, default=2000, help="images of other patients with the truth (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    try:
        render(parser.parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
