"""What people have decided on a page of `mlcv audit`, for the next audit."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlcv.audits.review import Review, revise
from mlcv.commands.audit_files import Part
from mlcv.data.corrections import COLUMNS, DECISIONS, STATE_CELLS
from mlcv.data.items import Files
from mlcv.data.paths import Places
from mlcv.errors import DataError
from mlcv.files import unshielded
from mlcv.labels.states import UNCERTAIN, known
from mlcv.tables import Codes, column_states, printable, read_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """A row of a file of corrections.

    Args:
        image, class_name, split: of which entry; no split: of any.
        is_wrong: whether the label that was given then is wrong.
        given, label: states, the label then and what it is to be; None where the file does not say.
    """

    image: str
    class_name: str
    split: str
    is_wrong: bool
    given: int | None
    label: int | None

    def about(self, now: int) -> bool | None:
        """Whether the label that is given now is wrong; None where this says nothing of it."""
        if self.given is None or now == self.given:
            return self.is_wrong
        return False if now == self.label else None  # it has been corrected since


def read_decisions(path: Path) -> list[Decision]:
    """What a file of corrections says, but for what nobody was sure of."""
    table = read_table(path)
    if absent := [name for name in ("image", "class", "decision") if name not in table.names]:
        raise DataError(f"{path}: no column {absent[0]!r}; decisions are what the page saves as corrections.csv")
    splits = table.column("split") if "split" in table.names else [""] * len(table)
    has_labels = {"given", "label"} <= set(table.names)
    codes = Codes(uncertain=(STATE_CELLS[UNCERTAIN],))
    states = column_states(table, ["given", "label"], codes).tolist() if has_labels else [(None, None)] * len(table)
    cells = zip(table.column("image"), table.column("class"), splits, table.column("decision"), states, strict=True)
    found = []
    for row, (image, name, split, decision, (given, label)) in enumerate(cells):
        word = decision.strip().lower()
        if word not in DECISIONS:
            raise DataError(f"{table.where(row)}: column 'decision' holds {decision!r}; it is wrong, right or unsure")
        if word != "unsure":
            where = split.strip().lower()
            found.append(Decision(unshielded(image), unshielded(name), where, word == "wrong", given, label))
    return found


def _places_of(part: Part) -> Places[int]:
    named = [(name, row) for row, name in enumerate(part.names)]
    return Places(named, named if isinstance(part.items, Files) else [])


def earlier_rows(paths: Sequence[Path], parts: Sequence[Part]) -> list[dict[str, str]]:
    """The rows of files of corrections, an entry once, for the page: it saves them with what is decided there.

    They get the names and splits that the parts have, so that the page knows an entry that was decided before.

    Raises:
        DataError: if two files say different things of an entry.
    """
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    places = [_places_of(part) for part in parts] if paths else []
    for path in paths:
        table = read_table(path)
        columns = {
            name: [unshielded(cell) for cell in table.column(name)] if name in table.names else [""] * len(table)
            for name in (*COLUMNS, "split")
        }
        for number, cells in enumerate(zip(*columns.values(), strict=True)):
            row = dict(zip(columns, cells, strict=True))
            image, split = row["image"], row["split"].strip().lower()
            here = [
                (part.names[at[0]], part.split or split)
                for part, own in zip(parts, places, strict=True)
                if (not part.split or split in ("", part.split)) and len(at := own.find(image)) == 1
            ]
            if len(here) == 1:
                row["image"], row["split"] = here[0]
            before = found.setdefault((row["image"], row["class"], row["split"]), row)
            if any(before[name].strip() != row[name].strip() for name in ("given", "label", "decision")):
                raise DataError(
                    f"{table.where(number)}: {printable(image)}, class {row['class']!r} is decided differently "
                    f"in {printable(paths[0])}; leave one of the two out"
                )
    return list(found.values())


def revised(parts: Sequence[Part], decided: Sequence[Decision]) -> list[Part]:
    """With probabilities mended by what people have decided."""
    used: set[int] = set()
    found = []
    for part in parts:
        places = _places_of(part)
        columns = {name: column for column, name in enumerate(part.class_names)}
        reviews: list[Review] = []
        splits: dict[str, str] = {}
        for number, one in enumerate(decided):
            # A file of predictions does not say of which split it is.
            is_here = not part.split or one.split in ("", part.split)
            at, column = places.find(one.image), columns.get(one.class_name)
            if not is_here or len(at) != 1 or column is None or not known(part.states)[row := at[0], column]:
                continue
            if not part.split and splits.setdefault(one.image, one.split) != one.split:
                raise DataError(
                    f"--decisions: {one.image!r} is of several splits, and the predictions do not say of which they "
                    "are: leave the rows of the others out"
                )
            if (is_wrong := one.about(int(part.states[row, column]))) is not None:
                reviews.append((row, column, is_wrong))
                used.add(number)
        judgement = revise(part.judgement, part.states, reviews) if reviews else part.judgement
        found.append(replace(part, judgement=judgement, decided=frozenset((row, column) for row, column, _ in reviews)))
    if not used:
        raise DataError("--decisions: none is of an image and class with a known label here")
    logger.info("%d decisions are taken into account", len(used))
    if left := len(decided) - len(used):
        logger.warning(
            "%d decisions are passed over: they are of images or classes that are not here, or of labels that have "
            "changed since to others than were decided", left,
        )  # fmt: skip
    return found
