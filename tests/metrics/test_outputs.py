import torch

from mlcv.metrics import EvaluationOutputs


def test_copies_of_a_sample_are_dropped_and_order_restored(rng):
    logits, targets = torch.randn(7, 3, generator=rng), torch.randint(-1, 2, (7, 3), generator=rng).float()
    collected = EvaluationOutputs()
    for rows in ([4, 1], [6, 0, 2], [5, 3, 0], [1]):
        collected.update(torch.tensor(rows), logits[rows], targets[rows])
    outputs = collected.gather()
    assert outputs.index.tolist() == list(range(7))
    assert torch.equal(outputs.logits, logits)
    assert torch.equal(outputs.targets, targets)


def test_a_single_sample_keeps_its_shape():
    collected = EvaluationOutputs()
    collected.update(torch.tensor([3]), torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    outputs = collected.gather()
    assert outputs.index.shape == (1,)
    assert outputs.logits.shape == (1, 1)


def test_reset_forgets(rng):
    collected = EvaluationOutputs()
    collected.update(torch.arange(2), torch.zeros(2, 1), torch.zeros(2, 1))
    collected.reset()
    collected.update(torch.tensor([9]), torch.ones(1, 2), torch.ones(1, 2))
    assert collected.gather().index.tolist() == [9]
