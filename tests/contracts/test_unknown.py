"""What is unknown takes no part: no score of an unknown entry, and no image without any known label, changes anything.

Every function of the metrics and of what is calibrated, judged and drawn that is given targets is listed here.
"""

import contextlib
import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mlcv.metrics
import mlcv.posthoc
from mlcv.metrics import PointingGame, choose_thresholds, f1_curves, multilabel_scores, ranking_metrics, tuned_f1
from mlcv.metrics.bootstrap import bootstrap_areas, weighted_areas
from mlcv.metrics.scores import (
    eleven_point_average_precision,
    expected_calibration_error,
    global_average_precision,
    precision_recall,
    scores_of_decisions,
)
from mlcv.posthoc import calibration, figures, judge, reliability
from mlcv.posthoc.calibrated import Calibration
from mlcv.posthoc.calibration import classwise_calibration_error, fit_scaling
from mlcv.posthoc.conformal import Powerset, choose_power, control_missed, only_positives
from mlcv.posthoc.figures import draw_curves
from mlcv.posthoc.predictions import Predictions
from mlcv.posthoc.thresholds import choose_class_thresholds
from mlcv.posthoc.truth import Truth

NAMES = ("a", "b", "c", "d", "e")
LOWEST = 1e-9


@dataclasses.dataclass
class Case:
    """Images, some with all labels known, some with a part, some with none; `names` tell patients and studies."""

    probs: torch.Tensor
    targets: torch.Tensor
    names: list[str]

    @property
    def logits(self):
        return self.probs.logit()

    @property
    def chosen(self):
        return self.probs > 0.4

    @property
    def truth(self):
        return Truth(tuple(self.names), self.targets, {"sex": tuple("FM"[len(n) % 2] for n in self.names)})


def drawn(generator):
    """Over-confident probabilities of five classes that are known at different rates, 200 images with any label."""
    right = generator.beta(0.5, 1.0, (200, 5))
    targets = (generator.random(right.shape) < right).astype(int)
    targets[generator.random(right.shape) > np.linspace(0.6, 0.95, 5)] = -1
    targets[:100] = (generator.random((100, 5)) < right[:100]).astype(int)
    targets[100:][(targets[100:] == -1).all(axis=1), 0] = 0
    wrong = 1 / (1 + np.exp(-2.5 * (np.log(right / (1 - right)) + 0.4)))
    wrong = wrong.round(2).clip(LOWEST, 1 - LOWEST)  # ties
    order = generator.permutation(200)
    names = [f"patient{n // 3}/study1/view{n}.jpg" for n in range(200)]
    return Case(torch.from_numpy(wrong[order]), torch.from_numpy(targets[order]), names)


def with_other_scores(case, generator):
    other = torch.from_numpy(generator.random(case.probs.shape)).clamp(LOWEST, 1 - LOWEST)
    return Case(torch.where(case.targets < 0, other, case.probs), case.targets, case.names)


def with_unlabelled_images(case, generator):
    """Of patients that are there already, and of new ones, anywhere among the others."""
    place = np.sort(generator.integers(0, len(case.names) + 1, 60))
    probs = np.insert(case.probs.numpy(), place, generator.random((60, 5)).clip(LOWEST, 1 - LOWEST), axis=0)
    targets = np.insert(case.targets.numpy(), place, -1, axis=0)
    names = np.insert(
        np.array(case.names, dtype=object), place, [f"patient{n}/study9/view{n}.jpg" for n in range(30, 90)]
    )
    return Case(torch.from_numpy(probs), torch.from_numpy(targets), list(names))


def judged(case):
    model = Predictions("model", tuple(case.names), case.probs, NAMES)
    return judge.judge(model, case.truth, resamples=20)


def other(case):
    """Another model, whose score of an entry depends on the first one's, in another order."""
    model = Predictions("other", tuple(case.names), 7.3 * case.probs % 1, NAMES)
    return judge.judge(model, case.truth, resamples=20)


def svg(draw):
    return re.sub("<metadata>.*</metadata>", "", draw, flags=re.DOTALL)


