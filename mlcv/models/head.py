"""What a classifier needs to know of a head."""

from typing import ClassVar, Literal

from torch import nn


class Head(nn.Module):
    """From a backbone's features to logits (B, C).

    A head is built as `head(num_features, num_classes)`; other arguments have defaults. `features` says what it
    reads: `pooled` (B, D), or `patches` (B, N, D).
    """

    features: ClassVar[Literal["pooled", "patches"]] = "pooled"
