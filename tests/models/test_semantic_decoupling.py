"""Semantic decoupling and the label graph against their literal versions."""

from pathlib import Path

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.models import GatedGraph, SemanticDecoupling, SemanticGraphHead
from tools.benchmarks.semantic_decoupling import LiteralSemanticDecoupling

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("batch", "places", "classes"), [(2, 49, 20), (1, 1, 1), (3, 7, 5)])
def test_equals_the_literal_computation_with_its_gradients(batch, places, classes, seed):
    torch.manual_seed(seed)
    ours = SemanticDecoupling(32, 300, hidden=16)
    literal = LiteralSemanticDecoupling(ours)
    inputs = [torch.randn(batch, places, 32, requires_grad=True), torch.randn(classes, 300, requires_grad=True)]
    weights = [*inputs, ours.fc1.weight, ours.fc2.weight, ours.fc3.weight, ours.fc4.weight]
    results = [module(*inputs) for module in (ours, literal)]
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    upstream = torch.randn_like(results[0])
    gradients = [torch.autograd.grad((result * upstream).sum(), weights) for result in results]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_passes_gradcheck(rng):
    module = SemanticDecoupling(4, 3, hidden=5).double()
    patches = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    embeddings = torch.randn(6, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (patches, embeddings))


def test_attention_sums_to_one_and_is_finite_at_huge_values(rng):
    module = SemanticDecoupling(8, 4, hidden=6)
    patches = (1e4 * torch.randn(2, 9, 8, generator=rng)).requires_grad_()
    attention = module.attention(patches, 1e4 * torch.randn(3, 4, generator=rng))
    assert attention.shape == (2, 3, 9)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 3))
    attention.square().sum().backward()
    assert patches.grad.isfinite().all()


def test_attention_is_in_float32_under_autocast(rng):
    module = SemanticDecoupling(8, 4, hidden=6)
    patches, embeddings = torch.randn(2, 9, 8, generator=rng), torch.randn(3, 4, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        attention, features = module.attention(patches, embeddings), module(patches, embeddings)
        image, label = module.fc1(patches), module.fc2(embeddings)
    assert attention.dtype == torch.float32
    assert image.dtype == torch.bfloat16
    joint = (image.double()[:, None] * label.double()[:, None]).tanh()  # (B, C, N, hidden)
    weight = module.fc4.weight[0].double() @ module.fc3.weight.double()
    torch.testing.assert_close(attention.double(), (joint @ weight).softmax(dim=-1), atol=1e-6, rtol=1e-5)
    assert features.isfinite().all()


def test_the_graph_equals_its_formula(rng):
    graph = GatedGraph(4, steps=3).double()
    nodes = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64)
    matrix = torch.rand(5, 5, generator=rng, dtype=torch.float64)
    w, u, reset_layer = graph.from_message, graph.from_state, graph.from_reset
    expected = torch.empty_like(nodes)
    for image in range(2):
        h = nodes[image]
        for _ in range(3):
            m = torch.cat([torch.mm(matrix, h), torch.mm(matrix.T, h)], dim=1)
            part = [m @ w.weight[4 * k : 4 * k + 4].T + w.bias[4 * k : 4 * k + 4] for k in range(3)]
            z = 1 / (1 + torch.exp(-(part[0] + h @ u.weight[:4].T + u.bias[:4])))
            r = 1 / (1 + torch.exp(-(part[1] + h @ u.weight[4:].T + u.bias[4:])))
            candidate = torch.tanh(part[2] + (r * h) @ reset_layer.weight.T + reset_layer.bias)
            h = (1 - z) * h + z * candidate
        expected[image] = h
    torch.testing.assert_close(graph(nodes, matrix), expected)


def test_the_head_gives_logits_and_heat_maps_and_trains_all_of_itself(rng):
    head = SemanticGraphHead(16, 7, width=8, hidden=4)
    patches = torch.randn(3, 36, 16, generator=rng)
    logits = head(patches)
    assert logits.shape == (3, 7)
    assert head.maps(patches).shape == (3, 9, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert head.label_embeddings.grad.abs().sum() > 0


def test_the_graph_couples_classes_that_occur_together(rng):
    head = SemanticGraphHead(16, 3, width=8, hidden=4, pool=1).eval()
    patches = torch.randn(2, 4, 16, generator=rng)
    alone = head(patches)
    head.cooccurrence.copy_(torch.tensor([[1.0, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))
    together = head(patches)
    assert not torch.allclose(alone[:, :2], together[:, :2])
    torch.testing.assert_close(alone[:, 2], together[:, 2])


def test_given_embeddings_stay_fixed_and_learned_ones_do_not():
    given = torch.randn(7, 50)
    fixed = SemanticGraphHead(16, 7, width=8, hidden=4, label_embeddings=given)
    assert torch.equal(fixed.label_embeddings, given)
    assert "label_embeddings" not in dict(fixed.named_parameters())
    assert "label_embeddings" in fixed.state_dict()
    assert "label_embeddings" in dict(SemanticGraphHead(16, 7, width=8, hidden=4).named_parameters())


def test_refuses_embeddings_of_other_classes_and_patches_that_are_no_square():
    with pytest.raises(ConfigError, match=r"one row a class is needed, \(7, E\); got \(5, 50\)"):
        SemanticGraphHead(16, 7, label_embeddings=torch.randn(5, 50))
    head = SemanticGraphHead(16, 7, width=8, hidden=4)
    with pytest.raises(ConfigError, match="there are 1 patches. Set pool to 1"):
        head(torch.randn(2, 1, 16))
    with pytest.raises(ConfigError, match="there are 6 patches"):
        head(torch.randn(2, 6, 16))


def test_the_tool_compares_and_prints_both(python):
    tool = "tools/benchmarks/semantic_decoupling.py"
    result = python.run(tool, "--side=4", "--classes=5", "--runs=1", cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "literal" in result.stdout
    assert "ratio" in result.stdout
