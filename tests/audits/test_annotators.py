"""Consensus of several annotators: against loops from the formulas, planted truth, and real answers."""

import csv
import math
import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlcv.audits.annotators import calibrated, dawid_skene, majority, raykar
from mlcv.audits.crowdlab import LEAST_WEIGHT, crowdlab
from mlcv.audits.votes import MAYBE, NO, YES, Rates, Votes
from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN

TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def asked(rng, items=60, people=5, kept=0.7, answers=(NO, MAYBE, YES)):
    """Random votes, each item with one at least."""
    given = rng.choice(answers, size=(items, people))
    has = rng.random(given.shape) < kept
    has[np.arange(items), rng.integers(people, size=items)] = True
    item, annotator = np.nonzero(has)
    return Votes(item, annotator, given[has], items, people)


def answered(rng, items, people, each, sensitivity=(0.5, 0.95), specificity=(0.8, 0.99), prevalence=0.3):
    """Votes of people who differ in skill, what is true, and their rates."""
    truth = rng.random(items) < prevalence
    right_yes, right_no = rng.uniform(*sensitivity, people), rng.uniform(*specificity, people)
    item = np.repeat(np.arange(items), each)
    annotator = np.concatenate([rng.permutation(people)[:each] for _ in range(items)])
    chance = np.where(truth[item], right_yes[annotator], 1 - right_no[annotator])
    said = rng.random(len(item)) < chance
    return Votes(item, annotator, np.where(said, YES, NO), items, people), truth, right_yes, right_no


def expected(votes, answers, rounds, prior=None, classes=None, pooling=8.0):
    """EM, one vote at a time: P(yes) of each item and the log-likelihood, after so many rounds."""
    classes = [0] * votes.num_items if classes is None else list(classes)
    triples = list(zip(votes.item.tolist(), votes.annotator.tolist(), votes.answer.tolist(), strict=True))
    of_item = {i: [(j, k) for at, j, k in triples if at == i] for i in range(votes.num_items)}
    q = {i: sum(k / 2 for _, k in of_item[i]) / len(of_item[i]) for i in of_item}
    for _ in range(rounds):
        table, everybody = {}, {(c, truth): dict.fromkeys(answers, 1.0) for c in classes for truth in (0, 1)}
        for i, j, k in triples:
            for truth, weight in ((1, q[i]), (0, 1 - q[i])):
                table.setdefault((classes[i], j, truth), dict.fromkeys(answers, 0.0))[k] += weight
                everybody[classes[i], truth][k] += weight
        for (c, _, truth), row in table.items():
            shares = everybody[c, truth]
            for k in answers:
                row[k] += pooling * shares[k] / sum(shares.values())
        total = 0.0
        share = {}
        for c in set(classes):
            own = [i for i in of_item if classes[i] == c]
            share[c] = (sum(q[i] for i in own) + 1) / (len(own) + 2)
        new = {}
        for i in of_item:
            pi = share[classes[i]] if prior is None else float(prior[i])
            both = []
            for truth, start in ((1, pi), (0, 1 - pi)):
                value = start
                for j, k in of_item[i]:
                    row = table[classes[i], j, truth]
                    value *= row[k] / sum(row.values())
                both.append(value)
            new[i] = both[0] / sum(both)
            total += math.log(sum(both))
        q = new
    return np.array([q[i] for i in range(votes.num_items)]), total


@pytest.mark.parametrize("answers", [(NO, YES), (NO, MAYBE, YES)])
@pytest.mark.parametrize("is_by_class", [False, True])
def test_dawid_skene_equals_the_formula(answers, is_by_class, numpy_rng):
    votes = asked(numpy_rng, answers=answers)
    classes = numpy_rng.integers(3, size=votes.num_items) if is_by_class else None
    for rounds in (1, 4):
        found = dawid_skene(votes, classes, most=rounds, tolerance=-1)
        p, log_likelihood = expected(votes, answers, rounds, classes=classes)
        np.testing.assert_allclose(found.probability, p, atol=1e-10)
        assert found.log_likelihood == pytest.approx(log_likelihood)
        assert found.iterations == rounds


def test_raykar_equals_the_formula_with_the_models_prior(numpy_rng):
    votes, prior = asked(numpy_rng), numpy_rng.uniform(0.05, 0.95, 60)
    found = raykar(votes, prior, most=3, tolerance=-1)
    p, log_likelihood = expected(votes, (NO, MAYBE, YES), 3, prior=prior)
    np.testing.assert_allclose(found.probability, p, atol=1e-10)
    assert found.log_likelihood == pytest.approx(log_likelihood)


