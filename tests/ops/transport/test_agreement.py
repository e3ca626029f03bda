"""Every implementation against the reference in float64, on the same rounded inputs."""

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.ops import conditional_transport
from mlcv.ops.transport import interface
from tests.ops.transport.cases import CASES, DEVICE, Case, errors, inputs, results

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
IMPLEMENTATIONS = ["reference", "blocked", "triton"]


def gradient_limit(case, dtype):
    # A similarity in float32 is off by 1e-7, and the plan by that over the temperature; where two labels are nearly as
    # near, a cold plan's gradient by some times more. The float32 reference is no better.
    return max(LIMITS[dtype], 1e-5 / case.temperature if case.temperature < 0.1 else 0.0)


@pytest.fixture
def nan_filled(monkeypatch):
    """Memory that a kernel should have written shows as NaN."""
    from mlcv.ops.transport import launch

    monkeypatch.setattr(
        launch, "allocate", lambda like, *shape, dtype=None: like.new_full(shape, torch.nan, dtype=dtype)
    )


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_agrees_with_the_reference_in_float64(implementation, case, dtype, rng, nan_filled):
    tensors = inputs(case, dtype, rng)
    exact = results(case, [tensor.double() for tensor in tensors], implementation="reference")
    got = results(case, tensors, implementation=implementation)
    assert got[0].dtype == torch.float32
    assert [g.dtype for g in got[1:3]] == [dtype, dtype]
    found = errors(case, got, exact)
    assert found.pop("cost") < LIMITS[dtype], found
    assert max(found.values()) < gradient_limit(case, dtype), found


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_bound_on_the_labels_changes_no_result(implementation, rng, nan_filled):
    case = Case(4, 21, 60, 20, positives=3)
    for shared in (True, False):
        tensors = inputs(Case(**{**vars(case), "shared": shared}), torch.float32, rng)
        exact = results(case, [tensor.double() for tensor in tensors], implementation="reference")
        got = results(case, tensors, implementation=implementation, max_labels=4)
        found = errors(case, got, exact)
        assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("labels", [9, 140])
def test_the_scale_of_weights_is_nothing_and_none_are_equal_ones(labels, implementation, rng, nan_filled):
    case = Case(3, 70, labels, 20)
    patches, label_points, theta, beta, t = inputs(case, torch.float32, rng)
    for scale_theta, scale_beta in ((1e-20, 1e20), (1e25, 1e-25)):
        tensors = [patches, label_points, theta * scale_theta, beta * scale_beta, t]
        exact = results(case, [tensor.double() for tensor in tensors], implementation="reference")
        costs, *gradients = results(case, tensors, implementation=implementation)
        # Those of the weights are as much larger as the weights are smaller.
        scales = 1, 1, scale_theta, scale_beta, 1
        got = [costs, *(gradient.double() * scale for gradient, scale in zip(gradients, scales, strict=True))]
        exact = [exact[0], *(gradient * scale for gradient, scale in zip(exact[1:], scales, strict=True))]
        assert max(errors(case, got, exact).values()) < 1e-5
    ones = torch.full_like(theta, 0.3)
    of_points = []
    for weights in (None, ones):
        points = patches.detach().requires_grad_(), label_points.detach().requires_grad_()
        cost = conditional_transport(*points, weights, beta, temperature=t, implementation=implementation)
        of_points.append((cost.detach(), *torch.autograd.grad(cost, points)))
    torch.testing.assert_close(*of_points)


def transposed(tensor):
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def sliced(tensor):
    """Cut out of a larger buffer of NaN, with a step in each dimension."""
    buffer = tensor.new_full([2 * size + 3 for size in tensor.shape], torch.nan)
    place = tuple(slice(1, 1 + 2 * size, 2) for size in tensor.shape)
    buffer[place] = tensor
    return buffer[place]


def expanded(tensor):
    """The first of each, without a copy: stride 0 in the first dimension."""
    return tensor[:1].expand(tensor.shape)


def broadcast(tensor):
    """One number for the whole last dimension: stride 0 there."""
    return tensor[..., :1].expand(tensor.shape)


