"""The three-way cross-entropy, entry by entry."""

import math

import pytest
import torch

from mlcv.losses.three_way import three_way_loss


def oracle(scores, targets):
    total = 0.0
    for image, row in zip(scores.tolist(), targets.tolist(), strict=True):
        for three, t in zip(image, row, strict=True):
            norm = math.log(sum(math.exp(z) for z in three))
            absent, present, maybe = (z - norm for z in three)
            if t == -2:
                total -= maybe
            elif t >= 0:
                total -= (1 - t) * absent + t * present
    return total / len(targets)


def test_it_is_the_formula(rng):
    scores = torch.randn(7, 5, 3, generator=rng)
    targets = torch.randint(-2, 2, (7, 5), generator=rng).float()
    targets[0, :2] = torch.tensor([0.3, 0.8])
    assert three_way_loss(scores, targets).item() == pytest.approx(oracle(scores, targets), rel=1e-5)
    exact = three_way_loss(scores.double(), targets.double())
    assert exact.dtype == torch.float64
    assert exact.item() == pytest.approx(oracle(scores.double(), targets.double()), rel=1e-12)


def test_gradients_are_exact_and_none_comes_from_what_is_unknown(rng):
    targets = torch.tensor([[1.0, 0.0, -1.0, -2.0]])
    scores = torch.randn(1, 4, 3, generator=rng, requires_grad=True)
    three_way_loss(scores, targets).backward()
    assert scores.grad[0, 2].abs().max() == 0
    expected = scores.detach().softmax(dim=2)
    for c, chosen in ((0, 1), (1, 0), (3, 2)):
        expected[0, c, chosen] -= 1
    expected[0, 2] = 0
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_huge_scores_give_finite_losses_and_gradients(dtype):
    scores = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]]]).to(dtype).requires_grad_()
    loss = three_way_loss(scores, torch.tensor([[1.0, -2.0]]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def test_no_image_and_no_known_label_cost_nothing():
    assert three_way_loss(torch.zeros(0, 4, 3), torch.zeros(0, 4)) == 0
    assert three_way_loss(torch.randn(2, 4, 3), torch.full((2, 4), -1.0)) == 0
