"""What the query-based heads share: a decoder layer that looks at patches, and a classifier per group of classes."""

import torch
from torch import Tensor, nn


class CrossAttentionLayer(nn.Module):
    """A transformer decoder layer without self-attention: cross-attention and a feed-forward net, normalised after.

    Args:
        width: of queries and memory.
        num_heads: of the attention; divides the width.
        hidden: width of the feed-forward net.
        dropout: probability, in [0, 1).

    Shape:
        queries (B, Q, width), keys and values (B, N, width); returns (B, Q, width). `places` (Q, width) are added
        to the queries where they look, and are no part of what is passed on.
    """

    def __init__(self, width: int, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads, dropout=dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.norm_attention, self.norm_output = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, places: Tensor | None = None) -> Tensor:
        looked_up, _ = self.attention(_asked(queries, places), keys, values, need_weights=False)
        queries = self.norm_attention(queries + self.dropout(looked_up))
        output: Tensor = self.norm_output(queries + self.dropout(self.feed_forward(queries)))
        return output

    def looks(self, queries: Tensor, keys: Tensor, places: Tensor | None = None) -> Tensor:
        """How much each query looks at each key, meaned over heads: (B, Q, N), summing to 1 over keys."""
        weights: Tensor = self.attention(_asked(queries, places), keys, keys)[1]
        return weights


def _asked(queries: Tensor, places: Tensor | None) -> Tensor:
    return queries if places is None else queries + places


class GroupLinear(nn.Module):
    """Each query answers for its own group of classes, with one weight vector a class.

    Args:
        num_queries: Q; each has ceil(C / Q) classes, the last ones fewer.
        width: of a query.
        num_classes: C.

    Shape:
        queries (B, Q, width) to logits (B, C).
    """

    def __init__(self, num_queries: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.empty(num_queries, width, -(-num_classes // num_queries)))
        self.bias = nn.Parameter(torch.empty(num_classes))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def of_classes(self, of_queries: Tensor) -> Tensor:
        """What is known of each query along dimension 1, (B, Q, ...), for each class: (B, C, ...)."""
        return of_queries.repeat_interleave(self.weight.shape[2], dim=1)[:, : self.num_classes]

    def forward(self, queries: Tensor) -> Tensor:
        logits = torch.einsum("bqd,qdg->bqg", queries, self.weight).flatten(1)
        return logits[:, : self.num_classes] + self.bias
