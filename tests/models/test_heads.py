import inspect
import itertools
import math

import pytest
import torch
from torch import nn

from mlcv.errors import ConfigError
from mlcv.models import CSRAHead, LinearHead, MLDecoderHead, Query2LabelHead, SemanticGraphHead
from mlcv.models.query2label import sine_positions

HEADS = [
    LinearHead,
    CSRAHead,
    lambda d, c: MLDecoderHead(d, c, width=32, hidden=48),
    lambda d, c: Query2LabelHead(d, c, width=32, hidden=48),
]


@pytest.mark.parametrize("head", [CSRAHead, LinearHead, MLDecoderHead, Query2LabelHead, SemanticGraphHead])
def test_a_size_below_one_is_refused_when_the_head_is_built_or_works(head):
    parameters = inspect.signature(head).parameters
    small = {name: 16 for name in ("width", "hidden") if name in parameters}
    sizes = [name for name, parameter in parameters.items() if type(parameter.default) is int]
    for name, value in itertools.product(sizes, (0, -1)):
        try:
            module = head(8, 5, **{**small, name: value})
        except (ConfigError, ValueError, RuntimeError, ZeroDivisionError, AssertionError):
            continue  # which is told as an error of the head's options
        module(torch.randn(4, 16, 8) if module.features == "patches" else torch.randn(4, 8))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("batch", "classes"), [(2, 7), (1, 1), (3, 130)])
def test_logits_have_one_column_a_class_and_every_parameter_learns(head, batch, classes, rng):
    module = head(16, classes)
    shape = (batch, 16) if module.features == "pooled" else (batch, 9, 16)
    logits = module(torch.randn(shape, generator=rng))
    assert logits.shape == (batch, classes)
    (logits * torch.randn(logits.shape, generator=rng)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_positive_values_of_patches_are_boosted_before_they_are_averaged(rng):
    head = LinearHead(1, 1, boost=5.0)
    with torch.no_grad():
        head.classifier.weight.fill_(1)
    patches = torch.tensor([[0.5, -0.2, 1.5, -1.0]]).unsqueeze(2)
    assert head(patches).item() == pytest.approx(2.2)
    assert head.maps(patches).flatten().tolist() == pytest.approx([2.5, -0.2, 7.5, -1.0])
    with torch.no_grad():
        head.classifier.bias.fill_(0.3)
    assert head(patches).item() == pytest.approx((5 * 0.8 + 5 * 0.1 + 5 * 1.8 - 0.7) / 4)
    assert LinearHead(3, 2, boost=0.5).state_dict().keys() == LinearHead(3, 2).state_dict().keys()
    with pytest.raises(ConfigError, match="boost is above 0"):
        LinearHead(1, 1, boost=0.0)


def test_dropout_takes_a_feature_from_all_patches_of_an_image(seed):
    """So that it is as strong as on the pooled features."""
    head = LinearHead(50, 50, dropout=0.5, boost=2.0).train()
    with torch.no_grad():
        head.classifier.weight.copy_(torch.eye(50))
    torch.manual_seed(seed)
    maps = head(torch.ones(8, 9, 50))
    assert set(maps.flatten().tolist()) == {0.0, 4.0}


@pytest.mark.parametrize("classes", [3, 7])
@pytest.mark.parametrize("head", HEADS[2:])
def test_maps_of_queries_are_the_attention_by_which_they_score(head, classes, rng):
    module = head(16, classes).eval()
    attention = [part for part in module.modules() if isinstance(part, nn.MultiheadAttention)][-1]
    seen = []
    attention.register_forward_pre_hook(lambda _, given: seen.append(given[:2]))
    patches = torch.randn(2, 9, 16, generator=rng)
    module(patches)
    maps = module.maps(patches)
    heads, width = attention.num_heads, attention.embed_dim // attention.num_heads
    parts = zip(seen[0], attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=False)
    query, key = ((x @ w.T + b).unflatten(-1, (heads, width)) for x, w, b in parts)
    weights = (torch.einsum("bqhd,bnhd->bhqn", query, key) / width**0.5).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(maps, weights.transpose(1, 2))


def test_the_old_name_of_maps_works_and_says_so():
    head, patches = CSRAHead(4, 3), torch.randn(1, 9, 4)
    with pytest.warns(FutureWarning, match="class_maps is called maps"):
        assert torch.equal(head.class_maps(patches), head.maps(patches))


def test_a_head_that_has_maps_by_their_old_name_gives_them():
    with pytest.warns(FutureWarning, match=r"Old\.class_maps is called maps"):

        class Old(LinearHead):
            def class_maps(self, patches):
                return patches[..., :2]

    head = Old(4, 2)
    assert head.has_maps
    assert torch.equal(head.maps(torch.ones(1, 9, 4)), torch.ones(1, 9, 2))


def test_classes_of_one_query_share_its_map():
    head = MLDecoderHead(8, 5, num_queries=2, width=16, hidden=16).eval()  # 3 classes, and 2
    maps = head.maps(torch.randn(1, 4, 8))
    assert maps.shape == (1, 4, 5)
    assert torch.equal(maps[..., [0, 1, 3]], maps[..., [1, 2, 4]])
    assert not torch.equal(maps[..., 2], maps[..., 3])


def test_csra_equals_the_paper_on_its_check_values():
    head = CSRAHead(2, 2, lam=0.5)
    head.weight.data = torch.tensor([[[1.0, 2.0], [0.5, -1.0]]])
    head.temperatures = (2.0,)
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [2.0, 0.5]]])
    torch.testing.assert_close(head(patches), torch.tensor([[1.315232, -0.145593]]), atol=1e-5, rtol=0)


