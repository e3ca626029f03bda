"""What a study is to compare, as a file says it or a preset."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from mlcv.errors import ConfigError
from mlcv.plain_config import parse
from mlcv.shipped_configs import find_config

Plot = Literal["dots", "curves"]
Checkpoint = Literal["last", "best"]
Options = Mapping[str, Any]
"""Of `mlcv fit`, by their names without dashes."""

Key = tuple[str, str, int]
"""Of a run: condition, method, seed."""

METRICS = (
    "mAP", "AUROC", "CP", "CR", "CF1", "OP", "OR", "OF1", "CF1_tuned", "OF1_tuned", "CF1_top3", "OF1_top3", "GAP@20",
    "ranking_loss", "coverage_error", "LRAP", "ECE", "pointing_game", "mAP_11point",
)  # fmt: skip
"""Of a test, see `mlcv.metrics.multilabel_scores`."""
OF_A_CLASS = re.compile(r"(AP|AUROC) of (.+)")
KL, STORED = "KL", "stored"
"""Of predictions from those of a method that the study names; bytes of a file that a method names."""
LOWER_IS_BETTER = ("ranking_loss", "coverage_error", "ECE", KL, STORED)

_SEEDS = ("seed_everything", "data.seed", "data.protocol.seed", "data.policy.seed")
"""What a run's seed is given as, unless the study says otherwise: split, order and views, draws of labels, weights."""
_KEYS = (
    "config", "options", "methods", "conditions", "tune", "seeds", "baseline", "metrics", "sort_by", "min_positives",
    "plot", "reference", "min_val_positives", "checkpoint",
)  # fmt: skip
_LONGEST = 200
"""Bytes of a name that is a folder's as it is; file systems take 255."""
RATES: Mapping[str, tuple[Any, ...]] = {"model.optim.lr": (0.001, 0.003, 0.01)}
"""What is tried unless a study says otherwise."""


@dataclass(frozen=True)
class Method:
    """A way of learning: configs, and what differs from them.

    Args:
        configs: files, as of `--config`.
        options: behind those of the study and of the condition.
        tune: of an option the values of which validation chooses one; all combinations are tried. None: the study's.
        is_listed: whether it has a row, or is only what others start from.
        under: options behind these, by condition.
        then: commands of mlcv that are run when it is tested, `predict` or `evaluate` with their options.
        stored: file whose bytes are told, such as what stands for a teacher's labels; of a checkpoint its weights'.
    """

    configs: tuple[str, ...]
    options: Options = field(default_factory=dict)
    tune: Mapping[str, tuple[Any, ...]] | None = None
    is_listed: bool = True
    under: Mapping[str, Options] = field(default_factory=dict)
    then: tuple[tuple[str, ...], ...] = ()
    stored: str | None = None


@dataclass(frozen=True)
class Run:
    """A method under a condition with a seed: a training for each setting that is tried, and one test.

    Args:
        condition: its name.
        method: its name.
        seed: at least 0.
        place: its folder, within the study's.
        settings: what is tried, by option.
        arguments: of `mlcv fit`, for each of the settings.
        needs: names of methods whose runs it starts from, under the same condition and seed.
        then: commands behind its test.
        stored: file whose bytes are told.
        reference: folder of a run; how far its predictions are from this run's is told.
        min_val_positives: see `Plan`.
        checkpoint: see `Plan`.
    """

    condition: str
    method: str
    seed: int
    place: str
    settings: tuple[Options, ...]
    arguments: tuple[tuple[str, ...], ...]
    needs: frozenset[str] = frozenset()
    then: tuple[tuple[str, ...], ...] = ()
    stored: str | None = None
    reference: str | None = None
    min_val_positives: int = 1
    checkpoint: Checkpoint = "last"

    @property
    def key(self) -> Key:
        """What it is told by."""
        return self.condition, self.method, self.seed

    @property
    def needed(self) -> set[Key]:
        """Keys of the runs that it starts from."""
        return {(self.condition, name, self.seed) for name in self.needs}


