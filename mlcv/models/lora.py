"""Low-rank adapters (LoRA; Hu et al., ICLR 2022, arXiv 2106.09685) on the weights of any network.

An adapter is a parametrisation of PyTorch's own kind: wherever a module reads its weight, it reads base + update. So
the fused projections of `nn.MultiheadAttention`, which calls no module for them, are adapted like any others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from mlcv.errors import ConfigError

TARGETS = (
    "*.in_proj_weight", "*.out_proj.weight", "*.mlp.c_fc.weight", "*.mlp.c_proj.weight", "*conv*.weight",
    "*downsample*.weight",
)  # fmt: skip
"""What is adapted by default: attention and MLPs of open_clip's transformers, every convolution of its ResNets."""


@dataclass(frozen=True)
class LoRA:
    """How the updates of a projector are made; see `add_lora`.

    Args:
        rank: of the update of each weight of the image tower; 0 leaves the tower as it is.
        head_rank: of the update of the linear layer; 0 leaves it as it is.
        alpha: updates are scaled by alpha / rank, of the rank that a small matrix is cut to; not at all if None.
        dropout: part of each update that is left out in training, in [0, 1).
        targets: patterns of names of the tower's weights, with * for anything.
        batch_statistics: let the running means and variances of the tower's BatchNorms follow the training images, and
            store them with the updates: two numbers a channel. It matters where images are unlike those of the base.
    """

    rank: int = 8
    head_rank: int = 64
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS
    batch_statistics: bool = False

    def __post_init__(self) -> None:
        if self.rank < 0 or self.head_rank < 0:
            raise ConfigError(f"lora: rank and head_rank are at least 0, got {self.rank} and {self.head_rank}")
        _check_dropout(self.dropout)