def test_a_model_that_is_certain_is_still_outvoted(numpy_rng):
    votes, truth, _, _ = answered(numpy_rng, 300, 5, 5, (0.9, 0.95), (0.9, 0.95))
    prior = np.where(truth, 0.9, 0.1)
    prior[0] = 1 - truth[0]  # quite wrong, and sure of it
    unanimous = Votes(votes.item, votes.annotator, np.where(votes.item == 0, YES * truth[0], votes.answer), 300, 5)
    assert (raykar(unanimous, prior).probability[0] > 0.5) == truth[0]


def test_a_good_prior_helps(numpy_rng):
    votes, truth, _, _ = answered(numpy_rng, 1500, 6, 2, (0.5, 0.7), (0.7, 0.9))
    prior = 1 / (1 + np.exp(-(2.5 * truth - 2 + numpy_rng.normal(size=1500))))
    areas = [roc_auc_score(truth, found.probability) for found in (dawid_skene(votes), raykar(votes, prior))]
    assert areas[1] > areas[0] + 0.02


def test_dawid_skene_knows_who_is_good_and_the_vote_does_not(numpy_rng):
    rates = np.array([0.97, 0.97, 0.6, 0.6, 0.6])
    truth = numpy_rng.random(2000) < 0.5
    item, annotator = (some.ravel() for some in np.indices((2000, 5)))
    right = numpy_rng.random(len(item)) < rates[annotator]
    votes = Votes(item, annotator, np.where(right == truth[item], YES, NO), 2000, 5)
    vote, found = majority(votes), dawid_skene(votes)
    accuracy = [((one.probability > 0.5) == truth).mean() for one in (vote, found)]
    assert accuracy[1] > accuracy[0] + 0.03
    assert (found.rates.sensitivity[0, :2] > 0.9).all()
    assert (found.rates.sensitivity[0, 2:] < 0.75).all()


def test_intervals_hold_the_true_rates(numpy_rng):
    inside = []
    for _ in range(12):
        votes, _, sensitivity, specificity = answered(numpy_rng, 1000, 10, 3)
        rates = dawid_skene(votes).rates
        for true, ends in ((sensitivity, rates.sensitivity_interval), (specificity, rates.specificity_interval)):
            inside.append((ends[0, :, 0] <= true) & (true <= ends[0, :, 1]))
            assert np.median(np.diff(ends)) < 0.35
    # 240 intervals, those of a run not independent: .95 within what is met in one of ten thousand runs.
    assert np.mean(inside) > 0.88


def test_intervals_are_wider_than_if_the_truth_were_known(numpy_rng):
    votes, truth, _, _ = answered(numpy_rng, 1000, 5, 3)
    estimated = dawid_skene(votes).rates.sensitivity_interval
    known = Rates.of(votes, truth[votes.item].astype(float)).sensitivity_interval
    assert (np.diff(estimated)[0] > np.diff(known)[0]).all()


def test_the_vote_counts_a_maybe_half_and_judges_each_by_the_others():
    votes = Votes(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0]), np.array([YES, MAYBE, NO, YES]), 3, 3)
    found = majority(votes)
    np.testing.assert_allclose(found.probability, [0.5, 1, np.nan])
    assert found.states().tolist() == [UNKNOWN, POSITIVE, UNKNOWN]
    # The others on item 0 say .25 to annotator 0, who says yes; nobody else is on item 1.
    assert found.rates.sensitivity[0].tolist() == [1, 0, 0]
    assert found.rates.specificity[0].tolist() == [0, 0, 1]
    assert found.rates.votes[0].tolist() == [2, 1, 1]


def test_states_need_more_than_the_least_probability():
    votes = Votes(np.arange(4), np.zeros(4, int), np.array([YES, NO, MAYBE, YES]), 4, 1)
    found = majority(votes)
    assert found.states(0.9).tolist() == [POSITIVE, NEGATIVE, UNKNOWN, POSITIVE]
    assert found.states(0.9).dtype == np.int8


def test_who_has_no_votes_has_no_rates_and_spoils_nothing(numpy_rng):
    votes = asked(numpy_rng)
    more = Votes(votes.item, votes.annotator, votes.answer, votes.num_items + 2, votes.num_annotators + 1)
    few, many = dawid_skene(votes), dawid_skene(more)
    np.testing.assert_allclose(many.probability[:-2], few.probability)
    assert np.isnan(many.probability[-2:]).all()
    assert np.isnan(many.rates.sensitivity[0, -1])
    assert many.rates.sensitivity_interval[0, -1].tolist() == [0, 1]


