"""Query2Label (Liu et al., arXiv 2107.10834)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.models.head import Head
from mlcv.models.query_attention import CrossAttentionLayer, GroupLinear


class Query2LabelHead(Head):
    """One learned query a class looks at encoded patches, in two decoder layers (section 3).

    As in the released models: the decoder has no self-attention; positions enter queries and keys of the attention as
    sines, and are no part of what a layer passes on; decoding starts from zeros, with a class's query as its position.

    Args:
        num_features: D.
        num_classes: C.
        width: of the transformer, a multiple of 4; the paper's for ResNet-101 is 2048.
        num_heads: of the attention.
        hidden: width of the feed-forward nets; the paper's is 8192.
        num_encoder_layers: layers in which patches look at each other.
        num_decoder_layers: layers in which queries look at patches.
        dropout: probability, in [0, 1).

    Shape:
        patches (B, N, D) of a square grid to logits (B, C).
    """

    features = "patches"

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        width: int = 2048,
        num_heads: int = 4,
        hidden: int = 8192,
        num_encoder_layers: int = 1,
        num_decoder_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % 4 or width % num_heads:
            raise ConfigError(f"width is a multiple of 4 and of num_heads, got {width} and {num_heads}")
        sizes = (width, num_heads, hidden, dropout)
        self.project = nn.Linear(num_features, width)
        self.queries = nn.Parameter(torch.randn(num_classes, width))
        # Patches that look at patches are the same layer with the patches as queries.
        self.encoder = nn.ModuleList(CrossAttentionLayer(*sizes) for _ in range(num_encoder_layers))
        self.decoder = nn.ModuleList(CrossAttentionLayer(*sizes) for _ in range(num_decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = GroupLinear(num_classes, width, num_classes)
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, patches: Tensor) -> Tensor:
        keys, memory = self._encoded(patches)
        logits: Tensor = self.classifier(self.norm(self._found(keys, memory, len(self.decoder))))
        return logits

    def maps(self, patches: Tensor) -> Tensor:
        """Where the query of each class looks in the last layer (B, N, C), summing to 1 over patches."""
        keys, memory = self._encoded(patches)
        last: Any = self.decoder[-1]
        weights: Tensor = last.looks(self._found(keys, memory, len(self.decoder) - 1), keys, self.queries)
        return weights.transpose(1, 2)

    def _encoded(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches with their positions, as what is looked for, and without, as what is found."""
        memory = self.project(patches)
        positions = sine_positions(memory.shape[1], memory.shape[2]).to(memory)
        for layer in self.encoder:
            memory = layer(memory, memory + positions, memory, positions)
        return memory + positions, memory

    def _found(self, keys: Tensor, memory: Tensor, layers: int) -> Tensor:
        """What the queries have found after so many layers (B, C, width)."""
        found = torch.zeros_like(self.queries).expand(keys.shape[0], -1, -1)
        for layer in self.decoder[:layers]:
            found = layer(found, keys, memory, self.queries)
        return found


def sine_positions(num_patches: int, width: int) -> Tensor:
    """Sines and cosines of row and column on a square grid, as in DETR (Carion et al., ECCV 2020).

    Args:
        num_patches: N, a square number.
        width: a multiple of 4; half of it codes the row, half the column.

    Returns:
        float32 (N, width).

    Raises:
        ConfigError: if the patches form no square.
    """
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ConfigError(f"{num_patches} patches form no square grid; Query2Label needs square images")
    place = torch.arange(1, side + 1) / side * 2 * math.pi
    frequency = 10000 ** (-torch.arange(width // 4) / (width // 4))
    angle = place[:, None] * frequency  # (side, width / 4)
    code = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)  # in turns
    rows, columns = code[:, None].expand(-1, side, -1), code[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(num_patches, width)
