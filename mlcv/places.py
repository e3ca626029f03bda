"""Relative paths of a configuration that is used from another folder than the one where they were given."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

NAMES = (
    "path", "root", "image_root", "val_path", "test_path",  # of data
    "weights", "teacher", "embeddings", "label_embeddings", "soft_labels",  # of methods and policies; or a word
)  # fmt: skip
"""Arguments that name files or folders."""


def above(file: Path) -> list[Path]:
    """The folders that a file is in, the nearest first."""
    return list(file.absolute().parents)


def find_files(config: Any, folders: Sequence[Path]) -> list[str]:
    """Puts what relative paths mean elsewhere in their place, where the working folder has nothing of that name.

    A project that was moved, or is used from another folder, keeps its config and runs in it; so paths that were given
    in its folder are found from where its config or checkpoint lies, upwards.

    Args:
        config: of mappings, lists, or namespaces of a parser; changed in place.
        folders: to look in, the likeliest first.

    Returns:
        a sentence for each path that was replaced.
    """
    notes: dict[str, None] = {}
    for node, key, path in list(_paths(config)):
        if Path(path).is_absolute() or _exists(Path(path)):
            continue
        found = next((folder / path for folder in folders if _exists(folder / path)), None)
        if found is not None:
            node[key] = str(found)
            notes[f"{path}: taken from {found.parent if found.name == path else found}"] = None
    return list(notes)


def _paths(node: Any) -> Iterator[tuple[Any, Any, str]]:
    inside: Any = node if isinstance(node, dict) else getattr(node, "__dict__", {})
    for key, value in inside.items():
        if key in NAMES and isinstance(value, str):
            yield inside, key, value
        elif key in NAMES and isinstance(value, list):
            yield from ((value, place, one) for place, one in enumerate(value) if isinstance(one, str))
        else:
            yield from _paths(value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return False
