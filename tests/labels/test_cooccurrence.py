import numpy as np
import torch

from mlcv import DigitScenesDataModule, Protocol
from mlcv.labels import cooccurrence


def test_counts_pairs_of_positives_over_positives(rng):
    targets = torch.randint(-1, 2, (30, 6), generator=rng).float()
    found = cooccurrence(targets)
    for i in range(6):
        for j in range(6):
            mine = [row for row in targets.tolist() if row[i] == 1]
            both = sum(row[j] == 1 for row in mine)
            assert abs(found[i, j].item() - both / len(mine)) < 1e-6


def test_a_class_that_never_occurs_stands_alone():
    found = cooccurrence(torch.tensor([[1.0, 0, 1], [1, -1, 0]]))
    assert found.tolist() == [[1, 0, 0.5], [0, 1, 0], [1, 0, 1]]
    assert torch.equal(cooccurrence(torch.zeros(0, 3)), torch.eye(3))


def test_soft_targets_are_no_positives():
    assert torch.equal(cooccurrence(torch.full((4, 2), 0.7)), torch.eye(2))


def test_a_data_module_counts_training_labels_after_its_protocol():
    data = DigitScenesDataModule(60, 20, 20, protocol=Protocol(known_fraction=0.5))
    data.setup("fit")
    states = data.protocol.apply(data.read_split("train").states)
    positive = (states == 1).astype(np.float32)
    expected = positive.T @ positive / positive.sum(axis=0)[:, None]
    np.testing.assert_allclose(data.cooccurrence.numpy(), expected, atol=1e-6)
