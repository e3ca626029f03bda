"""A stranger's configuration is data: read within limits, checked against signatures, and only then built.

A checkpoint names classes and their arguments. Whatever instantiates these for it (jsonargparse, Lightning) imports
what a name says, reads strings as YAML or as files, and calls what it finds; so nothing reaches it that has not passed
here. Classes are those of this project and of packages that the user trusts; arguments fit the type hints of their
constructors, and what a hint leaves open holds numbers and words.
"""

import collections.abc
import dataclasses
import functools
import importlib
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, cast

import yaml

from mlcv.errors import ConfigError
from mlcv.renamings import current_class, with_current_options
from mlcv.trust import is_below, trusted

MOST_BYTES, MOST_DEPTH, MOST_NODES = 2**20, 16, 100_000

_ROOMS = re.compile(r"mlcv(\.(callbacks|data|losses|methods|models)(\.[a-z]\w*)*)?")
_WORDS = re.compile(r"[A-Za-z0-9_ +:-]{0,256}")
_SPEC = ("class_path", "init_args", "dict_kwargs")
# timm's constructor takes these from `backbone_args`; each makes it read a file or an address.
_SOURCES = re.compile(r"pretrained\w*|checkpoint_path|cache_dir|hf_hub_id|url|file")
_UNIONS = (Union, types.UnionType)
_ROWS = (tuple, list, collections.abc.Sequence, collections.abc.Iterable)
_TABLES = (dict, collections.abc.Mapping)
_OPEN = (Any, object, dict, list, tuple)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: Any, where: str) -> dict[str, Any]:
    """A configuration's text, YAML or JSON, as a mapping.

    Limits are counted on the parser's events, before anything is built: 1 MiB, 16 levels, 100,000 nodes; no anchors,
    aliases and tags, by which a small text becomes a large tree or an object; and no key
    twice, of which one would be lost.

    Raises:
        ConfigError: for a text beyond the limits, or that is no YAML mapping, or has a key twice.
    """
    if not isinstance(text, str) or len(text.encode(errors="replace")) > MOST_BYTES:
        raise ConfigError(f"{where} is no text of at most 1 MiB, and is not read")
    depth = nodes = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            is_start = isinstance(event, yaml.CollectionStartEvent)
            depth += is_start - isinstance(event, yaml.CollectionEndEvent)
            nodes += is_start or isinstance(event, yaml.ScalarEvent)
            anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
            if anchor is not None or tag is not None or depth > MOST_DEPTH or nodes > MOST_NODES:
                raise ConfigError(
                    f"{where} has aliases, tags, more than {MOST_DEPTH} levels or {MOST_NODES} values; it is not read"
                )
        twice = _key_twice(yaml.compose(text, Loader=_Loader))
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506  # a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no YAML ({str(error).partition(chr(10))[0]})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} is no mapping of sections")
    if twice is not None:
        raise ConfigError(f"{where}: {twice!r} is there twice, and one of them would be lost; rename it")
    return tree


def _key_twice(node: Any) -> str | None:
    if not isinstance(node, yaml.CollectionNode):
        return None
    below = node.value
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            return twice[0]
        below = [value for _, value in node.value]
    return next((found for one in below if (found := _key_twice(one)) is not None), None)


def resolve(name: Any, base: type, where: str) -> type:
    """The class of that name, which must be of this project or trusted, or a subclass of a base of this project.

    Nothing is imported for it but this project's own files and trusted packages.

    Args:
        name: with its module.
        base: what it must be a subclass of.
        where: what names it, for the error.

    Raises:
        ConfigError: if it is anything else.
    """
    module, _, attribute = current_class(name).rpartition(".") if isinstance(name, str) else ("", "", "")
    is_ours, is_trusted = bool(_ROOMS.fullmatch(module)), is_below(module, trusted())
    if is_ours or is_trusted:
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise ConfigError(f"{where}: {name!r} cannot be imported ({error})") from error
    else:
        found = vars(sys.modules.get(module, object)).get(attribute)
    is_class = isinstance(found, type) and issubclass(found, base)
    if not is_class or not (is_below(base.__module__, ("mlcv",)) or is_below(found.__module__, ("mlcv", *trusted()))):
        package = str(module).partition(".")[0] or "PACKAGE"
        raise ConfigError(
            f"{where}: {_shown(name)} is no {base.__name__} of mlcv, and nothing else is imported for a checkpoint. If "
            f"it is of a package that you trust, add --trust {package}"
        )
    return cast("type", found)


def spec(given: Any, base: type, where: str) -> dict[str, Any]:
    """`{"class_path", "init_args"}` of a class, checked; it carries the class's own name.

    Args:
        given: the like, from a stranger; or the name alone.
        base: what the class must be a subclass of.
        where: the place, for errors.

    Raises:
        ConfigError: naming the place of what does not fit.
    """
    return _Walk(where).named(given, base, where, 0)


