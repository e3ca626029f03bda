"""What methods on an image backbone share, so that each writes only what is its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from mlcv.errors import ConfigError
from mlcv.fingerprints import weights_fingerprint
from mlcv.labels.states import log_odds
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
        prior_bias: begin with the log-odds of each class among the known training labels, (positives + 0.5) of (known
            + 2), as the head's bias, which otherwise has to learn it through the features; where only positives are
            known, of all images. With a loss that moves what its optimum says (`undo`), so that probabilities begin
            there.
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
        prior_bias: bool = False,
        backbone_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        self.freeze_batch_norm, self.prior_bias = freeze_batch_norm, prior_bias
        self.backbone = Backbone(backbone, weights, image_size, freeze, **(backbone_args or {}))

    def on_labels(self, targets: Tensor) -> None:
        super().on_labels(targets)
        if self.prior_bias:
            with torch.no_grad():
                # What the loss adds to logits, and `exact_logits` takes back, is not begun with a second time.
                odds = log_odds(targets)
                self.class_bias().copy_(2 * odds - self.exact_logits(odds[None])[0])

    def class_bias(self) -> Tensor:
        """The head's bias of each class (C,).

        Raises:
            ConfigError: if it has none.
        """
        bias: Tensor | None = getattr(getattr(self, "head", None), "class_bias", None)
        if bias is None or len(bias) != self.num_classes:
            name = type(getattr(self, "head", self)).__name__
            raise ConfigError(f"model.prior_bias: {name} has no bias for each class; leave it out, or take another")
        return bias

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self._stored is not None:
            self.backbone.freeze()

    @property
    def _stored(self) -> Any:
        """The features that the data have in place of images, if they have."""
        return None if self._trainer is None else getattr(getattr(self.trainer, "datamodule", None), "stored", None)

    def check_stored(self, stored: Any) -> None:
        """Refuses features that are not of this backbone, with these weights; None are none.

        Raises:
            ConfigError: naming what differs.
        """
        if stored is not None:
            stored.check(backbone=self.backbone.name, weights=weights_fingerprint(self.backbone.state_dict()))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.check_stored(self._stored)
        self.train(self.training)  # also of a subclass that has built its parts since

    def on_validation_start(self) -> None:
        if not self.trainer.sanity_checking and self.trainer.state.fn != "fit":
            self.check_stored(self._stored)

    def on_test_start(self) -> None:
        self.check_stored(self._stored)

    def on_predict_start(self) -> None:
        self.check_stored(self._stored)

    def train(self, mode: bool = True) -> Self:
        """Batch statistics stay as they are, if asked for."""
        super().train(mode)
        if self.freeze_batch_norm:
            keep_batch_statistics(self)
        return self
