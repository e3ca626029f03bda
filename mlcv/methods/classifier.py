"""The baseline: any backbone, any head, any loss."""

from collections.abc import Callable
from typing import Any

from torch import nn

from mlcv.losses.bce import BCELoss
from mlcv.methods.backbone_method import BackboneMethod
from mlcv.models.head import Head, build_head
from mlcv.models.linear import LinearHead


class Classifier(BackboneMethod):
    """A backbone, a head on its features, a loss on the logits.

    Args:
        backbone: timm's model name, or `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        head: called as `head(num_features, num_classes)`: a class, or a `functools.partial` of one with options.
        loss: called as `loss(logits, targets)`; binary cross-entropy over known entries if None.
        kwargs: see `BackboneMethod`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        head: Callable[[int, int], Head] = LinearHead,
        loss: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **kwargs)
        self.head = build_head(head, self.backbone, num_classes)
        self.loss = BCELoss() if loss is None else loss
        self.train()  # the Trainer leaves each part in the mode that it finds