def arguments(cls: Any, given: Any, where: str) -> dict[str, Any]:
    """Arguments of a class's constructor, as plain data that fits its type hints; none need be there.

    Args:
        cls: whose signature is followed, through `**kwargs` to its ancestors'.
        given: names to values.
        where: the place, for errors.

    Raises:
        ConfigError: naming the place of what does not fit.
    """
    return _Walk(where).arguments(cls, given, where, 0)


def plain(value: Any, hint: Any, where: str) -> Any:
    """A value that fits a type hint, as plain data.

    Raises:
        ConfigError: naming the place, if it does not fit.
    """
    return _Walk(where).value(value, hint, where, 0)


def build(given: dict[str, Any], base: type) -> Any:
    """The object of a `spec`; its arguments are built before it.

    Raises:
        ConfigError: if a constructor refuses them.
    """
    cls = resolve(given["class_path"], base, given["class_path"])
    return construct(cls, given["init_args"])


def construct(cls: Any, checked: dict[str, Any], **more: Any) -> Any:
    """An object of a class from its `arguments`, and more that are passed as they are; as `build`."""
    built = _all_built(cls, checked)
    try:
        return cls(**{**built, **more})
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"{cls.__name__} cannot be built from these arguments ({error})") from error


class _RefusedError(ConfigError):
    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where


class _Walk:
    """Through one tree, with a count of what has been seen: by shared references a small file holds a large one."""

    def __init__(self, source: str) -> None:
        self.source, self.nodes = source, 0

    def value(self, value: Any, hint: Any, where: str, depth: int) -> Any:
        self.nodes += 1
        if depth > MOST_DEPTH or self.nodes > MOST_NODES:
            raise ConfigError(f"{self.source} has more than {MOST_DEPTH} levels or {MOST_NODES} values; it is not read")
        if value is None and takes_none(hint):
            return None
        hint = getattr(hint, "__value__", hint)  # an alias by `type`
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in _UNIONS:
            return self._either(value, hint, where, depth)
        if hint in _OPEN:
            return self._open(value, where, depth)
        if origin in _ROWS:
            return self._row(value, hint, where, depth)
        if origin in _TABLES:
            return self._table(value, hint, where, depth)
        if origin is collections.abc.Callable and isinstance(inner[-1], type):
            return self.named(value, inner[-1], where, depth)
        if dataclasses.is_dataclass(hint):
            return self.arguments(hint, value, where, depth)
        if isinstance(hint, type) and hint is not Path and hint.__module__ != "builtins":
            return self.named(value, hint, where, depth)
        return self._scalar(value, hint, where)

    def named(self, given: Any, base: type, where: str, depth: int) -> dict[str, Any]:
        about = {"class_path": given} if isinstance(given, str) else given
        if not isinstance(about, dict) or not set(about) <= {"class_path", "init_args"} or "class_path" not in about:
            raise _RefusedError(where, f"{_shown(given)} is no class_path with init_args")
        cls = resolve(about["class_path"], base, f"{where}.class_path")
        inside = self.arguments(cls, about.get("init_args") or {}, f"{where}.init_args", depth + 1)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": inside}

    def arguments(self, cls: Any, given: Any, where: str, depth: int) -> dict[str, Any]:
        known = dict(parameters(cls))
        self._check(given, isinstance(given, dict), dict, where)
        given = with_current_options(cls, given, known)
        strange = next((name for name in given if name not in known), None)
        if strange is not None:
            raise _RefusedError(where, f"{cls.__name__} takes no {_shown(strange)}")
        return {name: self.value(value, known[name], f"{where}.{name}", depth + 1) for name, value in given.items()}

    def _scalar(self, value: Any, hint: Any, where: str) -> Any:
        if typing.get_origin(hint) is Literal:
            fits = any(type(value) is type(one) and value == one for one in typing.get_args(hint))
        elif hint is float:
            fits = type(value) in (int, float) and _is_within_bounds(value)
        else:
            fits = hint in (bool, str, Path, int) and type(value) is (str if hint is Path else hint)
            fits = fits and (hint is not int or _is_within_bounds(value))
        return self._check(value, fits, hint, where)

    def _either(self, value: Any, hint: Any, where: str, depth: int) -> Any:
        refused: list[_RefusedError] = []
        for one in typing.get_args(hint):
            try:
                return self.value(value, one, where, depth)
            except _RefusedError as error:  # noqa: PERF203  # a union has few members
                refused.append(error)
        deepest = max(refused, key=lambda error: len(error.where))
        if len(deepest.where) > len(where):  # most of it was right
            raise deepest
        return self._check(value, False, hint, where)

    def _open(self, value: Any, where: str, depth: int) -> Any:
        """What nobody has typed: numbers and words, in lists and mappings."""
        if isinstance(value, dict):
            strange = next((key for key in value if not _is_name(key)), None)
            if strange is not None:
                raise _RefusedError(where, f"{_shown(strange)} names a class or a source, which no checkpoint may here")
            return {key: self.value(inner, Any, f"{where}.{key}", depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner, Any, f"{where}[{n}]", depth + 1) for n, inner in enumerate(value)]
        is_word = isinstance(value, str) and _WORDS.fullmatch(value)
        is_number = type(value) in (bool, int, float) and _is_within_bounds(value)
        if not is_word and not is_number:
            raise _RefusedError(where, f"{_shown(value)} is neither a number nor a word, and is not taken")
        return value

    def _row(self, value: Any, hint: Any, where: str, depth: int) -> list[Any]:
        self._check(value, isinstance(value, (list, tuple)), hint, where)
        hints = _hints_of_row(hint, len(value))
        self._check(value, len(value) == len(hints), hint, where)
        pairs = enumerate(zip(value, hints, strict=True))
        return [self.value(inner, one, f"{where}[{n}]", depth + 1) for n, (inner, one) in pairs]

    def _table(self, value: Any, hint: Any, where: str, depth: int) -> dict[str, Any]:
        fits = isinstance(value, dict) and all(type(key) is str and key not in _SPEC for key in value)
        self._check(value, fits, hint, where)
        _, inner = typing.get_args(hint)
        if inner in _OPEN:
            self._open(value, where, depth)
        return {key: self.value(one, inner, f"{where}.{key}", depth + 1) for key, one in value.items()}

    @staticmethod
    def _check(value: Any, fits: bool, hint: Any, where: str) -> Any:
        if not fits:
            wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
            raise _RefusedError(where, f"{_shown(value)} is no {wanted}")
        return value