def test_csra_heads_are_summed_and_the_last_takes_the_maximum(rng):
    head = CSRAHead(4, 3, lam=0.7, num_heads=2)
    patches = torch.randn(2, 5, 4, generator=rng)
    expected = torch.zeros(2, 3)
    for b in range(2):
        for c in range(3):
            for h in range(2):
                w = head.weight[h, c] / head.weight[h, c].norm()
                s = [(w @ patches[b, n]).item() for n in range(5)]
                e = [math.exp(x) for x in s]
                attended = sum(x * y for x, y in zip(e, s, strict=True)) / sum(e) if h == 0 else max(s)
                expected[b, c] += sum(s) / 5 + 0.7 * attended
    torch.testing.assert_close(head(patches), expected)
    with pytest.raises(ConfigError, match="1, 2, 4, 6, 8"):
        CSRAHead(4, 3, num_heads=3)


def test_ml_decoder_answers_for_many_classes_with_few_queries():
    head = MLDecoderHead(8, 250, num_queries=100, width=16, hidden=16).eval()
    assert head.queries.shape == (1, 100, 16)
    assert not head.queries.requires_grad
    # Each of 100 queries has 3 classes, so class 299 would be the last; those from 250 on are cut off.
    assert head(torch.randn(2, 4, 8)).shape == (2, 250)


def test_a_decoder_layer_equals_attention_written_out(rng):
    head = MLDecoderHead(4, 2, width=6, num_heads=1, hidden=5).eval()
    patches = torch.randn(1, 3, 4, generator=rng)
    memory = torch.relu(head.project[0](patches))[0]
    query = nn.functional.layer_norm(2 * head.queries[0], (6,))
    wq, wk, wv = head.layer.attention.in_proj_weight.chunk(3)
    bq, bk, bv = head.layer.attention.in_proj_bias.chunk(3)
    weight = ((query @ wq.T + bq) @ (memory @ wk.T + bk).T / 6**0.5).softmax(dim=-1)
    looked_up = weight @ (memory @ wv.T + bv) @ head.layer.attention.out_proj.weight.T
    query = head.layer.norm_attention(query + looked_up + head.layer.attention.out_proj.bias)
    output = head.layer.norm_output(query + head.layer.feed_forward(query))
    logits = torch.stack([output[c] @ head.classifier.weight[c, :, 0] for c in range(2)]) + head.classifier.bias
    torch.testing.assert_close(head(patches)[0], logits)


def literal_attention(layer, asked, keys, values):
    """Multi-head attention of (Q, D) to (N, D), head by head."""
    width, heads = asked.shape[1], layer.attention.num_heads
    size = width // heads
    weights, biases = layer.attention.in_proj_weight.chunk(3), layer.attention.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((asked, keys, values), weights, biases, strict=True))
    parts = []
    for h in range(heads):
        s = slice(h * size, (h + 1) * size)
        parts.append((q[:, s] @ k[:, s].T / size**0.5).softmax(dim=1) @ v[:, s])
    return layer.attention.out_proj(torch.cat(parts, dim=1))


