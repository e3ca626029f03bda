"""Methods that learn from a teacher's soft labels share this."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.fingerprints import check_note
from mlcv.losses.bce import BCELoss
from mlcv.losses.soft_labels import soft_label_loss
from mlcv.methods.base import Batch, MultiLabelModule
from mlcv.methods.teacher import Teacher, read_teacher
from mlcv.numerics import at_least_float32


class Student(MultiLabelModule):
    """Base of methods that learn from a teacher.

        L = T^2 KL(teacher / T, student / T) + hard_weight * loss(logits, targets) / C

    KL is that of each class's Bernoulli distribution, meaned over the C classes, as the loss of the labels is, so that
    a weight of 1 weighs both alike; for `single_label` it is of the softmax, and the loss is not divided. The teacher
    is read when training starts; evaluation needs none, and no checkpoint holds it.

    Args:
        num_classes: label columns C; the command line takes it from the data.
        teacher: a projector's .safetensors file, a checkpoint of `mlcv fit`, or a .npy file of probabilities, a row for
            each training image. Only training needs it.
        temperature: T > 0.
        hard_weight: of the loss of the labels themselves, >= 0.
        single_label: one label an image.
        loss: of the hard labels, and of what is logged as `val/loss`; binary cross-entropy over known entries if None.
        kwargs: see `MultiLabelModule`; `class_names` are compared with the teacher's.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(
        self,
        num_classes: int,
        teacher: str | None = None,
        temperature: float = 1.0,
        hard_weight: float = 0.0,
        single_label: bool = False,
        loss: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, **kwargs)
        if temperature <= 0 or hard_weight < 0:
            raise ConfigError("model: temperature > 0 and hard_weight >= 0 are needed")
        self.teacher, self.temperature = teacher, temperature
        self.hard_weight, self.single_label = hard_weight, single_label
        self.loss: nn.Module = BCELoss() if loss is None else loss
        self._teacher: list[Teacher] = []  # in a list, so that it is no submodule

    def setup(self, stage: str) -> None:
        """Reads the teacher, before anything is trained."""
        super().setup(stage)
        if stage == "fit" and not self._teacher:
            if self.teacher is None:
                raise ConfigError(
                    "model.teacher: training needs a checkpoint of `mlcv fit`, a projector's .safetensors file, or a "
                    ".npy file of soft labels"
                )
            backbone = self.hparams.get("backbone")  # which a method of the user's own may not have
            self._teacher = [read_teacher(self.teacher, self.class_names, backbone)]

    def on_fit_start(self) -> None:
        self._teacher[0].to(torch.device(self.device))

    def on_train_start(self) -> None:
        super().on_train_start()
        loader: Any = self.trainer.train_dataloader
        self._teacher[0].check(len(loader.dataset))
        labeled = getattr(loader.dataset, "labeled", None)
        if labeled is not None and self.teacher is not None:
            again = "make it again for these data"
            check_note(Path(self.teacher), "model.teacher", again, images=labeled.fingerprint())

    def probabilities(self, logits: Tensor) -> Tensor:
        return at_least_float32(logits).softmax(dim=1) if self.single_label else super().probabilities(logits)

    def exact_logits(self, logits: Tensor) -> Tensor:
        """Of a softmax: how far a class is above the log of the sum of all others' exponentials."""
        logits = at_least_float32(logits)
        if not self.single_label:
            return logits
        # Below the top that sum is the whole one less the class's own share, which the top's keeps from cancelling; the
        # top's own is summed without it.
        top, place = logits.max(dim=1, keepdim=True)
        share = (logits - top).exp()
        others = top + (share.sum(dim=1, keepdim=True) - share).log()
        others_of_top = logits.scatter(1, place, -torch.inf).logsumexp(dim=1, keepdim=True)
        return logits - torch.where(logits == top, others_of_top, others)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return super().training_step({**batch, "teacher": self._teacher[0](batch)}, batch_idx)

    def objective(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self(batch["image"])
        loss = soft_label_loss(logits, batch["teacher"], self.temperature, self.single_label)
        parts = {"loss_soft": loss}
        if self.hard_weight:
            shared_by = 1 if self.single_label else self.num_classes
            loss = loss + self.hard_weight * self.loss(logits, batch["target"]) / shared_by
        return loss, parts
