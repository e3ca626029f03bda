import math
from dataclasses import replace

import numpy as np
import pytest

from mlcv.audits import judge, revise, to_review
from mlcv.errors import DataError
from tests.audits.made import planted


@pytest.fixture
def judged(numpy_rng):
    logits, given, truth = planted(numpy_rng, 3000)
    return judge(logits, given), given, truth


def decisions(judgement, states, truth, seed, n=120):
    return [
        (r, c, bool(states[r, c] != truth[r, c])) for r, c in zip(*to_review(judgement, states, n, seed), strict=True)
    ]


def test_half_of_what_is_reviewed_is_of_each_kind_and_no_entry_twice(judged):
    judgement, given, _ = judged
    rows, columns = to_review(judgement, given, 100, seed=1)
    assert (given[rows, columns] == 0).sum() == (given[rows, columns] == 1).sum() == 50
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 100
    assert (to_review(judgement, given, 100, seed=1)[0] == rows).all()
    assert (to_review(judgement, given, 100, seed=2)[0] != rows).any()


def test_two_fifths_of_what_is_reviewed_are_the_most_suspicious(judged):
    judgement, given, _ = judged
    rows, columns = to_review(judgement, given, 100)
    w = judgement.wrong[rows, columns]
    assert w[:20].tolist() == sorted(judgement.wrong[given == 0], reverse=True)[:20]
    assert w[50:70].tolist() == sorted(judgement.wrong[given == 1], reverse=True)[:20]


def test_the_rest_is_drawn_in_proportion_to_its_probability(judged):
    judgement, given, _ = judged
    w = np.where(given == 0, np.where(np.arange(given.size).reshape(given.shape) % 2, 0.04, 0.01), 0.5)
    made = replace(judgement, wrong=w)
    drawn = []
    for seed in range(40):
        rows, columns = to_review(made, given, 100, seed)
        drawn.append(w[rows, columns][20:50])
    # About as many of either value are there to be drawn.
    assert (np.concatenate(drawn) == 0.04).mean() == pytest.approx(0.8, abs=0.05)


def test_fewer_entries_than_asked_for_are_all_reviewed():
    states = np.array([[1, 0], [-1, 0], [0, -2]], np.int8)
    rows, columns = to_review(judge(np.zeros((3, 2)), states), states, 100)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1), (2, 0)]
    nothing = np.full((3, 2), -1, np.int8)
    assert len(to_review(judge(np.zeros((3, 2)), nothing), nothing, 10)[0]) == 0


def test_the_shift_maximises_the_likelihood_with_its_prior():
    states = np.array([[0] * 60], np.int8)
    w = np.linspace(0.02, 0.4, 60)[None]
    judgement = replace(judge(np.zeros((1, 60)), states), wrong=w)
    is_wrong = np.arange(60) % 3 > 0  # far more than were expected
    revised = revise(judgement, np.hstack([states]), [(0, c, bool(is_wrong[c])) for c in range(0, 60, 2)])

    def penalised(d):
        loss = 0.5 * (d / 1.5) ** 2
        for c in range(0, 60, 2):
            odds = w[0, c] / (1 - w[0, c]) * math.exp(d)
            loss -= math.log(odds / (1 + odds) if is_wrong[c] else 1 / (1 + odds))
        return loss

    best = min(np.linspace(-5, 5, 10001), key=penalised)
    odds = w[0, 1::2] / (1 - w[0, 1::2]) * math.exp(best)
    assert revised.wrong[0, 1::2] == pytest.approx(odds / (1 + odds), abs=1e-3)
    assert revised.present[0, 1::2] == pytest.approx(revised.wrong[0, 1::2])


def test_decisions_that_chance_explains_shift_nothing():
    states = np.zeros((1, 60), np.int8)
    judgement = replace(judge(np.zeros((1, 60)), states), wrong=np.full((1, 60), 0.5))
    # Of 40, where 20 are expected: 2 (log-likelihood ratio) is 3.64 at 26 and 4.97 at 27.
    for number, moves in ((26, False), (27, True)):
        revised = revise(judgement, states, [(0, c, c < number) for c in range(40)])
        assert (revised.wrong[0, 40:] > 0.5).all() == moves


def test_what_was_decided_is_certain_and_other_kinds_stay_as_they_are(judged):
    judgement, given, _ = judged
    rows, columns = np.nonzero(given == 1)
    reviews = [(r, c, True) for r, c in zip(rows[:40], columns[:40], strict=True)]
    revised = revise(judgement, given, reviews)
    assert (revised.wrong[rows[:40], columns[:40]] == 1).all()
    assert (revised.present[rows[:40], columns[:40]] == 0).all()
    assert (revised.wrong[given == 0] == judgement.wrong[given == 0]).all()
    assert (revised.wrong[rows[40:], columns[40:]] > judgement.wrong[rows[40:], columns[40:]]).all()
    assert revised.expected_wrong.sum() > judgement.expected_wrong.sum()


def misses(numpy_rng, plant, draws=4):
    """Mean distance of the expected number of wrong labels from the true one, in log, before and after reviews."""
    distances = []
    for seed in range(draws):
        logits, given, truth = plant(numpy_rng)
        judgement = judge(logits, given)
        true = (given != truth).sum()
        revised = revise(judgement, given, decisions(judgement, given, truth, seed))
        distances.append([abs(math.log(some.expected_wrong.sum() / true)) for some in (judgement, revised)])
    return np.mean(distances, axis=0)


def test_a_count_that_is_right_stays_about_right(numpy_rng):
    before, after = misses(numpy_rng, lambda rng: planted(rng, 3000))
    assert before < 0.15
    assert after < before + 0.2


def test_a_review_mends_the_count_where_noise_depends_on_the_image(numpy_rng):
    def hard_images_have_errors(rng):
        logits, given, truth = planted(rng, 3000, 6, 0.0, 0.0)
        for c in range(6):
            positives = np.flatnonzero(truth[:, c] == 1)
            ease = logits[positives, c] + 3 * rng.normal(size=len(positives))
            hard = 1 - ease.argsort().argsort() / len(positives)
            given[positives[rng.random(len(positives)) < 0.6 * hard**2], c] = 0
        return logits, given, truth

    before, after = misses(numpy_rng, hard_images_have_errors)
    assert before > 0.7  # fewer than half of them
    assert after < before - 0.2


def test_no_review_changes_nothing(judged):
    judgement, given, _ = judged
    assert (revise(judgement, given, []).wrong == judgement.wrong).all()


def test_reviews_that_cannot_be_are_refused(judged):
    judgement, given, _ = judged
    with pytest.raises(DataError, match="image 3, class 1 is decided twice"):
        revise(judgement, given, [(3, 1, True), (3, 1, False)])
    unknown = np.full((2, 2), -1, np.int8)
    with pytest.raises(DataError, match="image 1, class 0 has no known label"):
        revise(judge(np.zeros((2, 2)), unknown), unknown, [(1, 0, True)])
