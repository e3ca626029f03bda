"""Relative paths of a configuration that is used from another folder than the one where they were given."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

OF_DATA = ("path", "root", "image_root", "val_path", "test_path", "prepared", "corrections")
NAMES = (*OF_DATA, "weights", "teacher", "embeddings", "label_embeddings", "soft_labels", "start_from")
"""Arguments that name files or folders; beyond the data's, or a word."""


def above(file: Path) -> list[Path]:
    """The folders that a file is in, the nearest first."""
    return list(file.absolute().parents)


def find_files(config: Any, folders: Sequence[Path], typed: Collection[str] = ()) -> list[str]:
    """Puts what relative paths mean where they were given in their place.

    A project that was moved, or is used from another folder, keeps its config and runs in it; so paths are found from
    where their config or checkpoint lies, upwards. What is nowhere there is left to the working folder.

    Args:
        config: of mappings, lists, or namespaces of a parser; changed in place.
        folders: to look in, the likeliest first.
        typed: names of arguments that stand on the command line, which are of the working folder.

    Returns:
        a sentence for each path that was replaced.
    """
    notes: dict[str, None] = {}
    for node, key, path, name in list(_paths(config)):
        if name in typed or Path(path).is_absolute() or not Path(path).name.strip(".") or _is_word(name, path):
            continue
        found = next((folder / path for folder in folders if _exists(folder / path)), None)
        if found is not None and not (_exists(Path(path)) and found.samefile(path)):
            node[key] = str(found)
            notes[f"{path}: taken from {found.parent if found.name == path else found}"] = None
    return list(notes)


def _is_word(name: str, text: str) -> bool:
    """Whether it may be a word such as `pretrained`, or a tag of weights, and no file."""
    return name not in OF_DATA and not Path(text).suffix and "/" not in text


def _paths(node: Any) -> Iterator[tuple[Any, Any, str, str]]:
    inside: Any = node if isinstance(node, dict) else getattr(node, "__dict__", {})
    for key, value in inside.items():
        if key in NAMES and isinstance(value, str):
            yield inside, key, value, key
        elif key in NAMES and isinstance(value, list):
            yield from ((value, place, one, key) for place, one in enumerate(value) if isinstance(one, str))
        else:
            yield from _paths(value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return False