def literal_ml_decoder(head, patches):
    """From the paper's section 3.2 and figure 4, token by token, with the head's weights; dropout is off."""
    queries, layer, classes = head.queries[0], head.layer, len(head.classifier.bias)
    each = math.ceil(classes / len(queries))  # classes of a query
    logits = []
    for image in patches:
        memory = torch.relu(image @ head.project[0].weight.T + head.project[0].bias)
        found = head.norm(2 * queries)  # what is left of self-attention: the query itself
        found = layer.norm_attention(found + literal_attention(layer, found, memory, memory))
        first, second = layer.feed_forward[0], layer.feed_forward[-1]
        hidden = torch.relu(found @ first.weight.T + first.bias)
        found = layer.norm_output(found + hidden @ second.weight.T + second.bias)
        row = [found[c // each] @ head.classifier.weight[c // each, :, c % each] for c in range(classes)]
        logits.append(torch.stack(row) + head.classifier.bias)
    return torch.stack(logits)


@pytest.mark.parametrize(("classes", "queries"), [(5, 5), (5, 2), (7, 3), (1, 4)])
def test_ml_decoder_equals_the_released_model_written_out(rng, classes, queries):
    head = MLDecoderHead(6, classes, num_queries=queries, width=16, num_heads=4, hidden=24).eval()
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng)
    patches = torch.randn(2, 9, 6, generator=rng)
    torch.testing.assert_close(head(patches), literal_ml_decoder(head, patches), rtol=1e-5, atol=2e-5)


def literal_positions(side, width):
    places = torch.zeros(side * side, width)
    for place, (half, i) in itertools.product(range(side * side), itertools.product(range(2), range(width // 2))):
        turn = 2 * math.pi * (divmod(place, side)[half] + 1) / side / 10000 ** (2 * (i // 2) / (width // 2))
        places[place, half * width // 2 + i] = math.sin(turn) if i % 2 == 0 else math.cos(turn)
    return places


def literal_query2label(head, patches):
    """From the paper's section 3.2 and DETR's layers, token by token, with the head's weights; dropout is off."""

    def block(layer, own, places, keys, values):
        own = layer.norm_attention(own + literal_attention(layer, own + places, keys, values))
        return layer.norm_output(own + layer.feed_forward(own))

    width = head.queries.shape[1]
    places, logits = literal_positions(math.isqrt(patches.shape[1]), width), []
    for image in patches:
        memory = head.project(image)
        for layer in head.encoder:
            memory = block(layer, memory, places, memory + places, memory)
        found = torch.zeros_like(head.queries)
        for layer in head.decoder:
            found = block(layer, found, head.queries, memory + places, memory)
        found = nn.functional.layer_norm(found, (width,), head.norm.weight, head.norm.bias)
        logits.append((found * head.classifier.weight[:, :, 0]).sum(dim=1) + head.classifier.bias)
    return torch.stack(logits)


@pytest.mark.parametrize("encoders", [1, 2])
def test_query2label_equals_the_released_model_written_out(rng, encoders):
    head = Query2LabelHead(6, 5, width=16, num_heads=4, hidden=24, num_encoder_layers=encoders).eval()
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng)
    patches = torch.randn(2, 9, 6, generator=rng)
    torch.testing.assert_close(head(patches), literal_query2label(head, patches), rtol=1e-5, atol=2e-5)


def test_heads_start_as_their_released_code_does():
    """Standard deviations of weights: those of uniform numbers, of Glorot's, and of a convolution."""
    csra = CSRAHead(2048, 80)
    assert csra.weight.std().item() == pytest.approx(2048**-0.5 / 3**0.5, rel=0.02)
    q2l = Query2LabelHead(64, 80, width=256, hidden=512)
    assert q2l.classifier.weight.std().item() == pytest.approx(256**-0.5 / 3**0.5, rel=0.05)
    assert q2l.decoder[0].feed_forward[0].weight.std().item() == pytest.approx((2 / (256 + 512)) ** 0.5, rel=0.05)
    decoder = MLDecoderHead(64, 80, width=256, hidden=512)
    assert decoder.classifier.weight.std().item() == pytest.approx((2 / (256 + 80)) ** 0.5, rel=0.05)
    assert (decoder.classifier.bias == 0).all()


def test_query2label_knows_where_a_patch_is(rng):
    head = Query2LabelHead(8, 3, width=16, hidden=16).eval()
    patches = torch.randn(1, 9, 8, generator=rng)
    assert not torch.allclose(head(patches), head(patches.flip(1)))


def test_positions_are_all_different_and_need_a_square():
    positions = sine_positions(49, 32)
    assert positions.shape == (49, 32)
    assert torch.cdist(positions, positions).add(torch.eye(49) * 9).min() > 0.05
    with pytest.raises(ConfigError, match="50 patches form no square"):
        sine_positions(50, 32)
