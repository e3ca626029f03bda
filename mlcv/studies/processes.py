"""Runs a function in processes of its own, some at a time: each is a fork of one that has imported everything."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from mlcv.stopping import asked_to_end

Job = TypeVar("Job")


@dataclass(frozen=True)
class Ended(Generic[Job]):
    """A job whose process has ended.

    Args:
        job: which.
        status: exit status of its process; 0 if the function returned.
        seconds: that it took, by the clock.
    """

    job: Job
    status: int
    seconds: float


class Processes:
    """A pool without state: a process for each job, so that none leaves anything to the next.

    Args:
        count: at a time.
        function: of a module, called with a job.
        log: path that a job's process writes to, in place of the terminal.
        preload: modules that are imported once, where the system can fork.
    """

    def __init__(
        self, count: int, function: Callable[[Any], None], log: Callable[[Any], Path], preload: Sequence[str]
    ) -> None:
        self.count, self.function, self.log = count, function, log
        way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(way)
        if way == "forkserver":
            self._context.set_forkserver_preload(list(preload))

    def run(self, jobs: Sequence[Job], is_ready: Callable[[Job], bool]) -> Iterator[Ended[Job]]:
        """Each job as it ends; a job waits until it is ready. What cannot become ready is left.

        Whatever ends the iteration ends all processes.
        """
        left = list(jobs)
        running: dict[Any, tuple[Job, Any, float]] = {}
        try:
            while left or running:
                for job in [job for job in left if is_ready(job)][: self.count - len(running)]:
                    left.remove(job)
                    process = self._context.Process(
                        target=_work, args=(self.function, job, self.log(job), dict(os.environ))
                    )
                    process.start()
                    running[process.sentinel] = (job, process, time.monotonic())
                if not running:
                    return
                for sentinel in wait(list(running)):
                    job, process, begun = running.pop(sentinel)
                    process.join()
                    yield Ended(job, process.exitcode, time.monotonic() - begun)
        finally:
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.join(10)
                process.kill()


def _work(function: Callable[[Any], None], job: Any, log: Path, environment: dict[str, str]) -> None:
    """In the process: everything that is written goes to the job's log."""
    os.environ.update(environment)  # a fork has that of the first one's start
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which ends its processes
        threading.Thread(target=_end_with_parent, daemon=True).start()
        with asked_to_end():  # or what it was writing would stay half written
            function(job)


def _end_with_parent() -> None:
    """Or what a killed study had begun would go on, and write where the next one writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
