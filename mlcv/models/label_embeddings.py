"""Label embeddings from a file of vectors, or from an open_clip text encoder."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcv.cache import cached, file_key
from mlcv.errors import ConfigError
from mlcv.files import read_array
from mlcv.models.open_clip_tower import create_open_clip, tokenizer_of

PROMPTS = ("a photo of a {}.",)


def read_label_embeddings(source: str, class_names: Sequence[str], prompts: Sequence[str] = PROMPTS) -> Tensor:
    """One vector for each class name.

    Args:
        source: a .npy file with one row a class, in the order of the classes; a text file as GloVe's, a word and its
            numbers a line, with underscores for blanks (a name of several words has their mean, and `diningtable` is
            read as `dining` and `table`); or `open_clip:<model>:<pretrained tag or file>`, whose text encoder reads the
            prompts and whose vectors have length 1; they are cached.
        class_names: C names.
        prompts: for a text encoder, with {} where the name goes; a class has the mean of its prompts' unit vectors.

    Returns:
        float32 (C, E).

    Raises:
        ConfigError: naming the file and what it lacks, or why the text encoder cannot be had.
    """
    if source.startswith("open_clip:"):
        return _from_open_clip(source, class_names, prompts)
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"label_embeddings: no file {path}. Give a .npy file with a row a class, a text file of word vectors (such "
            "as glove.6B.300d.txt from nlp.stanford.edu/projects/glove), or open_clip:<model>:<pretrained>"
        )
    vectors = _from_array(path, class_names) if path.suffix == ".npy" else _from_words(path, class_names)
    if not np.isfinite(vectors).all():
        raise ConfigError(f"label_embeddings: {path} holds numbers that are not finite")
    return torch.from_numpy(vectors.astype(np.float32))


def fill_prompts(prompts: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Each prompt of the first class, then of the second, and so on.

    Raises:
        ConfigError: if there is no prompt, or one has no place for the name.
    """
    if not prompts or any(prompt.count("{}") != 1 for prompt in prompts):
        raise ConfigError(
            f"prompts: each needs one {{}} where the name goes, as {PROMPTS[0]!r} has; got {list(prompts)}"
        )
    return [prompt.replace("{}", name.replace("_", " ")) for name in class_names for prompt in prompts]


def _from_array(path: Path, class_names: Sequence[str]) -> np.ndarray:
    vectors: np.ndarray = read_array(path, "label_embeddings")
    if vectors.ndim != 2 or len(vectors) != len(class_names):
        raise ConfigError(
            f"label_embeddings: {path} has shape {vectors.shape}, expected ({len(class_names)}, E), a row a class"
        )
    return vectors


def _from_words(path: Path, class_names: Sequence[str]) -> np.ndarray:
    wanted = {word for name in class_names for reading in _readings(name) for word in reading}
    found: dict[str, np.ndarray] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:  # words of no class may be in any
        for number, line in enumerate(lines, 1):
            word, _, numbers = line.rstrip().partition(" ")
            if word in wanted:
                try:
                    found[word] = np.array(numbers.split(), dtype=np.float32)
                except ValueError as error:
                    raise ConfigError(f"label_embeddings: {path}:{number}: {error}") from error
    if len({len(vector) for vector in found.values()}) > 1:
        raise ConfigError(f"label_embeddings: {path} holds vectors of several lengths; is the file complete?")
    rows = []
    for name in class_names:
        reading = next((words for words in _readings(name) if all(word in found for word in words)), None)
        if reading is None:
            raise ConfigError(f"label_embeddings: {path} has no vector for the class {name!r}")
        rows.append(np.mean([found[word] for word in reading], axis=0))
    return np.stack(rows)


def _readings(name: str) -> Iterator[list[str]]:
    """Ways to see a class name as words: as it is, its parts, then any cut of a single word in two."""
    name = name.lower()
    yield [re.sub(r"[\s-]+", "_", name)]
    words = re.split(r"[\s_/-]+", name)
    yield words
    if len(words) == 1:
        # Cuts near the middle first: "tv|monitor" before "t|vmonitor".
        for cut in sorted(range(1, len(name)), key=lambda c: abs(2 * c - len(name))):
            yield [name[a:b] for a, b in pairwise((0, cut, len(name)))]


def _from_open_clip(source: str, class_names: Sequence[str], prompts: Sequence[str]) -> Tensor:
    _, model_name, pretrained = [*source.split(":", 2), "", ""][:3]
    if not model_name or not pretrained:
        raise ConfigError(f"label_embeddings: write open_clip:<model>:<pretrained tag or file>, not {source!r}")
    texts = fill_prompts(prompts, class_names)

    def encode() -> dict[str, np.ndarray]:
        # Its random start before the weights are loaded must not move the run's random numbers: the cache draws none.
        with torch.random.fork_rng(devices=[]):
            model = create_open_clip(model_name, pretrained, "label_embeddings").eval()
        tokens = tokenizer_of(model_name)(texts)
        with torch.no_grad():
            vectors = torch.cat([model.encode_text(part, normalize=True).float() for part in tokens.split(256)])
        return {"embeddings": normalize(vectors.view(len(class_names), len(prompts), -1).mean(dim=1), dim=1).numpy()}

    file = Path(pretrained)
    version = file_key(file) if file.is_file() else ""
    stored = cached(f"text-{model_name}".replace("/", "-"), "|".join([source, version, *texts]), encode)
    return torch.from_numpy(stored["embeddings"])
