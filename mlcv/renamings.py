"""Classes and options that are called otherwise now: older checkpoints open by these, and errors name the new ones."""

from collections.abc import Iterable, Mapping
from typing import Any

CLASSES: dict[str, str] = {}
"""Old names to new ones, each with its module."""

OPTIONS: dict[str, dict[str, str]] = {
    "mlcv.methods.patch_ct.PatchCT": {
        "ct_weight": "transport.weight",
        "temperature": "transport.temperature",
        "learn_temperature": "transport.learn_temperature",
        "rho": "transport.rho",
        "patch_weights": "transport.patch_weights",
        "num_layers": "transport.num_layers",
        "background": "transport.background",
        "max_labels": "transport.max_labels",
        "label_embeddings": "labels.embeddings",
        "prompts": "labels.prompts",
        "learn_labels": "labels.learn",
        "dim": "labels.dim",
    },
}
"""Of a class, by its name with its module: old options to new ones; a dot leads into a group of options."""


def current_class(name: str) -> str:
    """What a class of that name is called now."""
    return CLASSES.get(name, name)


def with_current_options(cls: type, given: Mapping[Any, Any], known: Iterable[str]) -> dict[Any, Any]:
    """Arguments by the names that they have now; what a class itself knows by an old name stays.

    Args:
        cls: whose arguments they are.
        given: names to values, from a checkpoint of any version.
        known: names that the class takes.
    """
    names = {old: new for one in cls.__mro__ for old, new in OPTIONS.get(_name(one), {}).items()}
    renamed = {old: new for old, new in names.items() if old in given and old not in known}
    current = {name: value for name, value in given.items() if name not in renamed}
    for old, new in renamed.items():
        group, _, option = new.rpartition(".")
        inside = current.get(group, {}) if group else current
        if not isinstance(inside, dict) or option in inside:  # given twice: let the old one be refused
            current[old] = given[old]
        elif group:
            current[group] = {**inside, option: given[old]}
        else:
            current[option] = given[old]
    return current


def renamed_option(option: str) -> str | None:
    """A sentence on an option that no class takes any more, as it is written on the command line, if it has gone."""
    section, _, last = option.rpartition(".")
    if section not in ("", "model", "model.init_args"):
        return None
    for cls, names in OPTIONS.items():
        if last in names:
            new = f"{section}.{names[last]}" if section else names[last]
            return f"the option {option!r} of {cls.rpartition('.')[2]} is called {new!r} now"
    return None


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
