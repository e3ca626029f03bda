"""Ctrl-C and requests to end: a command ends, whatever it does when they come."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mlcv.errors import Stopped, chain_of

REPEATED_EVERY = 0.5
"""Seconds, until a request is seen to be on its way."""
LEFT_ALONE = 5.0
"""Seconds that a clean-up has before a second request ends that, too, and that a request is held."""


class Request:
    """What a command is asked for while it works: to end, or nothing so far.

    A handler's exception arises in whatever line the program has reached, and not every line passes it on: Python
    ignores what is raised in a destructor or a weak reference's callback, and gives what is raised while a class is
    made another type; extension modules clear errors they did not expect. So it is raised again until one is on its
    way through the program's own handlers, and whatever else ends the command after a request counts as its end.
    """

    signum: int | None = None
    """Of the last request; None without one."""
    since: float = 0.0
    """When the first one came."""
    process: int | None = None
    """Of the command: those forked from it inherit its handlers."""
    waits: Callable[[], bool] = staticmethod(lambda: False)
    """Whether something else, which knows of a SIGTERM, ends the work at a better moment."""

    holds = False
    """Whether it has to wait, see `held`."""
    has_alarm = False
    """Whether the process's alarm is ours."""

    def take(self, signum: int, _: FrameType | None) -> None:
        """The handler of both signals."""
        if os.getpid() != self.process:  # a loader process, which the command ends, also after Ctrl-C for both
            if signum == signal.SIGTERM:  # at once: as it ends in order, it may wait for a reader of its batches
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            return
        if self.signum is None:
            self.since = time.monotonic()
        elif _is_on_its_way() and time.monotonic() - self.since < LEFT_ALONE:
            return  # or it would end the clean-up after the first: a terminal and a parent both pass it on
        self.signum = signum
        if self.has_alarm:
            signal.setitimer(signal.ITIMER_REAL, REPEATED_EVERY, REPEATED_EVERY)
        self._end(signum)

    def take_again(self, _: int, __: FrameType | None) -> None:
        """The alarm's handler."""
        if self.signum is not None and not _is_on_its_way():
            self._end(self.signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A request waits until this is done, or some seconds: for what is lost or breaks if it ends half way."""
        self.holds = True
        try:
            yield
        finally:
            self.holds = False
        if self.signum is not None:
            self._end(self.signum)

    def _end(self, signum: int) -> None:
        is_held = self.holds and time.monotonic() - self.since < LEFT_ALONE
        if not is_held and (signum != signal.SIGTERM or not self.waits()):
            raise Stopped(signum)


def _is_on_its_way() -> bool:
    """Whether what ends the program is being handled, by a clean-up or by whom it was meant for."""
    return any(isinstance(one, (KeyboardInterrupt, SystemExit)) for one in chain_of(sys.exc_info()[1]))


_of_command: list[Request] = []
_ignored: list[int] = []


def request() -> Request:
    """What the command that runs is asked for; without one, what nobody asks."""
    return _of_command[0] if _of_command else Request()


@contextmanager
def asked_to_end(is_process: bool = False) -> Iterator[None]:
    """SIGTERM ends what runs inside as Ctrl-C does: files that were begun are removed, and it says how to go on.

    A program that has its own way with a signal keeps it, and so does one that runs this in another thread.

    Args:
        is_process: the process ends with what runs inside; after a request more of them are ignored, see `end_at_once`.

    Raises:
        Stopped: for whatever ends it after a request.
    """
    if _of_command or threading.current_thread() is not threading.main_thread():
        yield
        return
    made = Request()
    made.process = os.getpid()
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
        made.has_alarm = hasattr(signal, "SIGALRM") and signal.SIGALRM in before
        yield
    except BaseException as error:
        stops = [one for one in chain_of(error) if isinstance(one, KeyboardInterrupt)]
        stop = next((one for one in stops if getattr(one, "advice", "")), stops[0] if stops else None)
        if stop is None and made.signum is None:
            raise
        raise stop if isinstance(stop, Stopped) else Stopped(made.signum or signal.SIGINT) from None
    finally:
        _give_back(made, before, is_process)
        sys.unraisablehook = hook
        _of_command.clear()


def _give_back(made: Request, before: dict[int, Any], is_process: bool) -> None:
    """Handlers, as they were; of a process that is to end after a request, none."""
    ends = is_process and made.signum is not None
    if made.signum is not None and made.has_alarm and os.getpid() == made.process:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if ends and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises that loader processes have ended
    for one, handler in before.items():
        signal.signal(one, signal.SIG_IGN if ends else handler)
    _ignored.extend(before if ends else ())


def end_at_once() -> None:
    """From now on a request ends this process, which has said all it has to say; Python would show where it came."""
    while _ignored:
        signal.signal(_ignored.pop(), lambda signum, _: os._exit(128 + signum))
