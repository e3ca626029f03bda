import numpy as np
import pytest

from mlcv.errors import ConfigError
from mlcv.labels.label_space import closed, hierarchy_of, joined, mapped

P, N, U, M = 1, 0, -1, -2


def random_states(seed, *shape):
    return np.random.default_rng(seed).choice(np.array([P, N, U, M], np.int8), shape)


def test_classes_take_their_places_and_others_are_unknown(seed):
    states = random_states(seed, 50, 3)
    found = mapped(states, [2, None, 0], 4)
    assert (found[:, 2] == states[:, 0]).all()
    assert (found[:, 0] == states[:, 2]).all()
    assert (found[:, [1, 3]] == U).all()


def test_two_classes_in_one_place_are_present_if_either_is(seed):
    states = random_states(seed, 200, 2)
    found = mapped(states, [0, 0], 1)[:, 0]
    for (one, other), joint in zip(states.tolist(), found.tolist(), strict=True):
        pair = {one, other}
        expected = P if P in pair else N if pair == {N} else M if M in pair else U
        assert joint == expected


def oracle_closed(row, parents):
    """By asking, for each class, which given labels force it."""
    children = {parent: [c for p, c in parents if p == parent] for parent, _ in parents}
    above = {child: [p for p, c in parents if c == child] for _, child in parents}

    def reach(start, edges):
        found, left = set(), [start]
        while left:
            for other in edges.get(left.pop(), []):
                if other not in found:
                    found.add(other)
                    left.append(other)
        return found

    out = list(row)
    for c in range(len(row)):
        if row[c] in (P, N):
            continue
        if any(row[below] == P for below in reach(c, children)):
            out[c] = P
        if any(row[up] == N for up in reach(c, above)):
            out[c] = N if out[c] != P else None  # both ways: a contradiction somewhere
    return out


def test_what_follows_from_a_hierarchy_is_what_each_given_label_forces(seed):
    parents = [(0, 1), (0, 2), (1, 3), (4, 3)]
    states = random_states(seed, 300, 6)
    found, contradicts = closed(states, parents)
    for row, out, wrong in zip(states.tolist(), found.tolist(), contradicts, strict=True):
        if not wrong.any():
            assert out == oracle_closed(row, parents)
    assert (found[states >= 0] == states[states >= 0]).all()  # what is given stays
    assert (found[:, 5] == states[:, 5]).all()


def test_a_child_that_is_there_without_its_parent_is_a_contradiction():
    found, contradicts = closed(np.array([[N, P], [P, N], [N, U], [U, P]], np.int8), [(0, 1)])
    assert contradicts.any(axis=1).tolist() == [True, False, False, False]
    assert found[2:].tolist() == [[N, N], [P, P]]


def test_a_hierarchy_names_classes_and_has_no_circle():
    assert hierarchy_of({"animal": ["dog", "cat"]}, ["dog", "cat", "animal"]) == [(2, 0), (2, 1)]
    with pytest.raises(ConfigError, match="no class 'cow'"):
        hierarchy_of({"animal": ["cow"]}, ["dog", "animal"])
    with pytest.raises(ConfigError, match="above itself"):
        hierarchy_of({"a": ["b"], "b": ["c"], "c": ["a"]}, ["a", "b", "c"])


def test_two_opinions_agree_or_are_told(seed):
    one, other = random_states(seed, 400), random_states(seed + 1, 400)
    found, differs = joined(one, other)
    for a, b, joint, differ in zip(one.tolist(), other.tolist(), found.tolist(), differs.tolist(), strict=True):
        assert differ == ({a, b} == {P, N})
        known = [label for label in (a, b) if label >= 0]
        assert joint == (known[0] if known else max(a, b, key=lambda label: label == M))
