"""What a loss remembers of each entry of the training labels, from one epoch to the next."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from mlcv.distributed import gathered
from mlcv.errors import ConfigError
from mlcv.labels.protocols import fingerprint
from mlcv.labels.states import prior_counts

MemoryOn = Literal["device", "cpu"]
Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """Leaves a function out of what `torch.compile` compiles: whatever reads or writes a memory.

    A compiled step may compute in its backward pass again what it has read, which by then is written over.
    """
    return torch.compiler.disable(function)  # type: ignore[no-any-return,no-untyped-call]


Kind = torch.dtype | tuple[torch.dtype, tuple[int, ...]]


class Memory:
    """Arrays with a row for each training image, read and written a batch at a time by the images' indices.

    They are no part of a network: not of its weights, nor of an average of them. A copy of a method shares its loss's
    memory. The method writes it into each checkpoint and takes it back when a training is resumed. Under DDP each
    process holds all rows, and what one writes all write, so that they are as one process would have them.

    Args:
        where: `device` keeps the arrays beside the logits, `cpu` in main memory, for many images and classes.
        arrays: of each name its type, of shape (N, C); or a pair of type and shape of a row.
    """

    def __init__(self, where: MemoryOn = "device", **arrays: Kind) -> None:
        if where not in ("device", "cpu"):
            raise ConfigError(f"loss.memory_on is device or cpu, got {where!r}")
        self.where, self._kinds = where, arrays
        self._labels = ""
        self._arrays: dict[str, Tensor] = {}

    def __deepcopy__(self, _memo: Any) -> "Memory":
        return self

    def begin(self, targets: Tensor) -> None:
        """Forgets everything, and makes room for the images of these labels: all zeros.

        Args:
            targets: (N, C), those of all training images.
        """
        images, classes = targets.shape
        self._labels = fingerprint(targets.cpu().numpy())
        for name, kind in self._kinds.items():
            dtype, row = kind if isinstance(kind, tuple) else (kind, (classes,))
            # One row more: what is written for an image that could not be read (index -1) goes there.
            self._arrays[name] = torch.zeros(images + 1, *row, dtype=dtype)

    def __getitem__(self, name: str) -> Tensor:
        """A whole array (N, ...), as it lies in memory.

        Raises:
            ConfigError: if no labels have been shown yet.
        """
        return self._find(name)[:-1]

    @uncompiled
    def read(self, name: str, index: Tensor, like: Tensor) -> Tensor:
        """Rows of images.

        Args:
            name: of the array.
            index: (B,), positions in the training split.
            like: a tensor of the device and type that is wanted.

        Returns:
            (B, ...).
        """
        array = self._find(name, like)
        return array[index.to(array.device)].to(like)

    @uncompiled
    def write(self, name: str, index: Tensor, values: Tensor) -> None:
        """Replaces rows of images, on all processes. An image that comes twice keeps one of both.

        Args:
            name: of the array.
            index: (B,), as for `read`.
            values: (B, ...).
        """
        array = self._find(name, values)
        rows, new = gathered(index), gathered(values.detach().to(array.dtype))
        array[rows.to(array.device)] = new.to(array.device)

    def _find(self, name: str, like: Tensor | None = None) -> Tensor:
        if not self._arrays:
            raise ConfigError(
                "the loss remembers the training images, and has not seen their labels: the training data need "
                "`targets`; or call on_labels(targets, class_names) of the loss before training"
            )
        if like is not None and self.where == "device" and self._arrays[name].device != like.device:
            self._arrays = {key: array.to(like.device) for key, array in self._arrays.items()}
        return self._arrays[name]

    @staticmethod
    def rows(index: Tensor | None, is_training: bool) -> tuple[Tensor, ...]:
        """What a loss with a memory is called with besides logits and targets: the images' index, if there is one.

        Raises:
            ConfigError: if there is none in training, where nothing would be remembered.
        """
        if index is None and is_training:
            raise ConfigError(
                "model.loss: it remembers each training image, so a training batch needs `index` besides `image` and "
                "`target`: (B,) whole numbers, the images' positions in the training data"
            )
        return () if index is None else (index,)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"labels": self._labels, **{name: array.cpu() for name, array in self._arrays.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes back what a checkpoint holds, after `begin`.

        Raises:
            ConfigError: if that is of other labels.
        """
        if state.get("labels") != self._labels:
            raise ConfigError(
                "the checkpoint's loss remembers its training images, and these are others, or their labels are: "
                "resume with its data, protocol and policy, or begin anew with its weights: --start_from"
            )
        for name, array in self._arrays.items():
            if not isinstance(state.get(name), Tensor) or state[name].shape != array.shape:
                raise ConfigError(f"what the checkpoint's loss remembers has no {name}; it is of another loss")
            array.copy_(state[name])


class MemoryLoss(nn.Module):
    """Base of losses that remember entries; a subclass writes `forward`.

    They are called as `loss(logits, targets, index)` with the images' positions in the training split. Without them,
    as in validation, a loss is what it would be before it has seen anything.

    Args:
        memory_on: see `Memory`.
        arrays: see `Memory`.
    """

    knows_unknown: ClassVar[bool] = True

    def __init__(self, memory_on: MemoryOn, **arrays: Kind) -> None:
        super().__init__()
        self.memory_on, self.memory = memory_on, Memory(memory_on, **arrays)

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Makes room for all training images; a method shows their labels before training.

        Args:
            targets: (N, C), see `mlcv.labels`.
            class_names: C names.
        """
        self.memory.begin(targets)


def expected_positives(targets: Tensor) -> float:
    """Positives that an image has, by what is known: the sum of the classes' priors.

    Shape:
        targets (N, C), see `mlcv.labels`. Where no negative is known, the positives an image that are.
    """
    positive, count = prior_counts(targets)
    return float((positive / count.clamp(min=1)).sum())
