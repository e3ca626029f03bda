"""`mlcv study`: methods, label conditions and seeds in one grid, and which of them to take."""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlcv.callbacks.clock import span
from mlcv.command_line import take
from mlcv.commands.arguments import parser_of
from mlcv.commands.options import joined, options_of
from mlcv.commands.study_runs import Job, check_error, planned, result_of, why_failed, work
from mlcv.data.base import usable_cores
from mlcv.errors import ConfigError, Stopped
from mlcv.runs import check_writable
from mlcv.shipped_configs import find_config
from mlcv.studies.plan import Key, Plan, Run, read_plan
from mlcv.studies.plot import draw
from mlcv.studies.presets import preset
from mlcv.studies.processes import Processes
from mlcv.studies.results import Row, all_runs, rows, score
from mlcv.studies.tables import show, shown, write_csv, write_markdown, write_runs
from mlcv.terminal import console, set_up_logging

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"
_PRELOAD = ("mlcv.commands.study_runs", "mlcv.data", "mlcv.losses", "mlcv.methods", "mlcv.models")


@dataclass(frozen=True)
class Studied:
    """What a study has found.

    Args:
        plan: what was compared.
        folder: of its files.
        rows: one for each condition and method, the best first.
    """

    plan: Plan
    folder: Path
    rows: list[Row]


def study(
    file: str | Path | None = None,
    *,
    preset_name: str | None = None,
    options: Sequence[str] = (),
    out: str | Path | None = None,
    seeds: int | None = None,
    methods: Sequence[str] = (),
    jobs: int | None = None,
) -> Studied:
    """Runs a grid of methods, label conditions and seeds, and tells which method to take under which condition.

    Settings of each method are chosen on validation data; the test split is scored once. What is done is not repeated,
    and a run that was killed is repeated whole. The folder gets `table.csv`, `runs.csv`, `table.md` and `plot.png`.

    Args:
        file: a study, see docs/studies.md; or the name of a shipped one.
        preset_name: in its place `losses`, `fractions` or `budget`, of any config with a loss.
        options: of all runs, as of `mlcv fit`; a preset's config among them.
        out: folder; `runs/study-<name>` if None.
        seeds: in place of the study's.
        methods: some of the study's.
        jobs: runs at a time; one a core if None, or one where there is a GPU.

    Returns:
        the table, with what it is of.

    Raises:
        UserError: for a study that cannot be run, before anything is.
    """
    plan, name = _plan(file, preset_name, options)
    if seeds is not None:
        plan = replace(plan, seeds=seeds)
    if methods:
        plan = plan.only(methods)
    return run_plan(plan, Path(out) if out is not None else Path("runs") / f"study-{name}", jobs)


