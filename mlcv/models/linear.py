"""The plain head: dropout and one linear layer; on each patch, where positive evidence is boosted."""

import torch
from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.models.head import Head


class LinearHead(Head):
    """One linear classifier per class on the pooled features.

    With a `boost` it classifies each patch, as a convolution of size 1, multiplies what is above 0 by it, and averages
    over patches then (BoostLU of Kim et al., CVPR 2023, arXiv 2304.01804). A network that learnt with missing positives
    sees classes in the same places, but lower; this makes up for it, in training and after. The bias is in each patch's
    value. Logits become larger, and thresholds and temperatures with them. On frozen features heads of this project
    were better without.

    Args:
        num_features: D.
        num_classes: C.
        dropout: probability, in [0, 1).
        boost: factor of positive values of patches, > 0; the paper's is 5, and 1 is the plain head.

    Shape:
        pooled (B, D) to logits (B, C). With a boost patches (B, N, D) in place of pooled features.
    """

    def __init__(self, num_features: int, num_classes: int, dropout: float = 0.0, boost: float = 1.0) -> None:
        super().__init__()
        if not boost > 0:
            raise ConfigError(f"boost is above 0, got {boost}")
        self.boost = boost
        if boost != 1:
            self.features = "patches"
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(num_features, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def maps(self, patches: Tensor) -> Tensor | None:
        """Class-activation maps (Zhou et al., CVPR 2016) (B, N, C); of networks that widen after pooling, None.

        With a boost, those that the logits are the mean of.
        """
        if self.boost != 1:
            return self._boosted(patches)
        weight = self.classifier.weight
        return patches @ weight.T if patches.shape[2] == weight.shape[1] else None

    def forward(self, features: Tensor) -> Tensor:
        if self.boost == 1:
            logits: Tensor = self.classifier(self.dropout(features))
            return logits
        kept = self.dropout(torch.ones_like(features[:, :1]))  # of all patches the same, as of the pooled ones
        return self._boosted(features * kept).mean(dim=1)

    def _boosted(self, patches: Tensor) -> Tensor:
        values: Tensor = self.classifier(patches)
        return torch.where(values > 0, self.boost * values, values)
