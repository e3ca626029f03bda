"""A student that learns from soft labels made online, for the very view of the image that it sees."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mlcv.losses.bce import BCELoss
from mlcv.methods.optim import Optim
from mlcv.methods.student import Student
from mlcv.models.backbones import Backbone
from mlcv.models.head import Head, build_head
from mlcv.models.linear import LinearHead


class Distillation(Student):
    """The last step of HeLlO (Yu et al., ICCV 2025, arXiv 2408.08201), or plain distillation from a trained method.

    The objective is that of `mlcv.methods.Student`. Teacher and student get the same augmented image, resized for a
    teacher of fixed size.

    Args:
        backbone: timm's model name.
        num_classes: label columns C; the command line takes it from the data.
        teacher: a projector's .safetensors file, a checkpoint of `mlcv fit`, or a .npy file of probabilities, a row for
            each training image. Only training needs it.
        temperature: T > 0.
        hard_weight: of the loss of the labels themselves, >= 0.
        single_label: one label an image.
        weights: see `mlcv.models.Backbone`.
        head: called as `head(num_features, num_classes)`.
        loss: of the hard labels, and of what is logged as `val/loss`; binary cross-entropy over known entries if None.
        class_names: C names for tables, and to compare with the teacher's.
        image_size: side of the input in pixels, for backbones of fixed size; the command line takes it from the data.
        freeze: parts of the backbone that do not learn; see `mlcv.models.Backbone`.
        backbone_args: further arguments of timm's constructor.
        optim: optimizer and schedule.
        eleven_point: also log VOC 2007's 11-point mAP.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(  # noqa: PLR0913  # the options of a Classifier and of a teacher
        self,
        backbone: str,
        num_classes: int,
        teacher: str | None = None,
        temperature: float = 1.0,
        hard_weight: float = 0.0,
        single_label: bool = False,
        weights: str | None = None,
        head: Callable[[int, int], Head] = LinearHead,
        loss: nn.Module | None = None,
        class_names: Sequence[str] | None = None,
        image_size: int | None = None,
        freeze: Sequence[str] = (),
        backbone_args: dict[str, Any] | None = None,
        optim: Optim = Optim(),  # noqa: B008  # frozen
        eleven_point: bool = False,
    ) -> None:
        super().__init__(num_classes, class_names, optim, eleven_point)
        self.learn_from(teacher, temperature, hard_weight, single_label)
        self.backbone = Backbone(backbone, weights, image_size, freeze, **(backbone_args or {}))
        self.head = build_head(head, self.backbone, num_classes)
        self.loss = BCELoss() if loss is None else loss
