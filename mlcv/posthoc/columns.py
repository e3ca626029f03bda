"""Which column of a table is what: the rows' names, the classes, and the rest; told, never guessed in silence."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mlcv.errors import ConfigError, DataError
from mlcv.files import unshielded
from mlcv.labels.states import known
from mlcv.tables import NAME_COLUMNS, OUR_COLUMNS, TRUTH, Table, find_name_column, is_shown, read_header
from mlcv.terminal import console

TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""CheXpert's five, which `--classes tasks` stands for."""


def name_column(names: Sequence[str], path: Path, asked: str | None = None) -> str:
    """The header of the column with the rows' names.

    Args:
        names: headers of the table.
        path: of the table, for the error.
        asked: what the user says it is, if this table has it.

    Raises:
        DataError: if no header says so.
    """
    if asked in names:
        return str(asked)
    found = find_name_column(names)
    if found is None:
        raise DataError(
            f"{path}: which column names the rows? None of {', '.join(names)} is called {', '.join(NAME_COLUMNS)}; "
            "give its header with --id"
        )
    return found


def read_ids(table: Table, asked: str | None = None) -> tuple[str, ...]:
    """The name of each row.

    Raises:
        DataError: if no column has them, two are alike, there is none, or rows at the end are missing.
    """
    cells = table.column(name_column(table.names, table.path, asked)) if len(table) else ()
    ids = tuple(unshielded(cell) if cell[:1] == "'" else cell for cell in cells)  # a call for each takes longer
    if not ids:
        raise DataError(f"{table.path}: there is no row below the header")
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        again = next(row for row, name in enumerate(ids) if first.setdefault(name, row) != row)
        raise DataError(
            f"{table.where(again)}: {ids[again]} is in {table.where(first[ids[again]])} already; drop one of the two"
        )
    counts = set(table.spelled("rows").cells) if is_ours(table) else {str(len(ids))}
    if counts != {str(len(ids))}:
        raise DataError(
            f"{table.path} has {len(ids)} rows and says that it has {' or '.join(sorted(counts))}: it was cut off, or "
            "put together; make it again, or take the column `rows` out if that is meant"
        )
    return ids


def is_ours(table: Table) -> bool:
    """Whether it is a file of predictions that this project wrote."""
    return {"index", "image", "model", "rows"} <= set(table.names)


def class_column(table: Table, name: str) -> str:
    """The header of a class, which may have been written with an apostrophe before it."""
    return next((header for header in table.names if unshielded(header) == name), name)


def common_classes(
    paths: Sequence[Path],
    asked: Sequence[str] | None = None,
    ids: str | None = None,
    called: Sequence[Path] | None = None,
) -> tuple[str, ...]:
    """The classes that were asked for, or that all files have, in the order of the first; says what was taken for what.

    A file of this project says which columns are classes, by the truth or what it is made of. Of others, every column
    is taken for a class that all have and that is none of names.

    Args:
        paths: of tables; of truth first, where that is a file of its own.
        asked: names of classes, or `tasks`.
        ids: see `name_column`.
        called: what the user calls the files, if otherwise.

    Raises:
        ConfigError: if there is none.
        DataError: see `name_column`.
    """
    headers = {path: [unshielded(name) for name in read_header(path)] for path in dict.fromkeys(paths)}
    taken = {path: name_column(header, path, ids) for path, header in headers.items()}
    if asked is not None:
        classes = TASKS if list(asked) == ["tasks"] else tuple(asked)
    else:
        candidates = [_candidates(header, taken[path]) for path, header in headers.items()]
        classes = tuple(name for name in candidates[0] if all(name in others for others in candidates))
    if not classes:
        raise ConfigError(f"{' and '.join(map(str, list(headers)[:2]))} have no class in common; give --classes")
    if hidden := [name for name in classes if not is_shown(name)]:
        raise ConfigError(
            f"{paths[0]}: the class name {hidden[0]!r} holds a character that cannot be printed; rename the column"
        )
    names = dict(zip(paths, called or paths, strict=True))
    _tell(headers, {names[path]: header for path, header in taken.items()}, classes)
    return classes


def _candidates(header: list[str], names: str) -> list[str]:
    own = [name.removeprefix(TRUTH) for name in header if name.startswith(TRUTH)]
    return own or [name for name in header if name not in (names, *OUR_COLUMNS)]


def _tell(headers: dict[Path, list[str]], taken: dict[Path, str], classes: Sequence[str]) -> None:
    names = ", ".join(f"{header!r} of {path}" for path, header in taken.items())
    used = {*classes, *(TRUTH + name for name in classes), *taken.values(), *OUR_COLUMNS}
    rest = sorted({name for header in headers.values() for name in header} - used)
    some = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
    text = f"rows are named by {names}\n{len(classes)} classes: {some}"
    console().print(text + (f"; not classes: {', '.join(rest[:8])}" if rest else ""), soft_wrap=True)


def check_no_copies(scores: Tensor, targets: Tensor, class_names: Sequence[str], path: Path) -> None:
    """Refuses a column that holds the truth itself: what both files merely share (a fold, an age) is no prediction.

    Shape:
        scores and targets (M, C), in the same order.

    Raises:
        ConfigError: naming the column.
    """
    for c, name in enumerate(class_names):
        rows = known(targets[:, c])
        if rows.any() and bool((scores[rows, c] == targets[rows, c]).all()):
            raise ConfigError(
                f"{path}: the column {name!r} is the same in the truth, so it is no prediction; say with --classes "
                "which columns are classes (and name it there if it is one)"
            )
