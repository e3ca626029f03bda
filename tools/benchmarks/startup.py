#!/usr/bin/env python
"""From the command line to the first optimizer step: `mlcv fit` against a bare Lightning script, a process each.

Both train the same network on as many small images, keep a checkpoint and metrics.csv, and end after one step. In turn,
processor time of the whole process, the least of several runs.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import where

BARE = """
import numpy as np
import timm
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MultilabelAveragePrecision


class Bare(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = timm.create_model("test_resnet", num_classes=10)
        self.area = MultilabelAveragePrecision(10)

    def training_step(self, batch, number):
        loss = binary_cross_entropy_with_logits(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


digits = load_digits()
image = torch.from_numpy(digits.images[:256]).float()[:, None].repeat(1, 3, 8, 8)
data = TensorDataset(image, torch.nn.functional.one_hot(torch.from_numpy(digits.target[:256]), 10).float())
trainer = Trainer(
    max_steps=1, accelerator="cpu", limit_val_batches=0, logger=CSVLogger("logs"), callbacks=[ModelCheckpoint("kept")]
)
trainer.fit(Bare(), DataLoader(data, 64, shuffle=True))
"""
OURS = [
    "-m", "mlcv", "fit", "--config=digits/bce", "--trainer.max_steps=1", "--trainer.limit_val_batches=0",
    "--trainer.accelerator=cpu", "--data.num_train=256", "--data.num_workers=0", "--test_after_fit=false",
]  # fmt: skip


def seconds(arguments, folder):
    """Processor time of a Python process, its own and the system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    times = {"bare": [], "mlcv": []}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE)
        for _ in range(options.runs):
            times["bare"].append(seconds([str(script)], folder))
            times["mlcv"].append(seconds(OURS, folder))
    bare, ours = min(times["bare"]), min(times["mlcv"])
    print(f"one thread, least of {options.runs}; {where('cpu')}")
    print(f"bare Lightning script {bare:.2f} s, mlcv fit {ours:.2f} s, ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()