def drawn_curves(case):
    """What is plotted, by a stand-in for matplotlib."""
    plotted = []
    axis = SimpleNamespace(
        plot=lambda x, y, *rest, **style: plotted.append((x, y)), set=lambda **_: None, grid=lambda **_: None,
        set_ylabel=lambda _: None, get_legend_handles_labels=lambda: ([], [])
    )  # fmt: skip
    figure = SimpleNamespace(
        subplots=lambda *size, **_: np.array([[axis] * len(NAMES)], dtype=object), legend=lambda *a, **k: None,
        savefig=lambda *a, **k: None,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlcv.posthoc.figures.Figure", lambda **_: figure)
        patch.setattr("mlcv.posthoc.figures.whole_file", lambda *_, **__: contextlib.nullcontext())
        for kind in ("roc", "pr"):
            draw_curves(Path("x.png"), kind, [judged(case)], NAMES, {})
    return plotted


def pointing_game(case):
    """An image's heat map points at the class's place where its probability is high."""
    game = PointingGame()
    maps = torch.zeros(*case.probs.shape, 2, 2)
    maps[..., 0, 0], maps[..., 1, 1] = case.probs, 0.5
    boxes = [torch.tensor([[c, 0.0, 0.0, 0.5, 0.5] for c in range(5)])] * len(case.names)
    game.update(torch.arange(len(case.names)), maps, boxes, case.targets)
    return game.compute()


def positives_of_one(case):
    """A class, which one the labels decide, loses its negatives."""
    targets = case.targets.clone()
    column = targets[:, int((targets == 1).sum()) % 5]
    column[column == 0] = -1
    return only_positives(targets)


def counts(case):
    positive, chosen = case.targets == 1, case.chosen & (case.targets >= 0)
    tp = (positive & chosen).sum(dim=0)
    fp = chosen.sum(dim=0) - tp
    return tp, fp, positive.sum(dim=0) - tp, (case.targets == 0).sum(dim=0) - fp


def first_class(case):
    rows = case.targets[:, 0] >= 0
    return eleven_point_average_precision(case.probs[rows, 0], case.targets[rows, 0])


def scores(case):
    found = multilabel_scores(case.probs, case.targets, eleven_point=True, scores=case.logits)
    table = {name: column for name, column in found.per_class.items() if name != "unknown"}  # it counts them
    return found.summary, table, found.excluded


def scalings(case, method):
    """Of probabilities more and less wrong, some classes scaled by a hair; and the parts that judged them."""
    parts, divide = [], calibration._parts

    def remembered(labels, seed):
        parts.append(divide(labels, seed))
        return parts[-1]

    softer = [(case.logits * factor).sigmoid() for factor in (0.4, 0.5, 0.6, 1.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_parts", remembered)
        return [fit_scaling(probs, case.targets, method) for probs in softer], parts


def fit(case, method):
    return Calibration.fit(case.probs, case.targets, NAMES, method=method, risk=0.2, epsilon=0.2, seed=3)


ROUTINES = {
    "multilabel_scores": scores,
    "scores_of_decisions": lambda case: scores_of_decisions(case.probs, case.chosen, case.targets),
    "precision_recall": lambda case: precision_recall(counts(case)),
    "global_average_precision": lambda case: global_average_precision(case.logits, case.targets, top=2),
    "eleven_point_average_precision": first_class,  # of one class, as it is called: over known entries
    "ranking_metrics": lambda case: ranking_metrics(case.logits, case.targets),
    "f1_curves": lambda case: f1_curves(case.probs, case.targets),
    "choose_thresholds": lambda case: choose_thresholds(case.probs, case.targets),
    "tuned_f1": lambda case: tuned_f1(case.probs, case.targets, {"CF1": 0.3, "OF1": 0.6}),
    "PointingGame": pointing_game,
    "weighted_areas": lambda case: weighted_areas(
        case.probs, case.targets, 1 + torch.tensor([len(name) % 2 for name in case.names]).double()[None]
    ),
    "bootstrap_areas": lambda case: bootstrap_areas(
        case.probs, case.targets, [name.split("/")[0] for name in case.names], resamples=20
    ),
    "bootstrap_areas of images": lambda case: bootstrap_areas(case.probs, case.targets, resamples=20),
    "classwise_calibration_error": lambda case: classwise_calibration_error(case.probs, case.targets),
    "expected_calibration_error": lambda case: expected_calibration_error(case.probs, case.targets),
    "fit_scaling by temperature": lambda case: scalings(case, "temperature"),
    "fit_scaling by platt": lambda case: scalings(case, "platt"),
    "choose_class_thresholds": lambda case: [
        choose_class_thresholds(case.probs, case.targets, goal, 0.8) for goal in ("f1", "precision", "recall")
    ],
    "control_missed": lambda case: [control_missed(case.probs, case.targets, r / 100) for r in range(5, 60)],
    "only_positives": positives_of_one,
    "Powerset.calibrate": lambda case: Powerset.calibrate(case.probs, case.targets, 0.2),
    "choose_power": lambda case: [choose_power(case.probs, case.targets, e / 20) for e in range(1, 15)],
    "fit by platt": lambda case: fit(case, "platt"),
    "fit by nothing": lambda case: fit(case, "none"),
    "summary": lambda case: judge.summary(judged(case), NAMES),
    "difference": lambda case: judge.difference(judged(case), other(case)),
    "part": lambda case: (
        judge.part(judged(case), [row for row, name in enumerate(case.names) if "view1" in name], 20, 0).areas
    ),
    "operating_points": lambda case: judge.operating_points(case.chosen, case.targets),
    "entries": lambda case: reliability.entries(case.probs, case.targets),
    "miscalibration": lambda case: reliability.miscalibration(case.probs, case.targets),
    "confusion": lambda case: figures.confusion(case.chosen, case.targets),
    "together": lambda case: [figures.together(x, case.targets) for x in (case.targets == 1, case.chosen)],
    "reliability": lambda case: svg(figures.reliability([judged(case)], ["model"])),
    "curves": lambda case: svg(figures.curves([judged(case)], ["model"])),
    "draw_curves": drawn_curves,
}
# What is given targets or a truth and keeps, matches or combines them; `holds` says of each image what it does.
NOTHING_COUNTED = {
    "Outputs", "of", "by_classes", "Truth", "Judged", "judge", "update", "match", "subgroups", "truth_of_studies",
    "combine", "holds", "check_no_copies", "Predicted", "labelled",
}  # fmt: skip


def plain(value):
    """Anything as nested lists of numbers and words, NaN as a word: equal results are equal to the last bit."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("change", [with_other_scores, with_unlabelled_images])
@pytest.mark.parametrize("routine", ROUTINES)
def test_what_is_unknown_changes_nothing(routine, change, numpy_rng, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.hashsalt", "the same names in each picture")
    case = drawn(numpy_rng)
    result = plain(ROUTINES[routine](case))
    assert plain(ROUTINES[routine](change(case, numpy_rng))) == result


@pytest.mark.parametrize("routine", ROUTINES)
def test_what_is_known_does(routine, numpy_rng, monkeypatch):
    """Else the test above could not fail."""
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.hashsalt", "the same names in each picture")
    case = drawn(numpy_rng)
    results = [plain(ROUTINES[routine](case))]
    for _ in range(5):
        other = drawn(numpy_rng)
        results.append(plain(ROUTINES[routine](Case(other.probs, other.targets, case.names))))
    assert any(result != results[0] for result in results)


def functions_with_targets():
    """Names of public functions and methods of metrics and posthoc that are given the truth."""
    for package in (mlcv.metrics, mlcv.posthoc):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for name, member in vars(module).items():
                if getattr(member, "__module__", None) != found.name or name.startswith("_"):
                    continue
                members = {name: member}
                if inspect.isclass(member):
                    members |= dict(inspect.getmembers(member, inspect.isroutine))
                for key, part in members.items():
                    try:
                        given = inspect.signature(part).parameters
                    except (TypeError, ValueError):
                        continue
                    if not key.startswith("_") and {"targets", "truth", "judged", "models"} & set(given):
                        yield key


def test_every_routine_that_is_given_targets_is_listed():
    listed = {name.split(" ")[0].split(".")[-1] for name in ROUTINES}
    found = set(functions_with_targets())
    assert {"ranking_metrics", "summary", "confusion"} <= found
    assert found - NOTHING_COUNTED <= listed
