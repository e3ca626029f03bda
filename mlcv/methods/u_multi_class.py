"""U-MultiClass: "maybe" as a class of its own (Irvin et al., AAAI 2019, arXiv 1901.07031, section 3)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mlcv.losses.bce import BCELoss
from mlcv.losses.three_way import three_way_loss
from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.base import Batch
from mlcv.models.head import Head, build_head
from mlcv.models.linear import LinearHead


class UMultiClass(BackboneMethod):
    """A softmax over absent, present and uncertain for each class; train it with `data.policy.uncertain third_class`.

    At test time the probability of present is renormalised over absent and present, p1 / (p0 + p1), which is the
    sigmoid of z1 - z0: these differences are the logits that everything else sees.

    Args:
        backbone: timm's model name, or `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        head: called as `head(num_features, 3 * num_classes)`.
        kwargs: see `BackboneMethod`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(
        self, backbone: str, num_classes: int, head: Callable[[int, int], Head] = LinearHead, **kwargs: Any
    ) -> None:
        super().__init__(backbone, num_classes, **kwargs)
        self.head = build_head(head, self.backbone, 3 * num_classes)
        self.loss: nn.Module = BCELoss()  # of the renormalised probabilities, for `val/loss`
        self.train()  # the Trainer leaves each part in the mode that it finds

    def triples(self, image: Tensor) -> Tensor:
        """Raw scores of absent, present and uncertain (B, C, 3)."""
        return self._apart(super().forward(image))

    def forward(self, image: Tensor) -> Tensor:
        return self._margin(super().forward(image))

    def forward_with_maps(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs, maps = super().forward_with_maps(image)
        return (outputs, None) if maps is None else (self._margin(outputs), self._margin(maps))

    def _margin(self, outputs: Tensor) -> Tensor:
        """How far present is above absent."""
        apart = self._apart(outputs)
        return apart[:, :, 1] - apart[:, :, 0]

    def _apart(self, outputs: Tensor) -> Tensor:
        """What has the three of each class along dimension 1, (B, 3C, ...), as (B, C, 3, ...)."""
        return outputs.reshape(outputs.shape[0], self.num_classes, 3, *outputs.shape[2:])

    def objective(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return three_way_loss(self.triples(batch["image"]), batch["target"]), {}
