"""PatchCT: aligning patches with labels by conditional transport (Li et al., ICCV 2023, arXiv 2307.09066).

The authors' code was never released. From the paper's figure: patch tokens and label embeddings are compared at layers
of the image encoder by conditional transport, beside a score <v + AL(v), label> of the pooled image. What the figure
leaves open (weights, temperature, rho, layers, projections) is a reconstruction after released code of the same family
(CT, PCT, POUF), and an argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlcv.errors import ConfigError
from mlcv.labels.states import is_positive
from mlcv.losses.asymmetric import AsymmetricLoss
from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.base import Batch
from mlcv.models.head import as_grid
from mlcv.models.label_embeddings import PROMPTS, read_label_embeddings
from mlcv.models.starting_weights import starting_tensor
from mlcv.ops.transport.interface import conditional_transport, transport_plans


@dataclass(frozen=True)
class Transport:
    """The transport cost of training.

    Args:
        weight: of the cost beside the loss of the scores, >= 0; 0 trains the scores alone.
        temperature: of the navigators, > 0.
        learn_temperature: start there and learn; the colder, the cheaper is any transport, so it falls all the time.
        rho: share of the direction from patches to labels, in [0, 1].
        patch_weights: `uniform`, or `similarity` to the pooled image (softmax at the same temperature).
        num_layers: transport at the last so many layers; more than 1 for timm's transformers.
        background: weight of one more label in every label set, learned and of no class, for patches that show none of
            the labels, in [0, 1); the present labels share the rest. The paper has none; without it the cost pulls
            every patch to some present label, which blurs the heat maps.
        max_labels: the most labels that an image has, which makes the cost cheaper on a GPU; see
            `mlcv.ops.conditional_transport`.
    """

    weight: float = 1.0
    temperature: float = 0.1
    learn_temperature: bool = False
    rho: float = 0.5
    patch_weights: Literal["uniform", "similarity"] = "uniform"
    num_layers: int = 1
    background: float = 0.0
    max_labels: int | None = None

    def __post_init__(self) -> None:
        is_apart = 0 <= self.rho <= 1 and 0 <= self.background < 1
        if self.weight < 0 or self.temperature <= 0 or self.num_layers < 1 or not is_apart:
            raise ConfigError(
                "model.transport: weight >= 0, temperature > 0, rho in [0, 1], num_layers >= 1 and background in "
                "[0, 1) are needed"
            )


@dataclass(frozen=True)
class LabelVectors:
    """Where the vectors of the labels start, and whether they learn.

    Args:
        embeddings: see `mlcv.models.label_embeddings`; random if None.
        prompts: for embeddings from a text encoder, each with {} where the class name goes.
        learn: whether embeddings that were given are fine-tuned; a projection of them learns in any case.
        dim: of the space that patches and labels share; that of the embeddings if given, else of the patches, if None.
    """

    embeddings: str | None = None
    prompts: Sequence[str] = PROMPTS
    learn: bool = True
    dim: int | None = None


class PatchCT(BackboneMethod):
    """Scores by the pooled image; transport between patches and present labels shapes the space, and explains.

        L = loss(s, targets) + transport.weight * sum over layers CT(patches, present labels)
        s_m = scale cos(v + AL(v), l_m) + bias

    Only labels known to be present are in the label set: unknown and absent ones are not. The backward navigator, how a
    label's mass is spread over the patches, is the label's heat map.

    Args:
        backbone: timm's name of a network (of a transformer: its patch tokens; of a convolutional one: the places of
            its feature map), or `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        transport: the cost beside the loss of the scores.
        labels: the vectors of the classes.
        loss: called as `loss(logits, targets)`; the asymmetric loss if None.
        kwargs: see `BackboneMethod`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        transport: Transport = Transport(),  # frozen
        labels: LabelVectors = LabelVectors(),
        loss: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **kwargs)
        self.transport, layers, dim = transport, transport.num_layers, labels.dim
        if layers > 1 and not self.backbone.has_layers:
            raise ConfigError(
                f"model.transport.num_layers: {backbone} gives the patches of its last layer only; set it to 1"
            )
        given = None
        if labels.embeddings is not None:
            read = partial(read_label_embeddings, labels.embeddings, self.class_names, labels.prompts)
            given = starting_tensor("labels", read)
        width = self.backbone.patch_features
        dim = dim or (given.shape[1] if given is not None else width)
        vectors = given if given is not None else torch.randn(num_classes, dim) / dim**0.5
        self.labels = nn.Parameter(vectors, requires_grad=given is None or labels.learn)
        uses_background = bool(transport.background and transport.weight)
        self.background = nn.Parameter(torch.randn(int(transport.background > 0), dim) / dim**0.5, uses_background)
        self.label_projection = _projection(vectors.shape[1], dim)
        self.patch_projections = nn.ModuleList(_projection(width, dim) for _ in range(layers))
        is_shared = self.backbone.pooled_features == width
        self.pooled_projection = None if is_shared else _projection(self.backbone.pooled_features, dim)
        if not transport.weight:  # DDP wants no learning parameter that nothing uses
            self.patch_projections[: layers - int(is_shared)].requires_grad_(False)
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)  # scores begin as those of the image itself
        nn.init.zeros_(last.bias)
        self.adaptive = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), last)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.zeros(()))
        self.log_temperature = nn.Parameter(
            torch.tensor(float(transport.temperature)).log(), transport.learn_temperature
        )
        self.loss: nn.Module = AsymmetricLoss() if loss is None else loss
        self.train()  # the Trainer leaves each part in the mode that it finds

    def forward(self, image: Tensor) -> Tensor:
        pooled, _ = self.backbone.pooled_and_patches(image)
        return self._scores(self._pooled(pooled), self.label_projection(self.labels))

    def forward_with_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, _, backward = self.explain(image)
        return logits, as_grid(backward)

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C), and both navigators between patches and all labels.

        The first says which label a patch goes to (B, N, C), or (B, N, C + 1) where the last is the background. The
        second says where in the image a label is (B, N, C).
        """
        pooled, layers = self.backbone.pooled_and_patches(image)
        pooled, labels = self._pooled(pooled), self.label_projection(self.labels)
        patches = self.patch_projections[-1](layers[-1])
        forward, backward = transport_plans(
            patches,
            torch.cat([labels, self.background]),
            self._patch_weights(patches, pooled),
            temperature=self.log_temperature.exp(),
        )
        return self._scores(pooled, labels), forward, backward[..., : self.num_classes]

    def objective(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        targets = batch["target"]
        pooled, layers = self.backbone.pooled_and_patches(batch["image"], self.transport.num_layers)
        pooled, labels = self._pooled(pooled), self.label_projection(self.labels)
        loss: Tensor = self.loss(self._scores(pooled, labels), targets)
        parts = {"loss_class": loss}
        if self.transport.weight:
            parts |= {"loss_ct": self._cost(pooled, layers, labels, targets), "temperature": self.log_temperature.exp()}
            loss = loss + self.transport.weight * parts["loss_ct"]
        return loss, parts

    def _cost(self, pooled: Tensor, layers: list[Tensor], labels: Tensor, targets: Tensor) -> Tensor:
        weights, most = is_positive(targets).to(labels.dtype), self.transport.max_labels
        if self.transport.background:
            # As heavy as asked for beside the present labels, and without weight where none is known: no cost then.
            ratio = self.transport.background / (1 - self.transport.background)
            weights = torch.cat([weights, ratio * weights.sum(dim=1, keepdim=True)], dim=1)
            labels, most = torch.cat([labels, self.background]), most and most + 1
        total = torch.zeros((), device=labels.device)
        for projection, layer in zip(self.patch_projections, layers, strict=True):
            patches = projection(layer)
            total = total + conditional_transport(
                patches, labels, self._patch_weights(patches, pooled), weights,
                temperature=self.log_temperature.exp(), rho=self.transport.rho, max_labels=most,
            )  # fmt: skip
        return total

    def _pooled(self, pooled: Tensor) -> Tensor:
        projection = self.patch_projections[-1] if self.pooled_projection is None else self.pooled_projection
        projected: Tensor = projection(pooled)
        return projected

    def _scores(self, pooled: Tensor, labels: Tensor) -> Tensor:
        image = normalize(pooled + self.adaptive(pooled), dim=-1)
        logits: Tensor = self.log_scale.exp() * image @ normalize(labels, dim=-1).T + self.bias
        return logits

    def _patch_weights(self, patches: Tensor, pooled: Tensor) -> Tensor | None:
        if self.transport.patch_weights == "uniform":
            return None
        similarity = torch.einsum("bnd,bd->bn", normalize(patches, dim=-1), normalize(pooled, dim=-1))
        weights: Tensor = (similarity / self.log_temperature.exp()).softmax(dim=1)
        return weights


def _projection(features: int, dim: int) -> nn.Module:
    return nn.Identity() if features == dim else nn.Linear(features, dim, bias=False)