def _built(value: Any, hint: Any) -> Any:
    """What a constructor wants, from data that has passed `plain` for the same hint."""
    hint = getattr(hint, "__value__", hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return _built(value, next(one for one in inner if _fits(value, one)))
    if value is None or hint in _OPEN:
        return value
    if origin in _ROWS:
        row = [_built(one, h) for one, h in zip(value, _hints_of_row(hint, len(value)), strict=True)]
        return tuple(row) if origin is tuple else row
    if origin in _TABLES:
        return {key: _built(one, inner[1]) for key, one in value.items()}
    if origin is collections.abc.Callable:
        cls = resolve(value["class_path"], inner[-1], value["class_path"])
        options = _all_built(cls, value["init_args"])
        return functools.partial(cls, **options) if options else cls
    if dataclasses.is_dataclass(hint):
        return construct(hint, value)
    if isinstance(hint, type) and isinstance(value, dict):
        return build(value, hint)
    return Path(value) if hint is Path else value


def _all_built(cls: Any, checked: dict[str, Any]) -> dict[str, Any]:
    hints = dict(parameters(cls))
    return {name: _built(value, hints[name]) for name, value in checked.items()}


def _fits(value: Any, hint: Any) -> bool:
    try:
        plain(value, hint, "")
    except ConfigError:
        return False
    return True


def _hints_of_row(hint: Any, length: int) -> list[Any]:
    inner = typing.get_args(hint)
    is_fixed = typing.get_origin(hint) is tuple and inner[-1] is not Ellipsis
    return list(inner) if is_fixed else [inner[0]] * length


@functools.lru_cache(maxsize=256)
def parameters(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Names and type hints of a constructor's arguments."""
    found: dict[str, Any] = {}
    for ancestor in cls.__mro__:
        init: Callable[..., None] | None = vars(ancestor).get("__init__")
        if init is None:
            continue
        try:
            hints = typing.get_type_hints(init)
        except (NameError, TypeError, AttributeError):  # a hint that only a type checker sees
            hints = {}
        declared = list(inspect.signature(init).parameters.values())[1:]
        for parameter in declared:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                hint = hints.get(parameter.name, Any)
                if parameter.default is None and not takes_none(hint):
                    hint = typing.Optional[hint]  # noqa: UP045  # any hint, as in `rank: int = None`
                found.setdefault(parameter.name, hint)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared):
            break
    return tuple(found.items())


def takes_none(hint: Any) -> bool:
    """Whether None fits a type hint."""
    hint = getattr(hint, "__value__", hint)
    if typing.get_origin(hint) in _UNIONS:
        return any(takes_none(one) for one in typing.get_args(hint))
    return hint in (None, type(None), Any, object)


def _is_name(key: Any) -> bool:
    is_word = isinstance(key, str) and re.fullmatch(r"[A-Za-z]\w{0,63}", key, re.ASCII) is not None
    return is_word and key not in _SPEC and not _SOURCES.fullmatch(key)


def _is_within_bounds(number: float) -> bool:
    """Finite, and of whole numbers none beyond 64 bits, of which many a library knows nothing."""
    return abs(number) < (2**63 if isinstance(number, int) else math.inf)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
