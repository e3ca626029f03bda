"""SSGRL's head: features of classes, exchanged over the graph of their co-occurrence (arXiv 1908.07325)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mlcv.errors import ConfigError
from mlcv.models.head import Head
from mlcv.models.semantic_decoupling import SemanticDecoupling


class GatedGraph(nn.Module):
    """Gated graph network: each class updates its state from those that occur with it (section 3.3, eq. 3).

        m = [A h, A^T h],  z = sigmoid(Wz m + Uz h),  r = sigmoid(Wr m + Ur h)
        h <- (1 - z) h + z tanh(Wh m + Uh (r h))

    Args:
        width: D of a state.
        steps: number of updates, shared weights.

    Shape:
        nodes (B, C, D) and a matrix A (C, C) to (B, C, D).
    """

    def __init__(self, width: int, steps: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.from_message = nn.Linear(2 * width, 3 * width)  # Wz, Wr, Wh
        self.from_state = nn.Linear(width, 2 * width)  # Uz, Ur
        self.from_reset = nn.Linear(width, width)  # Uh

    def forward(self, nodes: Tensor, matrix: Tensor) -> Tensor:
        for _ in range(self.steps):
            message = torch.cat([matrix @ nodes, matrix.T @ nodes], dim=-1)
            update, reset, candidate = self.from_message(message).chunk(3, dim=-1)
            update_state, reset_state = self.from_state(nodes).chunk(2, dim=-1)
            update, reset = (update + update_state).sigmoid(), (reset + reset_state).sigmoid()
            candidate = (candidate + self.from_reset(reset * nodes)).tanh()
            nodes = nodes + update * (candidate - nodes)
        return nodes


class SemanticGraphHead(Head):
    """Reduced patches, semantic decoupling, gated graph, then a linear classifier of its own for each class.

    With f_c the decoupled features and h_c the graph's: logit_c = v_c . tanh(W [h_c, f_c] + b) + b_c.

    Args:
        num_features: D of the patches.
        num_classes: C.
        width: of reduced patches and states; 1024 in PU-MLC.
        hidden: of the attention; 512 in PU-MLC.
        steps: of the graph network.
        pool: side of the square of patches that are averaged first; 2 in PU-MLC. The patches are then a square grid.
        label_embeddings: fixed, (C, E); learned, of 300 numbers each, if None.

    Shape:
        patches (B, N, D) to logits (B, C). `cooccurrence` (C, C) is a buffer; each class stands alone until it is set.
    """

    features = "patches"

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        width: int = 1024,
        hidden: int = 512,
        steps: int = 3,
        pool: int = 2,
        label_embeddings: Tensor | None = None,
    ) -> None:
        super().__init__()
        if pool < 1:
            raise ConfigError(f"pool is the side of a square of patches, at least 1; got {pool}")
        self.pool = pool
        self.label_embeddings: Tensor
        if label_embeddings is None:
            # As long as word vectors are: 300 numbers with a norm near 7.
            self.label_embeddings = nn.Parameter(0.4 * torch.randn(num_classes, 300))
        elif label_embeddings.ndim != 2 or len(label_embeddings) != num_classes:
            shape = tuple(label_embeddings.shape)
            raise ConfigError(f"label_embeddings: one row a class is needed, ({num_classes}, E); got {shape}")
        else:
            self.register_buffer("label_embeddings", label_embeddings.float())
        self.reduce = nn.Linear(num_features, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.decouple = SemanticDecoupling(width, self.label_embeddings.shape[1], hidden)
        self.graph = GatedGraph(width, steps)
        self.join = nn.Linear(2 * width, width)
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(num_classes, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound))
        self.register_buffer("cooccurrence", torch.eye(num_classes))
        self.cooccurrence: Tensor

    def forward(self, patches: Tensor) -> Tensor:
        patches = self._reduced(patches)
        features = self.decouple(patches, self.label_embeddings)
        nodes = self.graph(features, self.cooccurrence)
        joined = self.join(torch.cat([nodes, features], dim=-1)).tanh()
        logits: Tensor = (joined * self.weight).sum(dim=-1) + self.bias
        return logits

    def maps(self, patches: Tensor) -> Tensor:
        """Where each class looks (B, N / pool^2, C), summing to 1 over places."""
        return self.decouple.attention(self._reduced(patches), self.label_embeddings).transpose(1, 2)

    def _reduced(self, patches: Tensor) -> Tensor:
        reduced: Tensor = self.norm(self.reduce(self._pooled(patches)).transpose(1, 2)).transpose(1, 2)
        return reduced

    def _pooled(self, patches: Tensor) -> Tensor:
        if self.pool == 1:
            return patches
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1] or side < self.pool:
            raise ConfigError(
                f"pool={self.pool} averages squares of a square grid of patches; there are {patches.shape[1]} patches. "
                "Set pool to 1, or use a larger image"
            )
        grid = patches.transpose(1, 2).reshape(patches.shape[0], -1, side, side)
        return avg_pool2d(grid, self.pool).flatten(2).transpose(1, 2)