@dataclass(frozen=True)
class Plan:
    """A grid of runs, and how it is shown.

    Args:
        methods: by name.
        conditions: options of each, by name.
        options: of all runs.
        tune: what is tried of a method that says nothing else, but for options that are set in any way.
        seeds: how many, from 0.
        baseline: name of the method that the others are compared with.
        metrics: of the test split, that the table shows.
        sort_by: one of them.
        min_positives: that the test split has of a class, for the class to be in mAP and AUROC.
        plot: `dots`, a panel a condition; or `curves` over the conditions in their order.
        reference: method from whose predictions `KL` is taken.
        min_val_positives: that the validation split has of a class, for the class to be in the mean AP by which
            settings are chosen.
        checkpoint: `last`, what a whole training ends with; or `best`, the epoch with the highest mAP in validation,
            which hides how a method goes on.
    """

    methods: Mapping[str, Method]
    conditions: Mapping[str, Options]
    options: Options = field(default_factory=dict)
    tune: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    seeds: int = 3
    baseline: str = ""
    metrics: tuple[str, ...] = ("mAP", "CF1", "OF1", "ECE")
    sort_by: str = "mAP"
    min_positives: int = 1
    plot: Plot = "dots"
    reference: str | None = None
    min_val_positives: int = 1
    checkpoint: Checkpoint = "last"

    def __post_init__(self) -> None:
        for name, parts in (("methods", self.methods), ("conditions", self.conditions)):
            if not parts:
                raise ConfigError(f"study: there are no {name}")
            _check_apart(name, parts)
        for name, method in self.methods.items():
            _check_known(f"methods: {name}, under", list(method.under), self.conditions)
            if name in ("seed", "folder"):
                raise ConfigError(
                    f"study: {{{name}}} in an option is the {name}; give the method {name!r} another name"
                )
        if not self.baseline:
            object.__setattr__(self, "baseline", next(iter(self.methods)))
        _check_known("baseline", [self.baseline], self.methods)
        self._check_order()
        named = [name for name in (*self.metrics, self.sort_by) if not OF_A_CLASS.fullmatch(str(name))]
        _check_known("metrics", named, [*METRICS, STORED, *([KL] if self.reference else [])])
        _check_known("reference", [self.reference] if self.reference else [], self.methods)
        if self.sort_by not in self.metrics:
            object.__setattr__(self, "metrics", (self.sort_by, *self.metrics))
        _check_known("plot", [self.plot], ("dots", "curves"))
        _check_known("checkpoint", [self.checkpoint], ("last", "best"))
        for name in ("seeds", "min_positives", "min_val_positives"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"study: {name} is at least 1, got {value!r}")

    def _check_order(self) -> None:
        """No method starts from itself, nor by others that do."""
        left, done = dict(self.methods), set[str]()
        while ready := [name for name in left if self._needs(name) <= done]:
            done |= set(ready)
            left = {name: method for name, method in left.items() if name not in done}
        if left:
            raise ConfigError(
                f"study: methods: {', '.join(left)}: each would start from a run that needs its own first"
            )

    @property
    def listed(self) -> list[str]:
        """Methods that have a row."""
        return [name for name, method in self.methods.items() if method.is_listed]

    def only(self, names: Sequence[str]) -> "Plan":
        """With these methods alone, those that they start from, and the baseline.

        Raises:
            ConfigError: if there is no such method.
        """
        _check_known("--methods", names, self.methods)
        kept = {self.baseline, *names}
        while more := {other for name in kept for other in self._needs(name)} - kept:
            kept |= more
        return replace(self, methods={name: method for name, method in self.methods.items() if name in kept})

    def runs(self, folder: Path) -> Iterator[Run]:
        """All of them, seed by seed, so that a study that is stopped has whole columns.

        Args:
            folder: of the study, which options may name.
        """
        for seed, (condition, differs), (name, method) in product(
            range(self.seeds), self.conditions.items(), self.methods.items()
        ):
            place = f"runs/{seed}/{slug(condition)}/{slug(name)}"
            within = {other: str(folder / f"runs/{seed}/{slug(condition)}/{slug(other)}") for other in self.methods}
            names = {"seed": str(seed), "folder": str(folder), **within}
            own = {**method.options, **method.under.get(condition, {})}
            given = {**self.options, **differs, **own}
            seeds = {key: seed for key in _SEEDS if key not in given}
            tried, fixed = (self.tune, given) if method.tune is None else (method.tune, own)
            tried = {key: values for key, values in tried.items() if key not in fixed}
            settings = [dict(zip(tried, values, strict=True)) for values in product(*tried.values())]
            arguments = tuple(
                (
                    *(f"--config={_filled(config, names)}" for config in method.configs),
                    *(
                        _argument(key, _filled(value, names))
                        for key, value in _parents_first({**given, **setting, **seeds})
                    ),
                )
                for setting in settings
            )
            then, stored = _filled([list(words) for words in method.then], names), _filled(method.stored, names)
            reference = within[self.reference] if self.reference not in (None, name) else None
            yield Run(
                condition, name, seed, place, tuple(settings), arguments, frozenset(self._needs(name)),
                tuple(map(tuple, then)), stored, reference, self.min_val_positives, self.checkpoint,
            )  # fmt: skip

    def _starts_from(self, name: str) -> set[str]:
        """Methods that a method's options name, whatever the condition."""
        method = self.methods[name]
        tried = self.tune if method.tune is None else method.tune
        options = [self.options, *self.conditions.values(), method.options, *method.under.values(), tried]
        return self._named([list(one.values()) for one in options])

    def _needs(self, name: str) -> set[str]:
        """Methods whose runs come before one's own."""
        method = self.methods[name]
        later = self._named([*map(list, method.then), method.stored]) | ({self.reference} if self.reference else set())
        return self._starts_from(name) | (later - {name})

    def _named(self, values: Any) -> set[str]:
        values = json.loads(json.dumps(values, default=str))
        return {name for name in self.methods if _filled(values, {name: ""}) != values}


