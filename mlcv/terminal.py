"""What is written for people: names stand as they are, whatever they look like to a terminal's markup."""

import logging
import sys
import warnings

from rich.console import Console

from mlcv.launchers import process_rank


def console() -> Console:
    """Writes to standard output; `[red]` and `:smile:` in a class's name are letters, not markup."""
    return Console(markup=False, emoji=False, highlight=False)


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
