"""`mlcv audit --votes`: labels from several people's answers, and how good each of them is."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from mlcv.audits.annotators import Consensus, calibrated, dawid_skene, majority, raykar
from mlcv.audits.crowdlab import LEAST_WEIGHT, crowdlab
from mlcv.audits.votes import MAYBE
from mlcv.commands.votes_file import Answers, VotesFile, read_votes
from mlcv.errors import ConfigError, DataError, check_choice, listed
from mlcv.files import unshielded, write_table
from mlcv.labels.states import UNKNOWN
from mlcv.posthoc.predictions import read_predictions
from mlcv.posthoc.studies import image_key
from mlcv.runs import check_writable
from mlcv.tables import printable, read_header
from mlcv.terminal import console, print_table, set_up_logging

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Method = Literal["raykar", "dawid_skene", "majority", "crowdlab"]
RatesOf = Literal["auto", "classes", "all"]

_ENOUGH = 50
"""Votes of an annotator on a class, from which rates of that class are estimated rather than of all together."""
_FEW = 15
"""Votes of an annotator, below which little tells how good each is."""
_MANY = 20
"""Votes an entry, from which their plain share ranked better than Dawid and Skene's estimate on real answers."""
_SURE = 0.99


@dataclass(frozen=True)
class Agreed:
    """What an audit of votes has found.

    Args:
        folder: of its files.
        answers: as they were read.
        method: that was used.
        consensus: of the pairs of `answers`; rates have a row a class, or one for all.
        is_by_class: which of the two.
        states: (M, C), the labels.
    """

    folder: Path
    answers: Answers
    method: Method
    consensus: Consensus
    is_by_class: bool
    states: NDArray[np.int8]


def agree(
    source: VotesFile,
    predictions: str | Path | Sequence[str | Path] = (),
    *,
    method: Method | None = None,
    out: str | Path | None = None,
    rates_of: RatesOf = "auto",
    sure: float = 0.5,
    soft: bool = False,
    seed: int = 0,
) -> Agreed:
    """Writes the labels that several people's answers give, and each one's sensitivity and specificity.

    Args:
        source: of the answers.
        predictions: of a model, for `raykar` and `crowdlab`; of several, logits are averaged.
        method: `raykar` with predictions, else `dawid_skene`, if None.
        out: folder; that of the answers if None, where names of images lead somewhere from `labels.csv`, too.
        rates_of: annotators have rates for each class, or one for all; by how many votes there are if `auto`.
        sure: probability that a label must exceed; others stay blank.
        soft: writes the probability, a soft label, where it is less than .99 sure.
        seed: of the parts by which predictions are calibrated.

    Raises:
        UserError: for files or options that cannot be used.
    """
    set_up_logging()
    paths = listed(predictions) if predictions else []
    method = method or ("raykar" if paths else "dawid_skene")
    check_choice("method", method, get_args(Method))
    check_choice("rates_of", rates_of, get_args(RatesOf))
    if not 0.5 <= sure < 1:
        raise ConfigError(f"--sure is a probability from 0.5 on, got {sure}")
    if (method in ("raykar", "crowdlab")) != bool(paths):
        needs = "needs a model's, give them with" if not paths else "uses no model: leave out"
        raise ConfigError(f"audit: --method {method} {needs} --predictions")
    folder = Path(out) if out is not None else source.paths[0].parent
    check_writable(folder, "--out")
    answers = read_votes(source)
    prior = None
    if paths:
        answers, logits = _with_logits(answers, paths)
        share = answers.votes.share
        prior = calibrated(logits, share, answers.column, seed)
    consensus, is_by_class = _consensus(answers, method, prior, rates_of)
    states = _states(answers, consensus, sure)
    found = Agreed(folder, answers, method, consensus, is_by_class, states)
    _write(found, soft)
    return found


