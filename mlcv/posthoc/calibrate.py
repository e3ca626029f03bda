"""`mlcv calibrate`: from validation predictions to probabilities, thresholds and sets that keep their promises."""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as Grid
from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.states import POSITIVE, evaluable, known
from mlcv.posthoc.calibrated import FILE_NAME, Calibration
from mlcv.posthoc.calibration import calibration_error, fit_scaling
from mlcv.posthoc.conformal import Powerset, choose_power, control_missed, only_positives
from mlcv.posthoc.judge import match
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.thresholds import choose_class_thresholds
from mlcv.posthoc.truth import add_truth_options, whole_number
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
    images that nothing else was fitted to; thresholds are chosen on all. Images without any known label are left out
    before anything is drawn.

    Raises:
        ConfigError: if no class has a known positive and a known negative, so that nothing can be calibrated.
    """
    probs, targets = _labelled(probs, targets)
    if not evaluable(targets).any():
        raise ConfigError(
            "0 classes could be calibrated: none has both a known positive and a known negative label; give --truth "
            "with more labels, or --blank negative if blank cells mean absent"
        )
    order = torch.from_numpy(np.random.default_rng(options.seed).permutation(len(probs)))
    first, second = order.tensor_split(2)
    scaling = fit_scaling(probs[first], targets[first], options.method, options.seed)
    calibrated = scaling(probs)
    thresholds = choose_class_thresholds(calibrated, targets, options.goal, options.level)
    fresh, labels = calibrated[second], targets[second]
    few_missed = control_missed(fresh, labels, options.risk)
    powerset, no_powerset = None, ""
    odd = only_positives(targets) | only_positives(labels)
    if odd.any():
        those = ", ".join(name for name, is_odd in zip(names, odd.tolist(), strict=True) if is_odd)
        no_powerset = f"only positive labels of {those} are known, so that images known whole are those that have them"
    elif not all(known(targets[part]).all(dim=1).any() for part in (first, second)):
        no_powerset = "no image, or just one, has all its labels known"
    else:
        power = choose_power(calibrated[first], targets[first], options.epsilon)
        powerset = Powerset.calibrate(fresh, labels, options.epsilon, power)
    return Calibration(
        names,
        tuple(scaling.slope.tolist()),
        tuple(scaling.offset.tolist()),
        scaling.scaled_by,
        tuple(thresholds.tolist()),
        options.goal if options.goal == "f1" else f"{options.goal} of {options.level:g}",
        few_missed.threshold,
        options.risk,
        {name: reason for name, reason in zip(names, few_missed.why_not, strict=True) if reason},
        None if powerset is None else {"bound": powerset.bound, "power": powerset.power, "epsilon": powerset.epsilon},
        no_powerset,
        len(probs),
    )


def _labelled(probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Images with any known label."""
    rows = known(targets).any(dim=1)
    return probs[rows], targets[rows]


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
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the halves, and of the parts that judge scalings"
    )
    parser.add_argument("--out", type=Path, help=f"the file (default: {FILE_NAME} beside the predictions)")
    return parser


def _print(calibration: Calibration, probs: Tensor, targets: Tensor) -> None:
    probs, targets = _labelled(probs, targets)
    calibrated, chosen = calibration.decide(probs)
    before, after = calibration_error(probs, targets), calibration_error(calibrated, targets)
    out = console()
    title = f"{calibration.images} images; thresholds for {calibration.goal}; these numbers are of the data fitted to"
    grid = Grid("class", "ECE before", "after", "scaled by", "threshold", "P", "R", "pos.", title=title)
    for c, name in enumerate(calibration.class_names):
        positive, predicted = targets[:, c] == POSITIVE, chosen[:, c] & (targets[:, c] >= 0)
        hits = (positive & predicted).sum().double()
        rates = (hits / predicted.sum(), hits / positive.sum())
        errors, rest = (
            ["-" if cell != cell else f"{cell:.3f}" for cell in cells]
            for cells in ((before[c], after[c]), (calibration.thresholds[c], *rates))
        )
        grid.add_row(name, *errors, calibration.scaled_by[c], *rest, str(int(positive.sum())))
    out.print(grid)
    judged = evaluable(targets)
    means = " to ".join(f"{float(errors[judged].mean()):.4f}" for errors in (before, after))
    out.print(f"expected calibration error, mean of {int(judged.sum())} classes: {means}")
    _print_promises(calibration, calibrated, out)


def _print_promises(calibration: Calibration, calibrated: Tensor, out: Console) -> None:
    promise = f"sets that miss {100 * calibration.missed_risk:g} % of an image's labels at most"
    if calibration.missed_threshold is not None:
        size = calibration.covering(calibrated).double().sum(dim=1).mean()
        at = f"probability >= {calibration.missed_threshold:.4f}, {size:.1f} classes on average"
        out.print(f"{promise}: {at}", soft_wrap=True)
    if calibration.not_promised:
        out.print(f"{promise} {calibration.cannot_promise()}", soft_wrap=True)
    sets = calibration.label_sets()
    if sets is None or math.isinf(sets.bound):
        why = calibration.no_powerset or "so few images have all their labels known: any set may be the true one"
        out.print(f"conformal label sets cannot be promised, because {why}", soft_wrap=True)
    else:
        every, some = sets.certain(calibrated)
        open_classes = (some & ~every).double().sum(dim=1)
        out.print(
            f"conformal label sets, {100 * (1 - sets.epsilon):g} % cover the truth: {torch.median(open_classes):.0f} "
            "classes open in the median image",
            soft_wrap=True,
        )  # fmt: skip
