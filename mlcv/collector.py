"""Python's garbage collector, which walks all objects again and again while many are made and none are lost."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_collector() -> Iterator[None]:
    """Meanwhile it does not run: a growing list of lists takes longer to walk than to read."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def imported(name: str) -> ModuleType:
    """A module. What its first import has made stays: it is never walked, nor copied by a loader's process for that."""
    if name in sys.modules:
        return sys.modules[name]
    with without_collector():
        module = importlib.import_module(name)
        gc.freeze()
    return module
