"""What the options on a truth say."""

import argparse

from mlcv.posthoc.truth import TruthFile
from mlcv.tables import Codes


def truth_file(options: argparse.Namespace) -> TruthFile:
    """The truth that these options name."""
    given = {name: tuple(getattr(options, name)) for name in ("positive", "negative") if getattr(options, name)}
    said = {cell for cells in given.values() for cell in cells}
    uncertain = options.uncertain or [cell for cell in ("-1",) if cell not in said]
    codes = Codes(uncertain=tuple(uncertain), blank=options.blank, **given)
    classes = None if options.classes is None else tuple(options.classes)
    return TruthFile(options.truth, classes, options.id, options.group, codes)
