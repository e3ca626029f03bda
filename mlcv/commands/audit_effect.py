"""What corrections are worth: the same trainings on given and on corrected labels, judged by both."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mlcv.command_line import take
from mlcv.commands.options import options_of
from mlcv.commands.preview import data_of
from mlcv.commands.study import run_plan
from mlcv.errors import ConfigError
from mlcv.files import write_table
from mlcv.labels.states import evaluable, known
from mlcv.metrics.scores import multilabel_scores
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.truth import TruthFile
from mlcv.runs import check_writable
from mlcv.shipped_configs import find_config
from mlcv.studies.plan import RATES, Method, Plan, read_plan
from mlcv.studies.results import Interval
from mlcv.tables import is_file
from mlcv.terminal import console, print_table

logger = logging.getLogger(__name__)

GIVEN, CORRECTED = "given labels", "corrected labels"
Labels = Literal["given labels", "corrected labels"]
_OPTION = "data.corrections"


@dataclass(frozen=True)
class Effect:
    """What corrected labels change.

    Args:
        folder: of the runs and `effect.csv`.
        scores: by model, metric, labels trained on and labels judged by, a value a seed.
        changed: labels of the test split that the corrections change, of the last seed if a study draws splits.
        classes: that both truths can judge, of all.
    """

    folder: Path
    scores: Mapping[tuple[str, str, str, str], tuple[float, ...]]
    changed: int
    classes: tuple[int, int]

    @property
    def models(self) -> list[str]:
        """In the order given."""
        return list(dict.fromkeys(key[0] for key in self.scores))

    def gain(self, model: str, metric: str, judged_by: str) -> Interval:
        """By how much training on corrected labels is better, seed by seed."""
        trained = (self.scores[model, metric, labels, judged_by] for labels in (CORRECTED, GIVEN))
        return Interval(tuple(one - other for one, other in zip(*trained, strict=True)))

    def order(self, metric: str, trained_on: str, judged_by: str) -> list[str]:
        """Models, the best first, by their mean."""
        mean = {model: Interval(self.scores[model, metric, trained_on, judged_by]).mean for model in self.models}
        return sorted(mean, key=lambda model: -mean[model])


def effect(
    corrections: str | Path,
    *,
    options: Sequence[str] = (),
    study: str | Path | None = None,
    out: str | Path | None = None,
    seeds: int = 3,
    jobs: int | None = None,
) -> Effect:
    """Trains with and without corrections, and judges each by the given and by the corrected test labels.

    Args:
        corrections: file, see `mlcv.data.corrections`.
        options: of `mlcv fit`, with a config; beside a study those of all its runs.
        study: file of a study, whose methods are the models: whether their order is another on corrected labels.
        out: folder; `runs/effect-<corrections>` if None.
        seeds: of each training.
        jobs: trainings at a time; one a core if None.

    Raises:
        UserError: for files or options that cannot be used, before anything is trained.
    """
    corrections = Path(corrections)
    if not is_file(corrections):
        raise ConfigError(f"--effect: there is no file {corrections}; the page of `mlcv audit` saves corrections.csv")
    folder = Path(out) if out is not None else Path("runs") / f"effect-{corrections.stem}"
    check_writable(folder, "--out")
    plan = _of_audited_splits(_plan(corrections, list(options), study, seeds), folder)
    done = run_plan(plan, folder, jobs)
    runs = {run.key: folder / run.place for run in plan.runs(folder)}
    scores: dict[tuple[str, str, str, str], list[float]] = {}
    changed, classes = 0, (0, 0)
    for method in plan.listed:
        for seed in range(plan.seeds):
            files = {labels: _predictions(runs[labels, method, seed]) for labels in (GIVEN, CORRECTED)}
            if missing := [labels for labels, path in files.items() if path is None]:
                errors = [error for row in done.rows if row.method == method for error in row.errors]
                raise ConfigError(f"audit: {method} on {missing[0]} has failed: {'; '.join(errors)}")
            found, changed, classes = _scores({labels: path for labels, path in files.items() if path is not None})
            for (metric, trained, judged), value in found.items():
                scores.setdefault((method, metric, trained, judged), []).append(value)
    result = Effect(folder, {key: tuple(values) for key, values in scores.items()}, changed, classes)
    rows = (
        [*key, str(seed), f"{value:.6f}"] for key, values in result.scores.items() for seed, value in enumerate(values)
    )
    write_table(folder / "effect.csv", ["model", "metric", "trained_on", "judged_by", "seed", "value"], rows, keep=True)
    return result


def show_effect(found: Effect) -> None:
    """Prints means over seeds, differences and orders."""
    out = console()
    rows = []
    for model in found.models:
        for metric in ("mAP", "micro AP"):
            for judged in (GIVEN, CORRECTED):
                means = [Interval(found.scores[model, metric, trained, judged]).mean for trained in (GIVEN, CORRECTED)]
                gain = found.gain(model, metric, judged)
                is_sure = gain.low > 0 or gain.high < 0
                half = "" if np.isnan(gain.half) else f" ± {100 * gain.half:.1f}"
                rows.append([
                    f"{model}, {metric}, by {judged}", *(f"{100 * mean:.1f}" for mean in means),
                    f"{100 * gain.mean:+.1f}{half}{'*' if is_sure else ''}",
                ])  # fmt: skip
    print_table(
        out, ["test", "given", "corrected", "difference"], rows, f"trained on {GIVEN} and on {CORRECTED}, percent"
    )
    evaluable_classes, total = found.classes
    out.print(
        f"\n{found.changed} labels of the test split are corrected; {evaluable_classes} of {total} classes "
        "are judged by both. ±: 95 % over seeds (t), of the difference seed by seed; * where it leaves 0 out",
        soft_wrap=True,
    )  # fmt: skip
    if not found.changed:
        out.print("no test label is corrected, so both judge alike: audit the test split, too (--splits train test)")
    if len(found.models) > 1:
        before, after = (found.order("mAP", GIVEN, judged) for judged in (GIVEN, CORRECTED))
        text = " > ".join(before)
        said = f"and stays so by {CORRECTED}" if before == after else f"and {' > '.join(after)} by {CORRECTED}"
        out.print(f"trained on {GIVEN} the order by mAP is {text} by {GIVEN}, {said}", soft_wrap=True)
    out.print(f"effect.csv: {found.folder}", soft_wrap=True)


def _plan(corrections: Path, options: list[str], study: str | Path | None, seeds: int) -> Plan:
    # A config may name the corrections already, and training on given labels must not have them.
    conditions: dict[str, Mapping[str, Any]] = {
        GIVEN: {_OPTION: None},
        CORRECTED: {_OPTION: str(corrections.resolve())},
    }
    configs, others = take(options, "--config", "-c")
    if take(others, f"--{_OPTION}")[0]:
        raise ConfigError(f"audit: --effect says itself what {_OPTION} is; leave that out")
    if study is not None:
        if configs:
            raise ConfigError("audit: the study names its configs; leave --config out")
        plan = read_plan(str(study))
        if any(method.under for method in plan.methods.values()):
            raise ConfigError("audit: conditions are given and corrected labels here; leave `under` of methods out")
        if any(_OPTION in found for found in (plan.options, *(method.options for method in plan.methods.values()))):
            raise ConfigError(f"audit: --effect says itself what {_OPTION} is; leave that out of the study")
        return replace(plan, conditions=conditions, options={**plan.options, **options_of(others)}, seeds=seeds)
    if not configs:
        raise ConfigError("audit: --effect needs --config of an experiment, or --study with several models")
    method = Method(tuple(find_config(config) for config in configs))
    return Plan({Path(configs[-1]).stem: method}, conditions, options_of(others), RATES, seeds)


def _of_audited_splits(plan: Plan, folder: Path) -> Plan:
    """Where splits are drawn, another seed would test mostly images that nobody has looked at."""
    first = next((run for run in plan.runs(folder) if "data.seed" not in plan.methods[run.method].options), None)
    if first is None or "data.seed" in plan.options:
        return plan
    data = data_of([word for word in first.arguments[0] if not word.startswith("--data.seed=")])
    if not data.draws_splits:
        return plan
    logger.info("splits are drawn: all seeds keep those of data.seed %d, which the audit has looked at", data.seed)
    return replace(plan, options={**plan.options, "data.seed": str(data.seed)})


def _predictions(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*/test_predictions.csv"))), None)


def _scores(files: Mapping[str, Path]) -> tuple[dict[tuple[str, str, str], float], int, tuple[int, int]]:
    """Of both trainings by both truths; how many labels differ, and the classes that both can judge, of all."""
    read = {labels: read_all([path], TruthFile()) for labels, path in files.items()}
    truths, probs = {}, {}
    for labels, (_, truth, (model,)) in read.items():
        truths[labels] = dict(zip(truth.ids, truth.targets, strict=True))
        probs[labels] = dict(zip(model.ids, model.scores, strict=True))
    ids = list(truths[GIVEN])
    both = {labels: torch.stack([truth[name] for name in ids]) for labels, truth in truths.items()}
    names = read[GIVEN][0]
    judged = evaluable(both[GIVEN]) & evaluable(both[CORRECTED])
    found = {}
    for trained in files:
        predicted = torch.stack([probs[trained][name] for name in ids])
        for judge in files:
            summary = multilabel_scores(predicted[:, judged], both[judge][:, judged], None).summary
            found["mAP", trained, judge] = float(summary["mAP"])
            found["micro AP", trained, judge] = _micro(predicted, both[judge])
    differ = int((both[GIVEN] != both[CORRECTED]).sum())
    return found, differ, (int(judged.sum()), len(names))


def _micro(predicted: Tensor, truth: Tensor) -> float:
    """Average precision of all known entries together."""
    from sklearn.metrics import average_precision_score  # noqa: PLC0415  # half a second

    entries = known(truth)
    return float(average_precision_score(truth[entries].numpy(), predicted[entries].numpy()))
