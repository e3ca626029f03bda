"""What a command of several stages has begun, it goes on with or finds done only if it is asked for the same again."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from mlcv import __version__
from mlcv.errors import ConfigError
from mlcv.files import read_json, write_text


def begin(place: str | Path, *arguments: str | Path, chosen_by: str) -> None:
    """Notes beside a result what it is made of, and refuses one that was begun with anything else.

    Args:
        place: path of the result, a folder or a file.
        arguments: of the command that makes it; of those that name files (also behind an option's `=`), the content
            counts, too, with that of the YAML files that a YAML file names.
        chosen_by: the option that says where the results of the command are.

    Raises:
        ConfigError: if it was.
    """
    parts = [str(argument) for argument in arguments]
    now = {"mlcv": __version__, "arguments": parts, "files": files_in(parts)}
    note = Path(place).with_name(f"{Path(place).name}.command.json")
    then = read_json(note, "note of a command") if note.is_file() else None
    if not Path(place).exists():  # nothing was begun, or it came to nothing
        write_text(note, json.dumps(now, indent=1) + "\n")
    elif then is None:
        raise ConfigError(
            f"{place} is there, and nothing says what made it: choose another folder with {chosen_by}, or remove it"
        )
    elif then != now:
        changed = [part for part in parts if part not in then.get("arguments", [])] or list(now["files"])[:2]
        new = " ".join(changed[:4]) or "fewer"
        raise ConfigError(
            f"{place} was begun with other arguments ({note.name}; new: {new}): choose another folder with {chosen_by}"
        )


def files_in(arguments: Sequence[str]) -> dict[str, str]:
    """A digest for each of a command's arguments that names a file, also behind an option's `=`.

    Of a YAML file the content of those that it names counts, too.
    """
    found = {argument: _digest(argument) for argument in arguments}
    return {argument: digest for argument, digest in found.items() if digest}


def _digest(part: str, within: tuple[Path, ...] = ()) -> str | None:
    path = Path(part.rpartition("=")[2])
    if not part or not path.is_file() or path.resolve() in within:  # a config's head may name the config
        return None
    within = (*within, path.resolve())
    content = path.read_bytes()
    if path.suffix in (".yaml", ".yml"):
        named = re.findall(rb"[^\s'\"{},:]+\.ya?ml\b", content)
        inner = [_digest(str(path.parent / name.decode(errors="replace")), within) for name in named]
        content += " ".join(one for one in inner if one).encode()
    return hashlib.sha256(content).hexdigest()
