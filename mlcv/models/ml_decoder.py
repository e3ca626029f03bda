"""ML-Decoder (Ridnik et al., WACV 2023, arXiv 2111.12933)."""

import torch
from torch import Tensor, nn

from mlcv.models.head import Head
from mlcv.models.query_attention import CrossAttentionLayer, GroupLinear


class MLDecoderHead(Head):
    """Fixed random queries look at the patches once; each answers for a group of classes (section 3.2).

    Args:
        num_features: D.
        num_classes: C.
        num_queries: at most this many groups; at most C are used.
        width: of the decoder.
        num_heads: of the attention.
        hidden: width of its feed-forward net.
        dropout: probability, in [0, 1).

    Shape:
        patches (B, N, D) to logits (B, C).
    """

    features = "patches"

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        num_queries: int = 100,
        width: int = 768,
        num_heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        num_queries = min(num_queries, num_classes)
        self.project = nn.Sequential(nn.Linear(num_features, width), nn.ReLU())
        self.register_buffer("queries", torch.randn(1, num_queries, width))
        self.queries: Tensor
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layer = CrossAttentionLayer(width, num_heads, hidden, dropout)
        self.classifier = GroupLinear(num_queries, width, num_classes)
        nn.init.xavier_normal_(self.classifier.weight)  # as in the released code
        nn.init.zeros_(self.classifier.bias)

    def forward(self, patches: Tensor) -> Tensor:
        queries, memory = self._read(patches)
        logits: Tensor = self.classifier(self.layer(queries, memory, memory))
        return logits

    def maps(self, patches: Tensor) -> Tensor:
        """Where the query of each class looks (B, N, C), summing to 1 over patches; classes of a group share it."""
        queries, memory = self._read(patches)
        return self.classifier.of_classes(self.layer.looks(queries, memory)).transpose(1, 2)

    def _read(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        # Where a decoder layer has self-attention, this one adds the (dropped out) query to itself.
        queries = self.norm(self.queries + self.dropout(self.queries)).expand(patches.shape[0], -1, -1)
        return queries, self.project(patches)
