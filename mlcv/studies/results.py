"""What the runs of a study have found: means and intervals over seeds, and differences of pairs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from mlcv.studies.plan import OF_A_CLASS, Key, Plan, Run, direction

Results = Mapping[Key, Mapping[str, Any]]
"""Of each run that is done, by condition, method and seed."""

_COLUMNS = {"mAP": "AP", "AUROC": "AUROC"}
"""Means over classes, and the column of a class that they are of."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and its 95 % interval by Student's t; of one seed, or none, without an interval.

    Args:
        values: one a seed; NaN where a metric is no number.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """NaN of no values."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def half(self) -> float:
        """Half of the interval's width; NaN of fewer than two values."""
        count = len(self.values)
        if count < 2:
            return math.nan
        return float(stdtrit(count - 1, 0.975)) * statistics.stdev(self.values) / math.sqrt(count)

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half


@dataclass(frozen=True)
class Row:
    """A method under a condition.

    Args:
        condition: its name.
        method: its name.
        metrics: by name.
        difference: from the baseline in the metric that is sorted by, seed by seed.
        wins: seeds in which it is better than the baseline.
        losses: in which it is worse.
        judged: classes that the means are over, in each seed.
        seconds: of one training.
        settings: that validation has chosen, as text, in each seed.
        fallen: by how much the last epoch is below the best in validation.
        errors: of runs that failed.
    """

    condition: str
    method: str
    metrics: Mapping[str, Interval]
    difference: Interval
    wins: int
    losses: int
    judged: tuple[int, ...]
    seconds: Interval
    settings: tuple[str, ...]
    fallen: Interval
    errors: tuple[str, ...]

    @property
    def seeds(self) -> int:
        """Runs that are done."""
        return len(self.seconds.values)


def score(result: Mapping[str, Any], name: str, min_positives: int) -> float:
    """A metric of a run's test, over classes with so many positives where it is a mean over classes.

    `AP of dog` and `AUROC of dog` are those of a class.
    """
    if of_class := OF_A_CLASS.fullmatch(name):
        return next((float(row[of_class[1]]) for row in result["classes"] if row["class"] == of_class[2]), math.nan)
    if name in _COLUMNS and min_positives > 1:
        values = [float(row[_COLUMNS[name]]) for row in _judged(result, min_positives)]
        return statistics.fmean(values) if values else math.nan
    value = result["metrics"].get(name)
    return math.nan if value is None else float(value)


def _judged(result: Mapping[str, Any], min_positives: int) -> list[Mapping[str, str]]:
    return [
        row for row in result["classes"] if int(row["positives"]) >= min_positives and not math.isnan(float(row["AP"]))
    ]


def rows(plan: Plan, results: Results, errors: Mapping[Key, str]) -> list[Row]:
    """A row for each condition and listed method, the best first in each condition; what failed last.

    Args:
        plan: of the study.
        results: of the runs that are done.
        errors: of those that failed, in a sentence.
    """
    found = []
    sign = direction(plan.sort_by)
    for condition in plan.conditions:
        own = [_row(plan, results, errors, condition, method, sign) for method in plan.listed]
        own.sort(key=lambda row: (math.isnan(mean := row.metrics[plan.sort_by].mean), -sign * mean))
        found += own
    return found


def _row(plan: Plan, results: Results, errors: Mapping[Key, str], condition: str, method: str, sign: int) -> Row:
    done = {seed: results[key] for seed in range(plan.seeds) if (key := (condition, method, seed)) in results}
    metrics = {
        name: Interval(tuple(score(one, name, plan.min_positives) for one in done.values())) for name in plan.metrics
    }
    base = {seed: results.get((condition, plan.baseline, seed)) for seed in done}
    pairs = [
        score(one, plan.sort_by, plan.min_positives) - score(other, plan.sort_by, plan.min_positives)
        for seed, one in done.items()
        if (other := base[seed]) is not None and method != plan.baseline
    ]
    tried = [one["tried"][one["chosen"]] for one in done.values()]
    return Row(
        condition,
        method,
        metrics,
        Interval(tuple(pairs)),
        sum(sign * pair > 0 for pair in pairs),
        sum(sign * pair < 0 for pair in pairs),
        tuple(len(_judged(one, plan.min_positives)) for one in done.values()),
        Interval(tuple(one["seconds"] for one in tried)),
        tuple(_told(one["setting"]) for one in tried),
        Interval(tuple(one["fallen"] for one in tried if one["fallen"] is not None)),
        tuple(errors[key] for seed in range(plan.seeds) if (key := (condition, method, seed)) in errors),
    )


def _told(setting: Mapping[str, Any]) -> str:
    values = [f"{value:g}" if isinstance(value, float) else str(value) for value in setting.values()]
    return " ".join(values)


def all_runs(plan: Plan, runs: Sequence[Run], results: Results) -> list[list[Any]]:
    """A row for each run that is done: condition, method, seed, setting, validation, seconds, and each metric."""
    found = []
    for run in runs:
        result = results.get(run.key)
        if result is not None:
            tried = result["tried"][result["chosen"]]
            metrics = [score(result, name, plan.min_positives) for name in plan.metrics]
            about = [_told(tried["setting"]), tried["val"], tried["fallen"], tried["seconds"], run.place]
            found.append([run.condition, run.method, run.seed, *about, *metrics])
    return found
