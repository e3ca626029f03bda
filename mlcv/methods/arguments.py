"""Arguments of a method's constructor as a checkpoint keeps them: plain data, no pickled object."""

import dataclasses
import functools
import inspect
from typing import Any, cast

from torch import nn

from mlcv.errors import ConfigError


def class_path(cls: Any) -> str:
    """A class's module and name, by which a config names it."""
    return f"{cast(type, cls).__module__}.{cast(type, cls).__qualname__}"


def plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments as plain data, in the form of a config, so that a checkpoint needs no pickled object.

    Objects become `{"class_path", "init_args"}`. For that, an object's class must keep each constructor argument
    under the argument's own name, as all of this project's do.

    Raises:
        ConfigError: naming the class and argument for which this is not so.
    """
    return {name: _plain(value) for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, functools.partial):
        return {"class_path": class_path(value.func), "init_args": plain_arguments(value.keywords)}
    if isinstance(value, type):
        return {"class_path": class_path(value)}
    if isinstance(value, nn.Module):
        names = () if type(value).__init__ is nn.Module.__init__ else inspect.signature(type(value).__init__).parameters
        return {
            "class_path": class_path(type(value)),
            "init_args": {name: _plain(_argument(value, name)) for name in names if name != "self"},
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return plain_arguments(value)
    return value


def _argument(instance: nn.Module, name: str) -> Any:
    if not hasattr(instance, name):
        raise ConfigError(
            f"{type(instance).__name__} does not keep its argument {name!r}, so no checkpoint could build it again: "
            f"set self.{name} = {name} in its constructor"
        )
    return getattr(instance, name)
