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


def imported(name: str, freezes: bool = False) -> ModuleType:
    """A module, which the collector does not walk while it is imported for the first time.

    Args:
        name: of the module.
        freezes: never to walk, from then on, what there is (nor have a loader's process copy it for that): for a
            process that runs one command, since in a program's own what is lost already would stay, too.
    """
    if name in sys.modules:
        return sys.modules[name]
    with without_collector():
        module = importlib.import_module(name)
        if freezes:
            gc.freeze()
    return module
