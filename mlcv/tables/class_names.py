"""Names of classes: headers of the files that are written here, so none may be mistaken for another column."""

import unicodedata
from collections.abc import Mapping, Sequence

from mlcv.errors import DataError

TRUTH = "truth:"
"""Before a class's name, the header of its labels in a file that holds predictions, too."""

GROUP = "group"
"""Header of the column that says whose a row is."""

NAME_COLUMNS = (
    "image", "path", "study", "image index", "image_path", "image_id", "image_name", "filename", "file_name",
)  # fmt: skip
"""Headers, in any case, of columns that name rows; the first of these that a table has counts."""

OUR_COLUMNS = ("index", GROUP, "labels", "model", "rows")
"""What this project's files of predictions say of a row besides."""

RESERVED = (*NAME_COLUMNS, *OUR_COLUMNS)
"""Headers, in any case, that no class may have."""

_PREFIXES = (TRUTH, "logit:")
_INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, ends of lines


def find_name_column(names: Sequence[str]) -> str | None:
    """The header of the column with the rows' names, if one says so."""
    return next((name for known in NAME_COLUMNS for name in names if name.lower() == known), None)


def check_class_names(names: Sequence[str], source: str, places: Mapping[str, str] | None = None) -> None:
    """Refuses names that would be lost or mistaken in a file, or by a reader.

    Args:
        names: of the classes, in order.
        source: where they come from, for the error: a file, a column or an option.
        places: where each name comes first, for the error, if it is known.

    Raises:
        DataError: if there is none; for a name that is empty, has blanks around it, holds `|` (which joins labels) or a
            control character, or is a header of result files; and for two that differ in case, blanks or
            invisible characters only.
    """
    if not len(names):
        raise DataError(f"{source}: there is no class")
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        problem = _problem(name)
        if problem:
            raise DataError(f"{source}: the class name {name!r} {problem}; rename the class or column, or leave it out")
        twin = first.setdefault(_folded(name), place)
        if twin != place:
            how = "come twice" if names[twin] == name else "differ in case or blanks only, or in what is not seen"
            rows = f" ({places[names[twin]]} and {places[name]})" if places else ""
            raise DataError(
                f"{source}: the class names {names[twin]!r} and {name!r} {how}; give a class one spelling{rows}"
            )


def is_shown(name: str) -> bool:
    """Whether nothing in a name is a line end, or another character that cannot be printed."""
    return not any(unicodedata.category(char) in _INVISIBLE for char in name)


def _problem(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "starts or ends with a blank"
    if "|" in name:
        return "holds '|', which joins labels in files"
    if not is_shown(name):
        return "holds a character that cannot be printed"
    if name.lower() in RESERVED:
        return "is what a column of another meaning is called in files of predictions"
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    return f"starts with {prefix!r}, which marks columns of another meaning" if prefix else None


def _folded(name: str) -> str:
    seen = "".join(char for char in unicodedata.normalize("NFC", name) if unicodedata.category(char) != "Cf")
    return " ".join(seen.casefold().split())
