"""Ctrl-C and requests to end: a command ends, whatever it does when they come."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mlcv.errors import Stopped, chain_of

REPEATED_EVERY = 0.5
"""Seconds, until a request is seen to be on its way."""


class Request:
    """What a command is asked for while it works: to end, or nothing so far.

    A handler's exception arises in whatever line the program has reached, and not every line passes it on: Python
    ignores what is raised in a destructor or a weak reference's callback, and gives what is raised while a class is
    made another type; extension modules clear errors they did not expect. So it is raised again until one is on its
    way through the program's own handlers, and whatever else ends the command after a request counts as its end.
    """

    signum: int | None = None
    """Of the last request; None without one."""
    waits: Callable[[], bool] = staticmethod(lambda: False)
    """Whether something else, which knows of a SIGTERM, ends the work at a better moment."""

    alarms_in: int | None = None
    """The process whose alarm is ours: its loader processes end in a way of their own."""

    def take(self, signum: int, _: FrameType | None) -> None:
        """The handler of both signals."""
        self.signum = signum
        if os.getpid() == self.alarms_in:
            signal.setitimer(signal.ITIMER_REAL, REPEATED_EVERY, REPEATED_EVERY)
        self._end(signum)

    def take_again(self, _: int, __: FrameType | None) -> None:
        """The alarm's handler."""
        handled = chain_of(sys.exc_info()[1])
        if self.signum is not None and not any(isinstance(one, (KeyboardInterrupt, SystemExit)) for one in handled):
            self._end(self.signum)

    def _end(self, signum: int) -> None:
        if signum != signal.SIGTERM or not self.waits():
            raise Stopped(signum)


_of_command: list[Request] = []


def request() -> Request:
    """What the command that runs is asked for; without one, what nobody asks."""
    return _of_command[0] if _of_command else Request()


@contextmanager
def asked_to_end() -> Iterator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does: files that were begun are removed, and it says how to go on.

    A program that has its own way with a signal keeps it, and so does one that runs this in another thread.

    Raises:
        Stopped: for whatever ends it after a request.
    """
    if _of_command or threading.current_thread() is not threading.main_thread():
        yield
        return
    made = Request()
    handlers: dict[int, tuple[Any, Callable[[int, FrameType | None], None]]] = {
        signal.SIGTERM: (signal.SIG_DFL, made.take),
        signal.SIGINT: (signal.default_int_handler, made.take),
    }
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = (signal.SIG_DFL, made.take_again)
    before = {one: usual for one, (usual, _) in handlers.items() if signal.getsignal(one) == usual}
    hook = sys.unraisablehook

    def without_ours(ignored: Any) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            hook(ignored)

    try:
        _of_command.append(made)
        sys.unraisablehook = without_ours
        for one in before:
            signal.signal(one, handlers[one][1])
        made.alarms_in = os.getpid() if hasattr(signal, "SIGALRM") and signal.SIGALRM in before else None
        yield
    except BaseException as error:
        stop = next((one for one in chain_of(error) if isinstance(one, KeyboardInterrupt)), None)
        if stop is None and made.signum is None:
            raise
        raise stop if isinstance(stop, Stopped) else Stopped(made.signum or signal.SIGINT) from None
    finally:
        if made.signum is not None and os.getpid() == made.alarms_in:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in before.items():
            signal.signal(one, handler)
        sys.unraisablehook = hook
        _of_command.clear()
