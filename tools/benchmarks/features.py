#!/usr/bin/env python
"""An epoch of a linear head on a frozen network: from stored features, against from images; wall time on this machine.

Features of the training images are stored first, which is timed as well. The epoch is Lightning's, validation left out.
"""

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from measuring import where

import mlcv
from mlcv.commands.unwritten import UnwrittenCLI


class Clock(Callback):
    """Seconds of each epoch."""

    def __init__(self):
        self.seconds = []

    def on_train_epoch_start(self, trainer, module):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        self.seconds.append(time.perf_counter() - self.start)


def epochs(options, count):
    cli = UnwrittenCLI.of([*options, "--model.freeze=['']"])
    clock = Clock()
    trainer = Trainer(
        max_epochs=count, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(cli.model, cli.datamodule)
    return min(clock.seconds), len(cli.datamodule.datasets["train"])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="all other options are those of mlcv fit, such as --config voc/lite0 --model.head LinearHead",
    )  # fmt: skip
    parser.add_argument(
        "--epochs", type=int, default=3, help="from features, of which the least counts; from images one"
    )
    own, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            mlcv.features(options, Path(folder))
        storing = time.perf_counter() - start
        stored, count = epochs([*options, f"--data.features={folder}"], own.epochs)
        images, _ = epochs(options, 1)
    print(f"{count} training images; {where('cpu')}")
    print(f"an epoch from images {images:.1f} s, from features {stored:.3f} s, ratio {images / stored:.0f}")
    print(f"storing all splits {storing:.1f} s")


if __name__ == "__main__":
    main()
