"""What a network starts from is for training only: a checkpoint brings its own (but for label projectors)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from mlcv.errors import ConfigError

_CHECKPOINT: ContextVar[Mapping[str, Tensor] | None] = ContextVar("checkpoint", default=None)


@contextmanager
def weights_of(state: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Networks that are built meanwhile read and download nothing to start from: a checkpoint's weights replace it.

    Args:
        state: the checkpoint's; None if there is none, and they do.
    """
    before = _CHECKPOINT.set(state)
    try:
        yield
    finally:
        _CHECKPOINT.reset(before)


def starting_weights(weights: str | None) -> str | None:
    """What a network is to start from; None if a checkpoint brings all of it."""
    return weights if _CHECKPOINT.get() is None else None


def starting_tensor(name: str, read: Callable[[], Tensor]) -> Tensor:
    """What a parameter or buffer of a method is to start from, whose shape is told by what is read.

    Args:
        name: in the method's `state_dict`.
        read: looks for it where the user says; not called if a checkpoint brings it.

    Raises:
        ConfigError: if a checkpoint is to bring it and does not.
    """
    state = _CHECKPOINT.get()
    if state is None:
        return read()
    tensor = state.get(name)
    part = name.rpartition(".")[0]
    if tensor is None and part and any(other.startswith(f"{part}.") for other in state):
        return read()  # a part of the user's own, which keeps it under another name
    if not isinstance(tensor, Tensor):
        raise ConfigError(f"the checkpoint holds no weights {name!r}, so it is not of a method of its configuration")
    return tensor.detach().clone().cpu()