@pytest.mark.parametrize("view", [transposed, sliced, expanded, broadcast])
@pytest.mark.parametrize("place", range(4), ids=["patches", "labels", "patch weights", "label weights"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shared", [True, False])
def test_any_strides_of_any_argument(shared, implementation, place, view, rng, nan_filled):
    case = Case(5, 67, 19, 35, shared=shared, positives=7)
    tensors = inputs(case, torch.float32, rng)
    tensors[place] = view(tensors[place])
    exact = results(case, [tensor.double().contiguous() for tensor in tensors], implementation="reference")
    found = errors(case, results(case, tensors, implementation=implementation), exact)
    # Against broadcast embeddings all similarities are alike, and every gradient but theirs cancels.
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_mixed_types(implementation, rng):
    case = Case(2, 18, 12, 32)
    patches, *others = inputs(case, torch.float32, rng)
    mixed = [patches.bfloat16(), *others]
    exact = results(case, [tensor.double() for tensor in mixed], implementation="reference")
    got = results(case, mixed, implementation=implementation)
    assert [g.dtype for g in got[1:3]] == [torch.bfloat16, torch.float32]
    assert max(errors(case, got, exact).values()) < 5e-3


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("length", [1e30, 1e20, 1e-20, 1e-30])
def test_lengths_whose_square_float32_does_not_hold(implementation, length, rng):
    """Are handled, or as the docstring says where the host cannot be asked."""
    case = Case(2, 10, 4, 8, all_patches=True)
    tensors = inputs(case, torch.float32, rng)
    exact = results(case, [tensor.double() for tensor in tensors], implementation="reference")[0]
    for place in (0, 1):
        scaled = [tensor * (length if n == place else 1) for n, tensor in enumerate(tensors)]
        if implementation == "triton":
            cost = conditional_transport(*scaled[:4], temperature=case.temperature, implementation=implementation)
            # What is shorter counts as zeros, which are near nothing: the cost is the weights' sum, 1 but for rounding.
            assert cost.isnan() if length > 1 else abs(cost - 1) < 1e-6
        else:
            got = results(case, scaled, implementation=implementation)
            torch.testing.assert_close(got[0].double(), exact, rtol=1e-5, atol=1e-6)
            assert all(gradient.isfinite().all() for gradient in got)


@pytest.mark.parametrize("place", [2, 3], ids=["patch weights", "label weights"])
@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_weight_that_is_no_number_spoils_its_image_alone(implementation, weight, place, rng):
    tensors = inputs(Case(3, 10, 6, 8, all_patches=True), torch.float32, rng)
    tensors[place][1, 4] = weight
    cost = conditional_transport(*tensors[:4], reduction="none", implementation=implementation)
    assert cost.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_has_no_weight_gets_no_gradient(implementation, rng, nan_filled):
    case = Case(3, 20, 10, 8, positives=3)
    patches, labels, theta, beta, temperature = inputs(case, torch.float32, rng)
    theta[0], beta[1] = 0, 0
    costs, *gradients = results(case, [patches, labels, theta, beta, temperature], implementation=implementation)
    assert costs[0] == costs[1] == 0
    assert (gradients[0][:2] == 0).all()
    assert (gradients[0][theta == 0] == 0).all()
    assert (gradients[2][theta == 0] == 0).all()
    assert (gradients[3][beta == 0] == 0).all()
    unused = (beta[2] == 0).cpu()
    assert (gradients[1].cpu()[unused] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
@pytest.mark.parametrize("labels", [6, 40, 150])
@pytest.mark.parametrize("shared", [True, False])
def test_an_embedding_without_weight_may_hold_anything(shared, labels, value, implementation, rng, nan_filled):
    case = Case(2, 20, labels, 8, shared=shared, all_patches=True)
    tensors = inputs(case, torch.float32, rng)
    tensors[2][:, 3], tensors[3][:, 2] = 0, 0
    expected = results(case, tensors, implementation=implementation)
    tensors[0][:, 3], tensors[1][..., 2, :] = value, value
    torch.testing.assert_close(results(case, tensors, implementation=implementation), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)])
def test_a_temperature_of_any_shape_with_one_number(shape, implementation, rng):
    tensors = inputs(Case(2, 10, 4, 8), torch.float32, rng)[:4]
    t = torch.full(shape, 0.3, device=DEVICE, requires_grad=True)
    conditional_transport(*tensors, temperature=t, implementation=implementation).backward()
    assert t.grad.shape == t.shape


@pytest.mark.parametrize("implementation", ["blocked", "triton"])
@pytest.mark.parametrize(
    "case", [Case(1, 65, 300, 3, temperature=1e-3), Case(2, 196, 80, 64, temperature=1e-3)], ids=str
)
def test_the_temperatures_gradient_does_not_cancel(case, implementation, rng):
    tensors = inputs(case, torch.float32, rng)
    exact = results(case, [tensor.double() for tensor in tensors], implementation="reference")[-1]
    torch.testing.assert_close(
        results(case, tensors, implementation=implementation)[-1].double(), exact, rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("labels", [1, 20])
def test_gradients_of_points_near_a_label_are_as_right_as_others(labels, implementation, rng):
    """They are across the point; what rounding adds along it must cancel, too."""
    case = Case(2, 50, labels, 64, temperature=0.05)
    tensors = inputs(case, torch.float32, rng)
    tensors[0] = (tensors[1][torch.arange(50) % labels] + 0.1 * tensors[0]).expand(2, 50, 64)
    tensors = [tensor.bfloat16() if place < 2 else tensor for place, tensor in enumerate(tensors)]
    exact = results(case, [tensor.double() for tensor in tensors], implementation="reference")
    assert errors(case, results(case, tensors, implementation=implementation), exact)["patches"] < 4e-3


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_gradient_under_autocast_is_the_same(implementation, rng):
    tensors = inputs(Case(2, 30, 40, 16, temperature=0.02), torch.float32, rng)
    gradients = []
    for is_on in (False, True):
        patches = tensors[0].detach().requires_grad_()
        cost = conditional_transport(patches, *tensors[1:4], temperature=tensors[4], implementation=implementation)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=is_on):
            cost.backward()
        gradients.append(patches.grad)
    rtol = 0.02 if implementation == "reference" else 0  # plain PyTorch follows autocast
    torch.testing.assert_close(*gradients, rtol=rtol, atol=rtol * float(gradients[0].abs().max()))


@pytest.mark.parametrize("implementation", ["reference", "blocked", "auto"])
def test_one_kind_of_embeddings_in_float64(implementation, rng):
    patches, labels, theta, beta, _ = inputs(Case(2, 1000, 200, 4), torch.float32, rng)
    cost = conditional_transport(patches, labels.double(), theta, beta, implementation=implementation)
    exact = conditional_transport(patches.double(), labels.double(), theta, beta, implementation="reference")
    torch.testing.assert_close(cost, exact)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_vector_of_zeros_is_similar_to_nothing_and_gets_no_gradient(implementation, rng):
    case = Case(2, 10, 4, 8, all_patches=True)
    tensors = inputs(case, torch.float32, rng)
    tensors[0][0, 3] = 0
    tensors[1][2] = 0
    costs, of_patches, of_labels, *_ = results(case, tensors, implementation=implementation)
    assert costs.isfinite().all()
    assert (of_patches[0, 3] == 0).all()
    assert (of_labels[2] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equal_inputs_give_equal_bits_and_an_empty_batch_nothing(implementation, rng):
    case = Case(3, 70, 40, 20)
    tensors = inputs(case, torch.float32, rng)
    for first, second in zip(*(results(case, tensors, implementation=implementation) for _ in range(2)), strict=True):
        assert torch.equal(first, second)
    empty = [tensor[:0] if place in (0, 2, 3) else tensor for place, tensor in enumerate(tensors)]
    costs, *gradients = results(case, empty, implementation=implementation)
    assert costs.shape == (0,)
    assert all((gradient == 0).all() for gradient in gradients)


def test_frozen_labels_cost_no_gradient(rng):
    patches, labels, theta, beta, _ = inputs(Case(2, 18, 40, 32), torch.float32, rng)
    patches.requires_grad_()
    for implementation in ("blocked", "triton"):
        cost = conditional_transport(patches, labels, theta, beta, implementation=implementation)
        (gradient,) = torch.autograd.grad(cost, patches)
        exact = conditional_transport(patches.double(), labels.double(), theta, beta, implementation="reference")
        torch.testing.assert_close(gradient, torch.autograd.grad(exact, patches)[0])


def test_too_many_labels_for_the_bound(rng):
    patches, labels, theta, _, _ = inputs(Case(2, 5, 9, 4), torch.float32, rng)
    beta = torch.zeros(2, 9, device=DEVICE)
    beta[0, :2], beta[1, :3] = 1, 1
    if DEVICE == "cpu":
        with pytest.raises(ConfigError, match="more labels with weight than max_labels = 2"):
            conditional_transport(patches, labels, theta, beta, max_labels=2)
    else:
        costs = conditional_transport(patches, labels, theta, beta, max_labels=2, reduction="none")
        assert costs.isnan().tolist() == [False, True]


def test_auto_takes_what_is_there_and_an_absent_choice_is_an_error(monkeypatch, rng):
    patches, labels = torch.randn(1, 4, 3, generator=rng), torch.randn(2, 3, generator=rng)
    choose = interface._choose
    assert choose("auto", patches, labels) == "reference"
    assert choose("auto", patches, torch.empty(interface.MOST_PAIRS, 3)) == "blocked"
    assert choose("auto", torch.empty(1, interface.MANY_PATCHES, 3), torch.empty(2, 3)) == "blocked"
    on_gpu = torch.empty(1, 4, 3, device="meta")
    with pytest.raises(ConfigError, match="tensors are on meta"):
        choose("triton", on_gpu, labels)
    with pytest.raises(ConfigError, match="no float64"):
        choose("triton", patches.double().to(DEVICE), labels)
    huge = torch.empty(2**16, 1, 1, device=DEVICE)
    with pytest.raises(ConfigError, match="65,536 images are more than the 65,535"):
        choose("triton", huge, huge[0])
    with pytest.raises(ConfigError, match="no implementation 'magic': auto, reference"):
        choose("magic", patches, labels)
    monkeypatch.setattr(interface, "IS_INTERPRETED", False)
    with pytest.raises(ConfigError, match="TRITON_INTERPRET=1"):
        choose("triton", patches, labels)
    monkeypatch.setattr(interface, "HAS_TRITON", False)
    with pytest.raises(ConfigError, match="not installed"):
        choose("triton", patches, labels)
