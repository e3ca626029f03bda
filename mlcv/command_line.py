"""A command line before any parser: single options found in it, wherever they stand."""

from collections.abc import Sequence

from mlcv.errors import ConfigError


def take(arguments: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """All values of an option, `--name value` or `--name=value`, and the arguments without it.

    Args:
        arguments: of the command line.
        names: of the option, such as `--config` and `-c`.

    Raises:
        ConfigError: if the last of them has no value.
    """
    values, others = [], []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name not in names:
            others.append(argument)
            continue
        found = value if equals else next(left, None)
        if found is None:
            raise ConfigError(f"{name} needs a value")
        values.append(found)
    return values, others
