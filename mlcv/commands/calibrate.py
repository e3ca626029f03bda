"""`mlcv calibrate`: from validation predictions to probabilities, thresholds and sets that keep their promises."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from mlcv.commands.arguments import parser_of
from mlcv.commands.options import truth_file
from mlcv.errors import ConfigError
from mlcv.labels.states import POSITIVE, evaluable, known
from mlcv.metrics.scores import expected_calibration_error
from mlcv.posthoc.calibrated import FILE_NAME, Calibration, labelled
from mlcv.posthoc.calibration import Method, classwise_calibration_error
from mlcv.posthoc.judge import match
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.thresholds import Goal
from mlcv.posthoc.truth import TruthFile
from mlcv.tables import read_once
from mlcv.terminal import console, print_table


def main(arguments: list[str]) -> None:
    """Reads, fits, prints and writes.

    Raises:
        UserError: for files that are missing or malformed, or do not fit together.
    """
    options = parser_of("calibrate").parse_args(arguments)
    names, probs, targets, model = _read(options.predictions, truth_file(options))
    chosen = {name: getattr(options, name) for name in ("method", "goal", "level", "risk", "epsilon", "seed")}
    calibration = Calibration.fit(probs, targets, names, model=model, **chosen)
    calibration = replace(calibration, fitted_to=str(options.predictions))
    out = options.out or options.predictions.with_name(FILE_NAME)
    calibration.save(out)
    _print(calibration, probs, targets)
    console().print(f"calibration: {out}", soft_wrap=True)


def calibrate(
    predictions: str | Path,
    truth: str | Path | TruthFile | None = None,
    *,
    method: Method = "platt",
    goal: Goal = "f1",
    level: float = 0.9,
    risk: float = 0.1,
    epsilon: float = 0.1,
    seed: int = 0,
) -> Calibration:
    """Probabilities, thresholds and sets that keep promises, from a file of validation predictions.

    Args:
        predictions: `val_predictions.csv` of `mlcv validate`, or any CSV of probabilities.
        truth: CSV of labels, or how one is read; None if the predictions hold them.
        method: of the scaling of logits.
        goal: of the thresholds.
        level: of precision or recall, where that is the goal.
        risk: part of an image's labels that sets may miss, on average.
        epsilon: how often the true label set may be left out.
        seed: of the halves of the images, and of the parts that judge scalings.

    Returns:
        the calibration; `.save(path)` writes it for predict and export.

    Raises:
        UserError: for files that are missing or malformed or do not fit together, scores outside [0, 1], predictions of
            a test split, or labels of which no class has a positive and a negative.
    """
    names, probs, targets, model = _read(Path(predictions), TruthFile.of(truth))
    calibration = Calibration.fit(
        probs, targets, names, method=method, goal=goal, level=level, risk=risk, epsilon=epsilon, seed=seed, model=model
    )
    return replace(calibration, fitted_to=str(predictions))


@read_once()
def _read(path: Path, truth: TruthFile) -> tuple[tuple[str, ...], Tensor, Tensor, str | None]:
    """Class names, probabilities and targets (M, C), and whose they are."""
    if path.name.startswith("test"):
        raise ConfigError(f"{path} looks like the test split; what is chosen there is no test: use val_predictions.csv")
    names, labels, (model,) = read_all([path], truth)
    scores, labels = match(model, labels)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ConfigError(f"{path} holds scores outside [0, 1]; probabilities are calibrated, so apply a sigmoid first")
    return names, scores, labels.targets, model.model


def _print(calibration: Calibration, probs: Tensor, targets: Tensor) -> None:
    probs, targets = labelled(probs, targets)
    calibrated, chosen = calibration.decide(probs)
    before, after = classwise_calibration_error(probs, targets), classwise_calibration_error(calibrated, targets)
    out = console()
    title = f"{calibration.images} images; thresholds for {calibration.goal}; these numbers are of the data fitted to"
    header, rows = ["class", "cwECE", "after", "scaled by", "threshold", "P", "R", "pos"], []
    for c, name in enumerate(calibration.class_names):
        positive, predicted = targets[:, c] == POSITIVE, chosen[:, c] & known(targets[:, c])
        hits = (positive & predicted).sum().double()
        rates = (hits / predicted.sum(), hits / positive.sum())
        errors, rest = (
            ["-" if cell != cell else f"{cell:.3f}" for cell in cells]
            for cells in ((before[c], after[c]), (calibration.thresholds[c], *rates))
        )
        rows.append([name, *errors, calibration.scaled_by[c], *rest, str(int(positive.sum()))])
    print_table(out, header, rows, title)
    judged = evaluable(targets)
    means = " to ".join(f"{float(errors[judged].mean()):.4f}" for errors in (before, after))
    out.print(f"classwise ECE (cwECE), mean of {int(judged.sum())} classes: {means}")
    both = (float(expected_calibration_error(given, targets)) for given in (probs, calibrated))
    out.print(f"ECE, of all entries together: {' to '.join(f'{value:.4f}' for value in both)}")
    _print_promises(calibration, calibrated, out)


def _print_promises(calibration: Calibration, calibrated: Tensor, out: Console) -> None:
    promise = f"sets that miss {100 * calibration.missed_risk:g} % of an image's labels at most"
    if calibration.missed_threshold is not None:
        size = calibration.covering(calibrated).double().sum(dim=1).mean()
        at = f"probability >= {calibration.missed_threshold:.4f}, {size:.1f} classes on average"
        out.print(f"{promise}: {at}")
    if calibration.not_promised:
        out.print(f"{promise} {calibration.cannot_promise()}")
    sets = calibration.label_sets()
    if sets is None or math.isinf(sets.bound):
        why = calibration.no_powerset or "so few images have all their labels known: any set may be the true one"
        out.print(f"conformal label sets cannot be promised, because {why}")
    else:
        every, some = sets.certain(calibrated)
        open_classes = (some & ~every).double().sum(dim=1)
        out.print(
            f"conformal label sets, {100 * (1 - sets.epsilon):g} % cover the truth: {torch.median(open_classes):.0f} "
            "classes open in the median image"
        )  # fmt: skip
