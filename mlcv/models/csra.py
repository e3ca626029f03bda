"""Class-specific residual attention (Zhu & Wu, ICCV 2021, arXiv 2108.02456)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlcv.errors import ConfigError
from mlcv.models.head import Head

# Softmax temperatures by number of heads, as in the paper's section 3.3; infinity is the maximum (their code says 99).
_TEMPERATURES = {
    1: (1.0,),
    2: (1.0, torch.inf),
    4: (1.0, 2.0, 4.0, torch.inf),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, torch.inf),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, torch.inf),
}


class CSRAHead(Head):
    """Average of a class's scores over positions, plus `lam` times their attention-weighted sum (eqs. 1-6).

    Args:
        num_features: D.
        num_classes: C.
        lam: weight of the attention term, >= 0; the paper's 0.1 (VOC 2007) to 0.5 (COCO).
        num_heads: 1, 2, 4, 6 or 8 classifiers of different temperatures, summed.

    Shape:
        patches (B, N, D) to logits (B, C).
    """

    features = "patches"

    def __init__(self, num_features: int, num_classes: int, lam: float = 0.1, num_heads: int = 1) -> None:
        super().__init__()
        if num_heads not in _TEMPERATURES:
            raise ConfigError(f"num_heads is one of {', '.join(map(str, _TEMPERATURES))}; got {num_heads}")
        self.lam, self.temperatures = lam, _TEMPERATURES[num_heads]
        self.weight = nn.Parameter(torch.empty(num_heads, num_classes, num_features))
        bound = num_features**-0.5  # a convolution's, as in the released code
        nn.init.uniform_(self.weight, -bound, bound)

    def maps(self, patches: Tensor) -> Tensor:
        """Scores of each patch, summed over heads (B, N, C)."""
        return torch.einsum("bnd,hcd->bnc", patches, normalize(self.weight, dim=-1))

    def forward(self, patches: Tensor) -> Tensor:
        scores = torch.einsum("bnd,hcd->hbnc", patches, normalize(self.weight, dim=-1))
        attended = torch.stack([self._attend(s, t) for s, t in zip(scores, self.temperatures, strict=True)])
        return (scores.mean(dim=2) + self.lam * attended).sum(dim=0)

    @staticmethod
    def _attend(scores: Tensor, temperature: float) -> Tensor:
        if temperature == torch.inf:
            return scores.amax(dim=1)
        return ((temperature * scores).softmax(dim=1) * scores).sum(dim=1)  # (B, C)
