"""What several people say together: against loops from the formulas, cleanlab, and real annotators."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from mlcv.audits.annotators import MAYBE, NO, YES, Votes, calibrated, dawid_skene, majority, raykar, wilson
from mlcv.audits.crowdlab import crowdlab
from mlcv.errors import DataError

SHARED = Path(os.environ.get("MLCV_SHARED_DATA", "../shared/data"))


def made(seed, items=300, people=6, maybe=0.1):
    """Truth, and votes of people of whom some see little; each item has one to all of them."""
    rng = np.random.default_rng(seed)
    truth = rng.random(items) < 0.3
    sees, errs = rng.uniform(0.5, 0.95, people), rng.uniform(0.02, 0.3, people)
    asked = rng.random((items, people)) < 0.7
    yes = np.where(truth[:, None], rng.random(asked.shape) < sees, rng.random(asked.shape) < errs)
    answer = np.where(rng.random(asked.shape) < maybe, MAYBE, np.where(yes, YES, NO))
    item, person = np.nonzero(asked)
    return truth, Votes(item, person, answer[asked], items, people)


def one_by_one(votes, rounds, prior=None):
    """EM by loops, one item and one vote at a time."""
    answers = sorted({NO, YES, *votes.answer.tolist()})
    by_item = [[] for _ in range(votes.num_items)]
    for i, j, k in zip(votes.item.tolist(), votes.annotator.tolist(), votes.answer.tolist(), strict=True):
        by_item[i].append((j, k))
    p = [sum({NO: 0, MAYBE: 0.5, YES: 1}[k] for _, k in own) / len(own) if own else math.nan for own in by_item]
    for _ in range(rounds):
        table = [[dict.fromkeys(answers, 1.0) for _ in range(votes.num_annotators)] for _ in (0, 1)]
        for i, own in enumerate(by_item):
            for j, k in own:
                table[1][j][k] += p[i]
                table[0][j][k] += 1 - p[i]
        known = [q for q in p if not math.isnan(q)]
        pi = (sum(known) + 1) / (len(known) + 2)
        new = []
        for i, own in enumerate(by_item):
            if not own:
                new.append(math.nan)
                continue
            first = pi if prior is None else min(max(prior[i], 0.002), 0.998)
            logs = [math.log(1 - first), math.log(first)]
            for value in (0, 1):
                for j, k in own:
                    logs[value] += math.log(table[value][j][k] / sum(table[value][j].values()))
            new.append(1 / (1 + math.exp(logs[0] - logs[1])))
        p = new
    return np.array(p)


@pytest.mark.parametrize("maybe", [0.0, 0.15])
def test_estimates_are_those_of_loops_over_votes(seed, maybe):
    _, votes = made(seed, maybe=maybe)
    found = dawid_skene(votes, tolerance=0.0, most=4)
    assert found.iterations == 4
    assert found.probability == pytest.approx(one_by_one(votes, 4), abs=1e-9, nan_ok=True)
    prior = np.random.default_rng(seed).random(votes.num_items)
    found = raykar(votes, prior, tolerance=0.0, most=3)
    assert found.probability == pytest.approx(one_by_one(votes, 3, prior), abs=1e-9, nan_ok=True)


def test_who_errs_counts_less_and_is_told(seed):
    truth, votes = made(seed, items=3000, maybe=0.0)
    found, vote = dawid_skene(votes), majority(votes)
    seen = votes.count > 0
    right = [((one.probability > 0.5) == truth)[seen].mean() for one in (found, vote)]
    assert right[0] >= right[1] - 0.002
    inside = 0
    for j in range(votes.num_annotators):
        own = votes.annotator == j
        of_truth = truth[votes.item[own]]
        sensitivity = (votes.answer[own] == YES)[of_truth].mean()
        assert found.rates.sensitivity[0, j] == pytest.approx(sensitivity, abs=0.08)
        low, high = found.rates.sensitivity_interval[0, j]
        inside += low - 0.02 <= sensitivity <= high + 0.02
    assert inside >= votes.num_annotators - 1


def test_classes_have_rates_of_their_own(seed):
    _, votes = made(seed, items=400)
    classes = np.arange(400) % 2
    both = dawid_skene(votes, classes, tolerance=0.0, most=5)
    for c in (0, 1):
        own = classes[votes.item] == c
        alone = dawid_skene(votes.select(own), tolerance=0.0, most=5)
        assert both.probability[classes == c] == pytest.approx(alone.probability[classes == c], abs=1e-9, nan_ok=True)


def test_crowdlab_is_cleanlabs(seed):
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    _, votes = made(seed, items=60, people=4, maybe=0.0)
    prior = np.random.default_rng(seed).random(60)
    table = np.full((60, 4), np.nan)
    table[votes.item, votes.annotator] = votes.answer == YES
    some = ~np.isnan(table).all(axis=1)
    theirs = multiannotator.get_label_quality_multiannotator(
        table[some], np.column_stack([1 - prior, prior])[some], verbose=False, return_detailed_quality=False
    )["label_quality"]
    ours = crowdlab(votes, prior).probability[some]
    # Its consensus is of the round before; the quality is what the last round says of that.
    quality = theirs["consensus_quality_score"].to_numpy()
    expected = np.where(theirs["consensus_label"].to_numpy() == 1, quality, 1 - quality)
    assert ours == pytest.approx(expected, abs=1e-6)


def test_priors_come_of_other_items_and_are_calibrated(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, 4000)
    share = (rng.random(4000) < 1 / (1 + np.exp(-(0.7 * z - 1)))).astype(float)
    p = calibrated(3 * z + 5, share, seed=0)
    assert p == pytest.approx(1 / (1 + np.exp(-(0.7 * z - 1))), abs=0.06)
    changed = share.copy()
    changed[0] = 1 - changed[0]
    assert calibrated(3 * z + 5, changed, seed=0)[0] == p[0]


def test_intervals_are_wilsons():
    low, high = wilson(np.array(0.9), np.array(10.0))
    z = 1.959964
    middle = (0.9 + z * z / 20) / (1 + z * z / 10)
    half = z / (1 + z * z / 10) * math.sqrt(0.9 * 0.1 / 10 + z * z / 400)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert wilson(np.array(np.nan), np.array(0.0)).tolist() == [0, 1]


def test_edges():
    alone = Votes(np.array([0]), np.array([0]), np.array([YES]), 2, 1)
    with pytest.raises(DataError, match="no two annotators"):
        dawid_skene(alone)
    found = raykar(alone, np.array([0.2, 0.7]))
    assert np.isnan(found.probability[1])
    assert found.states().tolist() == [int(found.probability[0] > 0.5), -1]
    with pytest.raises(DataError, match="answers twice"):
        Votes(np.array([0, 0]), np.array([0, 0]), np.array([YES, NO]), 1, 1)
    with pytest.raises(DataError, match="answer is a whole number from 0 to 2"):
        Votes(np.array([0]), np.array([0]), np.array([3]), 1, 1)


@pytest.mark.slow
def test_real_annotators_agree_as_their_release_says():
    path = SHARED / "annotators" / "reassessed_imagenet.npz"
    if not path.is_file():
        pytest.skip(f"no {path}: MLCV_SHARED_DATA names the folder of real data")
    data = np.load(path)
    pair, person = data["vote_pair"], data["vote_rater"]
    people = int(max(person.max(), data["gold_rater"].max() if "gold_rater" in data else 0)) + 1
    votes = Votes(pair, person, data["vote_answer"], len(data["score"]), people)
    found = dawid_skene(votes)
    agree = ((found.probability > 0.5) == (data["score"] > 0.5)).mean()
    assert agree >= 0.98
