"""What is true where several people have answered, and how good each of them is: `mlcv audit --votes`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from mlcv.audits.annotators import Consensus, calibrated, dawid_skene, majority, raykar
from mlcv.audits.crowdlab import LEAST_WEIGHT, crowdlab
from mlcv.audits.votes import MAYBE, NO, YES, Votes
from mlcv.errors import ConfigError, DataError, check_choice
from mlcv.files import write_table
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, States
from mlcv.posthoc.predictions import read_predictions
from mlcv.runs import check_writable
from mlcv.tables import Codes, Table, column_states, printable, read_table
from mlcv.terminal import console, print_table, set_up_logging

logger = logging.getLogger(__name__)

Method = Literal["raykar", "dawid_skene", "majority", "crowdlab"]
METHODS = ("raykar", "dawid_skene", "majority", "crowdlab")

_IMAGES = ("image", "image_id", "path", "file", "filename", "study", "item", "id")
_PEOPLE = (
    "annotator",
    "annotator_id",
    "rater",
    "rater_id",
    "reader",
    "reader_id",
    "worker",
    "worker_id",
    "user",
    "who",
)
_CLASSES = ("class", "label", "finding", "question")
_ANSWERS = ("answer", "vote", "value", "response", "decision")
_CODES = Codes(uncertain=("maybe", "uncertain", "unsure", "-1"))
_ANSWER_OF = {POSITIVE: YES, NEGATIVE: NO, UNCERTAIN: MAYBE}


@dataclass(frozen=True)
class Answers:
    """A table of votes, understood.

    Args:
        images: N names.
        class_names: C names.
        people: J names.
        votes: items are image times C plus class.
    """

    images: tuple[str, ...]
    class_names: tuple[str, ...]
    people: tuple[str, ...]
    votes: Votes

    @property
    def classes(self) -> NDArray[np.intp]:
        """Class of each item."""
        return np.tile(np.arange(len(self.class_names)), len(self.images))


@dataclass(frozen=True)
class Agreed:
    """What annotators say together.

    Args:
        folder: of `labels.csv` and `annotators.csv`.
        answers: theirs.
        method: by which.
        consensus: what came out.
        probability: (N, C), that the answer is yes; NaN where nobody answered.
    """

    folder: Path
    answers: Answers
    method: Method
    consensus: Consensus
    probability: NDArray[np.float64]


def agree(
    file: str | Path,
    predictions: str | Path | None = None,
    *,
    method: Method | None = None,
    pooled: bool = False,
    soft: bool = False,
    sure: float = 0.5,
    out: str | Path | None = None,
) -> Agreed:
    """Makes one label of several people's answers, and says how good each of them is.

    Args:
        file: CSV: a row an image and annotator with a column a class; or a row an answer (image, annotator, class,
            answer); or an image a row and a column an annotator, of one class. Answers are yes, no, maybe (1, 0, -1);
            blank where nobody asked.
        predictions: of a model that did not learn from these labels: with `raykar` and `crowdlab` it has a say.
        method: `raykar` where there are predictions, else `dawid_skene`, if None; or `majority`, or `crowdlab`.
        pooled: annotators are as good at all classes; for few votes a class.
        soft: write probabilities in place of 1, 0 and blank.
        sure: least probability of a label that is written; below it is unknown.
        out: folder; that of the table if None.

    Raises:
        UserError: for a table that cannot be read as meant.
    """
    set_up_logging()
    path = Path(file)
    if method is not None:
        check_choice("method", method, METHODS)
    chosen: Method = method or ("dawid_skene" if predictions is None else "raykar")
    if chosen in ("raykar", "crowdlab") and predictions is None:
        raise ConfigError(f"audit: --method {chosen} needs predictions of a model")
    if not 0.5 <= sure < 1:
        raise ConfigError(f"sure is a probability from 0.5 to below 1, got {sure}")
    folder = path.parent if out is None else Path(out)
    check_writable(folder, "--out")
    answers = _read(path)
    groups = None if pooled else answers.classes
    if chosen == "majority":
        consensus = majority(answers.votes, groups)
    elif chosen == "dawid_skene":
        consensus = dawid_skene(answers.votes, groups)
    else:
        prior = _prior(Path(predictions or ""), answers)
        consensus = (raykar if chosen == "raykar" else crowdlab)(answers.votes, prior, groups)
    shape = len(answers.images), len(answers.class_names)
    found = Agreed(folder, answers, chosen, consensus, consensus.probability.reshape(shape))
    _write(found, soft, sure, pooled)
    return found


def show_agreed(found: Agreed) -> None:
    """Prints each annotator, and what was written."""
    out, rates = console(), found.consensus.rates
    names = found.answers.class_names if len(rates.votes) > 1 else ("all classes",)
    rows = [
        [
            f"{person}, {name}" if len(names) > 1 else person,
            str(rates.votes[g, j]),
            _interval(rates.sensitivity[g, j], rates.sensitivity_interval[g, j]),
            _interval(rates.specificity[g, j], rates.specificity_interval[g, j]),
        ]
        for j, person in enumerate(found.answers.people)
        for g, name in enumerate(names)
        if rates.votes[g, j]
    ]
    print_table(
        out, ["annotator", "votes", "sensitivity", "specificity"], rows, everything=found.folder / "annotators.csv"
    )
    p = found.probability[~np.isnan(found.probability)]
    votes = found.answers.votes
    out.print(
        f"\n{len(votes.item)} votes on {len(p)} entries by {found.method}: {(p > 0.5).sum()} are present, "
        f"{(np.abs(p - 0.5) < 0.4).sum()} are doubtful (0.1 to 0.9)", soft_wrap=True,
    )  # fmt: skip
    if found.method == "crowdlab" and found.consensus.weight is not None:
        ignored = np.atleast_1d((found.consensus.weight <= LEAST_WEIGHT).any(axis=1))
        if ignored.any():
            named = [names[g] for g in np.flatnonzero(ignored)]
            out.print(
                f"crowdlab gives annotators no weight in {', '.join(named)}, where they do no better than the "
                "commonest answer: rare classes are the model's alone; --method raykar never ignores a reader",
                soft_wrap=True,
            )  # fmt: skip
    out.print(f"labels.csv, annotators.csv: {found.folder}", soft_wrap=True)


def _interval(rate: float, interval: NDArray[np.float64]) -> str:
    return "-" if np.isnan(rate) else f"{rate:.2f} ({interval[0]:.2f}-{interval[1]:.2f})"


def _read(path: Path) -> Answers:
    table = read_table(path)
    image, person = _column(table, _IMAGES), _column(table, _PEOPLE)
    if image is None:
        raise DataError(f"{path}: no column names the image; it is one of {', '.join(_IMAGES)}")
    names = [name for name in table.names if name not in (image, person)]
    if person is None:
        logger.info("%s: a column an annotator (%s), of one class", path, ", ".join(names[:8]))
        states = column_states(table, names, _CODES)
        return _answers(table, [image], states, people=names, class_names=[path.stem])
    by_class, answer = _column(table, _CLASSES), _column(table, _ANSWERS)
    if by_class is not None and answer is not None:
        logger.info("%s: a row an answer: columns %s, %s, %s, %s", path, image, person, by_class, answer)
        return _answers(table, [image, person, by_class], column_states(table, [answer], _CODES))
    logger.info("%s: a row an image and annotator; classes %s", path, ", ".join(names[:8]))
    return _answers(table, [image, person], column_states(table, names, _CODES), class_names=names)


def _column(table: Table, names: Sequence[str]) -> str | None:
    lower = {name.strip().lower(): name for name in table.names}
    return next((lower[name] for name in names if name in lower), None)


def _answers(
    table: Table,
    keys: Sequence[str],
    states: States,
    people: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Answers:
    """Votes from cells (rows, columns), of which columns are people, classes or the one answer."""
    named = [[cell.strip() for cell in table.column(key)] for key in keys]
    for key, cells in zip(keys, named, strict=True):
        if "" in cells:
            raise DataError(f"{table.where(cells.index(''))}: column {key!r} is empty")
    row, column = np.nonzero(states != UNKNOWN)
    images, image = _places(named[0])
    if people is not None:
        everyone, who, of_class = tuple(people), column, np.zeros(len(row), np.intp)
    else:
        everyone, of_row = _places(named[1])
        who = of_row[row]
        of_class = column
    if class_names is None:
        classes, of_row = _places(named[2])
        of_class = of_row[row]
    else:
        classes = tuple(class_names)
    if not len(row):
        raise DataError(f"{table.path}: there is no answer in it")
    item = image[row] * len(classes) + of_class
    given = np.array([_ANSWER_OF[state] for state in states[row, column].tolist()])
    _check_once(table, row, item * len(everyone) + who, everyone, who)
    return Answers(images, classes, everyone, Votes(item, who, given, len(images) * len(classes), len(everyone)))


def _places(cells: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Names in the order in which they come, and the place of each cell's."""
    found = {name: place for place, name in enumerate(dict.fromkeys(cells))}
    return tuple(found), np.array([found[cell] for cell in cells], np.intp)


