"""The projector of HeLlO (Yu et al., ICCV 2025, arXiv 2408.08201): CLIP and a few trained numbers, in a small file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from mlcv.errors import ConfigError
from mlcv.files import whole_file
from mlcv.fingerprints import weights_digest
from mlcv.models.label_embeddings import PROMPTS, read_label_embeddings
from mlcv.models.lora import LoRA, LowRank, add_lora, lora_state
from mlcv.models.open_clip_tower import create_open_clip
from mlcv.plain_config import arguments, construct

_FORMAT = "mlcv label projector 2"
BATCH_STATISTICS = ("running_mean", "running_var")
"""What of a BatchNorm a projector may store."""


class CLIPProjector(nn.Module):
    """Image to label logits: scale W cos(image) + bias, where W starts as the text embeddings of the class names.

    At the start it is CLIP's zero-shot classifier. Low-rank updates of the image tower and of W, the scale and the bias
    learn; only these are stored, since the rest comes with the name of the model.

    Args:
        clip: open_clip's model name.
        weights: its pretrained tag, or a file.
        class_names: C names.
        prompts: each with {} where a name goes.
        lora: the updates of the tower and of W.
        image_size: side of the input in pixels; the model's own if None.

    Shape:
        image (B, 3, H, W) to logits (B, C).

    Raises:
        ConfigError: for a model or weights that cannot be had, or batch statistics of a tower without.
    """

    def __init__(
        self,
        clip: str,
        weights: str,
        class_names: Sequence[str],
        prompts: Sequence[str] = PROMPTS,
        lora: LoRA = LoRA(),  # noqa: B008  # frozen
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        model = create_open_clip(clip, weights, "model.backbone", force_image_size=image_size)
        side = model.visual.image_size
        self.image_size: int = side[0] if isinstance(side, tuple) else side
        self.about: dict[str, Any] = {
            "clip": clip, "weights": weights, "class_names": list(class_names), "prompts": list(prompts),
            "image_size": self.image_size, **asdict(lora),
        }  # fmt: skip
        self.tower: nn.Module = model.visual
        self.base = weights_digest(self.tower.state_dict())
        text = read_label_embeddings(f"open_clip:{clip}:{weights}", class_names, prompts)
        self.head = nn.Linear(text.shape[1], len(text), bias=False)
        self.head.load_state_dict({"weight": text})
        self.log_scale = nn.Parameter(model.logit_scale.detach().clone().float())
        bias = getattr(model, "logit_bias", None)
        self.bias = nn.Parameter(torch.zeros(()) if bias is None else bias.detach().clone().float())
        for part, rank, names in ((self.tower, lora.rank, lora.targets), (self.head, lora.head_rank, ("weight",))):
            part.requires_grad_(False)
            if rank:
                add_lora(part, rank, lora.alpha, names, lora.dropout)
        norms = {name: m for name, m in self.tower.named_modules() if isinstance(m, BatchNorm)}
        if lora.batch_statistics and not norms:
            raise ConfigError(f"model.lora.batch_statistics: {clip} has no BatchNorm; leave it out")
        self.norms = norms if lora.batch_statistics else {}
        self.train()

    def train(self, mode: bool = True) -> "CLIPProjector":
        """The tower stays in evaluation mode but for what a file holds: the base's own batch statistics are kept."""
        super().train(mode)
        self.tower.eval()
        updates = (module for module in self.tower.modules() if isinstance(module, LowRank))
        for module in (*updates, *self.norms.values()):
            module.train(mode)
        return self

    def forward(self, image: Tensor) -> Tensor:
        features = self.tower(image)
        features = normalize(features[0] if isinstance(features, tuple) else features, dim=-1)
        logits: Tensor = self.log_scale.exp() * self.head(features) + self.bias
        return logits

    def stored(self) -> dict[str, Tensor]:
        """What a file holds: the updates, the scale and the bias, and batch statistics if they were let go."""
        parts = {"tower": lora_state(self.tower), "head": lora_state(self.head)}
        tensors = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
        for name, norm in self.norms.items():
            tensors |= {f"tower.{name}.{key}": getattr(norm, key) for key in BATCH_STATISTICS}
        return {**tensors, "log_scale": self.log_scale.detach(), "bias": self.bias.detach()}

    def save(self, path: Path, temperature: float = 1.0) -> None:
        """Writes the projector's file (safetensors), whole or not at all.

        Args:
            path: of the file.
            temperature: by which the logits were divided in training, for those who use them as soft labels.
        """
        about = {**self.about, "format": _FORMAT, "base": self.base, "temperature": temperature}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.stored().items()}
        with whole_file(path, "wb") as file:
            file.write(save(tensors, {"mlcv": json.dumps(about)}))

    @classmethod
    def from_file(cls, path: Path, weights: str | None = None) -> "CLIPProjector":
        """The projector of a file.

        Args:
            path: from `save`.
            weights: where the base model's weights are now, if they were in a file that has moved.

        Raises:
            ConfigError: if the file is damaged or of another kind, or the base model is not the one it was trained on.
        """
        about, tensors = read_projector(path)
        source = weights or about.get("weights")
        named = {field.name: about[field.name] for field in fields(LoRA) if field.name in about}
        given = {key: about[key] for key in ("clip", "class_names", "prompts", "image_size") if key in about}
        checked = arguments(cls, {**given, "weights": source, "lora": named}, f"{path}: its description")
        projector: CLIPProjector = construct(cls, checked)
        if projector.base != about.get("base"):
            raise ConfigError(
                f"{path}: trained on other weights of {about['clip']} than those of {source}. Give the weights that it "
                f"was trained on ({about.get('weights')})"
            )
        own = projector.stored()
        wrong = sorted(set(own) ^ set(tensors)) or [k for k, tensor in own.items() if tensor.shape != tensors[k].shape]
        if wrong:
            raise ConfigError(f"{path}: {len(wrong)} tensors are not those of its own description, such as {wrong[0]}")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        return projector


def read_projector(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a projector's file says about itself, and its tensors.

    Raises:
        ConfigError: if it is absent, damaged or of another kind.
    """
    if not path.is_file():
        raise ConfigError(f"no projector at {path}; `CLIPProjector.save` writes one")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("mlcv", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged or no safetensors file ({error}); copy it again") from error
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise ConfigError(f"{path} is no label projector: it lacks the mark {_FORMAT!r}")
    return about, tensors
