import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.labels import Policy, known

STATES = np.array([[1, -2, 0], [-1, -2, -2], [-2, 1, -1]], np.int8)
NAMES = ("a", "b", "c")


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", -1.0), ("zeros", 0.0), ("ones", 1.0)])
def test_uncertain_entries_become_what_the_policy_says(uncertain, value):
    targets = Policy(uncertain).resolve(STATES, NAMES)
    assert targets.dtype == torch.float32
    assert targets.tolist() == np.where(STATES == -2, value, STATES).tolist()


@pytest.mark.parametrize(("uncertain", "low", "high"), [("smoothed_ones", 0.55, 0.85), ("smoothed_zeros", 0.0, 0.3)])
def test_smoothed_policies_draw_from_their_range_and_repeat_themselves(uncertain, low, high):
    states = np.full((1000, 3), -2, np.int8)
    first, second = Policy(uncertain).resolve(states, NAMES), Policy(uncertain).resolve(states, NAMES)
    assert torch.equal(first, second)
    assert first.min() >= low
    assert first.max() <= high
    assert abs(first.mean() - (low + high) / 2) < 0.02


def test_self_trained_entries_are_what_a_model_said(tmp_path):
    soft = np.random.default_rng(0).random((3, 3), dtype=np.float32)
    np.save(tmp_path / "soft.npy", soft)
    policy = Policy("self_trained", by_class={"c": "ones"}, soft_labels=str(tmp_path / "soft.npy"))
    expected = np.where(STATES == -2, soft, STATES)
    expected[1, 2] = 1
    assert policy.resolve(STATES, NAMES).tolist() == expected.tolist()


def test_soft_labels_of_other_images_or_none_are_refused(tmp_path):
    path = tmp_path / "soft.npy"
    policy = Policy("self_trained", soft_labels=str(path))
    with pytest.raises(ConfigError, match="no file .*mlcv predict --ckpt_path CHECKPOINT --split train"):
        policy.resolve(STATES, NAMES)
    for wrong in (np.zeros((4, 3)), np.full((3, 3), 1.2)):
        np.save(path, wrong)
        with pytest.raises(ConfigError, match=r"probabilities \(3, 3\) in \[0, 1\]"):
            policy.resolve(STATES, NAMES)
    path.write_bytes(b"no numbers")
    with pytest.raises(ConfigError, match="is no array of numbers"):
        policy.resolve(STATES, NAMES)
    with pytest.raises(ConfigError, match="give both or neither"):
        Policy("self_trained")
    with pytest.raises(ConfigError, match="give both or neither"):
        Policy("ones", soft_labels=str(path))


def test_a_third_class_is_kept_and_unknown_to_everything_else():
    targets = Policy("third_class").resolve(STATES, NAMES)
    assert targets.tolist() == STATES.tolist()
    assert known(targets).tolist() == (STATES >= 0).tolist()
    with pytest.raises(ConfigError, match="leave policy.by_class out"):
        Policy("third_class", by_class={"a": "ones"})


def test_a_class_may_have_its_own_policy():
    targets = Policy("ignore", by_class={"b": "ones"}).resolve(STATES, NAMES)
    assert targets.tolist() == [[1, 1, 0], [-1, 1, -1], [-1, 1, -1]]


def test_a_stranger_among_the_classes_is_named():
    with pytest.raises(ConfigError, match=r"names 'Edema'; the classes are a, b, c"):
        Policy(by_class={"Edema": "ones"}).resolve(STATES, NAMES)


def test_a_falling_range_is_refused():
    with pytest.raises(ConfigError, match="ones_range"):
        Policy(ones_range=(0.9, 0.5))
