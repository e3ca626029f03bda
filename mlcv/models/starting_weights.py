"""Weights that a network starts from are for training only: a checkpoint brings its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ARE_READ = ContextVar("starting_weights_are_read", default=True)


@contextmanager
def no_starting_weights() -> Iterator[None]:
    """Networks that are built meanwhile read and download none, since a checkpoint's will replace them."""
    before = _ARE_READ.set(False)
    try:
        yield
    finally:
        _ARE_READ.reset(before)


def starting_weights(weights: str | None) -> str | None:
    """What a network is to start from; None if a checkpoint brings all of it."""
    return weights if _ARE_READ.get() else None
