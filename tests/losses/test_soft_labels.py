"""The loss of soft labels against the formula of the divergence."""

import pytest
import torch

from mlcv.losses.soft_labels import soft_label_loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_is_the_divergence_of_each_class_or_of_the_softmax(temperature, rng):
    mine, theirs = torch.randn(2, 6, 5, generator=rng, dtype=torch.float64).mul(3).unbind()
    p, q = (theirs / temperature).sigmoid(), (mine / temperature).sigmoid()
    each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = soft_label_loss(mine, theirs, temperature)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(temperature**2 * each.mean().item(), rel=1e-9)
    p, q = (theirs / temperature).softmax(dim=1), (mine / temperature).softmax(dim=1)
    expected = temperature**2 * (p * (p / q).log()).sum(dim=1).mean().item()
    assert soft_label_loss(mine, theirs, temperature, single_label=True).item() == pytest.approx(expected, rel=1e-9)
    mine.requires_grad_()
    for single in (False, True):
        torch.autograd.gradcheck(lambda own, single=single: soft_label_loss(own, theirs, temperature, single), mine)


@pytest.mark.parametrize("single_label", [False, True])
def test_is_zero_and_flat_where_both_agree_and_finite_far_apart(single_label, rng):
    theirs = torch.randn(4, 3, generator=rng)
    mine = theirs.clone().requires_grad_()
    loss = soft_label_loss(mine, theirs, 2.0, single_label)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, mine)[0].abs().max() < 1e-6
    far = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = soft_label_loss(far, -far.detach(), 1.0, single_label)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, far)[0].isfinite().all()
    half = soft_label_loss(theirs.bfloat16(), theirs.bfloat16(), 1.0, single_label)
    assert half.dtype == torch.float32
    assert soft_label_loss(theirs[:0].requires_grad_(), theirs[:0], 1.0, single_label) == 0
