"""Contrastive training of an open_clip model (Radford et al., ICML 2021, arXiv 2103.00020) on captions of labels."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlcv.errors import ConfigError
from mlcv.files import whole_file
from mlcv.labels.states import is_positive
from mlcv.losses.bce import BCELoss
from mlcv.methods.base import Batch, MultiLabelModule
from mlcv.models.label_embeddings import PROMPTS, fill_prompts
from mlcv.models.open_clip_tower import PREFIX, contrastive_loss, create_open_clip, tokenizer_of
from mlcv.models.starting_weights import starting_weights
from mlcv.numerics import at_least_float32

_MOST_SCALE = 100.0


class CLIPPretraining(MultiLabelModule):
    """A CLIP of one's own, where none can be downloaded: images against sentences that name their labels.

    A sentence names the labels known to be present, in any order ("a photo of a dog, cat and car."); images without one
    are left out. Each process contrasts its own batch. Evaluation is zero-shot, by the prompts of each class. When
    training ends, `clip.pt` is in the run's folder: give it as `weights` wherever the model's name is given.

    Args:
        backbone: `open_clip:<model>`; `open_clip:digits-clip` is a small one that comes with this project.
        num_classes: label columns C; the command line takes it from the data.
        weights: pretrained tag or a file to start from; None for a random start.
        captions: for training, each with {} where the names go; drawn anew for each image.
        prompts: for evaluation, each with {} where a name goes.
        image_size: side of the input in pixels; the command line takes it from the data.
        kwargs: see `MultiLabelModule`; `class_names` are in the sentences.

    Shape:
        image (B, 3, H, W) to logits (B, C), cosines by the learned scale.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        weights: str | None = None,
        captions: Sequence[str] = PROMPTS,
        prompts: Sequence[str] = PROMPTS,
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        if not backbone.startswith(PREFIX):
            raise ConfigError(f"model.backbone: a CLIP is needed, {PREFIX}<model>; got {backbone}")
        name = backbone.removeprefix(PREFIX)
        self.clip = create_open_clip(name, starting_weights(weights), "model.backbone", force_image_size=image_size)
        self.backbone: nn.Module = self.clip.visual
        self.tokenizer = tokenizer_of(name)
        self.prompts = fill_prompts(prompts, self.class_names)
        self.num_prompts, self.captions = len(prompts), list(captions)
        fill_prompts(captions, self.class_names)
        self.contrast, self.loss = contrastive_loss(), BCELoss()
        self.train()

    def forward(self, image: Tensor) -> Tensor:
        texts = self.clip.encode_text(self.tokenizer(self.prompts).to(image.device), normalize=True)
        texts = normalize(texts.view(self.num_classes, self.num_prompts, -1).mean(dim=1), dim=1)
        logits: Tensor = self.clip.logit_scale.exp() * self.clip.encode_image(image, normalize=True) @ texts.T
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Cosines, from [-1, 1] to [0, 1]: a sigmoid of CLIP's logits would be 1 for all of them."""
        return (self._cosines(logits) + 1) / 2

    def exact_logits(self, logits: Tensor) -> Tensor:
        """Of a probability (1 + cosine) / 2: log(1 + cosine) - log(1 - cosine)."""
        cosines = self._cosines(logits)
        return cosines.log1p() - (-cosines).log1p()

    def _cosines(self, logits: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        cosines: Tensor = (logits / self.clip.logit_scale.exp().to(logits)).clamp(-1, 1)
        return cosines

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        texts = [self._caption(row) for row in batch["target"]]
        named = torch.tensor([place for place, text in enumerate(texts) if text is not None], dtype=torch.long)
        tokens = self.tokenizer([text or "" for text in texts]).to(self.device)
        image, text, scale = self.clip(batch["image"], tokens)[:3]
        # Without any sentence a zero that all parameters are part of, since DDP waits for their gradients.
        loss: Tensor = self.contrast(image[named], text[named], scale) if len(named) else 0 * (image + text).sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(texts))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The scale is bounded, as in the paper."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=torch.tensor(_MOST_SCALE).log().item())

    def on_train_end(self) -> None:
        if self.trainer.is_global_zero:
            # On a full disk torch's own writer would end the process, so the file is made in memory first.
            content = io.BytesIO()
            torch.save(self.clip.state_dict(), content)
            with whole_file(Path(self.trainer.default_root_dir) / "clip.pt", "wb") as file:
                file.write(content.getbuffer())

    def _caption(self, target: Tensor) -> str | None:
        present = is_positive(target).nonzero().flatten()
        if not len(present):
            return None
        names = [self.class_names[c].replace("_", " ") for c in present[torch.randperm(len(present))].tolist()]
        template = self.captions[int(torch.randint(len(self.captions), ()))]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        return template.replace("{}", listed)
