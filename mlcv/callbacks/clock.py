"""How long a training will still take, from the steps and validations that it has done."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Plan:
    """What a training has to do.

    Args:
        epoch: batches of one.
        total: batches of all epochs; None without an end.
        every: batches between two validations of an epoch; 0 without any.
        epochs: a validation each so many epochs; None counts `every` over all epochs.
    """

    epoch: int
    total: int | None
    every: int
    epochs: int | None = 1

    def validations(self, batches: int) -> int:
        """That have come when so many batches are done."""
        if not self.every:
            return 0
        if self.epochs is None:
            return batches // self.every
        done, rest = divmod(batches, self.epoch)
        here = rest // self.every if (done + 1) % self.epochs == 0 else 0
        return done // self.epochs * (self.epoch // self.every) + here


class Clock:
    """Time left for a whole run: the mean of its steps, and of its validations once there was one.

    The first step does not count: it waits for loader processes, and prepares kernels.

    Args:
        plan: what there is to do.
        now: seconds from any moment.
    """

    def __init__(self, plan: Plan, now: Callable[[], float] = perf_counter) -> None:
        self.plan, self._now = plan, now
        self.began = self._last = now()
        self.steps = self.validations = 0
        self._in_steps = self._in_validations = 0.0
        self._is_warm = False

    def step(self) -> None:
        """A batch is done."""
        seconds = self._lap()
        if self._is_warm:
            self.steps += 1
            self._in_steps += seconds
        self._is_warm = True

    def begin_validation(self) -> None:
        """What has passed since the last step is the step's."""
        self._in_steps += self._lap()

    def end_validation(self) -> None:
        """The training goes on."""
        self.validations += 1
        self._in_validations += self._lap()

    def seconds(self) -> float:
        """Since it began."""
        return self._now() - self.began

    @property
    def lacks_validation(self) -> bool:
        """Whether there are validations, and it is not known yet what one costs."""
        total = self.plan.total or 0
        return not self.validations and self.plan.validations(total) > 0

    def left(self, done: int) -> float | None:
        """Seconds until the end; None if nothing is known.

        Args:
            done: batches of all epochs, of earlier parts of a resumed run, too.
        """
        if self.plan.total is None or not self.steps:
            return None
        batches = max(self.plan.total - done, 0)
        validations = self.plan.validations(self.plan.total) - self.plan.validations(done)
        each = self._in_validations / max(self.validations, 1)
        return batches * self._in_steps / self.steps + max(validations, 0) * each

    def _lap(self) -> float:
        before, self._last = self._last, self._now()
        return self._last - before


def span(seconds: float) -> str:
    """A time as people say it: `94 s`, `4 min`, `2 h 05 min`, `3 d 4 h`."""
    if round(seconds) < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