class LowRank(nn.Module):
    """weight + (alpha / rank) B A, of one weight. B starts at zero, so that nothing changes at first.

    A convolution's kernel (O, I, k, k) is seen as a matrix (O k, I k), the reading of HeLlO's adapters that fits the
    sizes that its paper gives. The fused queries, keys and values (3 D, D) get an update each.

    Args:
        weight: the weight to adapt, 2-D or 4-D.
        rank: of the update, >= 1; cut to where the adapter has as many numbers as the matrix.
        alpha: scale of the update is alpha / rank, of the rank that is left where it is cut (so that a small matrix
            gets a larger scale than others, unlike peft's); 1 if None.
        blocks: equal parts of the rows, with an update each.
        dropout: probability that a column of A, an input of the update, is left out in training. The draw is one for
            the whole batch, since it is the weight that is updated; that of Hu et al. is one for each input vector.
    """

    def __init__(
        self, weight: Tensor, rank: int, alpha: float | None = None, blocks: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        side = 1 if weight.ndim == 2 else weight.shape[2]
        rows, columns = weight.shape[0] * side // blocks, weight.shape[1] * side
        rank = min(rank, max(rows * columns // (rows + columns), 1))
        self.scale = 1.0 if alpha is None else alpha / rank
        self.lora_a = nn.Parameter(weight.new_empty(blocks, rank, columns))
        self.lora_b = nn.Parameter(weight.new_zeros(blocks, rows, rank))
        nn.init.kaiming_uniform_(self.lora_a.view(blocks * rank, columns), a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        a: Tensor = self.lora_a
        if self.dropout and self.training:
            a = a * functional.dropout(torch.ones_like(a[:, :1]), self.dropout)
        return weight + self.scale * (self.lora_b @ a).view(weight.shape)


def add_lora(
    net: nn.Module,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] = TARGETS,
    dropout: float = 0.0,
) -> list[str]:
    """Freezes a network and adapts some of its weights, in place.

    Args:
        net: changes nothing that it computes until the adapters learn.
        rank: of each update, >= 1; see `LowRank` on small matrices.
        alpha: updates are scaled by alpha / rank; not at all if None.
        targets: patterns of names of weights, as `named_parameters` has them, with * for anything.
        dropout: probability that an input of an update is left out in training, in [0, 1).

    Returns:
        Names of the weights that are adapted now.

    Raises:
        ConfigError: if a number is out of range, or no weight has such a name.
    """
    if rank < 1:
        raise ConfigError(f"lora: the rank is at least 1, got {rank}")
    _check_dropout(dropout)
    net.requires_grad_(False)
    named = list(net.named_parameters())
    wanted = [
        (name, weight)
        for name, weight in named
        if weight.ndim in (2, 4) and any(fnmatchcase(name, target) for target in targets)
    ]
    if not wanted:
        some = ", ".join(name for name, weight in named if weight.ndim in (2, 4))[:200]
        raise ConfigError(f"lora: no weight is named like {', '.join(targets)}; there are {some} ...")
    for name, weight in wanted:
        owner, _, attribute = name.rpartition(".")
        module = net.get_submodule(owner)
        if weight.shape[2:] and weight.shape[2] != weight.shape[3]:
            raise ConfigError(f"lora: {name} is a kernel of {tuple(weight.shape[2:])}; only square ones can be adapted")
        blocks = 3 if attribute == "in_proj_weight" else 1
        adapter = LowRank(weight, rank, alpha, blocks, dropout)
        # Safe without a check of the result: shape and type are those of the weight.
        parametrize.register_parametrization(module, attribute, adapter, unsafe=True)
    return [name for name, _ in wanted]


def lora_state(net: nn.Module) -> dict[str, Tensor]:
    """The adapters alone, by the names of the weights that they adapt: `<weight>.lora_a` and `<weight>.lora_b`."""
    return {
        f"{name}.{part}": getattr(adapter, part).detach()
        for name, adapter in _adapters(net)
        for part in ("lora_a", "lora_b")
    }


def load_lora(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Puts stored adapters into a network that has been given adapters of the same names and ranks.

    Args:
        net: after `add_lora`.
        state: from `lora_state`.
        source: where it came from, for the error.

    Raises:
        ConfigError: if names or shapes differ.
    """
    own = lora_state(net)
    wrong = sorted(set(own) ^ set(state)) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise ConfigError(f"{source}: {len(wrong)} adapters differ from the network's, such as {wrong[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def merge_lora(net: nn.Module) -> None:
    """Adds each update to its weight for good and removes the adapters: as fast as the base network."""
    for name, _ in _adapters(net):
        owner, _, attribute = name.rpartition(".")
        parametrize.remove_parametrizations(net.get_submodule(owner), attribute, leave_parametrized=True)


def unmerge_lora(net: nn.Module, state: dict[str, Tensor], rank: int, alpha: float | None = None) -> None:
    """Takes merged updates out of the weights and adapts them again, exact to rounding.

    Args:
        net: after `merge_lora`.
        state: the adapters that were merged, from `lora_state`.
        rank: as they were added.
        alpha: as they were added.
    """
    names = sorted({name.rpartition(".")[0] for name in state})
    add_lora(net, rank, alpha, names)
    load_lora(net, state, "unmerge_lora")
    with torch.no_grad():
        for name, adapter in _adapters(net):
            owner, _, attribute = name.rpartition(".")
            original = net.get_parameter(f"{owner}.parametrizations.{attribute}.original".lstrip("."))
            original.sub_(adapter(torch.zeros_like(original)))


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ConfigError(f"lora: dropout lies in [0, 1), got {dropout}")


def _adapters(net: nn.Module) -> list[tuple[str, LowRank]]:
    """Adapters by the name of the weight: of `a.parametrizations.weight.0` that is `a.weight`."""
    modules = [(path, module) for path, module in net.named_modules() if isinstance(module, LowRank)]
    return [(path.rpartition(".")[0].replace("parametrizations.", ""), module) for path, module in modules]
