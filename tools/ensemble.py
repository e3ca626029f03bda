#!/usr/bin/env python
"""One file of predictions from several models: CSV files, or checkpoints, which predict their test split first.

CheXpert's paper averages the ten best checkpoints of each of three runs:

  tools/ensemble.py runs/a/checkpoints/step*.ckpt runs/b/checkpoints/step*.ckpt --out ensemble.csv
  mlcv evaluate ensemble.csv --truth valid.csv --classes tasks --study max
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from mlcv.errors import ConfigError, UserError
from mlcv.posthoc.columns import common_classes
from mlcv.posthoc.predictions import combine, read_predictions


def predict(checkpoint, folder, options):
    """The predictions of a checkpoint, by `mlcv predict`."""
    command = [sys.executable, "-m", "mlcv", "predict", "--ckpt_path", str(checkpoint), "--run_dir", str(folder)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{checkpoint} cannot predict: {done.stderr.strip().splitlines()[-1]}")
    return folder / "predictions.csv"


def run(options, folder):
    paths = []
    for number, path in enumerate(options.models):
        is_checkpoint = path.suffix == ".ckpt"
        paths.append(predict(path, folder / str(number), options.options) if is_checkpoint else path)
        print(f"{number + 1} of {len(options.models)}: {path}", file=sys.stderr)
    names = common_classes(paths, None)
    together = combine([read_predictions(path, names) for path in paths], options.how)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *names])
        writer.writerows([name, *row] for name, row in zip(together.ids, together.scores.tolist(), strict=True))
    print(f"{options.how} of {len(paths)} models, {len(together.ids)} rows, {len(names)} classes: {options.out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="CSV files of predictions, or checkpoints of `mlcv fit`")
    parser.add_argument("--how", choices=["mean", "rank"], default="mean", help="rank where scales differ")
    parser.add_argument("--out", type=Path, default=Path("ensemble.csv"), help="the file (default: %(default)s)")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of `mlcv predict`, for checkpoints")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(options, Path(folder))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
