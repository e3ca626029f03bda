"""From what a library says of an option to one sentence, with the nearest valid one."""

import dataclasses
import difflib
import inspect
import math
import pydoc
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlcv.command_line import take
from mlcv.errors import ConfigError, chain_of, files_of, find_user_error, one_line
from mlcv.methods.base import OF_THE_DATA
from mlcv.plain_config import parameters, takes_none
from mlcv.renamings import renamed_option
from mlcv.short_help import two_columns

# What jsonargparse 4.40 to 4.53 say of an option that does not exist, on the command line and in files.
_UNKNOWN_OPTION = (
    re.compile(r"unrecognized arguments: (?:--)?([\w.]+)"),
    re.compile(r"does not accept option '([\w.]+)'"),
    re.compile(r"Option '([\w.]+)' is not accepted"),
    re.compile(r"[Kk]ey \"?'?([\w.]+)\"?'? is not expected"),
)
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\w+)")
_NO_PATH = re.compile(r"Expected a path but (\S+) either not accessible or invalid")
_NOT_NAMED = {"torch", "timm", "jsonargparse", "argparse", "builtins"}
_WRONG_VALUE = re.compile(r"Parser key \"([\w.]+)\":\s+(.+?)(?:\n|$)")


_USUAL = {
    "epochs": "max_epochs", "num_epochs": "max_epochs", "n_epochs": "max_epochs", "learning_rate": "lr",
    "base_lr": "lr", "wd": "weight_decay", "bs": "batch_size", "workers": "num_workers", "gpus": "devices",
    "num_gpus": "devices", "device": "accelerator", "amp": "precision", "imgsz": "image_size", "img_size": "image_size",
    "size": "image_size", "arch": "backbone", "encoder": "backbone", "pretrained": "weights", "seed": "seed_everything",
    "optimizer": "name", "scheduler": "schedule", "checkpoint": "ckpt_path", "resume": "ckpt_path", "ckpt": "ckpt_path",
    "output": "run_dir", "output_dir": "run_dir", "out": "run_dir", "steps": "max_steps",
    "grad_clip": "gradient_clip_val",
}  # fmt: skip
"""What other programs call our options."""