@pytest.mark.parametrize("answer", [NO, YES])
def test_all_of_one_mind_gives_finite_numbers(answer):
    item, annotator = (some.ravel() for some in np.indices((30, 3)))
    votes = Votes(item, annotator, np.full(90, answer), 30, 3)
    for found in (dawid_skene(votes), raykar(votes, np.full(30, 0.2)), crowdlab(votes, np.full(30, 0.2))):
        assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert (dawid_skene(votes).states() == (POSITIVE if answer == YES else NEGATIVE)).all()


def test_dawid_skene_needs_two_annotators_on_an_item():
    votes = Votes(np.arange(5), np.array([0, 1, 0, 1, 0]), np.full(5, YES), 5, 2)
    with pytest.raises(DataError, match="no two annotators"):
        dawid_skene(votes)


@pytest.mark.parametrize(
    ("item", "annotator", "answer", "word"),
    [([0, 0], [1, 1], [2, 2], "twice"), ([0, 3], [0, 0], [0, 0], "item"), ([0, 0], [0, 1], [0, 3], "answer"),
     ([0, 0], [0, -1], [0, 0], "annotator")],
)  # fmt: skip
def test_votes_that_cannot_be_are_refused(item, annotator, answer, word):
    with pytest.raises(DataError, match=word):
        Votes(np.array(item), np.array(annotator), np.array(answer), 3, 2)


def test_calibration_finds_the_probabilities_of_each_class(numpy_rng):
    z = numpy_rng.normal(size=8000)
    classes = numpy_rng.integers(2, size=8000)
    true = 1 / (1 + np.exp(-(np.where(classes == 0, 2 * z - 1, 0.5 * z - 2))))
    share = (numpy_rng.random(8000) < true).astype(float)
    share[::4] = np.nan
    assert np.abs(calibrated(30 * z + 7, share, classes) - true).mean() < 0.03  # of both classes together .1


def test_calibration_of_an_item_does_not_look_at_its_own_votes(numpy_rng):
    z, share = numpy_rng.normal(size=50), numpy_rng.random(50)
    before = calibrated(z, share)
    share[3] = 1 - share[3]
    assert calibrated(z, share)[3] == before[3]
    assert (calibrated(z, share) != before).any()


@pytest.mark.parametrize("share", [np.full(20, np.nan), np.zeros(20), np.ones(20)])
def test_calibration_without_two_kinds_of_votes_is_finite(share, numpy_rng):
    p = calibrated(numpy_rng.normal(size=20), share)
    assert ((p > 0) & (p < 1)).all()


def test_crowdlab_equals_cleanlab(numpy_rng):
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    for _ in range(20):
        votes, _, _, _ = answered(numpy_rng, 30, 4, 4, prevalence=0.4)
        votes = votes.select(numpy_rng.random(len(votes.item)) < 0.7)
        rows = np.unique(votes.item)
        labels = np.full((30, 4), np.nan)
        labels[votes.item, votes.annotator] = votes.answer / 2
        prior = numpy_rng.random(30)
        theirs = multiannotator.get_label_quality_multiannotator(
            labels[rows], np.column_stack([1 - prior, prior])[rows], verbose=False, return_weights=True
        )
        quality = theirs["label_quality"]
        score, label = (quality[f"consensus_{what}"].to_numpy() for what in ("quality_score", "label"))
        found = crowdlab(votes, prior)
        np.testing.assert_allclose(found.probability[rows], np.where(label == 1, score, 1 - score))
        np.testing.assert_allclose(found.weight[0], theirs["annotator_weight"])
        assert found.model_weight[0] == pytest.approx(theirs["model_weight"])


def test_crowdlab_drops_everybody_on_a_rare_class_and_says_so(numpy_rng):
    votes, _, _, _ = answered(numpy_rng, 400, 3, 3, (0.5, 0.6), (0.85, 0.9), prevalence=0.05)
    prior = np.where(votes.share > 0.5, 0.7, 0.05)  # a model that agrees with the vote
    found = crowdlab(votes, prior)
    assert (found.weight == LEAST_WEIGHT).all()
    np.testing.assert_allclose(found.probability, prior, atol=1e-4)


def test_crowdlab_judges_classes_apart_and_passes_over_maybe(numpy_rng):
    votes, classes, prior = asked(numpy_rng, 80, kept=0.9), np.arange(80) % 2, numpy_rng.random(80)
    both = crowdlab(votes, prior, classes)
    for c in range(2):
        own = votes.select((classes[votes.item] == c) & (votes.answer != MAYBE))
        one = crowdlab(own, prior)
        np.testing.assert_allclose(both.weight[c], one.weight[0])
        np.testing.assert_allclose(both.probability[c::2], one.probability[c::2])


