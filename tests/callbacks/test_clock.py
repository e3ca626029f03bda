import math

import pytest

from mlcv.callbacks.clock import Clock, Plan, span


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def oracle(plan):
    """Batches after which a validation comes, one batch at a time."""
    after = []
    for batch in range(plan.total):
        epoch, place = divmod(batch, plan.epoch)
        if plan.epochs is None:
            is_due = (batch + 1) % plan.every == 0
        else:
            is_due = (place + 1) % plan.every == 0 and (epoch + 1) % plan.epochs == 0
        after += [batch + 1] if is_due else []
    return after


PLANS = [
    Plan(7, 56, 7), Plan(7, 56, 3), Plan(7, 56, 7, 3), Plan(7, 40, 2, 2), Plan(7, 50, 10, None), Plan(1, 5, 1),
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
def test_validations_are_counted_as_lightning_makes_them(plan):
    after = oracle(plan)
    for batches in range(plan.total + 1):
        assert plan.validations(batches) == sum(one <= batches for one in after)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("resumed_at", [0, 2])
def test_the_time_left_is_exact_when_each_step_and_validation_takes_as_long(plan, resumed_at):
    time, after = Time(), oracle(plan)
    clock = Clock(plan, time)
    for batch in range(resumed_at + 1, plan.total + 1):
        time.now += 30.0 if batch == resumed_at + 1 else 2.0  # the first waits for all to start
        clock.step()
        if batch in after:
            clock.begin_validation()
            time.now += 5.0
            clock.end_validation()
        left = clock.left(batch)
        if clock.steps and not clock.lacks_validation:
            truth = 2.0 * (plan.total - batch) + 5.0 * sum(one > batch for one in after)
            assert math.isclose(left, truth, abs_tol=1e-9)
    assert clock.left(plan.total) == 0


def test_nothing_is_said_before_the_second_step_or_without_an_end():
    time = Time()
    clock, endless = Clock(Plan(5, 50, 5), time), Clock(Plan(5, None, 5), time)
    assert clock.left(0) is None
    for one in (clock, endless):
        one.step()
    assert clock.left(1) is None
    time.now += 1
    clock.step()
    endless.step()
    assert clock.left(2) == 48
    assert clock.lacks_validation
    assert endless.left(2) is None


def test_a_run_without_validation_lacks_none():
    assert not Clock(Plan(5, 50, 0), Time()).lacks_validation


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"), (42.4, "42 s"), (94, "94 s"), (119.6, "2 min"), (240, "4 min"), (3570, "1 h 00 min"),
        (7500, "2 h 05 min"), (3600 * 76, "3 d 4 h"),
    ],
)  # fmt: skip
def test_times_are_said_as_people_do(seconds, said):
    assert span(seconds) == said