def show_agreed(found: Agreed) -> None:
    """Prints annotators, and where the files are."""
    out, answers = console(), found.answers
    rows = [
        [f"{name}: {group}" if found.is_by_class else name, str(votes), *(f"{_percent(one)}" for one in shares)]
        for name, group, votes, *shares in _rates(found)
    ]
    header = ["annotator: class" if found.is_by_class else "annotator", "votes", "sensitivity, %", "specificity, %"]
    print_table(out, header, rows, everything=found.folder / "annotators.csv")
    asked = len(answers.image)
    counts = [int((found.states == value).sum()) for value in (1, 0)]
    out.print(
        f"\n{len(answers.votes.item)} answers of {len(answers.annotators)} people on {asked} labels of "
        f"{len(answers.images)} images ({found.method}): {counts[0]} present, {counts[1]} absent, "
        f"{asked - sum(counts)} not decided", soft_wrap=True,
    )  # fmt: skip
    out.print(
        "sensitivity: yes where it is present; specificity: no where it is absent; in brackets 95 %. A maybe is "
        "neither.", soft_wrap=True,
    )  # fmt: skip
    out.print(f"labels.csv, probabilities.csv, annotators.csv: {found.folder}", soft_wrap=True)


def _with_logits(answers: Answers, paths: Sequence[Path]) -> tuple[Answers, Array]:
    """Answers on classes that the model knows, and its logit for each pair; the mean of several models."""
    headers = [{unshielded(name) for name in read_header(path)} for path in paths]
    names = [name for name in answers.class_names if all(name in header for header in headers)]
    if not names:
        raise DataError(
            f"{printable(paths[0])}: no column is one of the classes of the votes, {', '.join(answers.class_names[:8])}"
        )
    if len(names) < len(answers.class_names):
        left = [name for name in answers.class_names if name not in names]
        logger.warning("no predictions for %s, which are left out", ", ".join(left))
        answers = _restricted(answers, names)
    total = np.zeros((len(answers.images), len(names)))
    for path in paths:
        model = read_predictions(path, names)
        place = {image_key(printable(name)): row for row, name in enumerate(model.ids)}
        rows = [place.get(image_key(printable(name))) for name in answers.images]
        if None in rows:
            missing = answers.images[rows.index(None)]
            raise DataError(f"{printable(path)}: no predictions for {printable(missing)}, which has votes")
        scores = model.scores.numpy()[np.array(rows, np.intp)]
        if (scores >= 0).all() and (scores <= 1).all():
            scores = logit(scores.clip(1e-15, 1 - 1e-15))
        else:
            logger.info("%s holds scores beyond 0 and 1, which are taken for logits", path)
        total += scores / len(paths)
    return answers, total[answers.image, answers.column]


def _restricted(answers: Answers, names: Sequence[str]) -> Answers:
    """Answers on these classes; images and annotators without any are left out."""
    new = np.array([names.index(name) if name in names else -1 for name in answers.class_names])
    votes, kept = answers.votes, new[answers.column] >= 0
    chosen = kept[votes.item]
    pair, image = np.flatnonzero(kept), answers.image[kept]
    shown, image = np.unique(image, return_inverse=True)
    who, annotator = np.unique(votes.annotator[chosen], return_inverse=True)
    item = np.searchsorted(pair, votes.item[chosen])
    return Answers(
        [answers.images[place] for place in shown], list(names), [answers.annotators[place] for place in who],
        type(votes)(item, annotator, votes.answer[chosen], len(pair), len(who)), image, new[answers.column[kept]],
    )  # fmt: skip


def _consensus(answers: Answers, method: Method, prior: Array | None, rates_of: RatesOf) -> tuple[Consensus, bool]:
    votes, names = answers.votes, answers.class_names
    pairs = np.unique(answers.column[votes.item] * votes.num_annotators + votes.annotator, return_counts=True)[1]
    is_by_class = rates_of == "classes" or (rates_of == "auto" and float(np.median(pairs)) >= _ENOUGH)
    if method == "crowdlab":
        is_by_class = True
    logger.info(
        "annotators are judged %s: a median of %d votes of one on a class",
        "class by class" if is_by_class else "over all classes together", np.median(pairs),
    )  # fmt: skip
    classes = answers.column if is_by_class else None
    if method in ("raykar", "dawid_skene") and votes.count.mean() >= _MANY:
        logger.warning(
            "%.0f votes a label: where so many agree to err together, %s is too sure of itself; compare with --method "
            "majority", votes.count.mean(), method,
        )  # fmt: skip
    if method == "majority":
        return majority(votes, classes), is_by_class
    own = pairs if is_by_class else np.bincount(votes.annotator)
    if method in ("raykar", "dawid_skene") and np.median(own) < _FEW:
        logger.warning(
            "a median of %d votes an annotator%s: too few to tell how good each of them is, so that all count about "
            "alike%s", np.median(own), " on a class" if is_by_class else "",
            ", and a model that is sure outvotes them" if method == "raykar" else "",
        )  # fmt: skip
    if method == "raykar" and prior is not None:
        return raykar(votes, prior, classes), is_by_class
    met = votes.select(votes.answer != MAYBE).count > 1 if method == "crowdlab" else votes.count > 1
    needed = answers.column.tolist() if classes is not None else []  # a class may have no answer at all
    alone = sorted(set(needed) - set(answers.column[met].tolist()))
    if alone or not met.any():
        remedy = "give a model's --predictions" if prior is None else "leave --method out"
        raise DataError(
            f"--votes: no two annotators have answered on the same image{f' of {names[alone[0]]}' if alone else ''}, "
            f"so nothing tells how good each of them is: {remedy}, or --method majority"
        )
    if method == "dawid_skene" or prior is None:
        return dawid_skene(votes, classes), is_by_class
    found = crowdlab(votes, prior, classes)
    _warn_of_dropped(found, names, answers.annotators)
    return found, is_by_class


