"""HeLlO's label projector (Yu et al., ICCV 2025, arXiv 2408.08201), for labels of any number an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.methods.base import Batch
from mlcv.methods.student import Student
from mlcv.models.clip_projector import BATCH_STATISTICS, CLIPProjector
from mlcv.models.label_embeddings import PROMPTS
from mlcv.models.lora import LoRA
from mlcv.models.open_clip_tower import PREFIX


class LabelProjector(Student):
    """A CLIP that learns to say what a teacher says, by low-rank updates; its file replaces the teacher's soft labels.

    The objective is that of `mlcv.methods.Student`. Untrained it is CLIP's zero-shot classifier, whose logits (20 and
    more) no sigmoid tells apart; so before the first step scale and bias are fitted to the teacher. When training ends,
    `projector.safetensors` with the last weights is in the run's folder; `save` writes that of any checkpoint.

    Args:
        backbone: `open_clip:<model>`.
        num_classes: label columns C; the command line takes it from the data.
        weights: pretrained tag of open_clip, or a file.
        calibrate: set scale and bias on the first batch such that the logits have the mean and spread of the teacher's.
        prompts: each with {} where a class name goes.
        lora: the updates of the tower and of the linear layer.
        class_names: C names; they start the classifier, and are compared with the teacher's.
        image_size: side of the input in pixels; the command line takes it from the data.
        kwargs: see `Student`.

    Shape:
        image (B, 3, H, W) to logits (B, C).
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        weights: str | None = None,
        calibrate: bool = True,
        prompts: Sequence[str] = PROMPTS,
        lora: LoRA = LoRA(),  # noqa: B008  # frozen
        class_names: Sequence[str] | None = None,
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, class_names=class_names, **kwargs)
        if not backbone.startswith(PREFIX) or weights is None:
            raise ConfigError(
                f"model: a label projector starts from a CLIP (--model.backbone {PREFIX}<model> --model.weights "
                f"<tag or file>); got {backbone} with weights {weights}"
            )
        self.projector = CLIPProjector(
            backbone.removeprefix(PREFIX), weights, self.class_names, prompts, lora, image_size
        )
        self.backbone, self.head = self.projector.tower, self.projector.head
        self.calibrate = calibrate
        self.train()  # the Trainer leaves each part in the mode that it finds

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.projector(image)
        return logits

    def train(self, mode: bool = True) -> "LabelProjector":
        super().train(mode)
        self.projector.train(mode)  # after `backbone`, which is its tower and stays in evaluation mode
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.calibrate and self.global_step == 0 and batch_idx == 0:
            self._calibrate(batch)
        return super().training_step(batch, batch_idx)

    @torch.no_grad()
    def _calibrate(self, batch: Batch) -> None:
        logits, says = self(batch["image"]).float(), self._teacher[0](batch)
        sums = [logits.new_tensor(logits.numel()), logits.sum(), logits.square().sum(), says.sum(), says.square().sum()]
        count, *sums = global_sum(torch.stack(sums)).unbind()
        mean, square, their_mean, their_square = (total / count for total in sums)
        spread, their_spread = (square - mean**2).clamp_min(1e-12), (their_square - their_mean**2).clamp_min(1e-12)
        factor = (their_spread / spread).sqrt()
        self.projector.bias.copy_(their_mean - factor * (mean - self.projector.bias))
        self.projector.log_scale.add_(factor.log())

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero:
            self.save(Path(self.trainer.default_root_dir) / "projector.safetensors")

    def save(self, path: Path) -> None:
        """Writes the projector's file; `CLIPProjector.from_file` reads it."""
        self.projector.save(path, self.temperature)

    @staticmethod
    def from_file(path: str | Path, weights: str | None = None) -> CLIPProjector:
        """The projector of a file, in evaluation mode, as a plain module; see `CLIPProjector.from_file`."""
        return CLIPProjector.from_file(Path(path), weights).eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What does not learn stays out: it comes with the base model."""
        super().on_save_checkpoint(checkpoint)
        kept = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        kept |= {f"projector.tower.{norm}.{name}" for norm in self.projector.norms for name in BATCH_STATISTICS}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}
