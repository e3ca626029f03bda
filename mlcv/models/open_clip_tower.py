"""Models of open_clip: whole, or their image tower under the names that timm's networks use."""

import difflib
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.models.downloads import one_try

PREFIX = "open_clip:"
_OWN = Path(__file__).parent / "clip_configs" / "digits-clip.json"


class OpenCLIPTower(nn.Module):
    """The vision transformer of an open_clip model.

    Args:
        name: open_clip's model name, such as `ViT-B-16`.
        weights: pretrained tag, or a file; None for a random start.
        image_size: side of the input in pixels; position embeddings are interpolated to it.

    Shape:
        image (B, 3, H, W); `forward_features` returns the pooled vector in the space that images and texts share
        (B, head_hidden_size), and one vector a patch (B, N, num_features); `forward_head` picks the first.

    Raises:
        ConfigError: for a name or tag that open_clip does not know, or a tower without patch tokens.
    """

    def __init__(self, name: str, weights: str | None = None, image_size: int | None = None) -> None:
        super().__init__()
        self.visual = create_open_clip(name, weights, "model.backbone", force_image_size=image_size).visual
        if not hasattr(self.visual, "output_tokens") or getattr(self.visual, "proj", None) is None:
            raise ConfigError(
                f"model.backbone: {PREFIX}{name} is no vision transformer with a projection, so it gives no patch "
                "tokens; take a ViT, or the like tower of timm (resnet50_clip.openai, ...)"
            )
        self.visual.output_tokens = True
        self.num_features, self.head_hidden_size = self.visual.proj.shape

    def forward_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled and patch vectors."""
        pooled, patches = self.visual(image)
        return pooled, patches

    def forward_head(self, features: tuple[Tensor, Tensor], pre_logits: bool) -> Tensor:
        """The pooled vector."""
        return features[0]

    def no_weight_decay(self) -> set[str]:
        """As the training code of open_clip has it, beside norms and biases."""
        return {"visual.class_embedding", "visual.positional_embedding"}


def create_open_clip(name: str, weights: str | None, option: str, **kwargs: Any) -> Any:
    """An open_clip model.

    Args:
        name: its name, in open_clip or in `mlcv/models/clip_configs`.
        weights: pretrained tag, or a file; None for a random start.
        option: what the user calls the argument, for the error.
        kwargs: further arguments of `open_clip.create_model`.

    Raises:
        ConfigError: with the option, and similar names or tags where there are any.
    """
    open_clip = _open_clip()
    what = f"{PREFIX}{name}" if weights is None else f"{PREFIX}{name}:{weights}"
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3) or open_clip.list_models()[:3]
        raise ConfigError(f"{option}: {what}: open_clip has no such model; it has {', '.join(near)}, ...")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is not None and weights not in tags and not Path(weights).is_file():
        raise ConfigError(f"{option}: {what}: no such file, and open_clip's tags are {', '.join(tags) or 'none'}")
    try:
        with one_try() if weights in tags else nullcontext():
            return open_clip.create_model(name, pretrained=weights, **kwargs)
    except (RuntimeError, OSError, HfHubHTTPError) as error:
        said = str(error).strip().splitlines()[0]
        raise ConfigError(f"{option}: {what}: {said}. Without network access give the path of a file") from error
    except Exception as error:  # whatever a file of another kind makes of it, whose content is nobody's business
        if weights is None or weights in tags:
            raise
        kind = type(error).__name__
        raise ConfigError(f"{option}: {what}: the file holds no weights of this model ({kind})") from error


def tokenizer_of(name: str) -> Any:
    """The tokenizer of an open_clip model: sentences to (N, length)."""
    return _open_clip().get_tokenizer(name)


def contrastive_loss() -> nn.Module:
    """open_clip's loss: called with unit vectors of images and texts (B, D), pair by pair, and the scale."""
    loss: nn.Module = _open_clip().loss.ClipLoss()
    return loss


def _open_clip() -> Any:
    """The library, which takes half a second that most runs need not wait, with this project's own models."""
    import open_clip  # type: ignore[import-untyped]  # noqa: PLC0415

    if not logging.root.handlers:
        # It logs on the root, which would then begin to print everybody's records, ours a second time.
        logging.root.addHandler(logging.NullHandler())
    if _OWN.stem not in open_clip.list_models():
        open_clip.add_model_config(_OWN)
    return open_clip
