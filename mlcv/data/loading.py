"""What loader processes need besides samples."""

import shutil
import threading
from pathlib import Path
from typing import Any

import cv2

from mlcv.errors import ConfigError

PREFETCH = 2
"""Batches that each worker prepares ahead."""


def check_shared_memory(workers: int, batch: int) -> None:
    """Too little of it kills workers with a bus error in the middle of an epoch.

    Args:
        workers: processes that pass batches through it.
        batch: bytes of one.

    Raises:
        ConfigError: if it is too little.
    """
    shared = Path("/dev/shm")  # noqa: S108  # where Linux keeps it
    if not workers or not shared.is_dir():
        return
    needed = batch * (PREFETCH * workers + 1)
    free = shutil.disk_usage(shared).free
    if free < needed:
        raise ConfigError(
            f"{workers} loader workers pass batches of {batch / 2**20:.0f} MiB through /dev/shm: that "
            f"takes up to {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free. Give the container more "
            "(docker run --shm-size=8g), or lower data.num_workers (0 needs none) or data.batch_size"
        )


def as_it_is(batch: Any) -> Any:
    """A batch that is one already."""
    return batch


def set_up_worker(_worker: int) -> None:
    """Each worker is one core's work, and a command that ends while one hands it a batch is no error of the worker."""
    cv2.setNumThreads(0)  # OpenCV's own threads would fight with the other workers
    hook = threading.excepthook

    def without_the_commands_end(ended: threading.ExceptHookArgs) -> None:
        if not isinstance(ended.exc_value, ConnectionError):
            hook(ended)

    threading.excepthook = without_the_commands_end