def explain(message: str, arguments: Sequence[str], options: Sequence[str]) -> str:
    """One sentence on what is wrong with a command line or a config file, and what may have been meant.

    Args:
        message: the library's report, over many lines.
        arguments: of the command line; nested parsers report an option without its first part, which is found here.
        options: names of all options that exist.
    """
    if plan := _merge_plan(arguments):
        return f"{plan} is a plan of mlcv merge: mlcv merge {plan} --out merged.csv, then --data merged.yaml"
    if match := re.search(r"arguments are required: (.+)", message):
        parts = " and ".join(sorted({name.rpartition(".")[2] for name in match[1].split(", ")}))
        return f"there is no {parts}: name a config that has it (`mlcv configs` lists ours), or give --data and --model"
    for pattern in _UNKNOWN_OPTION:
        if match := pattern.search(message):
            return _unknown_option(_in_full(match[1], arguments), arguments, options)
    if match := _UNKNOWN_CLASS.search(message):
        near = difflib.get_close_matches(match[1], public_classes(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        return f"there is no class {match[1]!r}{hint} A class outside mlcv is named in full: package.module.Class"
    if match := _NO_PATH.search(message):
        cls = public_classes().get(match[1])
        hint = f" Several are called so: write {cls.__module__.rpartition('.')[0]}.{match[1]}" if cls else ""
        return f"{match[1]!r} is no class or file that can stand there.{hint}"
    if match := _WRONG_VALUE.search(message):
        return f"option {match[1]!r}: {_one_of(match[2].strip())}"
    return message


def _merge_plan(arguments: Sequence[str]) -> str | None:
    """The file given as data or config that says what is to be merged, if one does."""
    for name in take(arguments, "--data", "--config", "-c")[0]:
        path = Path(name)
        with suppress(OSError, UnicodeDecodeError):
            if path.suffix in (".yaml", ".yml") and re.search(r"^sources\s*:", path.read_text("utf-8"), re.MULTILINE):
                return name
    return None


def _one_of(said: str) -> str:
    """What the library says of a value that is none of a few words, in words."""
    match = re.fullmatch(r"Expected a typing\.Literal\[(.+)\]\. Got value: (.+)", said)
    return f"is one of {match[1].replace(chr(39), '')}, got {match[2]!r}" if match else said


def check_values(given: Any, where: str, cls: Any = None) -> None:
    """Refuses what the configuration library lets through: null for what cannot be left out, and nan.

    Infinity has a meaning for the Trainer alone.

    Args:
        given: a parsed configuration, or a part of it.
        where: its name, as one writes it on the command line.
        cls: whose arguments they are, if they are of a class.

    Raises:
        ConfigError: naming the option.
    """
    if isinstance(given, float) and (math.isnan(given) or (math.isinf(given) and not where.startswith("trainer"))):
        raise ConfigError(f"option '{where}' is no finite number: {given}")
    if isinstance(given, (list, tuple)):
        for number, value in enumerate(given):
            check_values(value, f"{where}[{number}]")
    if not isinstance(given, Mapping):
        return
    if "class_path" in given:
        check_values(given.get("init_args"), where, pydoc.locate(str(given["class_path"])))
        return
    hints = dict(parameters(cls)) if isinstance(cls, type) else {}
    for key, value in given.items():
        if value is None and not takes_none(hints.get(key)) and key not in OF_THE_DATA:
            raise ConfigError(f"option '{where}.{key}' cannot be null: leave it out, or give it a value")
        check_values(value, f"{where}.{key}")


@contextmanager
def blaming_options() -> Iterator[None]:
    """What a constructor raises, of a library's or of the user's own class, is told as an error of its options."""
    try:
        yield
    except Exception as error:
        if find_user_error(error) is not None:
            raise
        causes = list(chain_of(error, handled=False))
        cause = next((one for one in causes if "jsonargparse" not in "".join(files_of(one)[-1:])), causes[-1])
        raise ConfigError(f"{_being_built(cause)} cannot be built from its options ({one_line(cause)})") from error


def _being_built(error: BaseException) -> str:
    """The class whose constructor was under way, of those that a user names."""
    found = "this training"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        cls = type(frame.f_locals.get("self"))
        if frame.f_code.co_name == "__init__" and cls.__module__.split(".")[0] not in _NOT_NAMED:
            found = found if cls.__name__.startswith("_") else cls.__name__
    return found


def option_names(parser: Any) -> list[str]:
    """Every option of a parser, and of the classes that may stand under `model`, its head and loss, and `data`."""
    inner = getattr(parser._subcommands_action, "_name_parser_map", None) or {}
    parsers = [parser, *inner.values()]
    names = [action.dest for p in parsers for action in p._actions if isinstance(action.dest, str)]
    for part, classes in classes_of_parts().items():
        names += [f"{part}.{name}" for cls in classes for name in _arguments(cls)]
    return sorted(set(names))


def classes_of_parts() -> dict[str, list[type]]:
    """The public classes that may stand under each part of a config."""
    from mlcv.data.base import MultiLabelDataModule  # noqa: PLC0415
    from mlcv.methods.base import MultiLabelModule  # noqa: PLC0415
    from mlcv.models.head import Head  # noqa: PLC0415

    bases = {"BackboneMethod", "Head", "MultiLabelDataModule", "MultiLabelModule", "Student"}
    public = [cls for name, cls in public_classes().items() if name not in bases]
    return {
        "model": [cls for cls in public if issubclass(cls, MultiLabelModule)],
        "data": [cls for cls in public if issubclass(cls, MultiLabelDataModule)],
        "model.loss": [cls for cls in public if cls.__module__.startswith("mlcv.losses.") and hasattr(cls, "forward")],
        "model.head": [cls for cls in public if issubclass(cls, Head)],
    }


def part_to_list(arguments: Sequence[str]) -> str | None:
    """The part of a config whose classes are asked for: `--model.loss.help` without the name of one."""
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        part = argument.removeprefix("--").removesuffix(".help")
        if argument.endswith(".help") and following.startswith("--") and part in classes_of_parts():
            return part
    return None


def class_list(part: str) -> str:
    """A line for each class that may stand under a part of a config, such as `model.loss`."""
    classes = classes_of_parts()[part]
    rows = {cls.__name__: (inspect.getdoc(cls) or "").partition("\n")[0] for cls in classes}
    shown = f"options of one: mlcv fit --{part}.help {classes[0].__name__}"
    return f"classes for --{part}:\n\n{two_columns(rows)}\n\n{shown}"


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


def _unknown_option(name: str, arguments: Sequence[str], options: Sequence[str]) -> str:
    renamed = renamed_option(name)
    if name.startswith("init_args."):
        return (
            "--config is a file that begins with class_path and init_args, which is one part of a config: "
            "give one of a data set, such as mlcv merge writes, with --data"
        )
    if name in options:
        parts = classes_of_parts()
        whose = max((part for part in parts if name.startswith(f"{part}.")), key=len, default="model")
        chosen = _chosen_after(name, whose, arguments)
        public = {cls.__name__: cls for cls in parts[whose]}.get(chosen.rpartition(".")[2])
        if chosen and (public is None or name.removeprefix(f"{whose}.") in _arguments(public)):
            return f"--{name} stands before --{whose}, and each class's options come after it: exchange the two"
        return (
            f"{name!r} is an option of other classes, not of the chosen one: "
            f"`mlcv fit --config ... --{whose}.help NAME` lists its own" + (f"; {renamed}" if renamed else "")
        )
    if renamed:
        return renamed
    meant = _meant(name, options)
    if meant is not None:
        return f"there is no option {name!r}; did you mean {meant!r}?"
    # A config file's key may be reported without its section: compare it with the ends of the full names, too.
    endings = {option.split(".", depth)[-1]: option for option in options for depth in (2, 1, 0)}
    near = difflib.get_close_matches(name, endings, n=1, cutoff=0.7)
    hint = f"did you mean {endings[near[0]]!r}? " if near else ""
    return f"there is no option {name!r}; {hint}`mlcv fit --help` lists them, `mlcv fit --model.help NAME` a class's"


def _chosen_after(name: str, part: str, arguments: Sequence[str]) -> str:
    """The class that a command line gives a part of a config after it has given an option; empty if it does not."""
    given = [argument.partition("=")[0] for argument in arguments]
    behind = arguments[given.index(f"--{name}") :] if f"--{name}" in given else []
    return next(iter(take(behind, f"--{part}")[0]), "")


def _meant(name: str, options: Sequence[str]) -> str | None:
    """The option that other programs call so, or that has this name in another place, if there is but one."""
    section, _, last = name.rpartition(".")
    wanted = _USUAL.get(last, last)
    found = [option for option in options if option.rpartition(".")[2] == wanted]
    found = [option for option in found if option.startswith(section.partition(".")[0])] or found
    shortest = sorted(found, key=lambda option: (option.count("."), option))
    return shortest[0] if found and (len(found) == 1 or wanted != last) else None


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
