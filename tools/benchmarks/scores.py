#!/usr/bin/env python
"""All of `multilabel_scores` against torchmetrics' average precision, AUROC and F1 of each class, on one thread.

Both sides run once in turn, processor time; the areas must agree. The memory is what `mlcv` holds above its arguments.
"""

import argparse
import time

import torch
from measuring import measure_peak, where
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision, multilabel_f1_score

from mlcv.metrics import multilabel_scores


def case(rows, classes):
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(rows, classes, generator=generator) < 0.03).to(torch.int8)
    return torch.rand(rows, classes, generator=generator).logit_().add_(2 * targets - 2).sigmoid_(), targets


def prepare(rows, classes):
    torch.set_num_threads(1)
    probs, targets = case(rows, classes)
    return lambda: multilabel_scores(probs, targets)


def by_torchmetrics(probs, targets):
    classes, targets = probs.shape[1], targets.long()
    areas = [
        area(probs, targets, num_labels=classes, average=None, thresholds=None)
        for area in (multilabel_average_precision, multilabel_auroc)
    ]
    multilabel_f1_score(probs, targets, num_labels=classes)
    return areas


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["40504x80", "5000x9605"], help="rows x classes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"float32, 3 % positive; {where('cpu')}")
    for size in options.sizes:
        rows, classes = map(int, size.split("x"))
        probs, targets = case(rows, classes)
        start = time.process_time()
        ours = multilabel_scores(probs, targets)
        own = time.process_time() - start
        start = time.process_time()
        theirs = by_torchmetrics(probs, targets)
        peer = time.process_time() - start
        pairs = zip(("AP", "AUROC"), theirs, strict=True)
        off = max((torch.tensor(ours.per_class[name]) - area).abs().max() for name, area in pairs)
        more = measure_peak(prepare, rows, classes)
        print(
            f"{size:>12}: torchmetrics {peer:.1f} s, mlcv {own:.1f} s, ratio {peer / own:.1f}; areas differ by "
            f"{off:.0e} at most; {more:.0f} MiB more"
        )


if __name__ == "__main__":
    main()