def read_plan(path: str | Path) -> Plan:
    """The plan of a study file; see docs/studies.md.

    Args:
        path: of a YAML file, or the name of a shipped one, such as `studies/digits`.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    path = Path(find_config(str(path), "study"))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"study: {path} cannot be read ({type(error).__name__})") from error
    given = parse(text, f"study: {path}")
    _check_known(f"{path}, keys of a study", list(given), _KEYS)
    configs = _configs(given.pop("config", None), path.parent, "config")
    given["tune"] = _tune(given.get("tune", RATES), "tune")
    methods = {}
    for name, differs in _table(given.pop("methods", None), "methods").items():
        where = f"methods: {name}"
        options = dict(_table(differs, where))
        own = _configs(options.pop("config", None), path.parent, where) or configs
        if not own:
            raise ConfigError(f"study: {where} has no config, and the study has none")
        tried = _tune(options.pop("tune"), where) if "tune" in options else None
        is_listed, under = options.pop("is_listed", True), _tables(options.pop("under", None), f"{where}, under")
        if not isinstance(is_listed, bool):
            raise ConfigError(f"study: {where}: is_listed is true or false, got {is_listed!r}")
        then = _commands(options.pop("then", []), where)
        methods[str(name)] = Method(own, options, tried, is_listed, under, then, options.pop("stored", None))
    conditions = _tables(given.pop("conditions", {"labels as they are": {}}), "conditions")
    given["options"] = dict(_table(given.get("options", {}), "options"))
    metrics = given.pop("metrics", list(Plan.metrics))
    if not isinstance(metrics, list):
        raise ConfigError(f"study: metrics is a list of names, got {metrics!r}")
    given["metrics"] = tuple(dict.fromkeys(map(str, metrics)))
    given |= {name: str(given[name]) for name in ("baseline", "sort_by", "reference") if name in given}
    return Plan(methods, conditions, **given)


def direction(metric: str) -> int:
    """1 where more is better, else -1."""
    return -1 if metric in LOWER_IS_BETTER else 1


def slug(name: str) -> str:
    """A name as part of a path."""
    text = re.sub(r"[^\w.+-]+", "_", name.replace("%", "percent")).strip("_.") or "_"
    if len(os.fsencode(text)) <= _LONGEST:
        return text
    return f"{text[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _check_apart(what: str, names: Mapping[str, Any]) -> None:
    folders: dict[str, str] = {}
    for name in names:
        if what == "methods" and "," in name:
            raise ConfigError(f"study: a method's name has no comma, as --methods separates them by it; got {name!r}")
        other = folders.setdefault(slug(name).lower(), name)
        if other != name:
            raise ConfigError(f"study: {what} {other!r} and {name!r} would have one folder; rename one of them")


def _check_known(what: str, names: Sequence[str], known: Mapping[str, Any] | Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"study: {what}: there is no {name!r}; {hint}Choose from {', '.join(known)}")


def _table(given: Any, where: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"study: {where} is a table of names and values, got {str(given)[:60]!r}")
    return given


def _tables(given: Any, where: str) -> dict[str, dict[str, Any]]:
    return {str(name): dict(_table(one, f"{where}: {name}")) for name, one in _table(given, where).items()}


def _configs(given: Any, folder: Path, where: str) -> tuple[str, ...]:
    paths = [given] if isinstance(given, str) else given or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"study: {where}: config is a file or a list of them, got {str(given)[:60]!r}")
    beside = [folder / path for path in paths]
    return tuple(str(near) if near.is_file() else find_config(path) for path, near in zip(paths, beside, strict=True))


def _commands(given: Any, where: str) -> tuple[tuple[str, ...], ...]:
    """Each a list of words."""
    for words in given if isinstance(given, list) else [given]:
        if not isinstance(words, list) or not words or words[0] not in ("predict", "evaluate"):
            raise ConfigError(f"study: {where}: then is a list of commands, such as [[predict, ...]]; got {words!r}")
    return tuple(tuple(map(str, words)) for words in given)


def _tune(given: Any, where: str) -> dict[str, tuple[Any, ...]]:
    found = {}
    for key, values in _table(given, f"{where}, tune").items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"study: {where}: tune.{key} is a list of values to try, got {values!r}")
        found[key] = tuple(values)
    return found


def _parents_first(options: Options) -> Iterator[tuple[str, Any]]:
    """In their order, but a class before its own options, which it would refuse or forget."""
    ordered: dict[str, None] = {}
    for key in options:
        parents = [other for other in options if str(key).startswith(f"{str(other).removesuffix('+')}.")]
        ordered.update(dict.fromkeys([*sorted(parents, key=len), key]))
    return ((key, options[key]) for key in ordered)


def _argument(key: str, value: Any) -> str:
    """As the command line has it; what is not a word or a number as JSON, which is YAML."""
    return f"--{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    """With `{seed}`, `{folder}` and `{name of a method}` replaced in its strings; other braces stay."""
    if isinstance(value, dict):
        return {key: _filled(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, names) for one in value]
    if not isinstance(value, str):
        return value
    for name, text in names.items():
        value = value.replace(f"{{{name}}}", text)
    return value
