"""The operator inside torch: opcheck, compilation, autocast, checkpointing, copies."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mlcv.ops import conditional_transport
from mlcv.ops.transport.custom_op import transport, transport_backward
from tests.ops.transport.cases import DEVICE, Case, inputs

IMPLEMENTATIONS = ["blocked", "triton"]


def arguments(case, rng, implementation):
    patches, labels, theta, beta, temperature = inputs(case, torch.float32, rng)
    theta, beta = theta / theta.sum(dim=1, keepdim=True), beta / beta.sum(dim=1, keepdim=True)
    return [x.requires_grad_() for x in (patches, labels, theta, beta, temperature)] + [0.5, True, implementation]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("labels", [5, 40])
def test_opcheck_passes(implementation, labels, rng):
    case = Case(2, 20, labels, 12)
    torch.library.opcheck(transport, arguments(case, rng, implementation))
    plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments(case, rng, implementation)]
    outputs = transport(*plain)
    upstream = torch.ones(2, device=DEVICE)
    for asked in ((True, True, True), (False, False, False), (True, False, False), (False, True, True)):
        torch.library.opcheck(transport_backward, (upstream, *plain[:5], *outputs[1:], *plain[5:], *asked))


class Cost(nn.Module):
    """What a method does with it: learned embeddings and temperature."""

    def __init__(self, labels, implementation, max_labels=None):
        super().__init__()
        self.labels = nn.Parameter(labels)
        self.log_temperature = nn.Parameter(torch.zeros((), device=labels.device))
        self.implementation, self.max_labels = implementation, max_labels

    def forward(self, patches, targets):
        t = self.log_temperature.exp()
        options = {"temperature": t, "implementation": self.implementation, "max_labels": self.max_labels}
        return conditional_transport(patches, self.labels, label_weights=targets, **options)


@pytest.mark.parametrize("max_labels", [None, 4])
@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
def test_compiles_whole_for_any_number_of_patches(implementation, max_labels, rng):
    patches, labels, _, beta, _ = inputs(Case(2, 20, 30, 12, positives=3), torch.float32, rng)
    torch.compiler.reset()  # or the cases before count against its limit of variants
    model = Cost(labels, implementation, max_labels)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (20, 13):
        outcomes = []
        for function in (model, compiled):
            model.zero_grad()
            cost = function(patches[:, :count], beta)
            cost.backward()
            outcomes.append((cost.detach(), model.labels.grad.clone(), model.log_temperature.grad.clone()))
        torch.testing.assert_close(*outcomes)


@pytest.mark.slow
def test_compiles_with_inductor(rng):
    patches, labels, _, beta, _ = inputs(Case(2, 20, 30, 12, positives=3), torch.float32, rng)
    model = Cost(labels, "blocked")
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(patches, beta), model(patches, beta))


@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
def test_autocast_changes_nothing(implementation, rng):
    patches, labels, _, beta, _ = inputs(Case(2, 20, 30, 12), torch.bfloat16, rng)
    model = Cost(labels, implementation)
    outside = model(patches, beta)
    with torch.autocast(DEVICE, torch.bfloat16):
        inside = model(patches, beta)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
def test_activation_checkpointing_and_copies_change_nothing(implementation, rng):
    patches, labels, _, beta, _ = inputs(Case(2, 20, 30, 12, positives=3), torch.float32, rng)
    model = Cost(labels, implementation)
    twin = copy.deepcopy(model)
    model(patches, beta).backward()
    checkpoint(twin, patches, beta, use_reentrant=False).backward()
    assert torch.equal(model.labels.grad, twin.labels.grad)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_second_derivative_is_refused(implementation, rng):
    patches, labels, _, _, _ = inputs(Case(2, 20, 30, 12), torch.float32, rng)
    cost = conditional_transport(patches.requires_grad_(), labels, implementation=implementation)
    (gradient,) = torch.autograd.grad(cost, patches, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.gpu
def test_is_captured_in_a_cuda_graph(rng):
    patches, labels, _, beta, _ = inputs(Case(2, 20, 30, 12, positives=3), torch.float32, rng)
    patches.requires_grad_()

    def step():
        cost = conditional_transport(patches, labels, label_weights=beta, max_labels=4)
        return cost, *torch.autograd.grad(cost, patches)

    # Detached, for a graph that lives on ties the leaf to the stream that it was made on.
    expected = [result.detach() for result in step()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.testing.assert_close([result.detach() for result in captured], expected)
