"""What is written for people: names stand as they are, whatever they look like to a terminal's markup."""

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Column, Table

from mlcv.launchers import process_rank


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read has seen enough, which the command line knows of; rich would exit with 1, as a failed check."""
        raise BrokenPipeError


def console() -> Console:
    """Writes to standard output; `[red]` and `:smile:` in a class's name are letters, not markup."""
    return _Console(markup=False, emoji=False, highlight=False)


MOST_ROWS, LOWEST, HIGHEST = 30, 20, 5
"""A table of more rows than the first shows so many of its beginning and its end."""
_LEAST_NAME = 20
"""Columns of a terminal that names have at least, if they need them, before a table is divided."""

_BETWEEN = 2
"""Blanks between columns."""


def shortened(name: str, width: int) -> str:
    """A name in at most so many columns of a terminal; a long one loses its middle."""
    if cell_len(name) <= width:
        return name
    tail = set_cell_size(name[::-1], max(width - 1, 0) // 2).strip()[::-1]
    return f"{set_cell_size(name, max(width - 1 - cell_len(tail), 0)).rstrip()}…{tail}"


def print_table(
    out: Console, header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", everything: str | Path = ""
) -> None:
    """A line a row, as wide as the terminal at most: names, in the first column, are shortened to what is left.

    Args:
        out: where it is printed.
        header: of the columns; all but the first are numbers, flush right.
        rows: as many cells each.
        title: above it.
        everything: file that holds all rows; of many, the first and last are printed and the file is named.
    """
    count = len(rows)
    is_cut = bool(everything) and count > MOST_ROWS
    if is_cut:
        gap = [f"… {count - LOWEST - HIGHEST} more", *[""] * (len(header) - 1)]
        rows = [*rows[:LOWEST], gap, *rows[-HIGHEST:]]
    taken = sum(_widest(column) + _BETWEEN for column in zip(header[1:], *(row[1:] for row in rows), strict=True))
    table = Table(
        Column(header[0], no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in header[1:]),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name, *cells in rows:
        table.add_row(shortened(name, max(out.width - taken - 1, 4)), *cells)
    out.print(*([title] if title else []), table, sep="\n")
    if is_cut:
        out.print(f"all rows: {everything}", soft_wrap=True)


def print_side_by_side(
    out: Console,
    name: str,
    rows: Sequence[str],
    columns: Mapping[str, Sequence[tuple[str, str]]],
    title: str,
    everything: str | Path = "",
) -> None:
    """Columns beside each other, in as many tables as the terminal's width asks for.

    Args:
        out: where they are printed.
        name: header of the rows' names.
        rows: their names.
        columns: by header the cells of each: in full, which are printed if all columns fit so, and in short.
        title: above each.
        everything: as of `print_table`.
    """
    room = out.width - 1 - min(max(map(cell_len, [name, *rows])), _LEAST_NAME)
    for form in (0, 1):
        cells = [[cell[form] for cell in column] for column in columns.values()]
        headers = [shortened(header, max(_widest(column), 10)) for header, column in zip(columns, cells, strict=True)]
        widths = [_widest([header, *column]) + _BETWEEN for header, column in zip(headers, cells, strict=True)]
        if sum(widths) <= room:
            break
    blocks: list[list[int]] = [[]]
    for n, width in enumerate(widths):
        if blocks[-1] and sum(widths[k] for k in blocks[-1]) + width > room:
            blocks.append([])
        blocks[-1].append(n)
    for block in blocks:
        lines = [[row, *(cells[n][place] for n in block)] for place, row in enumerate(rows)]
        print_table(out, [name, *(headers[n] for n in block)], lines, title, everything)


def _widest(cells: Sequence[str]) -> int:
    return max(map(cell_len, cells))


_AT_EACH_START = ("fabric.utilities.seed", "fabric.utilities.distributed")
_NOBODYS_BUSINESS = (
    r"Found \d+ module\(s\) in eval mode",  # frozen parts stay in evaluation mode by our own choice
    ".*does not have many workers",  # scenes in memory need no loader process, and the user has set the number
    ".*[Dd]irectory .* exists and is not empty",  # a resumed run goes on in its own folder
    # A checkpoint that is tested needs none of what it was trained with.
    ".*callbacks used to create the checkpoint need to be provided",
    # Of the folder where a tested checkpoint was trained; `Resuming` looks after it where training goes on.
    ".*dirpath has changed from",
    ".*isinstance.treespec, LeafSpec",  # Lightning 2.6's own use of torch
    ".*trainer.ckpt_path = None. was called but then you passed",  # the one that it names is meant
    ".*smaller than the logging interval",  # each epoch has its line
    ".*training_step. returned .None.",  # a method that skips a batch knows why
)
"""Of libraries' warnings, what is no advice to somebody who trains by the command line."""


class _Terminal(logging.Handler):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def set_up_logging() -> None:
    """This project says what it does; Lightning, only what a user needs."""
    ours = logging.getLogger("mlcv")
    # What every process would say alike, the first says.
    ours.setLevel(logging.INFO if process_rank() == 0 else logging.WARNING)
    if not ours.handlers:
        ours.addHandler(_Terminal())
    # What it does at each start, and advertisements; its warnings, and what it says of a cluster's signals, stay.
    for name in (
        "pytorch.utilities.rank_zero",
        *(f"fabric.utilities.{n}" for n in ("rank_zero", "seed", "distributed")),
    ):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for text in _NOBODYS_BUSINESS:
        warnings.filterwarnings("ignore", message=text)
