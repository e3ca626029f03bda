#!/usr/bin/env python
"""The comparisons of the documentation: methods against each other with the same network, budget and seeds.

digits, voc: PU-MLC against the usual losses where labels are partial, or positive only. patch_ct, patch_ct_voc: PatchCT
with and without its transport, against the class activation maps of a plain classifier.

Every run is an `mlcv fit` with a test behind it, in a process of its own and with one thread; finished ones are not
repeated. Prints a table of mean and standard deviation over seeds, and writes it with a plot beside the runs.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from mlcv.commands.begun import begin
from mlcv.errors import UserError

NEGATIVE = ["--model.loss=mlcv.losses.BCELoss", "--model.loss.unknown=negative"]
WEAK = ["--model.loss=mlcv.losses.BCELoss", "--model.loss.unknown=weak_negative"]
ASL = ["--model.loss=AsymmetricLoss", "--model.loss.unknown=negative"]
PATCH_CT, PATCH_CT_VOC = "configs/digits/patch_ct.yaml", "configs/voc/patch_ct_lite0.yaml"
CLASSIFIER = [
    "configs/digits/asl.yaml", "--trainer.max_epochs=5", "--model.optim.lr=4e-3",
    "--model.backbone=xcit_nano_12_p8_224",
    "--model.backbone_args={depth: 1, cls_attn_layers: 0, embed_dim: 96, num_heads: 4, global_pool: avg}",
]  # fmt: skip
LITE0 = ["configs/voc/lite0.yaml", "--model.freeze_batch_norm=true"]  # as PU-MLC's
# The configuration and what differs from it.
METHODS = {
    "digits": {
        "PU-MLC": ["configs/digits/pu_mlc.yaml"],
        "BCE, unknown negative": ["configs/digits/bce.yaml", *NEGATIVE],
        "BCE, unknown weak negative": ["configs/digits/bce.yaml", *WEAK],
        "BCE, unknown ignored": ["configs/digits/bce.yaml"],
        "ASL, unknown negative": ["configs/digits/bce.yaml", *ASL],
        "partial BCE": ["configs/digits/bce.yaml", "--model.loss=PartialBCELoss"],
    },
    "voc": {
        "PU-MLC": ["configs/voc/pu_mlc_lite0.yaml"],
        "PU-MLC, gamma 0.55": ["configs/voc/pu_mlc_lite0.yaml", "--model.gamma=0.55"],
        "BCE, unknown negative": [*LITE0, *NEGATIVE],
        "BCE, unknown weak negative": [*LITE0, *WEAK],
        "BCE, unknown ignored": LITE0,
        "ASL, unknown negative": [*LITE0, *ASL],
    },
    "patch_ct": {
        "classifier, its activation maps": [*CLASSIFIER, "--data.num_train=12000"],
        "CT weight 0": [PATCH_CT, "--model.transport.weight=0", "--model.transport.background=0"],
        "CT weight 0.3, no background": [PATCH_CT, "--model.transport.background=0"],
        "CT weight 0.3": [PATCH_CT],
    },
    "patch_ct_voc": {
        "classifier, its activation maps": ["configs/voc/lite0.yaml", "--model.head=LinearHead", *ASL],
        "CT weight 0": [PATCH_CT_VOC, "--model.transport.weight=0", "--model.transport.background=0"],
        "CT weight 0.3, no background": [PATCH_CT_VOC, "--model.transport.background=0"],
        "CT weight 0.3": [PATCH_CT_VOC],
    },
}
POSITIVES = ["--data.protocol.positives_only=true"]
SETTINGS = {
    "digits": {
        **{f"{percent} %": [f"--data.protocol.known_fraction={percent / 100}"] for percent in (10, 30, 50, 70, 100)},
        "half of the positives": [*POSITIVES, "--data.protocol.known_fraction=0.5"],
    },
    "voc": {
        **{f"{percent} %": [f"--data.protocol.known_fraction={percent / 100}"] for percent in (10, 50, 100)},
        "all positives": POSITIVES,
    },
    "patch_ct": {"all": []},
    "patch_ct_voc": {"all": []},
}
LABELS, MAPS = ("mAP", "CF1", "OF1", "ECE"), ("mAP", "CF1", "pointing_game")
METRICS = {"digits": LABELS, "voc": LABELS, "patch_ct": MAPS, "patch_ct_voc": MAPS}


def run(folder, method, setting, seed, options):
    """Metrics of one run on the test split, or None if it failed."""
    name = f"{method}-{setting}".replace(" ", "_").replace(",", "").replace("%", "percent")
    config, *differences = METHODS[options.set][method]
    seeds = [f"--seed_everything={seed}", f"--data.protocol.seed={seed}"]
    differences += [*SETTINGS[options.set][setting], *seeds, *options.options]
    return fit(folder / f"{name}-{seed}", config, differences, options.threads)


def fit(run_dir, config, differences, threads):
    """Metrics on the test split of an `mlcv fit` that is run unless it has been; None if it fails."""
    result = run_dir / "test.json"
    begin(run_dir, config, *differences)
    if not result.is_file():
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        done = mlcv(threads, "fit", "--config", config, f"--run_dir={run_dir}", *quiet, *differences)
        if done.returncode:
            sys.stderr.write(f"{run_dir.name} failed: {done.stderr[-500:]}\n")
            return None
    metrics = json.loads(result.read_text())["metrics"]
    sys.stderr.write(f"{run_dir.name}: mAP {metrics['mAP']:.3f}\n")
    return metrics


def mlcv(threads, *arguments):
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "mlcv", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0.0


def write_table(path, table, settings, methods, names):
    lines = [f"| labels | method | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for setting, method in product(settings, methods):
        runs = table.get((method, setting))
        if runs:
            cells = [[run[name] for run in runs] for name in names]
            text = " | ".join(f"{100 * statistics.mean(c):.1f} ± {100 * spread(c):.1f}" for c in cells)
            lines.append(f"| {setting} | {method} | {text} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def write_plot(path, table, settings, methods, names):
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("the plot needs matplotlib: pip install matplotlib")
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        for number, method in enumerate(methods):
            places = [place for place, setting in enumerate(settings) if table.get((method, setting))]
            columns = [[100 * run[name] for run in table[method, settings[place]]] for place in places]
            shifted = [place + 0.06 * (number - len(methods) / 2) for place in places]
            means, errors = [statistics.mean(c) for c in columns], [spread(c) for c in columns]
            color = f"C{number}"
            axis.errorbar(shifted, means, errors, fmt="o", markersize=4, capsize=2, color=color, label=method)
            # Only fractions of the labels lie on one scale.
            scale = sum(settings[place].endswith("%") for place in places)
            axis.plot(shifted[:scale], means[:scale], color=color, linewidth=1)
        axis.set_title(f"{name} (%), {'lower' if name == 'ECE' else 'higher'} is better")
        axis.set_xticks(range(len(settings)), settings, rotation=30, ha="right")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), frameon=False)
    figure.savefig(path, dpi=110)


def write_rows(path, table, names):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "labels", "run", *names])
        for (method, setting), runs in table.items():
            writer.writerows([method, setting, number, *(run[n] for n in names)] for number, run in enumerate(runs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=sorted(METHODS), default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", help="some of the methods (default: all)")
    parser.add_argument("--settings", nargs="+", help="some of the settings (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--folder", type=Path, help="of the runs (default: runs/compare-<set>)")
    parser.add_argument("options", nargs="*", help="more options of `mlcv fit` for every run, behind --")
    options = parser.parse_args()
    folder = options.folder or Path("runs") / f"compare-{options.set}"
    methods = options.methods or list(METHODS[options.set])
    settings = options.settings or list(SETTINGS[options.set])
    for given, known in ((methods, METHODS), (settings, SETTINGS)):
        strange = sorted(set(given) - set(known[options.set]))
        if strange:
            parser.error(f"{strange[0]!r} is none of: {', '.join(known[options.set])}")
    # Seed by seed, so that a stopped comparison has whole columns.
    jobs = [(method, setting, seed) for seed in range(options.seeds) for setting in settings for method in methods]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: run(folder, *job, options), jobs))
    table = {}
    for (method, setting, _), metrics in zip(jobs, results, strict=True):
        if metrics is not None:
            table.setdefault((method, setting), []).append(metrics)
    names = METRICS[options.set]
    write_rows(folder / "results.csv", table, names)
    write_table(folder / "table.md", table, settings, methods, names)
    write_plot(folder / "plot.png", table, settings, methods, names)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