def run_plan(plan: Plan, folder: Path, jobs: int | None = None) -> Studied:
    """Runs what is left of a plan; as `study`.

    Args:
        plan: of the runs.
        folder: of all files.
        jobs: runs at a time.

    Raises:
        UserError: as `study`.
    """
    set_up_logging()
    runs = list(plan.runs(folder))
    check_writable(folder, "--out")
    digests: dict[str, str] = {}
    done = _results(folder, runs, digests)
    left = [run for run in runs if run.key not in done]
    count = (1 if torch.cuda.is_available() else usable_cores()) if jobs is None else jobs
    pool = Processes(min(count, max(len(left), 1)), work, lambda job: job.folder / "log.txt", _PRELOAD)
    threads = max(usable_cores() // pool.count, 1)
    if left and (folder / LOCK).is_file():
        with _alone(folder):  # said at once, and not after minutes of building
            pass
    try:
        _check(_first_of_each(left), pool, threads)
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # which works if there is nothing in it
        raise
    errors: dict[Key, str] = {}
    try:
        with _alone(folder) if left else nullcontext():
            left = [run for run in left if result_of(folder / run.place, run, digests) is None]
            _run_all(folder, plan, runs, left, pool, threads, errors, digests)
    except KeyboardInterrupt as stop:
        kept = f"{len(_results(folder, runs, digests))} of {len(runs)} runs are done and kept"
        raise Stopped(getattr(stop, "signum", 2), f"{kept}; give the same command again to go on") from None
    finally:
        results = _results(folder, runs, digests)
        found = rows(plan, results, errors)
        if results or errors:
            write_csv(folder / "table.csv", plan, found)
            write_runs(folder / "runs.csv", plan, all_runs(plan, runs, results))
            write_markdown(folder / "table.md", plan, found)
            draw(folder / "plot.png", plan, found)
    if not results:
        raise ConfigError(f"study: none of {len(runs)} runs is done; the first said: {next(iter(errors.values()))}")
    return Studied(plan, folder, found)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other studies out of a folder: each removes runs that are not done, and would another's that are at work.

    Raises:
        ConfigError: if one is at work there.
    """
    with (folder / LOCK).open("w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # however the process ends, its lock ends
        except BlockingIOError:
            raise ConfigError(
                f"study: another one is at work in {folder}; wait for it, or give another --out"
            ) from None
        except OSError:  # a file system without locks
            logger.debug("no lock in %s", folder)
        yield


def _results(folder: Path, runs: Sequence[Run], digests: dict[str, str]) -> dict[Key, Mapping[str, Any]]:
    """Of the runs that are done."""
    found = {run.key: result_of(folder / run.place, run, digests) for run in runs}
    return {key: result for key, result in found.items() if result is not None}


def main(arguments: list[str]) -> None:
    """Runs a study, and prints its table.

    Raises:
        UserError: as `study`.
    """
    parser = parser_of("study")
    options, others = parser.parse_known_args(joined(arguments, parser))
    methods = [name.strip() for name in options.methods.split(",")] if options.methods else []
    given = {"preset_name": options.preset, "out": options.out, "seeds": options.seeds, "jobs": options.jobs}
    found = study(options.file, options=others, methods=methods, **given)
    show(console(), found.plan, found.rows, found.folder / "table.csv")
    console().print(f"\ntable.csv, runs.csv, table.md and plot.png: {found.folder}", soft_wrap=True)


def _plan(file: str | Path | None, preset_name: str | None, options: Sequence[str]) -> tuple[Plan, str]:
    if (file is None) == (preset_name is None):
        raise ConfigError("study: give a file, or --preset losses, fractions or budget with --config, not both")
    configs, others = take(options, "--config", "-c")
    more = options_of(others)
    if preset_name is not None:
        if not configs:
            raise ConfigError(f"study: --preset {preset_name} needs --config, of an experiment with your labels")
        paths = tuple(find_config(config) for config in configs)
        return preset(preset_name, paths, more), f"{preset_name}-{Path(paths[-1]).stem}"
    if configs:
        raise ConfigError("study: the file names its configs; leave --config out")
    plan = read_plan(str(file))
    return replace(plan, options={**plan.options, **more}), Path(str(file)).stem


def _first_of_each(runs: Sequence[Run]) -> list[Run]:
    """A run of each method, of each condition, and with each seed, but for those that start from others' files."""
    found: list[Run] = []
    for run in runs:
        is_new = any(
            getattr(run, name) not in {getattr(one, name) for one in found} for name in ("method", "condition", "seed")
        )
        if not run.needs and is_new:
            found.append(run)
    return found


def _check(runs: Sequence[Run], pool: Processes, threads: int) -> None:
    """Builds data and network of runs, so that what is wrong is said before any is trained.

    Raises:
        UserError: if one cannot be built.
    """
    if not runs:
        return
    logger.info("building each method and condition once, before any is trained")
    with tempfile.TemporaryDirectory(prefix="mlcv-study-") as place:
        checks = [Job(Path(place) / run.place, run, threads, is_check=True) for run in runs]
        for ended in pool.run(checks, lambda _: True):
            if (error := check_error(checks)) is not None:
                raise error
            if ended.status:
                raise ConfigError(
                    f"{ended.job.run.method}: the process that was to build it ended with status {ended.status}"
                )


def _run_all(
    folder: Path,
    plan: Plan,
    runs: Sequence[Run],
    left: Sequence[Run],
    pool: Processes,
    threads: int,
    errors: dict[Key, str],
    digests: dict[str, str],
) -> None:
    """Trains what is left; errors are put in as they come."""
    for run in left:  # what was killed is repeated whole
        shutil.rmtree(folder / run.place, ignore_errors=True)
    done = {run.key for run in runs} - {run.key for run in left}
    places = [folder / run.place for run in left]
    jobs = [Job(place, run, threads, planned(place, run, digests)) for place, run in zip(places, left, strict=True)]
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    out = console()
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("runs", total=len(runs), completed=len(done))

        def is_ready(job: Job) -> bool:
            return all(key in done for key in job.run.needed)

        taken: list[float] = []
        for ended in pool.run(jobs, is_ready):
            run = ended.job.run
            where = f"{run.method}, {run.condition}, seed {run.seed}"
            result = None if ended.status else result_of(ended.job.folder, run, digests)
            taken.append(ended.seconds)
            if result is None:
                errors[run.key] = why_failed(ended.job.folder) or f"its process ended with status {ended.status}"
                out.print(f"{where}: failed: {errors[run.key]}", soft_wrap=True)
            else:
                done.add(run.key)
                value = shown(score(result, plan.sort_by, plan.min_positives), plan.sort_by)
                out.print(f"{where}: {plan.sort_by} {value} ({ended.seconds:.0f} s)", soft_wrap=True)
            ahead = sum(taken) / len(taken) * (len(jobs) - len(taken)) / pool.count
            bar.update(task, advance=1, description=f"runs, {span(ahead)} left")
    for run in left:
        if run.key not in done and run.key not in errors:
            absent = ", ".join(method for _, method, _ in sorted(run.needed - done))
            errors[run.key] = f"not run, for want of {absent}"
