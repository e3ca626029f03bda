"""The command line: what it offers, before anything heavy is imported; and errors in one sentence."""

import difflib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from mlcv import __version__
from mlcv.collector import imported
from mlcv.command_line import take
from mlcv.commands.arguments import PARSERS, parser_of
from mlcv.errors import ConfigError, Stopped, find_user_error, one_line
from mlcv.launchers import RUN_DIR_VARIABLE, STAGE_VARIABLE, process_rank
from mlcv.short_help import NEXT, SECTIONS, short_help, two_columns
from mlcv.stopping import asked_to_end, end_at_once, request
from mlcv.trust import trusting

SUBCOMMANDS = {
    "init": ("init", "a config that trains on your table of images and labels"),
    "configs": ("configs", "the configs that come with mlcv: lists them, copies one"),
    "fit": ("training", "train; keeps the best and the last checkpoint"),
    "validate": ("training", "metrics of a checkpoint on the validation split"),
    "test": ("training", "metrics of a checkpoint on the test split"),
    "predict": ("training", "probabilities and labels of any images, or of a split"),
    "self_train": ("self_train", "a second model that learns uncertain labels from a first one"),
    "evaluate": ("evaluate", "metrics with intervals of anybody's files of predictions"),
    "calibrate": ("calibrate", "honest probabilities, thresholds and sets, from validation"),
    "ensemble": ("ensemble", "one file of predictions from those of several models"),
    "report": ("report", "one HTML file on one or more tested runs"),
    "data": ("data_sheet", "a sheet of what is wrong with a data set, before training"),
    "preview": ("preview", "a picture of a training batch as the network sees it"),
    "prepare": ("prepare", "large images made small once, for faster epochs"),
    "features": ("features", "what a frozen backbone makes of images, stored once"),
    "study": ("study", "which method for these labels: methods, conditions, seeds"),
    "merge": ("merge", "data sets labelled for different classes, in one table"),
    "audit": ("audit", "wrong labels: finds them, a page to decide on, what it was worth"),
    "bench": ("bench", "how fast a config trains here, and where the time goes"),
    "export": ("export", "a checkpoint as ONNX and torch.export, from image to label"),
}
"""Each one's module in `mlcv.commands`, and what it does."""

_MEANT = {
    "train": "fit", "training": "fit", "learn": "fit", "resume": "fit", "val": "validate", "valid": "validate",
    "eval": "evaluate", "infer": "predict", "inference": "predict", "serve": "export", "benchmark": "bench",
    "new": "init", "start": "init", "list": "configs", "config": "configs", "threshold": "calibrate",
}  # fmt: skip
"""What other programs call our subcommands."""

_HELP = """usage: mlcv SUBCOMMAND [--option value ...]
       mlcv SUBCOMMAND --help | mlcv --help | mlcv --version

Trains and evaluates multi-label image classifiers on labels of any quality.

subcommands:
{subcommands}

examples:
  mlcv fit --config digits/bce
  mlcv fit --config digits/bce --data.protocol.known_fraction 0.1
  mlcv init my.csv
  mlcv test --ckpt_path runs/digits-bce/0/checkpoints/best.ckpt
  mlcv fit --ckpt_path runs/digits-bce/0/checkpoints/last.ckpt   (resumes)
  mlcv evaluate model_a.csv model_b.csv --truth labels.csv

Files are read without running code. A checkpoint with classes of your own
package needs --trust PACKAGE, or MLCV_TRUST=PACKAGE; MLCV_TRACEBACK=1 shows
where an error arose in them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    It is 0, 1 if a check fails, 2 for an error the user can mend, 130 after Ctrl-C, 143 if ended.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with asked_to_end(is_process=argv is None):
            if arguments == ["fit"]:
                print(NEXT, file=sys.stderr)  # noqa: T201
                return 2
            if said := _said_at_once(arguments):
                print(said)  # noqa: T201  # help is for the terminal
                return 0
            _check_subcommand(arguments[0])
            packages, arguments = take(arguments, "--trust")
            with trusting(packages):
                return _run(arguments, is_process=argv is None)
    except Stopped as stop:
        if process_rank() == 0 and STAGE_VARIABLE not in os.environ:
            print(f"mlcv: stopped. {stop.advice}".strip(), file=sys.stderr)  # noqa: T201
        if argv is None:
            end_at_once()
        return 128 + stop.signum
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end
        return 128 + signal.SIGPIPE
    except Exception as error:
        if os.environ.get("MLCV_TRACEBACK"):
            raise
        sentence = find_user_error(error) or _unforeseen(error)
        print(f"mlcv: error: {sentence}", file=sys.stderr)  # noqa: T201
        return 2


def _said_at_once(arguments: Sequence[str]) -> str:
    """Help and version, which need nothing that is imported later; nothing if neither is asked for."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        return _HELP.format(subcommands=two_columns({name: text for name, (_, text) in SUBCOMMANDS.items()}))
    if arguments[0] == "--version":
        return f"mlcv {__version__}"
    asks = bool({"-h", "--help"} & set(arguments))
    if asks and arguments[0] in SECTIONS:
        return short_help(arguments[0])
    return parser_of(arguments[0]).format_help().rstrip() if asks and arguments[0] in PARSERS else ""


def _unforeseen(error: Exception) -> str:
    """A sentence on what no part of this project has a better one for; where it arose is kept in a file."""
    run_dir = os.environ.get(RUN_DIR_VARIABLE, "")
    text = "".join(traceback.format_exception(error))
    try:
        folder = run_dir if Path(run_dir).is_dir() and run_dir else None  # else the system's, for temporary files
        number, path = tempfile.mkstemp(".txt", "traceback-", folder, text=True)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return f"{one_line(error)}. MLCV_TRACEBACK=1 shows where it arose"
    return f"{one_line(error)}. Where it arose: {path}"


def _check_subcommand(name: str) -> None:
    if name not in SUBCOMMANDS:
        similar = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        raise ConfigError(f"there is no subcommand {name!r}; {hint}Choose from {', '.join(SUBCOMMANDS)}")


def _run(arguments: list[str], is_process: bool) -> int:
    module, _ = SUBCOMMANDS[arguments[0]]
    # Imported now, for it takes seconds, which --help shall not. A library of C++ that is interrupted then may abort.
    with request().held():
        main_of = imported(f"mlcv.commands.{module}", freezes=is_process).main
    return main_of(arguments if module == "training" else arguments[1:]) or 0
