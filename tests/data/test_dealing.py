"""Which images a seed deals to which part: groups as wholes, and the same from version to version."""

import numpy as np
import pytest

from mlcv.data import LabeledImages
from mlcv.data.splits import deal, hold_out
from tests.data.test_splits import labeled


@pytest.mark.parametrize("group", [None, "who"])
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("most", [1, 30])
def test_a_seed_draws_a_part_of_the_groups_as_wholes(numpy_rng, group, fraction, most):
    count = int(numpy_rng.integers(1, most + 1))
    who = [f"p{n}" if n < 8 else "" for n in numpy_rng.integers(0, 10, count)]
    given = labeled(numpy_rng, count, who=who)
    owners = [cell or f"row {row}" for row, cell in enumerate(who)] if group else list(range(count))
    ever = np.zeros(count, bool)
    for seed in range(40):
        held = hold_out(given, group, fraction, seed)
        assert held.dtype == bool
        assert (held == hold_out(given, group, fraction, seed)).all()
        mine = {owner for owner, is_held in zip(owners, held, strict=True) if is_held}
        assert mine.isdisjoint(owner for owner, is_held in zip(owners, held, strict=True) if not is_held)
        assert len(mine) == round(len(set(owners)) * fraction)
        ever |= held
    if fraction == 0.5 and len(set(owners)) > 1:
        assert ever.all()  # each has its turn
    assert hold_out(labeled(numpy_rng, 0, who=[]), group, fraction, 0).shape == (0,)


def test_which_images_are_held_out_does_not_change_from_version_to_version(numpy_rng):
    order = np.random.default_rng(5).permutation(10)
    assert np.flatnonzero(hold_out(labeled(numpy_rng, 10), None, 0.3, 5)).tolist() == sorted(order[:3].tolist())


def test_places_are_the_middles_of_equal_parts(numpy_rng):
    """One group of all is in the middle; of two, one is at a quarter, where a part of a quarter has just ended."""
    seeds = numpy_rng.integers(0, 1000, 20).tolist()
    one = np.zeros(3, np.intp)
    for seed in seeds:
        assert deal(one, [0.6, 0.4], seed).tolist() == [0, 0, 0]
        assert deal(one, [0.4, 0.6], seed).tolist() == [1, 1, 1]
        assert sorted(deal(np.arange(2), [0.25, 0.75], seed).tolist()) == [1, 1]
        assert deal(np.arange(4), [0.25, 0.25], seed).tolist().count(2) == 2  # what is left belongs to no part
        lonely = LabeledImages(["a.png"], np.zeros((1, 1), np.int8))
        assert hold_out(lonely, None, 0.6, seed).tolist() == [True]
        assert hold_out(lonely, None, 0.4, seed).tolist() == [False]
