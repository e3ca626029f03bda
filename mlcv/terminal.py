"""What is written for people: names stand as they are, whatever they look like to a terminal's markup."""

import logging
import sys
import warnings

from rich.console import Console

from mlcv.launchers import process_rank


def console() -> Console:
    """Writes to standard output; `[red]` and `:smile:` in a class's name are letters, not markup."""
    return Console(markup=False, emoji=False, highlight=False)


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
    # Frozen parts stay in evaluation mode by our own choice.
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    # Lightning advertises its other products at each start.
    theirs = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    theirs.addFilter(lambda record: "Tip: For seamless" not in record.getMessage())
