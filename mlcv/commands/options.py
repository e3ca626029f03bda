"""Options that several commands have, and what they mean."""

import argparse
from collections.abc import Callable
from pathlib import Path

from mlcv.posthoc.truth import TruthFile
from mlcv.tables import Codes


def whole_number(least: int) -> Callable[[str], int]:
    """For an option of argparse: a number from `least` on."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least} on is needed, got {text!r}")
        return int(text)

    return read


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """What every command asks that reads a truth."""
    parser.add_argument("--truth", type=Path, help="CSV of labels (default: in the first predictions)")
    parser.add_argument("--classes", nargs="+", help="names, or `tasks` (CheXpert's five); else all common columns")
    parser.add_argument("--id", metavar="COLUMN", help="header of the column that names the rows, if unusual")
    parser.add_argument(
        "--group", metavar="COLUMN", help="whose rows are resampled together, such as patient (default: group, if any)"
    )
    parser.add_argument("--blank", choices=["unknown", "negative"], default="unknown", help="what blank cells mean")
    for name, text in (("positive", "1, yes, true, ..."), ("negative", "0, no, false, ..."), ("uncertain", "-1")):
        parser.add_argument(f"--{name}", nargs="+", metavar="CELL", help=f"cells of the truth that mean it ({text})")


def truth_file(options: argparse.Namespace) -> TruthFile:
    """The truth that these options name."""
    given = {name: tuple(getattr(options, name)) for name in ("positive", "negative") if getattr(options, name)}
    said = {cell for cells in given.values() for cell in cells}
    uncertain = options.uncertain or [cell for cell in ("-1",) if cell not in said]
    codes = Codes(uncertain=tuple(uncertain), blank=options.blank, **given)
    classes = None if options.classes is None else tuple(options.classes)
    return TruthFile(options.truth, classes, options.id, options.group, codes)
