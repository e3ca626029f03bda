"""Work on many images that threads share."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain
from typing import TypeVar

from rich.progress import track

_CHUNK = 1024

T = TypeVar("T")
R = TypeVar("R")


def mapped(
    pool: Executor, function: Callable[[T], R], things: Sequence[T], what: str, has_bar: bool = True
) -> Iterator[R]:
    """What becomes of each, in order, with a progress bar.

    They are asked for in chunks, so that an end is soon one, and no millions wait as tasks, which would take gigabytes.

    Args:
        pool: of threads.
        function: of one.
        things: all of them.
        what: is done, for people.
        has_bar: whether it is shown.
    """
    chunks = (things[start : start + _CHUNK] for start in range(0, len(things), _CHUNK))
    results = chain.from_iterable(pool.map(function, chunk) for chunk in chunks)
    return iter(track(results, what, len(things))) if has_bar else results
