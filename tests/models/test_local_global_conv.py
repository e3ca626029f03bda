"""LgConv: the branch against its formula, shapes, and what a conversion leaves of a network."""

import pytest
import timm
import torch
from torch import nn

from mlcv.errors import ConfigError
from mlcv.models import LocalGlobalConv, add_global_branches
from mlcv.models.local_global_conv import GlobalBranch


def conv1x1(layer, x):
    bias = 0 if layer.bias is None else layer.bias[:, None, None]
    return torch.einsum("oi,ihw->ohw", layer.weight[:, :, 0, 0], x) + bias


def oracle(branch, x):
    """One image and one head at a time."""
    local = conv1x1(branch.reduce, x).clamp(min=0)
    z = torch.cat([local, local.mean(dim=(1, 2))[:, None, None].expand_as(local)])
    gather, gate, value = conv1x1(branch.gather, z), conv1x1(branch.gate, z), conv1x1(branch.value, x)
    size, handed = len(x) // branch.num_heads, torch.zeros_like(x)
    for h in range(branch.num_heads):
        mine = slice(h * size, (h + 1) * size)
        attention = gather[h].exp() / gather[h].exp().sum()
        context = (attention * value[mine]).sum(dim=(1, 2))
        handed[mine] = context[:, None, None] / (1 + (-gate[h]).exp())
    stride = branch.project.stride[0]
    y = conv1x1(branch.project, (x + handed)[:, ::stride, ::stride])
    norm = branch.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize(("heads", "reduction", "stride"), [(1, 1, 1), (8, 4, 1), (4, 2, 2)])
def test_the_branch_equals_its_formula(heads, reduction, stride, seed):
    torch.manual_seed(seed)
    branch = GlobalBranch(16, 24, stride, heads, reduction).double().eval()
    nn.init.normal_(branch.norm.weight)
    nn.init.normal_(branch.norm.running_mean)
    x = torch.randn(3, 16, 7, 5, dtype=torch.float64)
    expected = torch.stack([oracle(branch, image) for image in x])
    torch.testing.assert_close(branch(x), expected)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_keeps_the_shape_of_the_convolution(stride, dilation, groups, size):
    conv = nn.Conv2d(16, 32, 3, stride, padding=dilation, dilation=dilation, groups=groups)
    x = torch.randn(2, 16, *size)
    assert LocalGlobalConv(conv)(x).shape == conv(x).shape


def test_is_the_convolution_plus_the_branch():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    layer, x = LocalGlobalConv(conv), torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(layer.eval()(x), conv(x) + layer.branch(x))


def test_refuses_channels_that_the_heads_do_not_divide():
    with pytest.raises(ConfigError, match="12 channels cannot be divided among 8 heads"):
        LocalGlobalConv(nn.Conv2d(12, 8, 3, padding=1))


def test_refuses_a_convolution_that_shrinks_its_input():
    with pytest.raises(ConfigError, match="pad it"):
        LocalGlobalConv(nn.Conv2d(8, 8, 3))


@pytest.mark.parametrize("reduction", [0, 9])
def test_refuses_an_impossible_reduction(reduction):
    with pytest.raises(ConfigError, match="reduction"):
        GlobalBranch(8, 8, reduction=reduction)


def test_resnet101_has_33_of_them():
    with torch.device("meta"):
        net = timm.create_model("resnet101", num_classes=0)
    net = net.to_empty(device="cpu")
    names = add_global_branches(net)
    assert len(names) == 33
    assert all(name.endswith("conv2") for name in names)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "regnetx_002", "densenet121", "test_resnet"])
def test_a_converted_network_gives_almost_the_same_at_the_start(name, seed):
    torch.manual_seed(seed)
    net = timm.create_model(name, num_classes=0).eval()
    for module in net.modules():  # timm starts residual branches at zero, so that nothing inside them would show
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = net.forward_features(x)
        assert add_global_branches(net, num_heads=2)
        after = net.eval().forward_features(x)
    assert not torch.equal(before, after)
    assert (after - before).norm() <= 0.02 * before.norm()


def test_a_pretrained_network_keeps_what_it_says(shared_data, seed):
    from mlcv.models import Backbone

    torch.manual_seed(seed)
    backbone = Backbone("tf_efficientnet_lite0", str(shared_data / "weights" / "tf_efficientnet_lite0.safetensors"))
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        before = backbone.eval().pooled(x)
        add_global_branches(backbone.net)
        after = backbone.eval().pooled(x)
    assert (after - before).norm() <= 0.02 * before.norm()


def test_gradients_reach_every_parameter():
    layer = LocalGlobalConv(nn.Conv2d(8, 8, 3, stride=2, padding=1))
    nn.init.ones_(layer.branch.norm.weight)
    (layer(torch.randn(4, 8, 6, 6)) * torch.randn(4, 8, 3, 3)).sum().backward()
    silent = [name for name, p in layer.named_parameters() if not p.grad.abs().sum() > 0]
    assert set(silent) <= {"branch.gather.bias"}  # a softmax takes no notice of what it adds to all places


def test_layers_choose_what_is_converted():
    net = timm.create_model("resnet18", num_classes=0)
    names = add_global_branches(net, layers=["layer4"], num_heads=4, reduction=8)
    assert names == ["layer4.0.conv1", "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]
    assert net.layer4[0].conv1.branch.num_heads == 4
    assert net.layer4[0].conv1.branch.reduce.out_channels == 256 // 8
    assert isinstance(net.layer3[0].conv1, nn.Conv2d)


def test_says_which_part_does_not_exist_and_when_there_is_nothing_to_convert():
    net = timm.create_model("resnet18", num_classes=0)
    with pytest.raises(ConfigError, match=r"no part 'layer5'; near: layer"):
        add_global_branches(net, layers=["layer5"])
    with pytest.raises(ConfigError, match="none to convert in conv1"):
        add_global_branches(net, layers=["conv1"])
    with pytest.raises(ConfigError, match="choose another backbone"):
        add_global_branches(timm.create_model("test_vit", num_classes=0))
    with pytest.raises(ConfigError, match="layer1.0.conv1: 64 channels cannot be divided among 7 heads"):
        add_global_branches(net, num_heads=7)
