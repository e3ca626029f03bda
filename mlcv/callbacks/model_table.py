"""What is trained, and on what, in a few lines."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from rich import box
from rich.table import Column, Table
from torch import nn

from mlcv.terminal import console

_DEVICES = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU", "xla": "TPU"}


class ModelTable(ModelSummary):
    """Stands for Lightning's summary: the parts that have parameters, how many, which of them learn; and the device."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        table = Table(
            "part", Column("what it is", overflow="fold"), Column("parameters", justify="right"), "trained",
            box=box.SIMPLE_HEAD, show_edge=False,
        )  # fmt: skip
        for row in rows_of(pl_module):
            table.add_row(*row)
        out = console()
        out.print(table)
        out.print(f"training on {devices_of(trainer)}, precision {trainer.precision}", soft_wrap=True)


def rows_of(method: LightningModule) -> list[tuple[str, str, str, str]]:
    """Part, what it is, parameters and which of them learn; of parts without parameters, nothing."""
    parts = [(name, _kind(method, name, part), list(part.parameters())) for name, part in method.named_children()]
    own = list(method.parameters(recurse=False))
    parts = [part for part in [*parts, ("other", type(method).__name__, own)] if part[2]]
    if len(parts) > 1:
        parts.append(("all", "", list(method.parameters())))
    return [(name, kind, *_counted(parameters)) for name, kind, parameters in parts]


def _kind(method: LightningModule, name: str, part: nn.Module) -> str:
    """The name that its option has on the command line, or its class's."""
    given = method.hparams.get(name) if isinstance(method.hparams, Mapping) else None
    return given if isinstance(given, str) else type(part).__name__


def _counted(parameters: list[nn.Parameter]) -> tuple[str, str]:
    total = sum(one.numel() for one in parameters)
    learning = sum(one.numel() for one in parameters if one.requires_grad)
    return short(total), {total: "yes", 0: "no, frozen"}.get(learning, f"{short(learning)} of them")


def short(number: int) -> str:
    """With three digits: 970, 4.13 K, 25.6 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:#.3g}".rstrip(".") + f" {unit}"
    return str(number)


def devices_of(trainer: Trainer) -> str:
    """`the CPU (8 threads)`, `1 GPU (NVIDIA H100)`, `2 GPUs (...)`."""
    kind: Any = trainer.strategy.root_device.type
    name = _DEVICES.get(kind, kind)
    if kind == "cpu" and trainer.world_size == 1:
        threads = torch.get_num_threads()
        return f"the CPU ({threads} thread{'s' if threads > 1 else ''})"
    about = f" ({torch.cuda.get_device_name(trainer.strategy.root_device)})" if kind == "cuda" else ""
    many = f"{trainer.world_size} {'processes on the CPU' if kind == 'cpu' else name + 's'}"
    return (many if trainer.world_size > 1 else f"1 {name}") + about
