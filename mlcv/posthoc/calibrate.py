"""`mlcv calibrate`: from validation predictions to probabilities, thresholds and sets that keep their promises."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.table import Table as Grid
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import POSITIVE, evaluable
from mlcv.posthoc.calibrated import FILE_NAME, Calibration
from mlcv.posthoc.calibration import calibration_error, fit_scaling
from mlcv.posthoc.conformal import Powerset, choose_power, control_missed
from mlcv.posthoc.judge import match
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.thresholds import choose_class_thresholds
from mlcv.posthoc.truth import add_truth_options
from mlcv.terminal import console


def main(arguments: list[str]) -> None:
    """Reads, fits, prints and writes.

    Raises:
        UserError: for files that are missing or malformed, or do not fit together.
    """
    options = _parser().parse_args(arguments)
    path: Path = options.predictions[0]
    if path.name.startswith("test"):
        raise ConfigError(f"{path} looks like the test split; what is chosen there is no test: use val_predictions.csv")
    names, truth, (model,) = read_all(options)
    scores, truth = match(model, truth)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ConfigError(f"{path} holds scores outside [0, 1]; probabilities are calibrated, so apply a sigmoid first")
    out = options.out or path.with_name(FILE_NAME)
    calibration = replace(calibrate(scores, truth.targets, names, options), model=model.model)
    calibration.save(out)
    _print(calibration, scores, truth.targets)
    console().print(f"calibration: {out}", soft_wrap=True)


def calibrate(probs: Tensor, targets: Tensor, names: tuple[str, ...], options: argparse.Namespace) -> Calibration:
    """Everything from one set of validation predictions, probs (M, C) and targets (M, C) in {0, 1, -1}.

    A drawn half of the images fits the scaling and the kind of sets, the other half their sizes, whose guarantees need
    images that nothing else was fitted to; thresholds are chosen on all.
    """
    order = torch.from_numpy(np.random.default_rng(options.seed).permutation(len(probs)))
    first, second = order.tensor_split(2)
    scaling = fit_scaling(probs[first], targets[first], options.method)
    calibrated = scaling(probs)
    thresholds = choose_class_thresholds(calibrated, targets, options.goal, options.level)
    fresh, labels = calibrated[second], targets[second]
    powerset = None
    if all((targets[part] >= 0).all(dim=1).any() for part in (first, second)):
        power = choose_power(calibrated[first], targets[first], options.epsilon)
        powerset = Powerset.calibrate(fresh, labels, options.epsilon, power)
    return Calibration(
        names,
        tuple(scaling.slope.tolist()),
        tuple(scaling.offset.tolist()),
        tuple(thresholds.tolist()),
        options.goal if options.goal == "f1" else f"{options.goal} of {options.level:g}",
        control_missed(fresh, labels, options.risk),
        options.risk,
        None if powerset is None else {"bound": powerset.bound, "power": powerset.power, "epsilon": powerset.epsilon},
        len(probs),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv calibrate",
        description="Fits probabilities, thresholds and conformal sets to validation predictions; predict uses them.",
    )
    parser.add_argument(
        "predictions", type=Path, nargs=1, help="val_predictions.csv of `mlcv validate`, or any CSV of them"
    )
    add_truth_options(parser)
    parser.add_argument("--method", choices=["temperature", "platt", "none"], default="platt", help="of the scaling")
    parser.add_argument("--goal", choices=["f1", "precision", "recall"], default="f1", help="of the thresholds")
    parser.add_argument("--level", type=float, default=0.9, help="of precision or recall (default: 0.9)")
    parser.add_argument("--risk", type=float, default=0.1, help="part of the labels that sets may miss (default: 0.1)")
    parser.add_argument("--epsilon", type=float, default=0.1, help="how often the true label set may be left out (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the halves")
    parser.add_argument("--out", type=Path, help=f"the file (default: {FILE_NAME} beside the predictions)")
    return parser


def _print(calibration: Calibration, probs: Tensor, targets: Tensor) -> None:
    calibrated, chosen = calibration.decide(probs)
    before, after = calibration_error(probs, targets), calibration_error(calibrated, targets)
    out = console()
    title = f"{calibration.images} images; thresholds for {calibration.goal}; these numbers are of the data fitted to"
    grid = Grid("class", "ECE before", "after", "threshold", "P", "R", "positives", title=title)
    for c, name in enumerate(calibration.class_names):
        positive, predicted = targets[:, c] == POSITIVE, chosen[:, c] & (targets[:, c] >= 0)
        hits = (positive & predicted).sum().double()
        rates = (hits / predicted.sum(), hits / positive.sum())
        cells = (before[c], after[c], calibration.thresholds[c], *rates)
        grid.add_row(name, *("-" if cell != cell else f"{cell:.3f}" for cell in cells), str(int(positive.sum())))
    out.print(grid)
    judged = evaluable(targets)
    means = " to ".join(f"{float(errors[judged].mean()):.4f}" for errors in (before, after))
    out.print(f"expected calibration error, mean of {int(judged.sum())} classes: {means}")
    size = calibration.covering(calibrated).double().sum(dim=1).mean()
    out.print(
        f"sets that miss {100 * calibration.missed_risk:g} % of an image's labels at most: probability >= "
        f"{calibration.missed_threshold:.4f}, {size:.1f} classes on average",
        soft_wrap=True,
    )  # fmt: skip
    sets = calibration.label_sets()
    if sets is not None:
        every, some = sets.certain(calibrated)
        open_classes = (some & ~every).double().sum(dim=1)
        out.print(
            f"conformal label sets, {100 * (1 - sets.epsilon):g} % cover the truth: {torch.median(open_classes):.0f} "
            "classes open in the median image",
            soft_wrap=True,
        )  # fmt: skip
