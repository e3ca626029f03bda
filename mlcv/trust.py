"""Packages beside this project whose classes a checkpoint may name."""

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlcv.errors import ConfigError

TRUST_VARIABLE = "MLCV_TRUST"
"""Their names, joined by colons; `--trust` adds to it."""

TRUST_HELP = "--trust PACKAGE: classes of this package, too, may stand in a checkpoint."
"""In the help of commands that read one."""


def trusted() -> tuple[str, ...]:
    """Packages beside this project whose classes may be named."""
    return tuple(name for name in os.environ.get(TRUST_VARIABLE, "").split(":") if name)


@contextmanager
def trusting(packages: Sequence[str]) -> Iterator[None]:
    """Trusts more packages for a while, in processes that are started meanwhile, too.

    Raises:
        ConfigError: for a name that is none of a package that is here.
    """
    strange = next((name for name in packages if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name)), None)
    if strange is not None:
        raise ConfigError(f"--trust {strange}: give the name of a Python package, such as my_package")
    absent = next((name for name in packages if importlib.util.find_spec(name.partition(".")[0]) is None), None)
    if absent is not None:
        raise ConfigError(f"--trust {absent}: there is no such package here; is it installed, or on PYTHONPATH?")
    before = os.environ.get(TRUST_VARIABLE)
    if packages:
        os.environ[TRUST_VARIABLE] = ":".join(dict.fromkeys([*trusted(), *packages]))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TRUST_VARIABLE, None)
        else:
            os.environ[TRUST_VARIABLE] = before


def is_below(module: str, packages: Sequence[str]) -> bool:
    """Whether a module is one of these packages, or in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)