def test_dawid_skene_agrees_with_the_released_scores_of_imagenet(shared_data):
    data = np.load(shared_data / "annotators" / "reassessed_imagenet.npz")
    rater, answer = (data[f"vote_{name}"].astype(np.int64) for name in ("rater", "answer"))
    votes = Votes(data["vote_pair"], rater, answer, len(data["score"]), 85)
    start = time.process_time()
    found = dawid_skene(votes)
    assert time.process_time() - start < 20
    assert ((found.probability > 0.5) == (data["score"] > 0.5)).mean() >= 0.98
    assert found.log_likelihood == pytest.approx(-463_902, abs=3)
    assert found.probability.mean() == pytest.approx(0.2058, abs=5e-4)
    assert np.median(found.rates.sensitivity) == pytest.approx(0.537, abs=2e-3)


def test_dawid_skene_of_five_votes_beats_the_vote_on_experts_gold(shared_data, numpy_rng):
    data = np.load(shared_data / "annotators" / "reassessed_imagenet.npz")
    expert = Votes(*(data[f"gold_expert{end}"].astype(np.int64) for end in ("_item", "", "_answer")), 1135, 5)
    truth = expert.share > 0.5
    item, rater, answer = (data[f"gold_rater{end}"].astype(np.int64) for end in ("_item", "", "_answer"))
    accuracy = []
    for _ in range(20):
        drawn = numpy_rng.permutation(len(item))
        drawn = drawn[np.argsort(item[drawn], kind="stable")]
        place = np.arange(len(item)) - np.searchsorted(item[drawn], item[drawn])
        five = drawn[place < 5]
        votes = Votes(item[five], rater[five], answer[five], 1135, rater.max() + 1)
        assert (votes.count == 5).all()
        accuracy.append([((of(votes).probability > 0.5) == truth).mean() for of in (majority, dawid_skene)])
    vote, estimate = np.mean(accuracy, axis=0)
    assert vote == pytest.approx(0.901, abs=0.006)
    assert estimate > 0.906  # .913, with .005 between draws and .001 of their mean


def chexpert(folder):
    """Answers of three radiologists, the vote of five others, and the mean of ten models: of each task (M, ...)."""
    test = folder / "chest_xray" / "chexpert_test"
    names = ("radiologists/benchmark_radiologists", "radiologists/groundtruth", "example_models/predictions/standard")
    tables = []
    for name in names:
        tables.append([])
        for path in sorted((test / name).glob("*.csv")):
            with path.open() as file:
                tables[-1].append({row["Study"]: row for row in csv.DictReader(file)})
    studies = sorted(tables[0][0])
    for task in TASKS:
        readers, others, models = (
            np.array([[float(one[study][task]) for one in some] for study in studies]) for some in tables
        )
        yield task, readers, others.mean(axis=1) > 0.5, models.mean(axis=1)


def test_raykar_beats_the_vote_of_chexperts_radiologists_on_each_task(shared_data):
    # Area under ROC against the majority of five others: vote, and what the notes measured.
    known = {
        "Atelectasis": (0.891, 0.918), "Cardiomegaly": (0.918, 0.953), "Consolidation": (0.870, 0.936),
        "Edema": (0.902, 0.941), "Pleural Effusion": (0.953, 0.972),
    }  # fmt: skip
    for task, readers, truth, model in chexpert(shared_data):
        item, annotator = (some.ravel() for some in np.indices(readers.shape))
        votes = Votes(item, annotator, (2 * readers.ravel()).astype(int), *readers.shape)
        prior = calibrated(model, votes.share)
        found = raykar(votes, prior)
        vote, area = (roc_auc_score(truth, some) for some in (votes.share, found.probability))
        assert vote == pytest.approx(known[task][0], abs=1e-3)
        assert area == pytest.approx(known[task][1], abs=6e-3), task
        dropped = crowdlab(votes, prior).weight == LEAST_WEIGHT
        assert dropped.all() == (task in ("Cardiomegaly", "Consolidation", "Edema"))
        if task == "Cardiomegaly":
            shown = np.round([found.rates.sensitivity[0, :2], found.rates.specificity[0, :2]], 2)
            np.testing.assert_allclose(shown, [[0.47, 0.87], [0.97, 0.80]], atol=0.011)
