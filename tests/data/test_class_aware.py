"""Class-aware sampling: all classes as often, each one's positives in turn, by the seed and the epoch alone."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from mlcv import DigitScenesDataModule
from mlcv.data.samplers import ClassAwareSampler
from mlcv.data.transforms import Augment
from mlcv.errors import ConfigError


class Labels(SimpleNamespace):
    def __len__(self):
        return len(self.targets)


def sampler(targets, seed=0, epoch=0, processes=1, rank=0):
    made = ClassAwareSampler(Labels(targets=targets), num_replicas=processes, rank=rank, seed=seed)
    made.set_epoch(epoch)
    return made


def disjoint(*counts, without=0):
    """Images of one class each, so many of each, and some of none."""
    owner = torch.repeat_interleave(torch.arange(len(counts) + 1), torch.tensor([*counts, without]))
    return (owner[:, None] == torch.arange(len(counts))).float(), owner.tolist()


def test_classes_are_drawn_as_often_and_images_without_positives_never(seed, caplog):
    targets, owner = disjoint(1, 30, 600, 0, without=2369)
    with caplog.at_level("INFO", logger="mlcv"):
        drawn = sampler(targets, seed)
    seen = Counter(owner[index] for _, index in drawn)
    assert sum(seen.values()) == len(drawn) == 3000
    assert seen.keys() == {0, 1, 2}
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in seen.values())
    assert "2369 of 3000 images have no positive and are never seen; no image shows 1 of 4 classes" in caplog.text


def test_an_image_is_drawn_for_each_of_its_positives_and_no_unknown_or_soft_label(seed):
    targets = torch.tensor([[1.0, 1, 1], [1, 0, -1], [0, 1, 0.9], [0, 0, 1]]).repeat(500, 1)
    seen = Counter(index % 4 for _, index in sampler(targets, seed))
    for row, expected in enumerate((3 / 6, 1 / 6, 1 / 6, 1 / 6)):
        assert seen[row] / 2000 == pytest.approx(expected, abs=0.06)


def test_positives_of_a_class_come_in_turn_of_changing_orders(seed):
    targets, owner = disjoint(5, 7, without=88)
    order = [index for _, index in sampler(targets, seed)]
    for number, count in ((0, 5), (1, 7)):
        mine = [index for index in order if owner[index] == number]
        rounds = [mine[n : n + count] for n in range(0, len(mine) - count + 1, count)]
        assert all(sorted(one) == sorted(rounds[0]) for one in rounds)
        assert len(set(rounds[0])) == count
        assert any(one != rounds[0] for one in rounds)


def test_the_order_is_that_of_seed_and_epoch_alone(seed):
    targets, _ = disjoint(5, 7, 20)
    first = list(sampler(targets, seed, 3))
    assert first == list(sampler(targets, seed, 3))
    assert [i for _, i in first] != [i for _, i in sampler(targets, seed, 4)]
    assert [i for _, i in first] != [i for _, i in sampler(targets, seed + 1, 3)]


@pytest.mark.parametrize("processes", [2, 3])
def test_images_are_dealt_to_processes_in_turn(processes, seed):
    targets, _ = disjoint(5, 7, 20)
    parts = [list(sampler(targets, seed, 1, processes, rank)) for rank in range(processes)]
    assert len({len(part) for part in parts}) == 1
    dealt = [one for turn in zip(*parts, strict=True) for one in turn]
    whole = list(sampler(targets, seed, 1)) if processes == 2 else dealt
    assert dealt == whole
    assert len(set(dealt)) == len(dealt)


def test_no_two_visits_have_the_same_number_so_that_each_has_its_augmentation(seed):
    targets, _ = disjoint(1, 30)
    visits = [visit for epoch in range(3) for visit in sampler(targets, seed, epoch)]
    assert len(set(visits)) == len(visits)
    assert next(number for number, _ in sampler(targets, seed, 2)) == 2
    data = DigitScenesDataModule(num_train=32, num_val=8, num_test=8, image_size=32, augment=Augment(strength=1.0))
    data.setup("fit")
    dataset = data.datasets["train"]
    images = {dataset[visit]["image"].tobytes() for visit in sampler(targets, seed) if visit[1] == 0}
    assert len(images) > 1


def test_without_any_positive_it_is_refused():
    with pytest.raises(ConfigError, match="no training image has a positive label"):
        sampler(torch.tensor([[0.0, -1], [0, 0.5]]))
    with pytest.raises(ConfigError, match="data.sampling is one of uniform, class_aware"):
        DigitScenesDataModule(sampling="balanced")
