"""From images to studies: a radiologist reads all views of one examination (Irvin et al., AAAI 2019, section 4)."""

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mlcv.errors import DataError

_STUDY = re.compile(r"(patient\d+)/(study\d+)")


def study_of(image: str) -> str:
    """`patient00001/study1` of any path that holds it.

    Raises:
        DataError: if the path holds none.
    """
    match = _STUDY.search(image)
    if match is None:
        raise DataError(f"{image!r} names no study; a path such as .../patient00001/study1/view1_frontal.jpg does")
    return match[0]


def image_key(image: str) -> str:
    """A CheXpert path from its patient on, wherever the archive lies; any other name as it is."""
    match = _STUDY.search(image)
    return image if match is None else image[match.start() :]


def patient_of(image: str) -> str | None:
    """`patient00001` of any path that holds it; None of others."""
    match = re.search(r"patient\d+", image)
    return match[0] if match else None


def aggregate(
    scores: Tensor, keys: Sequence[str], how: Literal["max", "mean"] = "max"
) -> tuple[tuple[str, ...], Tensor]:
    """One row for each key, in the order in which they first come.

    Args:
        scores: (M, C).
        keys: M, of the study that each row is of.
        how: the largest score of its views, as in the paper, or their mean.

    Returns:
        S keys, and scores (S, C).
    """
    names = tuple(dict.fromkeys(keys))
    place = {name: row for row, name in enumerate(names)}
    rows = torch.tensor([place[key] for key in keys], dtype=torch.long)[:, None].expand_as(scores)
    empty = scores.new_zeros(len(names), scores.shape[1])
    reduce = "amax" if how == "max" else "mean"
    return names, empty.scatter_reduce(0, rows, scores, reduce, include_self=False)
