"""`mlcv bench`: how fast a config trains and predicts here, and where each step's time goes."""

import json
import logging
import math
import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning import __version__ as lightning_version
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Column, Table

from mlcv import __version__
from mlcv.allocator import keep_freed_memory
from mlcv.commands.arguments import parser_of
from mlcv.commands.unwritten import UnwrittenCLI
from mlcv.data.base import usable_cores
from mlcv.errors import ConfigError, check_choice
from mlcv.files import read_json, write_text
from mlcv.methods.compiling import compile_steps
from mlcv.shipped_configs import with_files
from mlcv.terminal import console, set_up_logging

PARTS = ("data", "forward", "backward", "optimizer")
_SHORT = ("data", "fwd", "bwd", "opt")


@dataclass
class Row:
    """One line of the table.

    Args:
        phase: `train` or `predict`.
        precision: Lightning's name of it.
        mode: `eager` or `compiled`.
        images_per_second: over all measured steps, waiting for data included.
        milliseconds: of a step, mean, by part.
        memory_mib: most that was allocated on the GPU, or was resident on a CPU.
        batch_size: images a step.
        steps: measured.
    """

    phase: str
    precision: str
    mode: str
    images_per_second: float
    milliseconds: dict[str, float]
    memory_mib: float
    batch_size: int
    steps: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What is compared between files."""
        return self.phase, self.precision, self.mode


@dataclass
class StepTimer(Callback):
    """Times the parts of each step after some that warm up; a GPU is waited for at each border.

    Args:
        warmup: steps that do not count.
    """

    warmup: int
    steps: int = 0
    images: int = 0
    memory: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _last: float | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._mark("data")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        self._mark("forward")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark("backward")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._mark("optimizer")
        self._count(batch)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._mark("data")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._mark("forward")
        self._count(batch)

    def row(self, phase: str, precision: str, mode: str) -> Row:
        """What was measured.

        Raises:
            ConfigError: if no step came after those that warm up.
        """
        if not self.steps:
            raise ConfigError(
                f"the {phase} data ended within the {self.warmup} steps of --warmup; lower it or data.batch_size"
            )
        parts = PARTS if phase == "train" else PARTS[:2]
        each = {part: 1000 * self.seconds[part] / self.steps for part in parts}
        rate = self.images / sum(self.seconds.values())
        return Row(phase, precision, mode, rate, each, self.memory, round(self.images / self.steps), self.steps)

    def _mark(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = perf_counter()
        if self._last is not None and self.warmup <= 0:
            self.seconds[part] += now - self._last
        self._last = now

    def _count(self, batch: Any) -> None:
        if self.warmup > 0:
            self.warmup -= 1
            if self.warmup == 0 and torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            return
        self.steps += 1
        self.images += len(batch["index"])
        self.memory = max(self.memory, _memory())


@dataclass
class Benchmark:
    """What `bench` measured.

    Args:
        rows: one a phase, precision and mode.
        about: hardware, versions, and what was measured.
    """

    rows: list[Row]
    about: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes it as JSON; an earlier file is kept under another name."""
        content = {**self.about, "rows": [asdict(row) for row in self.rows]}
        write_text(path, json.dumps(content, indent=1) + "\n", keep=True)


def bench(
    options: Sequence[str],
    *,
    steps: int = 50,
    warmup: int = 10,
    precisions: Sequence[str] = ("32-true",),
    modes: Sequence[str] = ("eager",),
) -> Benchmark:
    """Trains and predicts for some steps, writing nothing, and says where their time goes.

    Args:
        options: as of `mlcv fit`, such as `["--config", "configs/digits/bce.yaml"]`.
        steps: that are measured.
        warmup: steps before them.
        precisions: Lightning's names.
        modes: `eager`, `compiled`.

    Raises:
        UserError: for a config that cannot be read, or data that ends too soon.
    """
    warnings.filterwarnings("ignore", module="lightning")  # it knows nothing of a run that is only timed
    set_up_logging()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    keep_freed_memory()
    for name in modes:
        check_choice("modes", name, ("eager", "compiled"))
    given = with_files(options)
    found = Benchmark([], _hardware())
    for precision in precisions:
        for mode in modes:
            rows, facts = _measure(given, precision, mode, steps, warmup)
            found.rows += rows
            found.about |= facts
    return found


