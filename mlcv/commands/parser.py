"""Lightning's parser of options, with errors in one sentence and null where null was said."""

import functools
import operator
import re
from typing import Any, ClassVar, NoReturn, get_args

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from mlcv.command_line import take
from mlcv.commands.mistakes import explain, option_names
from mlcv.errors import ConfigError, find_user_error


def with_usual_loss(parser: Any, arguments: list[str]) -> list[str]:
    """Options of a loss that nobody has chosen are cross-entropy's, which is what is used then.

    Args:
        parser: of a command line with subcommands.
        arguments: the subcommand and its options.
    """
    given = [argument.partition("=")[0] for argument in arguments]
    names = {name for name in given if name.startswith("--model.loss.") and not name.endswith(".help")}
    if not names or "--model.loss" in given:
        return arguments
    chosen = parser.parse_args(take(arguments, *names)[1])[arguments[0]].get("model.init_args")
    if chosen is None or "loss" not in chosen or chosen["loss"] is not None:
        return arguments
    first = next(place for place, name in enumerate(given) if name in names)
    return [*arguments[:first], "--model.loss=mlcv.losses.BCELoss", *arguments[first:]]


class _Formatter(DefaultHelpFormatter):
    """Of the classes that may stand somewhere, names this project's: all modules of torch fit where a loss does."""

    def _get_help_string(self, action: Any) -> str:
        text: str = super()._get_help_string(action)
        room = "mlcv.losses." if action.dest.endswith("loss") else "mlcv."
        return re.sub(r", known subclasses: ([\w., ]+)", lambda match: self._ours(match[1], room), text)

    @staticmethod
    def _ours(names: str, room: str) -> str:
        ours = [name.rpartition(".")[2] for name in names.split(", ") if name.startswith(room)]
        return f", of mlcv: {', '.join(ours)}" if ours else ""


class Parser(LightningArgumentParser):
    """Says what is wrong with an option in one sentence, and which option comes nearest."""

    arguments: ClassVar[list[str]] = []
    """What is parsed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **kwargs})

    def add_lightning_class_args(self, *args: Any, **kwargs: Any) -> list[str]:
        added: list[str] = super().add_lightning_class_args(*args, **kwargs)
        # One batch is not all of them, 1 not 1.0: but `typing` may hand out an equal Union in another's order, and the
        # first type that fits is taken.
        for action in self._actions:
            kinds = list(get_args(getattr(action, "_typehint", None)))
            if {int, float} <= set(kinds) and kinds.index(float) < kinds.index(int):
                first, second = kinds.index(float), kinds.index(int)
                kinds[first], kinds[second] = int, float
                action._typehint = functools.reduce(operator.or_, kinds)  # type: ignore[attr-defined]
        return added

    def parse_args(self, args: Any = None, *others: Any, **more: Any) -> Any:
        """Jsonargparse writes an option of a group in a class (`model.optim.horizon_epochs`) as text: None for null."""
        if isinstance(args, list) and len(args) == 1 and "." in args[0].partition("=None")[0]:
            args = [re.sub(r"=None\Z", "=null", args[0])]
        return super().parse_args(args, *others, **more)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        user_error = find_user_error(ex) if ex is not None else None
        raise user_error or ConfigError(explain(message, self.arguments, option_names(self))) from ex
