"""The AUC-margin loss against the mean over pairs, values of the min-max problem, and batches that lack a side."""

import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.losses import AUCMarginLoss
from tests.losses.oracles import sigmoid

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.8, -2.0], [-1.2, 1.5, 0.1], [0.7, -0.4, -0.9]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.float64)


def pairs(logits, targets, margin):
    """Mean over pairs, summed over the classes that have any."""
    total = 0.0
    for zs, ts in zip(logits.T.tolist(), targets.T.tolist(), strict=True):
        above = [sigmoid(z) for z, t in zip(zs, ts, strict=True) if t == 1]
        below = [sigmoid(z) for z, t in zip(zs, ts, strict=True) if t == 0]
        found = [(margin - (p - n)) ** 2 for p in above for n in below]
        total += sum(found) / len(found) if found else 0.0
    return total


def test_gives_the_values_of_the_min_max_problem_at_its_solution():
    for c, value in enumerate((0.435677, 0.346422, 0.713790)):
        found = AUCMarginLoss()(LOGITS[:, c : c + 1], TARGETS[:, c : c + 1])
        assert found.item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("images", "classes"), [(2, 1), (9, 4), (40, 20)])
@pytest.mark.parametrize("margin", [1.0, 1.7])
def test_is_the_mean_over_pairs(images, classes, margin, rng):
    logits = 3 * torch.randn(images, classes, generator=rng, dtype=torch.float64)
    targets = torch.randint(-1, 2, (images, classes), generator=rng)
    expected = pairs(logits, targets, margin)
    assert AUCMarginLoss(margin)(logits, targets).item() == pytest.approx(expected, rel=1e-9)


def test_beyond_the_margin_only_the_spread_costs():
    logits = torch.tensor([[3.0], [5.0], [-4.0]], dtype=torch.float64)
    high, low = sorted([sigmoid(3.0), sigmoid(5.0)], reverse=True)
    value = AUCMarginLoss(margin=0.5)(logits, torch.tensor([[1.0], [1], [0]]))
    assert value.item() == pytest.approx(((high - low) / 2) ** 2)


def test_unknown_entries_can_be_negatives(rng):
    logits, targets = torch.randn(6, 5, generator=rng), torch.randint(-1, 2, (6, 5), generator=rng).float()
    assert AUCMarginLoss(unknown="negative")(logits, targets) == AUCMarginLoss()(logits, targets.clamp(min=0))


def test_a_soft_target_is_on_both_sides():
    """As if of four images with the same logit one were positive."""
    logits = torch.tensor([[0.5], [-0.3], [1.2]], dtype=torch.float64)
    soft = torch.tensor([[0.25], [0.0], [1.0]])
    repeated = torch.tensor([[0.5]] * 4 + [[-0.3]] * 4 + [[1.2]] * 4, dtype=torch.float64)
    hard = torch.tensor([[1.0], [0], [0], [0]] + [[0.0]] * 4 + [[1.0]] * 4)
    torch.testing.assert_close(AUCMarginLoss()(logits, soft), AUCMarginLoss()(repeated, hard))


def test_running_means_stand_in_for_a_side_that_a_batch_lacks(rng):
    loss, running = AUCMarginLoss(momentum=0.8), {0: None, 1: None}
    for step in range(12):
        z = torch.randn(5, generator=rng, dtype=torch.float64)
        t = torch.randint(0, 2, (5,), generator=rng)
        t = [t, 0 * t, 0 * t + 1, t][step % 4]
        means, spread = dict(running), 0.0
        for side in (0, 1):
            mine = [sigmoid(x) for x in z[t == side].tolist()]
            if mine:
                means[side] = sum(mine) / len(mine)
                spread += sum((s - means[side]) ** 2 for s in mine) / len(mine)
                old = running[side]
                running[side] = means[side] if old is None else 0.8 * old + 0.2 * means[side]
        expected = 0.0 if None in means.values() else spread + max(0, 1 + means[0] - means[1]) ** 2
        assert loss(z[:, None], t[:, None]).item() == pytest.approx(expected, rel=1e-5)
    assert loss.means.flatten().tolist() == pytest.approx([running[0], running[1]])
    assert loss(z[:, None], -torch.ones(5, 1)) == 0


def test_means_move_in_training_alone_and_come_back_with_a_checkpoint(rng):
    loss = AUCMarginLoss()
    loss.on_labels(torch.zeros(9, 3), "abc")
    loss.eval()(LOGITS, TARGETS)
    assert (loss.means == -1).all()
    loss.train()(LOGITS, TARGETS)
    again = AUCMarginLoss()
    again.load_state_dict(loss.state_dict())
    given = torch.randn(4, 3, generator=rng), torch.ones(4, 3)
    assert again.eval()(*given) == loss.eval()(*given) > 0
    assert AUCMarginLoss().eval()(*given) == 0  # which has seen no negative


def test_gradients_pass_gradcheck_with_one_side_and_with_both(rng):
    logits = torch.randn(6, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1], [-1, 0, 1], [0, 0, 1]])
    loss = AUCMarginLoss()
    loss(LOGITS, TARGETS)
    assert torch.autograd.gradcheck(lambda z: loss.eval()(z, targets), logits)


@pytest.mark.parametrize(
    ("wrong", "name"), [({"margin": 0}, "margin"), ({"momentum": 1.0}, "momentum"), ({"unknown": "weak"}, "unknown")]
)
def test_settings_that_make_no_sense_are_told(wrong, name):
    with pytest.raises(ConfigError, match=f"loss.{name}"):
        AUCMarginLoss(**wrong)