def main(arguments: list[str]) -> None:
    """Measures, prints and writes.

    Raises:
        UserError: as `bench`.
    """
    options, rest = parser_of("bench").parse_known_args(arguments)
    earlier = _read(options.compare) if options.compare is not None else None
    found = bench(rest, steps=options.steps, warmup=options.warmup, precisions=options.precisions, modes=options.modes)
    _print(found.rows, found.about, earlier)
    if options.out is not None:
        found.save(options.out)
        console().print(f"numbers: {options.out}", soft_wrap=True)


def _measure(
    options: list[str], precision: str, mode: str, steps: int, warmup: int
) -> tuple[list[Row], dict[str, Any]]:
    total = warmup + steps
    fixed = {
        "precision": precision, "max_steps": total, "max_epochs": -1, "limit_val_batches": 0, "logger": "false",
        "enable_checkpointing": "false", "enable_progress_bar": "false", "enable_model_summary": "false",
        "num_sanity_val_steps": 0,
    }  # fmt: skip
    how = ["--compile=null"] if mode == "eager" else []
    cli = UnwrittenCLI.of([*options, *how, *(f"--trainer.{name}={value}" for name, value in fixed.items())])
    if mode == "compiled" and cli.config.compile is None:
        compile_steps(cli.model, dynamic=cli.config.compile_dynamic)  # as `fit --compile default`
    rows = []
    for phase in ("train", "predict"):
        timer = StepTimer(warmup)
        cli.trainer.callbacks.append(timer)
        if phase == "train":
            cli.trainer.fit(cli.model, cli.datamodule)
        else:
            cli.datamodule.setup("predict")
            full = len(cli.datamodule.datasets["predict"]) // cli.datamodule.batch_size  # another size is compiled anew
            batches = max(min(total, full), 1)
            cli.trainer.limit_predict_batches, timer.warmup = batches, min(timer.warmup, batches - 1)
            cli.trainer.predict(cli.model, cli.datamodule, return_predictions=False)
        cli.trainer.callbacks.remove(timer)
        rows.append(timer.row(phase, precision, mode))
    config = cli.config
    facts = {
        "model": config.model.class_path,
        "backbone": config.model.init_args.get("backbone"),
        "data": config.data.class_path,
        "image_size": cli.datamodule.image_size,
        "num_workers": cli.datamodule.num_workers,
        "device": str(cli.trainer.strategy.root_device),
    }
    return rows, facts


def _hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "gpu": gpu,
        "cpu": _cpu(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning_version,
        "mlcv": __version__,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    pages = Path("/proc/self/statm")
    if not pages.is_file():  # not Linux
        return math.nan
    return int(pages.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _number(header: str) -> Column:
    return Column(header, justify="right", no_wrap=True)


def _read(path: Path) -> dict[str, Any]:
    found: Any = read_json(path, "file of mlcv bench --out")
    try:
        found["rows"] = [Row(**row) for row in found["rows"]]
    except (LookupError, TypeError) as error:
        raise ConfigError(f"--compare: {path} is no readable file of mlcv bench --out ({error})") from error
    return found  # type: ignore[no-any-return]


def _print(rows: list[Row], about: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    out = console()
    where = about["gpu"] or f"{about['cpu']}, {about['cores']} cores"
    what = f"{about['model'].rpartition('.')[2]}, {about['backbone']}, {about['image_size']} px"
    grid = Table(
        Column("run", no_wrap=True),
        *map(_number, ("img/s", *_SHORT, "step", "MiB")),
        title=f"{what}, {where}; parts in ms",
    )
    if earlier is not None:
        grid.add_column("ratio", no_wrap=True)
    before = {row.key: row for row in earlier["rows"]} if earlier is not None else {}
    for row in rows:
        parts = [f"{row.milliseconds[part]:.1f}" if part in row.milliseconds else "" for part in PARTS]
        step = f"{sum(row.milliseconds.values()):.1f}"
        cells = [" ".join(row.key), f"{row.images_per_second:.0f}", *parts, step, f"{row.memory_mib:.0f}"]
        if earlier is not None:
            other = before.get(row.key)
            cells.append(f"{row.images_per_second / other.images_per_second:.2f}" if other is not None else "-")
        grid.add_row(*cells)
    out.print(grid)
    if earlier is not None:
        out.print("ratio: images/s now / then")
    facts = ("gpu", "cpu", "cores", "threads", "torch", "lightning", "mlcv", "model", "backbone", "data", "image_size")
    changed = [name for name in facts if earlier is not None and earlier.get(name) != about[name]]
    if changed and earlier is not None:
        told = ", ".join(f"{name} was {earlier.get(name)}" for name in changed)
        out.print(f"not the same as then: {told}", soft_wrap=True)
