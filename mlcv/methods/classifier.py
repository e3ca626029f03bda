"""The baseline: any backbone, any head, any loss."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mlcv.losses.bce import BCELoss
from mlcv.methods.base import MultiLabelModule
from mlcv.methods.optim import Optim
from mlcv.models.backbones import Backbone
from mlcv.models.batch_norm import keep_batch_statistics
from mlcv.models.head import Head, build_head
from mlcv.models.linear import LinearHead


class Classifier(MultiLabelModule):
    """A timm backbone, a head on its features, a loss on the logits.

    Args:
        backbone: timm's model name.
        num_classes: label columns C; the command line takes it from the data.
        weights: None (random), `pretrained`, `installed`, or a file; see `mlcv.models.Backbone`.
        head: called as `head(num_features, num_classes)`: a class, or a `functools.partial` of one with options.
        loss: called as `loss(logits, targets)`; binary cross-entropy over known entries if None.
        class_names: C names for tables.
        image_size: side of the input in pixels, for backbones of fixed size; the command line takes it from the data.
        freeze: parts of the backbone that do not learn; see `mlcv.models.Backbone`.
        freeze_batch_norm: keep all batch statistics as they are.
        backbone_args: further arguments of timm's constructor.
        optim: optimizer and schedule.
        eleven_point: also log VOC 2007's 11-point mAP.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(  # noqa: PLR0913  # the generic method has the options of the whole field
        self,
        backbone: str,
        num_classes: int,
        weights: str | None = None,
        head: Callable[[int, int], Head] = LinearHead,
        loss: nn.Module | None = None,
        class_names: Sequence[str] | None = None,
        image_size: int | None = None,
        freeze: Sequence[str] = (),
        freeze_batch_norm: bool = False,
        backbone_args: dict[str, Any] | None = None,
        optim: Optim = Optim(),  # noqa: B008  # frozen
        eleven_point: bool = False,
    ) -> None:
        super().__init__(num_classes, class_names, optim, eleven_point)
        self.freeze_batch_norm = freeze_batch_norm
        self.backbone = Backbone(backbone, weights, image_size, freeze, **(backbone_args or {}))
        self.head = build_head(head, self.backbone, num_classes)
        self.loss = BCELoss() if loss is None else loss
        self.train()  # the Trainer leaves each part in the mode that it finds

    def train(self, mode: bool = True) -> "Classifier":
        """Batch statistics stay as they are, if asked for."""
        super().train(mode)
        if self.freeze_batch_norm:
            keep_batch_statistics(self)
        return self