def _warn_of_dropped(found: Consensus, names: Sequence[str], annotators: Sequence[str]) -> None:
    # Without `strict`: there are no weights of classes behind the last that has an answer.
    for name, weights in zip(names, found.weight if found.weight is not None else (), strict=False):
        lost = [who for who, weight in zip(annotators, weights, strict=True) if weight <= LEAST_WEIGHT]
        if lost:
            everybody = "everybody" if len(lost) == np.isfinite(weights).sum() else ", ".join(lost)
            logger.warning(
                "crowdlab gives no weight to %s on %s, as no better than the commonest answer: what is left is the "
                "model; raykar ignores nobody", everybody, name,
            )  # fmt: skip


def _states(answers: Answers, consensus: Consensus, sure: float) -> NDArray[np.int8]:
    states = np.full((len(answers.images), len(answers.class_names)), UNKNOWN, np.int8)
    states[answers.image, answers.column] = consensus.states(sure)
    return states


def _write(found: Agreed, soft: bool) -> None:
    answers, folder = found.answers, found.folder
    probability = np.full(found.states.shape, np.nan, np.float32)
    probability[answers.image, answers.column] = found.consensus.probability
    cells = np.array(["", "0", "1"], object)[found.states + 1]
    if soft:
        # With --sure above that, what is less sure is soft, too: blank it would be lost.
        unsure = (np.abs(probability - 0.5) < _SURE - 0.5) | ((found.states == UNKNOWN) & ~np.isnan(probability))
        # Rounded to 0 or 1 it would be sure.
        cells[unsure] = [f"{p:.4g}" for p in probability[unsure].clip(1e-4, 1 - 1e-4).tolist()]
    images = [printable(name) for name in answers.images]
    header = ["image", *answers.class_names]
    rows = ([name, *row.tolist()] for name, row in zip(images, cells, strict=True))
    write_table(folder / "labels.csv", header, rows, keep=True, shield=False)
    rows = (
        [name, *("" if np.isnan(p) else f"{p:.4g}" for p in row.tolist())]
        for name, row in zip(images, probability, strict=True)
    )
    write_table(folder / "probabilities.csv", header, rows, keep=True)
    columns = [f"{what}{end}" for what in ("sensitivity", "specificity") for end in ("", "_low", "_high")]
    rates = (
        [name, group, votes, *("" if np.isnan(rate) else f"{rate:.4g}" for one in shares for rate in one)]
        for name, group, votes, *shares in _rates(found)
    )
    write_table(folder / "annotators.csv", ["annotator", "class", "votes", *columns], rates, keep=True)


def _rates(found: Agreed) -> list[tuple[Any, ...]]:
    """Annotator, class, votes, and twice a rate with the ends of its interval."""
    rates, names = found.consensus.rates, found.answers.class_names if found.is_by_class else ["all"]
    names = names[: len(rates.votes)]  # there are none of classes behind the last that has an answer
    return [
        (
            who, group, int(rates.votes[g, j]),
            (rates.sensitivity[g, j], *rates.sensitivity_interval[g, j]),
            (rates.specificity[g, j], *rates.specificity_interval[g, j]),
        )
        for g, group in enumerate(names) for j, who in enumerate(found.answers.annotators) if rates.votes[g, j]
    ]  # fmt: skip


def _percent(share: tuple[float, float, float]) -> str:
    rate, low, high = (100 * one for one in share)
    return "" if np.isnan(rate) else f"{rate:.0f} ({low:.0f}-{high:.0f})"
