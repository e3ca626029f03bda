"""Steps of a method by `torch.compile`."""

from functools import partial
from typing import Literal

import torch

from mlcv.methods.base import MultiLabelModule

CompileMode = Literal["default", "max-autotune-no-cudagraphs"]
"""Of `torch.compile`, without those that reuse their outputs' memory, which logging and evaluation hold on to."""


def compile_steps(method: MultiLabelModule, mode: CompileMode = "default", dynamic: bool | None = None) -> None:
    """Has a method's forward pass, and its objective with it, compiled when they are first called.

    Args:
        method: any; its checkpoints stay as they are.
        mode: of `torch.compile`.
        dynamic: False: anew for each size of batch; True: for all sizes at once; None: so from the second size on.
    """
    # Not `method.compile`: DDP has a whole step, with all that it logs, in the place of `forward` when it is called.
    # By `partial` a copy of a method has its own weights in both.
    for name in ("forward", "objective"):
        compiled = torch.compile(getattr(type(method), name), mode=mode, dynamic=dynamic)
        setattr(method, name, partial(compiled, method))
