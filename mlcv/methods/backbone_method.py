"""What methods on an image backbone share, so that each writes only what is its own."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import Self

from mlcv.methods.base import MultiLabelModule
from mlcv.models.backbones import Backbone
from mlcv.models.batch_norm import keep_batch_statistics


class BackboneMethod(MultiLabelModule):
    """Base of methods on an image backbone: a subclass builds `head`, or writes `forward`.

    Args:
        backbone: timm's model name, or `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        weights: None (random), `pretrained`, `installed`, or a file; see `mlcv.models.Backbone`.
        image_size: side of the input in pixels, for backbones of fixed size; the command line takes it from the data.
        freeze: parts of the backbone that do not learn; see `mlcv.models.Backbone`.
        freeze_batch_norm: keep all batch statistics as they are.
        backbone_args: further arguments of the backbone's constructor.
        kwargs: see `MultiLabelModule`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    backbone: Backbone

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        weights: str | None = None,
        image_size: int | None = None,
        freeze: Sequence[str] = (),
        freeze_batch_norm: bool = False,
        backbone_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        self.freeze_batch_norm = freeze_batch_norm
        self.backbone = Backbone(backbone, weights, image_size, freeze, **(backbone_args or {}))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.train(self.training)  # also of a subclass that has built its parts since

    def train(self, mode: bool = True) -> Self:
        """Batch statistics stay as they are, if asked for."""
        super().train(mode)
        if self.freeze_batch_norm:
            keep_batch_statistics(self)
        return self
