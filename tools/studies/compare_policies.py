#!/usr/bin/env python
"""What to do with "maybe": CheXpert's policies compared on drawn radiographs whose truth is known.

For each seed the drawings of `tools/render_chexpert.py` are made anew, and the same network is trained under each
policy, in processes of their own; finished ones are not repeated. Prints a table of AUROC by study for the five tasks,
mean and standard deviation over seeds, and writes it with all rows beside the runs.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare import mlcv, spread

from mlcv.commands.begun import begin
from mlcv.errors import UserError

TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# The method and its policy.
POLICIES = {
    "U-Ignore": ("Classifier", ["--data.policy.uncertain=ignore"]),
    "U-Zeros": ("Classifier", ["--data.policy.uncertain=zeros"]),
    "U-Ones": ("Classifier", ["--data.policy.uncertain=ones"]),
    "U-Ones, smoothed": ("Classifier", ["--data.policy.uncertain=smoothed_ones"]),
    "U-SelfTrained": ("Classifier", None),
    "U-MultiClass": ("UMultiClass", ["--data.policy.uncertain=third_class"]),
    "by task": ("Classifier", ["--data.policy.by_class={Atelectasis: ones, Cardiomegaly: zeros, Consolidation: zeros, "
                               "Edema: ones, Pleural Effusion: ones}"]),
}  # fmt: skip


def train(folder, policy, seed, options):
    """Trains under a policy and judges it, unless that is done; AUROC by task."""
    run = folder / str(seed) / policy.replace(" ", "_").replace(",", "")
    judged = run / "evaluation" / "results.csv"
    root = folder / str(seed) / "CheXpert-v1.0-small"
    method, choice = POLICIES[policy]
    arguments = [
        "--data=CheXpertDataModule", f"--data.root={root}", "--data.image_size=64", "--data.batch_size=64",
        "--data.num_workers=0", "--data.augment.strength=0", f"--model={method}", "--model.backbone=test_resnet",
        "--model.optim.lr=5e-3", "--model.optim.weight_decay=2e-2", "--trainer.max_epochs=8",
        "--trainer.enable_progress_bar=false", f"--seed_everything={seed}", f"--data.seed={seed}",
        f"--data.policy.seed={seed}", *options.options,
    ]  # fmt: skip
    begin(judged.parent, policy, *arguments)
    if not judged.is_file():
        if choice is None:
            config = folder / "empty.yaml"
            config.write_text("trainer: {accelerator: cpu}\n")
            check(mlcv(options.threads, "self_train", "--config", config, "--folder", run, *arguments))
            checkpoints = run / "self_trained" / "checkpoints"
        else:
            check(mlcv(options.threads, "fit", f"--run_dir={run}", *arguments, *choice))
            checkpoints = run / "checkpoints"
        check(mlcv(options.threads, "predict", "--ckpt_path", checkpoints / "last.ckpt", "--run_dir", run))
        command = ["evaluate", run / "predictions.csv", "--truth", root / "valid.csv", "--classes", "tasks"]
        check(mlcv(options.threads, *command, "--study", "max", "--no_pictures", "--out", judged.parent))
    rows = list(csv.DictReader(judged.open()))
    found = {row["class"]: 100 * float(row["AUROC"]) for row in rows if row["class"] in TASKS}
    sys.stderr.write(f"{policy}, seed {seed}: {statistics.mean(found.values()):.1f}\n")
    return found


def check(done):
    if done.returncode:
        sys.exit(done.stderr[-800:])


def call(*arguments):
    check(subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="CheXpert's train.csv or train.csv.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=4000, help="training images (default: %(default)s)")
    parser.add_argument("--valid", type=int, default=2000, help="test images (default: %(default)s)")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/compare-policies"), help="of the runs")
    parser.add_argument("options", nargs="*", help="more options of `mlcv fit` for every run, behind --")
    options = parser.parse_args()
    for seed in range(options.seeds):
        folder = options.folder / str(seed)
        if not (folder / "CheXpert-v1.0-small" / "valid.csv").is_file():
            sizes = ["--train", str(options.train), "--valid", str(options.valid), "--seed", str(seed)]
            call("tools/render_chexpert.py", str(options.table), "--out", str(folder), *sizes)
    jobs = [(policy, seed) for seed in range(options.seeds) for policy in options.policies]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: train(options.folder, *job, options), jobs))
    lines = [f"| policy | {' | '.join(TASKS)} | mean |", "|---" * (len(TASKS) + 2) + "|"]
    for policy in options.policies:
        own = [found for (name, _), found in zip(jobs, results, strict=True) if name == policy]
        columns = [[found[task] for found in own] for task in TASKS]
        columns.append([statistics.mean(found.values()) for found in own])
        cells = " | ".join(f"{statistics.mean(column):.1f} ± {spread(column):.1f}" for column in columns)
        lines.append(f"| {policy} | {cells} |")
    (options.folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
