"""Semantic decoupling (SSGRL: Chen et al., ICCV 2019, arXiv 1908.07325, section 3.2), as PU-MLC uses it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mlcv.numerics import at_least_float32, full_precision


class SemanticDecoupling(nn.Module):
    """One feature vector a class: the patches' mean under an attention that the class's label embedding steers.

        a_cp = fc4(fc3(tanh(fc1(f_p) * fc2(e_c)))),  f_c = sum_p softmax_p(a_cp) f_p

    The published code computes this literally and holds several tensors of B x N x C x hidden. Here fc3 and fc4,
    between which nothing stands, are multiplied into one vector (their biases cancel in the softmax and are left out),
    one class at a time is in memory, and the backward pass computes it again. Both weights remain parameters, so
    that training takes the published steps.

    Args:
        num_features: D.
        embedding_dim: E.
        hidden: width of the attention.

    Shape:
        patches (B, N, D), label_embeddings (C, E) to (B, C, D).
    """

    def __init__(self, num_features: int, embedding_dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_features, hidden, bias=False)
        self.fc2 = nn.Linear(embedding_dim, hidden, bias=False)
        self.fc3 = nn.Linear(hidden, hidden, bias=False)
        self.fc4 = nn.Linear(hidden, 1, bias=False)

    def forward(self, patches: Tensor, label_embeddings: Tensor) -> Tensor:
        features: Tensor = self.attention(patches, label_embeddings).to(patches.dtype) @ patches
        return features

    def attention(self, patches: Tensor, label_embeddings: Tensor) -> Tensor:
        """How much each class looks at each patch, (B, C, N), summing to 1 over patches; at least float32."""
        image, label = self.fc1(patches), self.fc2(label_embeddings)  # (B, N, hidden), (C, hidden)
        with full_precision(patches):
            weight = at_least_float32(self.fc4.weight[0] @ self.fc3.weight)
            image, label = at_least_float32(image), at_least_float32(label)
            # tanh(x) = 2 sigmoid(2 x) - 1, many times faster on a CPU; the softmax takes no notice of the -1.
            if torch.compiler.is_exporting():  # plain operators, which any exporter knows
                return ((image[:, None] * 2 * label[:, None]).sigmoid() @ (2 * weight)).softmax(dim=-1)
            scores: Tensor = _Scores.apply(image.flatten(0, 1), 2 * label, 2 * weight)  # (C, B N)
            return scores.view(label.shape[0], *image.shape[:2]).transpose(0, 1).softmax(dim=-1)


class _Scores(Function):
    """weight . sigmoid(image_p * label_c) for every class and patch, (C, P), with memory for one class."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(image, label, weight)
        scores, sigmoid = image.new_empty(label.shape[0], image.shape[0]), torch.empty_like(image)
        for row, factor in zip(scores, label, strict=True):
            torch.mul(image, factor, out=sigmoid).sigmoid_()
            torch.mv(sigmoid, weight, out=row)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, label, weight = ctx.saved_tensors
        d_image, d_label, d_weight = torch.zeros_like(image), torch.empty_like(label), torch.zeros_like(weight)
        sigmoid, slope = torch.empty_like(image), torch.empty_like(image)
        for c, (factor, upstream) in enumerate(zip(label, gradient, strict=True)):
            torch.mul(image, factor, out=sigmoid).sigmoid_()
            d_weight.addmv_(sigmoid.T, upstream)
            torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1, out=slope).mul_(upstream[:, None])
            d_image.addcmul_(slope, weight * factor)
            torch.sum(slope.mul_(image), dim=0, out=d_label[c])
        return d_image, d_label.mul_(weight), d_weight
