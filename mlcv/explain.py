"""From a configuration library's report to one sentence, with the nearest valid option."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

# What jsonargparse 4.40 to 4.53 say of an option that does not exist, on the command line and in files.
_UNKNOWN_OPTION = (
    re.compile(r"unrecognized arguments: (?:--)?([\w.]+)"),
    re.compile(r"does not accept option '([\w.]+)'"),
    re.compile(r"Option '([\w.]+)' is not accepted"),
    re.compile(r"[Kk]ey \"?'?([\w.]+)\"?'? is not expected"),
)
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\w+)")
_WRONG_VALUE = re.compile(r"Parser key \"([\w.]+)\":\s+(.+?)(?:\n|$)")


def explain(message: str, arguments: Sequence[str], options: Sequence[str]) -> str:
    """One sentence on what is wrong with a command line or a config file, and what may have been meant.

    Args:
        message: the library's report, over many lines.
        arguments: of the command line; nested parsers report an option without its first part, which is found here.
        options: names of all options that exist.
    """
    for pattern in _UNKNOWN_OPTION:
        if match := pattern.search(message):
            return _unknown_option(_in_full(match[1], arguments), options)
    if match := _UNKNOWN_CLASS.search(message):
        near = difflib.get_close_matches(match[1], public_classes(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"there is no class {match[1]!r}{hint} A class outside mlcv is named in full: package.module.Class"
    if match := _WRONG_VALUE.search(message):
        return f"option {match[1]!r}: {match[2].strip()}"
    return message


def option_names(parser: Any) -> list[str]:
    """Every option of a parser, and of the classes that may stand under `model` and `data`."""
    inner = getattr(parser._subcommands_action, "_name_parser_map", None) or {}
    parsers = [parser, *inner.values()]
    names = [action.dest for p in parsers for action in p._actions if isinstance(action.dest, str)]
    for part, room in (("model", "mlcv.methods"), ("data", "mlcv.data")):
        for cls in public_classes().values():
            if cls.__module__.startswith(room):
                names += [f"{part}.{name}" for name in _arguments(cls)]
    return sorted(set(names))


def public_classes() -> dict[str, type]:
    """Classes that a config may name without their module, by name."""
    import mlcv.callbacks  # noqa: PLC0415  # all that have been imported by the time of an error
    import mlcv.data  # noqa: PLC0415
    import mlcv.losses  # noqa: PLC0415
    import mlcv.methods  # noqa: PLC0415
    import mlcv.models  # noqa: PLC0415

    rooms = (mlcv.methods, mlcv.data, mlcv.losses, mlcv.models, mlcv.callbacks)
    members = [(name, getattr(room, name)) for room in rooms for name in room.__all__]
    return {name: member for name, member in members if isinstance(member, type)}


def _unknown_option(name: str, options: Sequence[str]) -> str:
    # A config file's key may be reported without its section: compare it with the ends of the full names, too.
    endings = {option.split(".", depth)[-1]: option for option in options for depth in (2, 1, 0)}
    near = difflib.get_close_matches(name, endings, n=1, cutoff=0.7)
    hint = f"did you mean {endings[near[0]]!r}? " if near else ""
    return f"there is no option {name!r}; {hint}`mlcv fit --help` lists them, `mlcv fit --model.help NAME` a class's"


def _in_full(name: str, arguments: Iterable[str]) -> str:
    for argument in arguments:
        given = argument.lstrip("-").partition("=")[0]
        if argument.startswith("--") and (given == name or given.endswith(f".{name}")):
            return given
    return name


def _arguments(cls: type) -> list[str]:
    names = []
    for ancestor in cls.__mro__:
        if "__init__" not in vars(ancestor) or not ancestor.__module__.startswith("mlcv"):
            continue
        for name, parameter in inspect.signature(vars(ancestor)["__init__"]).parameters.items():
            names.append(name)
            if dataclasses.is_dataclass(parameter.annotation):
                names += [f"{name}.{field.name}" for field in dataclasses.fields(parameter.annotation)]
    return [name for name in names if name not in {"self", "args", "kwargs"}]
