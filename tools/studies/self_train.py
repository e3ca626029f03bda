#!/usr/bin/env python
"""U-SelfTrained (Irvin et al., AAAI 2019) in one command: a U-Ignore model, its probabilities, a second model.

The second model is trained from the start on the first one's probabilities where labels are uncertain. What is finished
is not repeated, and a stage that was stopped is resumed: give the same command again.

  tools/studies/self_train.py configs/chexpert/densenet121_ignore.yaml --data.root data/CheXpert-v1.0-small
"""

import argparse
import subprocess
import sys
from pathlib import Path

from begun import begin


def fit(run_dir, config, options):
    """Trains, or goes on where it was stopped."""
    last = run_dir / "checkpoints" / "last.ckpt"
    begin(run_dir, config, *options)
    anew = ["--config", config, "--run_dir", str(run_dir), *options]
    call("-m", "mlcv", "fit", *(["--ckpt_path", str(last)] if last.is_file() else anew))


def call(*arguments):
    done = subprocess.run([sys.executable, *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="an experiment whose policy ignores uncertain labels")
    parser.add_argument("--folder", type=Path, default=Path("runs/self-trained"), help="of both runs (%(default)s)")
    options, rest = parser.parse_known_args()
    first, soft = options.folder / "ignore", options.folder / "soft_labels.npy"
    ignoring = [*rest, "--data.policy.uncertain=ignore"]
    begin(soft, options.config, *ignoring)
    if not soft.is_file():
        fit(first, options.config, ignoring)
        best = first / "checkpoints" / "best.ckpt"
        call(str(Path(__file__).parents[1] / "store_soft_labels.py"), str(best), "--out", str(soft))
    policy = ["--data.policy.uncertain=self_trained", f"--data.policy.soft_labels={soft}"]
    fit(options.folder / "self_trained", options.config, [*rest, *policy])


if __name__ == "__main__":
    main()
