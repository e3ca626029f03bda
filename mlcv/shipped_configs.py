"""The configs that come with the package: found by name, listed, copied."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcv.command_line import take
from mlcv.errors import ConfigError

_HERE = Path(__file__).parent
FOLDER = next((folder for folder in (_HERE / "configs", _HERE.parent / "configs") if folder.is_dir()), _HERE)
"""In the package; where links are plain files (git on Windows), beside it."""

_PARTS = ("data", "trainer", "studies")
"""Folders of what experiments are made of, and of studies."""


@dataclass(frozen=True)
class Experiment:
    """A config as its head describes it.

    Args:
        name: folder and file, such as `voc/lite0`.
        about: data and method, the first line of its head.
        reached: what it has reached here, its head's line that begins so; empty if it was never trained whole.
    """

    name: str
    about: str
    reached: str


def experiments() -> list[Experiment]:
    """All that train a model, by name."""
    paths = sorted(path for path in FOLDER.glob("*/*.yaml") if path.parent.name not in _PARTS)
    return [_read(path) for path in paths]


def find_config(given: str, what: str = "--config") -> str:
    """A path as it stands if there is such a file; of a shipped config's name, with or without .yaml, its file.

    Args:
        given: path or name.
        what: it was given as, for messages.

    Raises:
        ConfigError: with the nearest names, if it is neither.
    """
    if Path(given).suffix in (".csv", ".gz", ".tsv"):
        raise ConfigError(f"{what}: {given} is a table; mlcv init {given} writes a config for it")
    if Path(given).is_file() or re.search(r"[:{\n]", given):  # or a config as text
        return given
    shipped = {_name(path): path for path in FOLDER.glob("*/*.yaml")}
    name = given.removesuffix(".yaml").removeprefix("configs/")
    if name not in shipped:
        near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.6)
        near += [
            other for other in shipped if other.rpartition("/")[2] == name.rpartition("/")[2] and other not in near
        ]
        hint = f"; did you mean {' or '.join(near[:3])}?" if near else ";"
        raise ConfigError(f"{what}: no file {given}, nor a config of that name{hint} `mlcv configs` lists them")
    return str(shipped[name])


def with_files(arguments: Sequence[str]) -> list[str]:
    """A command line with the files of its configs, which are put first: what is given by itself counts.

    Raises:
        ConfigError: as `find_config`; for another file that is not there; or for a text in place of its words.
    """
    if isinstance(arguments, str):
        raise ConfigError("options is a list of words of the command line, such as ['--config=a.yaml']")
    configs, others = take(arguments, "--config", "-c")
    for option in ("--data", "--model", "--trainer"):
        for value in take(others, option)[0]:
            if Path(value).suffix in (".yaml", ".yml", ".json") and not Path(value).is_file():
                raise ConfigError(f"{option}: no file {value}; it is the name of a class, or a file with one")
    return [*(f"--config={find_config(value)}" for value in configs), *others]


def text_alone(name: str, target: str) -> str:
    """A shipped config as one file that needs no other, with its head's command for the target.

    Raises:
        ConfigError: as `find_config`.
    """
    path = Path(find_config(name))
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(fit --config )\S+", rf"\g<1>{target}", text, count=1)
    return re.sub(r"^(\w+): (\.\./\S+\.yaml)$", lambda match: _with_inside(path, match), text, flags=re.MULTILINE)


def _with_inside(path: Path, match: re.Match[str]) -> str:
    inside = (path.parent / match[2]).read_text(encoding="utf-8")
    lines = "".join(f"  {line}\n" if line else "\n" for line in inside.splitlines()).rstrip()
    return f"{match[1]}:\n{lines}"


def _read(path: Path) -> Experiment:
    text = path.read_text(encoding="utf-8")
    reached = re.search(r"^# Reached here: (.*?)\.?$", text, re.MULTILINE)
    return Experiment(_name(path), text.partition("\n")[0].strip("# ."), reached[1] if reached else "")


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"
