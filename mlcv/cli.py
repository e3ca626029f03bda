"""The command line: what it offers, before anything heavy is imported; and errors in one sentence."""

import difflib
import importlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mlcv import __version__
from mlcv.command_line import take
from mlcv.errors import ConfigError, Stopped, chain_of, find_user_error, one_line
from mlcv.launchers import RUN_DIR_VARIABLE, process_rank
from mlcv.trust import trusting

SUBCOMMANDS = {
    "fit": ("training", "train, validate after each epoch, keep the best and the last checkpoint"),
    "validate": ("training", "metrics of a checkpoint on the validation split"),
    "test": ("training", "metrics of a checkpoint on the test split"),
    "predict": ("training", "probabilities and labels of any images, or of a split, as CSV, JSON lines or .npy"),
    "self_train": ("self_train", "a model that ignores uncertain labels, and a second one that learns from it"),
    "evaluate": ("evaluate", "metrics with confidence intervals of files of predictions, from here or elsewhere"),
    "calibrate": ("calibrate", "probabilities, thresholds and sets that keep promises, from validation predictions"),
    "ensemble": ("ensemble", "one file of predictions from those of several models, or checkpoints"),
    "report": ("report", "one HTML file on one or more tested runs"),
    "preview": ("preview", "a picture of a batch as the network sees it, with its labels, before any training"),
    "bench": ("bench", "how fast a config trains and predicts here, and where the time goes"),
    "export": ("export", "a checkpoint as ONNX and torch.export, with all that comes before and after the network"),
}
"""Each one's module in `mlcv.commands`, and what it does."""

_HELP = """usage: mlcv SUBCOMMAND --config FILE [--key value ...]
       mlcv --help | --version

Trains and evaluates multi-label image classifiers on labels of any quality.

subcommands:
{subcommands}

examples:
  mlcv fit --config configs/digits/bce.yaml
  mlcv fit --config configs/digits/bce.yaml --data.protocol.known_fraction 0.1 --trainer.max_epochs 3
  mlcv test --ckpt_path runs/digits-bce/0/checkpoints/best.ckpt
  mlcv fit --ckpt_path runs/digits-bce/0/checkpoints/last.ckpt        (resumes)
  mlcv evaluate model_a.csv model_b.csv --truth labels.csv

Checkpoints and other files are read without running code. For a checkpoint with classes of a package of your own, give
--trust PACKAGE to any subcommand, or set MLCV_TRUST=PACKAGE.

MLCV_TRACEBACK=1 shows where an error arose, for those who write classes of their own.

`mlcv fit --help` lists the options of a subcommand; `mlcv fit --data.help COCODataModule` those of a class."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 2 for an error the user can mend, 130 after Ctrl-C, 143 if ended."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        width = max(map(len, SUBCOMMANDS))
        lines = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in SUBCOMMANDS.items())
        print(_HELP.format(subcommands=lines))  # noqa: T201  # help is for the terminal
        return 0
    if arguments[0] == "--version":
        print(f"mlcv {__version__}")  # noqa: T201
        return 0
    try:
        _check_subcommand(arguments[0])
        packages, arguments = take(arguments, "--trust")
        with trusting(packages), _asked_to_end():
            _run(arguments)
    except (KeyboardInterrupt, SystemExit) as error:
        found = next((one for one in chain_of(error) if isinstance(one, KeyboardInterrupt)), None)
        if found is None:  # a parser's, which has had its say
            raise
        stop = found if isinstance(found, Stopped) else Stopped()
        if process_rank() == 0:
            print(f"mlcv: stopped. {stop.advice}".strip(), file=sys.stderr)  # noqa: T201
        return 128 + stop.signum
    except Exception as error:
        if os.environ.get("MLCV_TRACEBACK"):
            raise
        sentence = find_user_error(error) or _unforeseen(error)
        print(f"mlcv: error: {sentence}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: files that were begun are removed, and it says how to go on."""

    def end(signum: int, _: FrameType | None) -> None:
        raise Stopped(signum)

    def told_again(ignored: Any) -> None:
        """Python ignores what is raised in a destructor or a weak reference's callback, of which torch has many."""
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            hook(ignored)
            return
        signum = getattr(ignored.exc_value, "signum", signal.SIGINT)
        threading.Timer(0.02, os.kill, (os.getpid(), signum)).start()  # when that callback is over

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, told_again
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.unraisablehook = hook


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
        similar = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        raise ConfigError(f"there is no subcommand {name!r}; {hint}Choose from {', '.join(SUBCOMMANDS)}")


def _run(arguments: list[str]) -> None:
    module, _ = SUBCOMMANDS[arguments[0]]
    # Imported now, for it takes seconds, which --help shall not.
    importlib.import_module(f"mlcv.commands.{module}").main(arguments if module == "training" else arguments[1:])
