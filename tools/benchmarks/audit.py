#!/usr/bin/env python
"""What judging a file of predictions takes: `mlcv audit FILE`, from start to tables, against cleanlab's ranking.

Generates predictions of images and classes that share six causes, with 3 % of the labels turned, as `mlcv test` writes
them. Each way runs in a process of its own: `mlcv audit --show 0` reads the file, judges, and writes a row for each
entry; cleanlab (mlcv[audit]) gets the arrays in memory, ranks each class by adjusted self-confidence and flags with its
defaults, which is less. Wall clock, time of all processors, peak memory.
"""

import argparse
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLEANLAB = """
import sys
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
stored = np.load(sys.argv[1])
for p, labels in zip(stored["p"].T, stored["labels"].T):
    two = np.column_stack([1 - p, p])
    get_label_quality_scores(labels, two, adjust_pred_probs=True)
    find_label_issues(labels, two, n_jobs=1)
"""


def generate(folder, images, classes):
    import polars

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(images, 6)) @ rng.normal(size=(6, classes)) + rng.normal(size=(images, classes)) - 2
    labels = (logits + rng.logistic(size=logits.shape) > 0) ^ (rng.random(logits.shape) < 0.03)
    p, labels = 1 / (1 + np.exp(-logits)), labels.astype(np.int64)
    names = [f"class {c}" for c in range(classes)]
    columns = {"image": [f"images/{n}.jpg" for n in range(images)]}
    columns |= {name: p[:, c] for c, name in enumerate(names)}
    columns |= {f"truth:{name}": labels[:, c] for c, name in enumerate(names)}
    polars.DataFrame(columns).write_csv(folder / "predictions.csv")
    np.savez(folder / "arrays.npz", p=p, labels=labels)


def measured(command):
    """Wall clock and processor time in seconds, peak memory in MiB."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(said)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=220_000)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--runs", type=int, default=3, help="in turn, of which the least counts (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A process that is started counts what the one that starts it held.
        made = multiprocessing.get_context("spawn").Process(
            target=generate, args=(folder, options.images, options.classes)
        )
        made.start()
        made.join()
        commands = {
            "mlcv audit": [sys.executable, "-m", "mlcv", "audit", str(folder / "predictions.csv"), "--show", "0",
                           "--out", str(folder / "out")],
        }  # fmt: skip
        if importlib.util.find_spec("cleanlab"):
            commands["cleanlab"] = [sys.executable, "-c", CLEANLAB, str(folder / "arrays.npz")]
        runs = [[measured(command) for command in commands.values()] for _ in range(options.runs)]
        print(f"{options.images} x {options.classes}, least of {options.runs}")
        for (wall, cpu, size), what in zip(np.min(runs, axis=0).tolist(), commands, strict=True):
            print(f"{what:<12} {wall:6.1f} s, {cpu:6.1f} s of processors, {size:6.0f} MiB")


if __name__ == "__main__":
    main()
