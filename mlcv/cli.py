"""The command line: what it offers, before anything heavy is imported; and errors in one sentence."""

import difflib
import errno
import importlib
import sys
import warnings
from collections.abc import Sequence

from mlcv import __version__
from mlcv.errors import ConfigError, UserError, find_user_error

SUBCOMMANDS = {
    "fit": "train, validate after each epoch, keep the best and the last checkpoint",
    "validate": "metrics of a checkpoint on the validation split",
    "test": "metrics of a checkpoint on the test split",
    "predict": "probabilities and labels of any images, or of the test split, as CSV or JSON lines",
    "evaluate": "metrics with confidence intervals of files of predictions, from here or elsewhere",
    "calibrate": "probabilities, thresholds and sets that keep promises, from validation predictions",
    "report": "one HTML file on one or more tested runs",
    "bench": "how fast a config trains and predicts here, and where the time goes",
    "export": "a checkpoint as ONNX and torch.export, with all that comes before and after the network",
}

_MODULES = {
    **{name: f"mlcv.posthoc.{name}" for name in ("evaluate", "calibrate", "report", "export")},
    "bench": "mlcv.bench",
}
"""Whose `main` is a subcommand; all others are Lightning's."""

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

`mlcv fit --help` lists the options of a subcommand; `mlcv fit --data.help COCODataModule` those of a class."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 2 for an error the user can mend, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        width = max(map(len, SUBCOMMANDS))
        print(_HELP.format(subcommands="\n".join(f"  {name:{width}}  {text}" for name, text in SUBCOMMANDS.items())))  # noqa: T201  # help is for the terminal
        return 0
    if arguments[0] == "--version":
        print(f"mlcv {__version__}")  # noqa: T201
        return 0
    try:
        _check_subcommand(arguments[0])
        _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        sentence = find_user_error(error)
        if sentence is None and isinstance(error, OSError) and error.errno in _NO_ROOM:
            sentence = ConfigError(
                f"there is no room to write ({error.strerror}). What was written before is whole: make room and give "
                "the command again; a training goes on with --ckpt_path <run>/checkpoints/last.ckpt"
            )
        if sentence is None:
            raise
        _complain(sentence)
        return 2
    return 0


def _check_subcommand(name: str) -> None:
    if name not in SUBCOMMANDS:
        similar = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        raise ConfigError(f"there is no subcommand {name!r}; {hint}Choose from {', '.join(SUBCOMMANDS)}")


def _run(arguments: list[str]) -> None:
    if arguments[0] in _MODULES:
        importlib.import_module(_MODULES[arguments[0]]).main(arguments[1:])  # so do torch and scikit-learn
        return
    # Scenes in memory need no loader process, and the user has set the number for the rest.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A resumed run goes on in its own folder, where earlier files are kept.
    warnings.filterwarnings("ignore", message=".*directory .* exists and is not empty.*")
    # A checkpoint that is tested needs none of what it was trained with.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    # Lightning 2.6's own use of torch.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    from mlcv.training_cli import TrainingCLI  # noqa: PLC0415  # takes seconds, which --help shall not

    TrainingCLI.run(arguments)


def _complain(error: UserError) -> None:
    print(f"mlcv: error: {error}", file=sys.stderr)  # noqa: T201
