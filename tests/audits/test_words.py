from dataclasses import replace

import numpy as np
import pytest

from mlcv.audits import ClassRow, class_table, judge, reasons

STATES = np.array([[0, 1], [0, 1], [0, -1], [1, -1]], np.int8)


@pytest.fixture
def judgement():
    w = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, np.nan], [0.3, np.nan]])
    return replace(judge(np.zeros((4, 2)), STATES), wrong=w)


def test_the_table_counts_what_is_more_likely_wrong_than_right(judgement):
    cat, other, dog, last = class_table(judgement, STATES, ["cat", "dog"])
    assert cat == ClassRow("cat", "absent", "present", 2, pytest.approx(2 / 3), pytest.approx(1.6))
    assert other == ClassRow("cat", "present", "absent", 0, 0.0, pytest.approx(0.3))
    assert (dog.given, dog.count, dog.expected) == ("absent", 0, 0.0)
    assert np.isnan(dog.share)
    assert last == ClassRow("dog", "present", "absent", 1, 0.5, pytest.approx(0.9))


def test_reasons_count_the_entries_that_are_as_suspicious(judgement):
    found = reasons(judgement, STATES, np.array([2, 0, 1, 3, 0]), np.array([0, 0, 0, 0, 1]))
    such = "; of the {} entries of the class as suspicious, {} are expected to be wrong"
    assert found == [
        "called absent, probability 0.10 that it is there" + such.format(3, 2),
        "called absent, probability 0.90 that it is there",
        "called absent, probability 0.60 that it is there" + such.format(2, 2),
        "called present, probability 0.30 that it is not there",
        "called present, probability 0.20 that it is not there" + such.format(2, 1),
    ]
    assert reasons(judgement, STATES, np.array([], int), np.array([], int)) == []
