"""Reading options that commands share: those of a truth, and those of `mlcv fit` beside one's own."""

import argparse
from collections.abc import Sequence
from typing import Any

from mlcv.errors import ConfigError
from mlcv.posthoc.truth import TruthFile
from mlcv.tables import Codes


def truth_file(options: argparse.Namespace) -> TruthFile:
    """The truth that these options name."""
    given: dict[str, Any] = {
        name: tuple(getattr(options, name)) for name in ("positive", "negative") if getattr(options, name)
    }
    said = {cell for cells in given.values() for cell in cells}
    uncertain = options.uncertain or [cell for cell in ("-1",) if cell not in said]
    codes = Codes(uncertain=tuple(uncertain), blank=options.blank, fractions=options.fractions, **given)
    classes = None if options.classes is None else tuple(options.classes)
    return TruthFile(options.truth, classes, options.id, options.group, codes)


def joined(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """`--name value` of options of fit as one word, or a parser would take the value for one of its own arguments.

    Args:
        words: of a command line.
        parser: of a command that passes on to fit what it does not know.
    """
    own = {name for action in parser._actions for name in action.option_strings}
    many = {name for action in parser._actions if action.nargs in ("+", "*") for name in action.option_strings}
    found, left = [], list(words)
    while left:
        word = left.pop(0)
        is_alone = word.startswith("-") and "=" not in word and word not in own
        found.append(f"{word}={left.pop(0)}" if is_alone and left and not left[0].startswith("--") else word)
        while word in own and left and not left[0].startswith("-"):
            found.append(left.pop(0))
            if word not in many:
                break
    return found


def options_of(words: Sequence[str]) -> dict[str, str]:
    """Options of fit by name, as a study has them.

    Raises:
        ConfigError: for what is none, or an addition to a list that is given twice.
    """
    found, left = {}, list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or (left and not left[0].startswith("--"))):
            raise ConfigError(f"study: {word!r} is no option with a value; mlcv study --help")
        if name in found and name.endswith("+"):
            raise ConfigError(f"study: --{name} is given twice, and only one is kept; give a list, as JSON")
        found[name] = value if equals else left.pop(0)
    return found
