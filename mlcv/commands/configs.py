"""`mlcv configs`: the configs that come with the package."""

from collections.abc import Sequence
from pathlib import Path

from mlcv.commands.arguments import parser_of
from mlcv.errors import ConfigError
from mlcv.files import write_text
from mlcv.shipped_configs import Experiment, experiments, text_alone


def configs(copy: str | None = None, path: str | Path | None = None) -> list[Experiment]:
    """The configs that come with the package; one of them is copied if asked to.

    Args:
        copy: name of the one to copy, such as `voc/lite0`.
        path: where to; a file of its last name in the working folder if None. The copy needs no other file.

    Raises:
        ConfigError: if there is none of that name, or the path is taken.
    """
    if copy is not None:
        copy = str(copy)
        target = Path(_target(copy, path))
        text = text_alone(copy, str(target))
        if target.exists():
            raise ConfigError(f"{target} exists, and is not replaced; name another file")
        if not target.parent.is_dir():
            raise ConfigError(f"{target}: there is no folder {target.parent}")
        write_text(target, text)
    return experiments()


def main(arguments: Sequence[str]) -> None:
    """As the command line calls it."""
    parser = parser_of("configs")
    options = parser.parse_args(arguments)
    wanted = options.names
    if (options.verb == "copy") != (1 <= len(wanted) <= 2):
        parser.error("mlcv configs copy NAME [FILE] copies one, mlcv configs lists them")
    found = configs(*wanted)
    if wanted:
        print(f"copied. Change it as you like, then: mlcv fit --config {_target(*wanted)}")  # noqa: T201
    else:
        print_all(found)


def print_all(found: Sequence[Experiment]) -> None:
    """A line each: name, data and method, what it has reached here."""
    rows = [
        ("config", "data: method", "reached here"),
        *((one.name, one.about, one.reached.partition(" (")[0] or "-") for one in found),
    ]
    widths = [max(len(row[column]) for row in rows) + 2 for column in (0, 1)]
    print("\n".join(f"{name:{widths[0]}}{about:{widths[1]}}{reached}" for name, about, reached in rows))  # noqa: T201
    print("\ntrain one:      mlcv fit --config voc/lite0 --data.root FOLDER")  # noqa: T201
    print("make it yours:  mlcv configs copy voc/lite0 my.yaml")  # noqa: T201


def _target(name: str, path: str | Path | None = None) -> str:
    return str(path or "") or f"{name.rpartition('/')[2].removesuffix('.yaml')}.yaml"
