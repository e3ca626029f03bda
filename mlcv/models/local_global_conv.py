"""LgConv, PU-MLC's local-global convolution (Yuan, Zhang, Huang, ICME 2024, arXiv 2306.16016)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlcv.errors import ConfigError
from mlcv.models.backbones import part_of


class GlobalBranch(nn.Module):
    """What a whole feature map says to each of its places: heads gather a vector each and hand it out through gates.

        l = ReLU(conv1x1(x)),  z = [l, mean over places of l]
        a = softmax over places of conv1x1(z),  b = sigmoid(conv1x1(z))      one map a head
        context_h = sum over places of a_h v_h,  v = conv1x1(x)
        G(x) = BN(conv1x1(x + [b_h context_h]_h))

    The normalisation's weight starts near 0, so that a pretrained network is hardly changed at first.

    Args:
        in_channels: a multiple of `num_heads`.
        out_channels: of the result.
        stride: of the result.
        num_heads: number of gathered vectors.
        reduction: the gates read in_channels / reduction channels.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int | tuple[int, int] = 1,
        num_heads: int = 8,
        reduction: int = 4,
    ) -> None:
        super().__init__()
        if num_heads < 1 or in_channels % num_heads:
            raise ConfigError(f"{in_channels} channels cannot be divided among {num_heads} heads; change num_heads")
        if not 1 <= reduction <= in_channels:
            raise ConfigError(f"reduction is 1 to the number of channels ({in_channels}), got {reduction}")
        self.num_heads = num_heads
        width = in_channels // reduction
        self.reduce = nn.Conv2d(in_channels, width, 1)
        self.gather = nn.Conv2d(2 * width, num_heads, 1)
        self.gate = nn.Conv2d(2 * width, num_heads, 1)
        self.value = nn.Conv2d(in_channels, in_channels, 1)
        self.project = nn.Conv2d(in_channels, out_channels, 1, stride)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.normal_(self.norm.weight, std=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        local = self.reduce(x).relu()
        z = torch.cat([local, local.mean(dim=(2, 3), keepdim=True).expand_as(local)], dim=1)
        attention = self.gather(z).flatten(2).softmax(dim=-1)  # (B, heads, H W)
        value = self.value(x).flatten(2).unflatten(1, (self.num_heads, -1))  # (B, heads, channels / heads, H W)
        context = torch.einsum("bhp,bhcp->bhc", attention, value)
        handed_out = self.gate(z).sigmoid()[:, :, None] * context[..., None, None]  # (B, heads, channels / heads, H, W)
        result: Tensor = self.norm(self.project(x + handed_out.flatten(1, 2)))
        return result


class LocalGlobalConv(nn.Module):
    """A convolution plus the global branch of its input.

    With as many channels C out as in, the branch adds 2.25 C^2 parameters to the 9 C^2 of a dense 3x3 convolution.

    Args:
        conv: the convolution, which keeps its weights; its output has the size of its input divided by the stride.
        num_heads: see `GlobalBranch`.
        reduction: see `GlobalBranch`.

    Raises:
        ConfigError: if the channels cannot be divided among the heads, or the convolution shrinks its input.
    """

    def __init__(self, conv: nn.Conv2d, num_heads: int = 8, reduction: int = 4) -> None:
        super().__init__()
        if not keeps_size(conv):
            raise ConfigError(f"{conv} gives another size than its input's divided by the stride; pad it")
        self.local = conv
        stride = (conv.stride[0], conv.stride[1])
        self.branch = GlobalBranch(conv.in_channels, conv.out_channels, stride, num_heads, reduction)
        self.branch.to(conv.weight.device, conv.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.local(x) + self.branch(x)
        return summed


def add_global_branches(
    backbone: nn.Module, layers: Sequence[str] | None = None, num_heads: int = 8, reduction: int = 4
) -> list[str]:
    """Puts a global branch beside convolutions of a network, in place. Load pretrained weights before.

    Args:
        backbone: any convolutional network.
        layers: names of parts, as `named_modules` has them, whose 3x3 convolutions are converted; all if None.
        num_heads: see `GlobalBranch`.
        reduction: see `GlobalBranch`.

    Returns:
        Names of the converted convolutions: 3x3 ones that keep their input's size but for the stride, and do not read
        the image itself (3 channels or fewer).

    Raises:
        ConfigError: for a part that does not exist, nothing to convert, or channels that the heads do not divide.
    """
    parts = [""] if layers is None else list(layers)
    modules = dict(backbone.named_modules())
    for part in parts:
        part_of(backbone, part, "layers")
    chosen = [
        name
        for name, module in modules.items()
        if _is_convertible(module) and any(not part or f"{name}.".startswith(f"{part}.") for part in parts)
    ]
    if not chosen:
        raise ConfigError(
            "global branches stand beside 3x3 convolutions, and there is none to convert"
            + (f" in {', '.join(parts)}" if layers else "; choose another backbone")
        )
    for name in chosen:
        parent, _, child = name.rpartition(".")
        try:
            converted = LocalGlobalConv(modules[name], num_heads, reduction)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
        setattr(modules[parent], child, converted)
    return chosen


def keeps_size(conv: nn.Conv2d) -> bool:
    """Whether the output has the input's height and width, divided by the stride and rounded up."""
    with torch.no_grad():
        side = 2 * max(conv.dilation) * max(conv.kernel_size) + 1  # room for the kernel, and odd
        image = torch.zeros(1, conv.in_channels, side, side, device=conv.weight.device, dtype=conv.weight.dtype)
        wanted = [math.ceil(side / stride) for stride in conv.stride]
        return list(conv(image).shape[2:]) == wanted


def _is_convertible(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.in_channels > 3 and keeps_size(module)
    )
