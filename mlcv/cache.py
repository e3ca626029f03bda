"""Arrays that are dear to make, kept between runs in $MLCV_CACHE (default ~/.cache/mlcv)."""

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlcv.errors import ConfigError
from mlcv.files import whole_file

logger = logging.getLogger(__name__)


def cached(name: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Arrays by name: from the cache, or made and stored. A damaged file is made anew, an unwritable one a warning.

    Args:
        name: starts the file's name, for people.
        key: everything that the arrays depend on.
        make: gives the arrays.
    """
    folder = Path(os.environ.get("MLCV_CACHE") or Path.home() / ".cache" / "mlcv")
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        arrays = make()
    try:
        with whole_file(path, "wb") as file:  # at once, so that another process never reads half of it
            np.savez(file, **arrays)
    except ConfigError as error:
        logger.warning("the cache %s cannot be written (%s): the next start makes it again", path, error)
    return arrays


def file_key(path: Path) -> str:
    """Changes when the file does: its place, size and time."""
    about = path.stat()
    return f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"
