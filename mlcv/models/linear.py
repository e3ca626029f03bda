"""The plain head: dropout and one linear layer."""

from torch import Tensor, nn

from mlcv.models.head import Head


class LinearHead(Head):
    """One linear classifier per class on the pooled features.

    Args:
        num_features: D.
        num_classes: C.
        dropout: probability, in [0, 1).

    Shape:
        pooled (B, D) to logits (B, C).
    """

    def __init__(self, num_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(num_features, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def maps(self, patches: Tensor) -> Tensor | None:
        """Class-activation maps (Zhou et al., CVPR 2016) (B, N, C); of networks that widen after pooling, None."""
        weight = self.classifier.weight
        return patches @ weight.T if patches.shape[2] == weight.shape[1] else None

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits
