"""Low-rank adapters on open_clip's towers: nothing at first, the formula after, and exact merges."""

import pytest
import torch
from torch import nn

from mlcv.errors import ConfigError
from mlcv.models.lora import add_lora, load_lora, lora_state, merge_lora, unmerge_lora

TOWERS = {
    "vit": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
}


def tower(kind):
    """An open_clip image tower of a few thousand weights."""
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    return open_clip.model.CLIP(embed_dim=16, vision_cfg=TOWERS[kind], text_cfg=text).visual.eval()


def images(kind, rng):
    side = TOWERS[kind]["image_size"]
    return torch.randn(3, 3, side, side, generator=rng)


def stir(net, rng):
    """Adapters as if they had learned."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.1)


@pytest.mark.parametrize("kind", TOWERS)
def test_a_new_adapter_changes_nothing_and_alone_learns(kind, rng):
    net, image = tower(kind), images(kind, rng)
    before, base = net(image), {name: p.clone() for name, p in net.named_parameters()}
    names = add_lora(net, rank=2)
    assert torch.equal(net(image), before)
    expected = {"vit": "transformer.resblocks.1.attn.in_proj_weight", "resnet": "layer2.0.conv2.weight"}
    assert expected[kind] in names
    net.train()(image).square().sum().backward()
    learned = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learned
    for name, parameter in net.named_parameters():
        is_adapter = name.endswith(("lora_a", "lora_b"))
        assert (name in learned) == is_adapter
        assert (parameter.grad is not None) == is_adapter
        if not is_adapter:
            plain = name.replace("parametrizations.", "").removesuffix(".original")
            assert torch.equal(parameter, base[plain])


def test_the_update_is_the_product_of_the_factors_over_the_rank(rng):
    net = nn.MultiheadAttention(8, 2)
    before = net.in_proj_weight.detach().clone()
    add_lora(net, rank=2, alpha=6.0, targets=["in_proj_weight"])
    stir(net, rng)
    state = lora_state(net)
    a, b = state["in_proj_weight.lora_a"], state["in_proj_weight.lora_b"]
    assert (a.shape, b.shape) == ((3, 2, 8), (3, 8, 2))
    for part in range(3):  # queries, keys, values
        rows = slice(8 * part, 8 * part + 8)
        torch.testing.assert_close(net.in_proj_weight[rows], before[rows] + 3.0 * b[part] @ a[part])


def test_a_kernel_is_a_matrix_of_sides_times_channels(rng):
    net = nn.Sequential(nn.Conv2d(5, 7, 3, bias=False))
    before = net[0].weight.detach().clone()
    add_lora(net, rank=4, targets=["0.weight"])
    stir(net, rng)
    state = lora_state(net)
    a, b = state["0.weight.lora_a"][0], state["0.weight.lora_b"][0]
    assert (a.shape, b.shape) == ((4, 15), (21, 4))
    torch.testing.assert_close(net[0].weight, before + (b @ a).reshape(7, 5, 3, 3))


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("alpha", [None, 5.0])
def test_merging_and_back_are_exact_to_rounding(kind, alpha, rng):
    net, image = tower(kind), images(kind, rng)
    plain = {name: p.clone() for name, p in net.state_dict().items()}
    add_lora(net, 3, alpha)
    stir(net, rng)
    adapted, state = net(image), {name: tensor.clone() for name, tensor in lora_state(net).items()}
    assert (adapted - tower(kind)(image)).abs().max() > 1e-4
    merge_lora(net)
    assert set(net.state_dict()) == set(plain)
    torch.testing.assert_close(net(image), adapted)
    unmerge_lora(net, state, 3, alpha)
    torch.testing.assert_close(net(image), adapted)
    for name, value in net.state_dict().items():
        if name.endswith(".original"):
            torch.testing.assert_close(value, plain[name.replace("parametrizations.", "").removesuffix(".original")])


def test_adapters_move_to_another_copy_of_the_base(rng):
    net, other, image = tower("vit"), tower("vit"), images("vit", rng)
    add_lora(net, 2)
    stir(net, rng)
    add_lora(other, 2)
    load_lora(other, lora_state(net), "file")
    assert torch.equal(other(image), net(image))
    deeper = tower("vit")
    add_lora(deeper, 3)
    with pytest.raises(ConfigError, match="file: 18 adapters differ .*lora_a"):
        load_lora(deeper, lora_state(net), "file")


def test_dropout_leaves_inputs_of_the_update_out_in_training_alone(rng):
    net = nn.Sequential(nn.Linear(400, 3, bias=False))
    before = net[0].weight.detach().clone()
    add_lora(net, 1, targets=["0.weight"], dropout=0.25)
    stir(net, rng)
    update = net.eval()[0].weight - before
    torch.testing.assert_close(update, lora_state(net)["0.weight.lora_b"][0] @ lora_state(net)["0.weight.lora_a"][0])
    dropped = net.train()[0].weight - before
    is_out = dropped.abs().amax(dim=0) < 1e-9
    assert 50 < is_out.sum() < 150
    torch.testing.assert_close(dropped[:, ~is_out], update[:, ~is_out] / 0.75)
    assert not torch.equal(net[0].weight - before, dropped)


def test_the_adapters_of_clip_rn50_have_the_size_that_fits_the_paper():
    resnet = pytest.importorskip("open_clip.modified_resnet")
    with torch.device("meta"):
        net = resnet.ModifiedResNet([3, 4, 6, 3], output_dim=1024, heads=32, image_size=224, width=64)
        names = add_lora(net, 8)
    assert len(names) == 55  # every convolution, nothing else
    assert sum(tensor.numel() for tensor in lora_state(net).values()) == pytest.approx(518_000, rel=2e-3)


def test_impossible_adapters_are_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, (1, 3)))
    with pytest.raises(ConfigError, match="rank is at least 1"):
        add_lora(net, 0)
    with pytest.raises(ConfigError, match=r"dropout lies in \[0, 1\), got 1.5"):
        add_lora(net, 1, dropout=1.5)
    with pytest.raises(ConfigError, match=r"no weight is named like \*attn; there are 0.weight"):
        add_lora(net, 1, targets=["*attn"])
    with pytest.raises(ConfigError, match=r"0.weight is a kernel of \(1, 3\)"):
        add_lora(net, 1, targets=["0.weight"])


def test_a_rank_beyond_the_matrix_is_cut_and_scales_nothing(rng):
    net = nn.Sequential(nn.Linear(6, 3))
    before = net[0].weight.detach().clone()
    add_lora(net, rank=64, targets=["0.weight"])
    stir(net, rng)
    state = lora_state(net)
    a, b = state["0.weight.lora_a"][0], state["0.weight.lora_b"][0]
    assert a.shape == (2, 6)  # 2 (6 + 3) numbers, as many as the matrix has
    torch.testing.assert_close(net[0].weight, before + b @ a)
