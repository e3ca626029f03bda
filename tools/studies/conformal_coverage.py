#!/usr/bin/env python
"""Do prediction sets keep their promises? Coverage over random splits of files of predictions.

Half of the rows calibrates (half of them choose the power of label sets), the other half is counted, as often as
--splits says. Prints for each file and level: how
often the conformal set of label sets holds the true one (promised: 1 - epsilon at least), how many label sets and how
many undecided classes an image has in the median; and which part of an image's labels the thresholded sets miss
(promised: epsilon at most) with how many classes. --digits adds a task of 100 classes: strips of ten places, each
empty or with a handwritten digit of scikit-learn's, of which 40 % trained a logistic regression and 60 % are tested.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlcv.errors import UserError
from mlcv.posthoc.columns import common_classes
from mlcv.posthoc.conformal import Powerset, choose_power, control_missed
from mlcv.posthoc.judge import match
from mlcv.posthoc.predictions import read_predictions
from mlcv.posthoc.truth import read_truth

PLACES = 10
NOISE = 2.0
"""Standard deviation, of grey levels from 0 to 16."""
MANY = 10_000


def digit_strips(count, seed=0):
    """Probabilities and labels (count, 100): place p holds digit d."""
    random = np.random.default_rng(seed)
    source = load_digits()
    order = random.permutation(len(source.data))
    train, held_out = np.split(order, [int(0.4 * len(order))])

    def noisy(images):
        return images + random.normal(0, NOISE, images.shape)

    empty = np.zeros((len(train) // 2, source.data.shape[1]))
    model = LogisticRegression(max_iter=3000, C=0.01)
    model.fit(noisy(np.concatenate([source.data[train], empty])), [*source.target[train], *[10] * len(empty)])
    chosen = random.choice(held_out, (count, PLACES))
    is_there = random.random((count, PLACES)) < 0.6
    cells = noisy(np.where(is_there[..., None], source.data[chosen], 0.0))
    probs = model.predict_proba(cells.reshape(count * PLACES, -1))[:, :10].reshape(count, -1)
    targets = (np.where(is_there, source.target[chosen], -1)[..., None] == np.arange(10)).reshape(count, -1)
    return torch.from_numpy(probs), torch.from_numpy(targets).long()


def coverage(probs, targets, level, splits, random):
    """Six numbers: covered, its deviation over splits, label sets, undecided classes, missed, classes."""
    found = []
    for _ in range(splits):
        first, second = torch.from_numpy(random.permutation(len(probs))).chunk(2)
        chooses, calibrates = first.tensor_split(2)
        power = choose_power(probs[chooses], targets[chooses], level)
        sets = Powerset.calibrate(probs[calibrates], targets[calibrates], level, power)
        every, some = sets.certain(probs[second])
        threshold = control_missed(probs[first], targets[first], level).threshold
        chosen, positive = probs[second] >= threshold, targets[second] == 1
        missed = (positive & ~chosen).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        counts = [len(one) for one in sets.sets(probs[second][:50], MANY)]
        found.append(
            (
                sets.holds(probs[second], targets[second]).double().mean().item(),
                np.median(counts),
                (some & ~every).sum(dim=1).double().median().item(),
                missed.double().mean().item(),
                chosen.double().sum(dim=1).mean().item(),
            )
        )
    covered, *rest = np.mean(found, axis=0)
    return covered, np.std([one[0] for one in found]), *rest


def run(options):
    tasks = {}
    for path in options.predictions:
        truth_path = options.truth or path
        names = common_classes([truth_path, path], options.classes)
        scores, truth = match(read_predictions(path, names), read_truth(truth_path, names))
        whole = (truth.targets >= 0).all(dim=1)
        tasks[f"{path.stem} (C = {len(names)})"] = scores[whole], truth.targets[whole]
    if options.digits:
        tasks["digit strips (C = 100)"] = digit_strips(2000)
    print("| predictions | level | true label set covered | label sets | undecided classes | labels missed | classes |")
    print("|---" * 7 + "|")
    for name, (probs, targets) in tasks.items():
        for level in options.levels:
            random = np.random.default_rng(options.seed)
            covered, spread, sets, undecided, missed, size = coverage(probs, targets, level, options.splits, random)
            many = f"over {MANY}" if sets >= MANY else f"{sets:.0f}"
            print(
                f"| {name} | {level:g} | {100 * covered:.1f} ± {100 * spread:.1f} % | {many} | {undecided:.0f} | "
                f"{100 * missed:.1f} % | {size:.1f} |",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="*", help="CSV files of predictions")
    parser.add_argument("--truth", type=Path, help="CSV of labels (default: in the predictions)")
    parser.add_argument("--classes", nargs="+", help="names, or tasks for CheXpert's five")
    parser.add_argument("--digits", action="store_true", help="add the task of 100 classes")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="epsilon and risk")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.predictions and not options.digits:
        parser.error("give files of predictions, or --digits")
    try:
        run(options)
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")


if __name__ == "__main__":
    main()
