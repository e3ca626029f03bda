#!/usr/bin/env python
"""Bootstrap intervals of AUROC and average precision, against the same by scikit-learn on each resample.

The peer draws the same resamples and calls `roc_auc_score` and `average_precision_score` with their weights; both sides
run in turn, and must agree. Time is this process's own, of all its threads.
"""

import argparse
import resource
import time

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcv.metrics.bootstrap import bootstrap_areas


def by_sklearn(scores, targets, resamples, seed):
    random = np.random.default_rng(seed)
    areas = np.empty((resamples, 2, scores.shape[1]))
    for one in areas:
        weights = np.bincount(random.integers(len(scores), size=len(scores)), minlength=len(scores))
        for c in range(scores.shape[1]):
            one[0, c] = roc_auc_score(targets[:, c], scores[:, c], sample_weight=weights)
            one[1, c] = average_precision_score(targets[:, c], scores[:, c], sample_weight=weights)
    return areas


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=224_000)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument(
        "--peer", type=int, default=5, help="resamples of the peer, whose time is scaled up (default: 5)"
    )
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(options.rows, options.classes, generator=generator) < 0.1).long()
    scores = torch.rand(options.rows, options.classes, generator=generator) + 0.5 * targets
    start = time.process_time()
    theirs = by_sklearn(scores.numpy(), targets.numpy(), options.peer, 0)
    peer = (time.process_time() - start) * options.resamples / options.peer
    start = time.process_time()
    ours = bootstrap_areas(scores, targets, resamples=options.resamples, seed=0).resampled
    own = time.process_time() - start
    off = np.abs(ours[: options.peer].numpy() - theirs).max()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.rows} rows, {options.classes} classes, {options.resamples} resamples, differences {off:.1e} at most"
    )
    print(f"scikit-learn {peer:.0f} s (from {options.peer} resamples), mlcv {own:.1f} s, ratio {peer / own:.1f}")
    print(f"peak of the process {peak:.0f} MiB")


if __name__ == "__main__":
    main()
