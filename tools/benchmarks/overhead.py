#!/usr/bin/env python
"""Training steps a second under `mlcv`, against a bare PyTorch loop with the same model, data and batch size.

Both run in this process, in turn, several times; the ratio of the medians is what counts. The bare loop does what a
step needs and nothing else: load, forward, loss, backward, optimizer, schedule.
"""

import argparse
import logging
import statistics
import time
import warnings

import torch
from lightning.pytorch import Callback, Trainer

from mlcv import Classifier, DigitScenesDataModule, Optim
from mlcv.allocator import keep_freed_memory
from mlcv.callbacks import EMA, KeepRandomState, StopOnNonFiniteLoss


class Clock(Callback):
    """Times the training part of each epoch, without validation and without the first steps."""

    def __init__(self, skip: int) -> None:
        self.skip, self.seconds = skip, 0.0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == self.skip - 1:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - self.start if batch_idx >= self.skip else 0.0


def data(options):
    torch.manual_seed(0)
    return DigitScenesDataModule(
        options.steps * options.batch_size, 64, 64, image_size=options.image_size, batch_size=options.batch_size
    )


def model(options):
    torch.manual_seed(0)
    return Classifier(options.backbone, 10, optim=Optim(lr=5e-3))


def bare(options):
    module, source = model(options), data(options)
    source.setup("fit")
    loader = source.train_dataloader()
    groups = module.parameter_groups()
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [g["lr"] for g in groups], total_steps=len(loader) + 1)
    module.train()
    for number, batch in enumerate(loader):
        loss = module.loss(module(batch["image"]), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if number == options.skip - 1:
            start = time.perf_counter()
    return (len(loader) - options.skip) / (time.perf_counter() - start)


def ours(options):
    clock = Clock(options.skip)
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
        callbacks=[clock, StopOnNonFiniteLoss(), KeepRandomState(), *([EMA()] if options.ema else [])],
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model(options), data(options))
    return (options.steps - options.skip) / clock.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="test_resnet", help="timm's name (default: the quick start's)")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=62, help="a run (default: one epoch of the quick start)")
    parser.add_argument("--skip", type=int, default=5, help="first steps that do not count")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=64, help="side of the scenes (default: the quick start's)")
    parser.add_argument("--default_allocator", action="store_true", help="do not keep freed memory, in either loop")
    parser.add_argument("--ema", action="store_true", help="average the weights, in mlcv alone")
    options = parser.parse_args()
    kept = not options.default_allocator and keep_freed_memory()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    bare_rates, our_rates = [], []
    for _ in range(options.runs):
        bare_rates.append(bare(options))
        our_rates.append(ours(options))
    pairs = [b / o for b, o in zip(bare_rates, our_rates, strict=True)]
    memory = "freed memory kept" if kept else "the C library's default allocator"
    machine = f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}, {memory}"
    print(f"{options.backbone}, {options.image_size} px, batch {options.batch_size}, float32, {machine}")
    print(f"bare loop  {statistics.median(bare_rates):7.2f} steps/s (median of {options.runs})")
    print(f"mlcv       {statistics.median(our_rates):7.2f} steps/s")
    print(
        f"overhead   {100 * (statistics.median(pairs) - 1):+.1f} % "
        f"(median over pairs; {min(pairs):.3f} to {max(pairs):.3f})"
    )


if __name__ == "__main__":
    main()
