"""PU-MLC: training with positive labels only (Yuan, Zhang, Huang, ICME 2024, arXiv 2306.16016)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from mlcv.errors import ConfigError
from mlcv.labels.cooccurrence import cooccurrence
from mlcv.losses.pu import PUMixup, PUMLCLoss
from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.base import Batch
from mlcv.methods.optim import Optim
from mlcv.models.backbones import Backbone
from mlcv.models.head import Head, build_head
from mlcv.models.label_embeddings import read_label_embeddings
from mlcv.models.label_graph import SemanticGraphHead
from mlcv.models.local_global_conv import add_global_branches
from mlcv.models.starting_weights import starting_tensor


@dataclass(frozen=True)
class GlobalBranches:
    """Which 3x3 convolutions become local-global ones (LgConv).

    Args:
        layers: names of the backbone's parts; all of it if None.
        num_heads: gathered vectors; it divides the channels.
        reduction: the gates read 1 / reduction of the channels.
    """

    layers: list[str] | None = None
    num_heads: int = 8
    reduction: int = 4


class PUMLC(BackboneMethod):
    """Positive-unlabeled multi-label classification with local-global convolutions and a label graph.

    Every label that is not positive counts as unlabeled, whether annotators denied it or said nothing.

        L = L_pu + mixup_weight * L_reg       see `PUMLCLoss` and `PUMixup`

    Defaults are those of the authors' code for COCO 2014 with 10 % of the labels: a pretrained ResNet-101 of which
    `layer4` learns, beside all global branches and the head; batch statistics stay as they are in every normalisation,
    new ones included; Adam under a OneCycle schedule planned for 80 epochs, of which fewer are trained; averaged
    weights (the callback `EMA`, which the configs add).

    Args:
        backbone: timm's name of a convolutional network.
        num_classes: label columns C; the command line takes it from the data.
        gamma: exponent of the re-balance factor; see `PUMLCLoss`.
        alpha: factor of the temperature; see `PUMLCLoss`.
        mix_alpha: of the mixup regulariser; see `PUMixup`.
        mixup_weight: of the regulariser, >= 0; 0 spares its pass through the network.
        global_branches: which convolutions get one; none if None.
        head: called as `head(num_features, num_classes)`.
        label_embeddings: fixed vectors of the classes, see `mlcv.models.label_embeddings`; learned if None.
        freeze: parts of the backbone that do not learn, but for their global branches.
        freeze_batch_norm: keep all batch statistics as they are.
        optim: optimizer and schedule.
        kwargs: see `BackboneMethod`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    loss: PUMLCLoss

    def __init__(  # noqa: PLR0913  # the paper's settings, and those of every method
        self,
        backbone: str,
        num_classes: int,
        gamma: float = 0.55,
        alpha: float = 1.0,
        mix_alpha: float = 0.3,
        mixup_weight: float = 1.0,
        global_branches: GlobalBranches | None = GlobalBranches(),  # frozen
        head: Callable[[int, int], Head] = SemanticGraphHead,
        label_embeddings: str | None = None,
        freeze: Sequence[str] = ("conv1", "bn1", "layer1", "layer2", "layer3"),
        freeze_batch_norm: bool = True,
        optim: Optim = Optim(name="adam", horizon_epochs=80),  # noqa: B008  # frozen
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, num_classes, freeze=freeze, freeze_batch_norm=freeze_batch_norm, optim=optim, **kwargs
        )
        if mixup_weight < 0:
            raise ConfigError(f"model.mixup_weight is at least 0, got {mixup_weight}")
        self.mixup_weight = mixup_weight
        if global_branches is not None:
            layers, heads, reduction = global_branches.layers, global_branches.num_heads, global_branches.reduction
            add_global_branches(self.backbone.net, layers, heads, reduction)
        if label_embeddings is None:
            self.head = build_head(head, self.backbone, num_classes)
        else:
            read = partial(read_label_embeddings, label_embeddings, self.class_names)
            embeddings = starting_tensor("head.label_embeddings", read)
            self.head = _head_with_embeddings(head, self.backbone, num_classes, embeddings)
        self.loss = PUMLCLoss(gamma, alpha)
        self.mixup = PUMixup(mix_alpha)
        self.train()  # the Trainer leaves each part in the mode that it finds

    def on_labels(self, targets: Tensor) -> None:
        """The label graph comes from the training labels."""
        super().on_labels(targets)
        graph = getattr(self.head, "cooccurrence", None)
        if isinstance(graph, Tensor):
            graph.copy_(cooccurrence(targets))

    def objective(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        image, targets = batch["image"], batch["target"]
        logits = self(image)
        terms = self.loss.terms(logits, targets)
        loss = terms.loss.sum()
        parts = {"loss_pu": loss, "temperature": terms.temperature.mean(), "rebalance": terms.rebalance.mean()}
        if self.mixup_weight:
            parts["loss_mixup"] = self.mixup(self, image, logits, targets)
            loss = loss + self.mixup_weight * parts["loss_mixup"]
        return loss, parts


def _head_with_embeddings(
    head: Callable[[int, int], Head], backbone: Backbone, num_classes: int, embeddings: Tensor
) -> Head:
    options: dict[str, Any] = {"label_embeddings": embeddings}
    try:
        return build_head(partial(head, **options), backbone, num_classes)
    except TypeError as error:
        raise ConfigError(f"model.label_embeddings: this head takes none, leave them out ({error})") from error
