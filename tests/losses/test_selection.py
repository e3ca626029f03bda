"""Entries that are selected by their values, against sorting in Python."""

import torch

from mlcv.losses.selection import is_observed, largest_of_batch, lowest_of_class


def test_the_largest_of_a_batch(rng):
    for count in (0, 3, 100):
        values, eligible = torch.randint(0, 5, (6, 4), generator=rng), torch.rand(6, 4, generator=rng) < 0.5
        entries = [(i, c) for i in range(6) for c in range(4) if eligible[i, c]]
        chosen = sorted(entries, key=lambda at: -values[at])[:count]
        found = largest_of_batch(values.float(), eligible, torch.tensor(count))
        assert found.nonzero().tolist() == sorted(map(list, chosen))


def test_the_lowest_of_each_class(rng):
    values, eligible = torch.randint(0, 5, (9, 3), generator=rng).half(), torch.rand(9, 3, generator=rng) < 0.5
    found = lowest_of_class(values, eligible, torch.tensor([2, 0, 50]))
    for c, count in enumerate((2, 0, 50)):
        images = [i for i in range(9) if eligible[i, c]]
        assert found[:, c].nonzero().flatten().tolist() == sorted(sorted(images, key=lambda i: values[i, c])[:count])


def test_what_is_observed():
    targets = torch.tensor([[1.0, 0.3, 0, -1, -2]])
    assert is_observed(targets, True).tolist() == [[True, True, True, False, False]]
    assert is_observed(targets, False).tolist() == [[True, True, False, False, False]]
