"""A student that learns from soft labels made online, for the very view of the image that it sees."""

from collections.abc import Callable
from typing import Any

from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.student import Student
from mlcv.models.head import Head, build_head
from mlcv.models.linear import LinearHead


class Distillation(Student, BackboneMethod):
    """The last step of HeLlO (Yu et al., ICCV 2025, arXiv 2408.08201), or plain distillation from a trained method.

    The objective is that of `mlcv.methods.Student`. Teacher and student get the same augmented image, resized for a
    teacher of fixed size.

    Args:
        backbone: timm's model name, or `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        head: called as `head(num_features, num_classes)`.
        kwargs: see `Student` and `BackboneMethod`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(
        self, backbone: str, num_classes: int, head: Callable[[int, int], Head] = LinearHead, **kwargs: Any
    ) -> None:
        super().__init__(backbone=backbone, num_classes=num_classes, **kwargs)
        self.head = build_head(head, self.backbone, num_classes)
        self.train()  # the Trainer leaves each part in the mode that it finds