def _check_once(
    table: Table, row: NDArray[np.intp], key: NDArray[Any], people: Sequence[str], who: NDArray[np.intp]
) -> None:
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(np.diff(key[order]) == 0)
    if len(again):
        one, other = order[again[0]], order[again[0] + 1]
        raise DataError(
            f"{table.where(int(row[other]))}: {people[who[other]]!r} has answered that already, in "
            f"{table.where(int(row[one]))}; leave one of them out"
        )


def _prior(path: Path, answers: Answers) -> NDArray[np.float64]:
    """A model's probability of yes for each item, calibrated by votes on others."""
    model = read_predictions(path, answers.class_names)
    places = {name: row for row, name in enumerate(model.ids)}
    rows = [places.get(name, -1) for name in answers.images]
    if -1 in rows:
        absent = answers.images[rows.index(-1)]
        raise DataError(f"{path}: no prediction for {printable(absent)}, as of {rows.count(-1)} of {len(rows)} images")
    scores = model.scores.numpy()[rows]
    is_probability = (scores >= 0).all() and (scores <= 1).all()
    logits = logit(np.clip(scores, 1e-15, 1 - 1e-15)) if is_probability else scores
    return calibrated(logits.ravel(), answers.votes.share, answers.classes)


def _write(found: Agreed, soft: bool, sure: float, pooled: bool) -> None:
    answers, rates = found.answers, found.consensus.rates
    shape = found.probability.shape
    if soft:
        cells = [["" if np.isnan(p) else f"{p:.4g}" for p in row] for row in found.probability]
    else:
        states = found.consensus.states(sure).reshape(shape)
        cells = [["" if state == UNKNOWN else str(state) for state in row] for row in states]
    rows = ([printable(image), *row] for image, row in zip(answers.images, cells, strict=True))
    write_table(found.folder / "labels.csv", ["image", *answers.class_names], rows, keep=True)
    names = ("",) if pooled else answers.class_names
    header = ["annotator", "class", "votes", "sensitivity", "sensitivity_low", "sensitivity_high"]
    header += ["specificity", "specificity_low", "specificity_high"]
    table = (
        [person, name, int(rates.votes[g, j])]
        + [
            f"{value:.4g}"
            for value in (
                rates.sensitivity[g, j], *rates.sensitivity_interval[g, j],
                rates.specificity[g, j], *rates.specificity_interval[g, j],
            )
        ]
        for j, person in enumerate(answers.people)
        for g, name in enumerate(names)
    )  # fmt: skip
    write_table(found.folder / "annotators.csv", header, table, keep=True)
