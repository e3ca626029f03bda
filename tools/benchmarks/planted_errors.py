#!/usr/bin/env python
"""How well wrong labels are found: errors planted into VOC's labels, and several ways of ranking its entries.

Takes stored features of VOC 2012 (`mlcv features`), one folder a backbone, and the classes with at least ten positives.
On noisy labels, ridge logistic regressions on 256 principal components predict each image out of fold, each backbone by
itself; with several, logits are averaged. Prints Markdown tables: area under the precision-recall curve over entries;
precision at the number of entries that cleanlab's defaults flag in the first folder's predictions, as a ratio of that
of its flags, and of the first hundred; the sum of probabilities against the true number; the rates found. `--loop`
corrects what is looked at first as an oracle would, trains again, and prints what share of the loss from noise that
recovers. Ratios need cleanlab (mlcv[audit]).
"""

import argparse
import sys
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from mlcv.audits import judge, order
from mlcv.audits.rates import Points, expected_rates, wrong
from mlcv.data import VOCDataModule
from mlcv.data.features import Features
from mlcv.errors import UserError

NOISE = {
    ".2/.01": (0.2, 0.01, ""),
    ".05/.002": (0.05, 0.002, ""),
    ".4/.01": (0.4, 0.01, ""),
    ".2/0": (0.2, 0.0, ""),
    "0/.03": (0.0, 0.03, ""),
    ".2/.03": (0.2, 0.03, ""),
    "class": (0.2, 0.01, "class"),
    "image": (0.2, 0.01, "image"),
    "known30": (0.2, 0.01, "known30"),
}
"""Share of positives that go missing, of negatives that turn false, and what they depend on."""
LOOP_NOISE = {".2/.01": NOISE[".2/.01"], ".4/.03": (0.4, 0.03, ""), "class": NOISE["class"], "image": NOISE["image"]}
FOLDS, COMPONENTS, TRAINED_ON = 5, 256, 2400


def load(folders, root):
    """Principal components of each folder's features, of mean variance 1, and states of classes with positives."""
    data = VOCDataModule(root=str(root), year=2012)
    splits = {name: data.read_split(name) for name in ("train", "test")}
    states = np.concatenate([labeled.states for labeled in splits.values()])
    views = []
    for folder in folders:
        features = Features.open(folder)
        pooled = features.array("pooled")
        rows = np.concatenate([features.rows(name, labeled) for name, labeled in splits.items()])
        components = PCA(COMPONENTS, random_state=0).fit_transform(pooled[rows].astype(np.float32))
        views.append(components / components.std())
    return views, states[:, (states == 1).sum(axis=0) >= 10]


def probe(features, states, ridge):
    """Weights and offsets of logistic regressions of all classes, over their known entries."""
    size, count = features.shape[1], states.shape[1]
    present, is_known = (states == 1).astype(np.float32), states >= 0

    def loss(flat):
        weight, offset = flat[:-count].reshape(size, count).astype(np.float32), flat[-count:].astype(np.float32)
        z = features @ weight + offset
        rest = is_known * (expit(z) - present)
        value = (is_known * (np.logaddexp(0, z) - present * z)).sum(dtype=np.float64) + ridge * (
            flat[:-count] ** 2
        ).sum()
        gradient = np.append((features.T @ rest + 2 * ridge * weight).ravel(), rest.sum(axis=0)).astype(np.float64)
        return value / len(states), gradient / len(states)

    options = {"maxiter": 200, "gtol": 1e-5}
    found = minimize(loss, np.zeros((size + 1) * count), jac=True, method="L-BFGS-B", options=options).x
    return found[:-count].reshape(size, count), found[-count:]


def out_of_fold(views, states, ridge, seed):
    """Logits (N, C) of each view, by probes that did not see the image."""
    fold = np.random.default_rng(seed).permutation(len(states)) % FOLDS
    logits = np.empty((len(views), *states.shape))
    for view, features in enumerate(views):
        for held_out in range(FOLDS):
            weight, offset = probe(features[fold != held_out], states[fold != held_out], ridge)
            logits[view, fold == held_out] = features[fold == held_out] @ weight + offset
    return logits


def plant(truth, noise, logits, rng):
    """States with planted errors; logits of probes that were trained on the truth say which images are hard."""
    missing, false, kind = noise
    rate = np.where(truth == 1, missing, false).astype(float)
    if kind == "class":
        rate = np.where(
            truth == 1, missing * rng.uniform(0, 2, truth.shape[1]), false * rng.uniform(0, 2, truth.shape[1])
        )
    if kind == "image":
        for c in range(truth.shape[1]):
            for value, sign in ((1, -1), (0, 1)):
                rows = np.flatnonzero(truth[:, c] == value)
                rank = (sign * logits[rows, c]).argsort().argsort() / max(len(rows) - 1, 1)
                rate[rows, c] *= 3 * rank**2
        rate = rate.clip(max=0.9)
    given = np.where((truth >= 0) & (rng.random(truth.shape) < rate), 1 - truth, truth).astype(np.int8)
    if kind == "known30":
        given[rng.random(truth.shape) >= 0.3] = -1
    return given


def platt(logits, states):
    """P(n = 1 | z) of a logistic regression a class."""
    q = np.empty(logits.shape)
    for c in range(logits.shape[1]):
        rows = states[:, c] >= 0
        model = LogisticRegression(C=1e3, solver="newton-cholesky").fit(logits[rows, c, None], states[rows, c])
        q[:, c] = model.predict_proba(logits[:, c, None])[:, 1]
    return q


def suspicions(logits, states):
    """By name how wrong each entry looks (N, C); and the judgements among them."""
    one, every = logits[0], logits.mean(axis=0)
    p = expit(one)
    found = {"self-confidence": np.where(states == 1, 1 - p, p)}
    if adjusted := with_cleanlab(one, states):
        found["cleanlab, adjusted self-confidence"] = adjusted[0]
    m, a = expected_rates(Points.of(one, states))
    present = ((platt(one, states) - a) / (1 - m - a)).clip(1e-4, 1 - 1e-4)
    found["Platt, EM rates"] = wrong(present, states, np.full(states.shape[1], m), np.full(states.shape[1], a))
    judged = {
        "4PL, one view": judge(one, states, other_labels=False),
        "stack + 4PL, one view": judge(one, states),
    }
    if len(logits) > 1:
        judged[f"4PL, {len(logits)} views"] = judge(every, states, other_labels=False)
        judged[f"stack + 4PL, {len(logits)} views"] = judge(every, states)
    found |= {name: one.wrong for name, one in judged.items()}
    return found, judged, adjusted[1] if adjusted else None


def with_cleanlab(logits, states):
    """The adjusted ranking and the flags of cleanlab, each class on its known entries; None without it."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    score, flags = np.zeros(states.shape), np.zeros(states.shape, bool)
    for c in range(states.shape[1]):
        rows = states[:, c] >= 0
        p = expit(logits[rows, c])
        two = np.column_stack([1 - p, p])
        labels = states[rows, c].astype(int)
        score[rows, c] = 1 - get_label_quality_scores(labels, two, method="self_confidence", adjust_pred_probs=True)
        flags[rows, c] = find_label_issues(labels, two, n_jobs=1)
    return score, flags


def measure(views, truth, noise, clean, ridge, seed):
    """Of each method: area, precision at cleanlab's number over cleanlab's, of the first 100, sum over true, rates."""
    given = plant(truth, noise, clean, np.random.default_rng(seed))
    logits = out_of_fold(views, given, ridge, seed)
    found, judged, flags = suspicions(logits, given)
    is_known = given >= 0
    is_wrong = (given != truth)[is_known]
    rows = {}
    for name, score in found.items():
        best = is_wrong[np.argsort(-score[is_known], kind="stable")]
        ratio = np.nan if flags is None else best[: flags.sum()].mean() / is_wrong[flags[is_known]].mean()
        total = np.nan if "adjusted" in name else score[is_known].sum() / is_wrong.sum()  # its scores are none
        rates = [judged[name].missing.mean(), judged[name].false.mean()] if name in judged else [np.nan] * 2
        rows[name] = [average_precision_score(is_wrong, score[is_known]), ratio, best[:100].mean(), total, *rates]
    if flags is not None:
        precision = is_wrong[flags[is_known]].mean()
        rows["cleanlab, flags"] = [np.nan, 1.0, np.nan, flags.sum() / is_wrong.sum(), np.nan, np.nan]
        print(f"seed {seed}: {is_wrong.sum()} wrong, {flags.sum()} flagged, precision {precision:.2f}", file=sys.stderr)
    return rows


def scores(views, states, trained, tested, truth, ridge):
    """Macro mAP over classes with eight test positives, and micro AP, of the mean of the views' probes."""
    logits = np.zeros((len(tested), truth.shape[1]))
    for features in views:
        weight, offset = probe(features[trained], states, ridge)
        logits += (features[tested] @ weight + offset) / len(views)
    true = truth[tested]
    classes = np.flatnonzero((true == 1).sum(axis=0) >= 8)
    each = [average_precision_score(true[true[:, c] >= 0, c], logits[true[:, c] >= 0, c]) for c in classes]
    return np.array([np.mean(each), average_precision_score(true[true >= 0], logits[true >= 0])])


def loop(views, truth, noise, clean, ridge, seed, looks):
    """Of each order and number of looks what corrections bring back of mAP and of micro AP, and what noise took."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(truth))
    trained, tested = rows[:TRAINED_ON], rows[TRAINED_ON:]
    given = plant(truth, noise, clean, rng)[trained]
    best = scores(views, truth[trained], trained, tested, truth, ridge)
    worst = scores(views, given, trained, tested, truth, ridge)
    logits = out_of_fold([features[trained] for features in views], given, ridge, seed).mean(axis=0)
    judgement = judge(logits, given)
    p = expit(logits)
    by_score = np.where(given < 0, -1, np.where(given == 1, 1 - p, p))
    orders = {
        "self-confidence": np.unravel_index(np.argsort(-by_score, axis=None, kind="stable"), given.shape),
        "random": tuple(rng.permutation(np.argwhere(given >= 0)).T),
        "wrong ones alone, at random": tuple(rng.permutation(np.argwhere(given != truth[trained])).T),
        "errors": order(judgement, given, "errors"),
        "mean_ap": order(judgement, given, "mean_ap"),
    }
    gains = {}
    for name, (row, column) in orders.items():
        for count in looks:
            mended = given.copy()
            mended[row[:count], column[:count]] = truth[trained][row[:count], column[:count]]
            after = scores(views, mended, trained, tested, truth, ridge)
            gains[name, count] = after - worst, best - worst
    return gains


def share(gains, place):
    """All runs' gains over all runs' losses, as some lose next to nothing; its spread by leaving each run out."""
    gained, lost = np.array(gains)[:, :, place].T
    count = len(gained)
    without = (gained.sum() - gained) / (lost.sum() - lost)
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()) if count > 1 else np.nan
    return f"{gained.sum() / lost.sum():.2f} ± {error:.2f}"


def shown_mean(settings, place):
    """Mean of the runs' own shares, and its standard error."""
    shares = np.array([gain[place] / lost[place] for gains in settings.values() for gain, lost in gains])
    return f"{shares.mean():.2f} ± {shares.std(ddof=1) / np.sqrt(len(shares)):.2f}"


def table(title, head, rows):
    print(f"\n{title}\n\n| | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def shown(values, digits=2):
    """Mean and spread of runs."""
    values = np.asarray(values, float)
    if np.isnan(values).any():
        return ""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else "")


def run(options):
    views, truth = load(options.features, options.root)
    clean = out_of_fold(views, truth, options.ridge, 0).mean(axis=0)
    print(f"{len(truth)} images, {truth.shape[1]} classes, {(truth >= 0).sum()} known entries, seeds {options.seeds}")
    if options.loop:
        results = {}
        for name, noise in LOOP_NOISE.items():
            for seed in options.seeds:
                for key, gain in loop(views, truth, noise, clean, options.ridge, seed, options.looks).items():
                    results.setdefault(key, {}).setdefault(name, []).append(gain)
                print(f"{name}, seed {seed}: done", file=sys.stderr)
        for place, what in enumerate(("macro mAP", "micro AP")):
            rows = {
                f"{name}, {count} looks": [
                    share(list(chain.from_iterable(settings.values())), place),
                    shown_mean(settings, place),
                ]
                + [share(gains, place) for gains in settings.values()]
                for (name, count), settings in results.items()
            }
            table(f"Share of {what} recovered", ["all runs", "mean of runs", *LOOP_NOISE], rows)
        return
    names = options.noise or list(NOISE)
    results = {
        name: [measure(views, truth, NOISE[name], clean, options.ridge, seed) for seed in options.seeds]
        for name in names
    }
    titles = [
        "Area under precision-recall",
        "Precision at cleanlab's number, over cleanlab's",
        "Precision of the first 100",
        "Sum of probabilities over true number",
        "Missing rate, mean over classes",
        "False rate, mean over classes",
    ]
    for place, title in enumerate(titles):
        rows = {}
        for method in results[names[0]][0]:
            values = [[one[method][place] for one in results[name]] for name in names]
            if not np.isnan(values).all():
                rows[method] = [shown(some, 3 if "rate" in title else 2) for some in values]
        table(title, names, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--features", type=Path, nargs="+", required=True, help="folders of `mlcv features`, one a view"
    )
    parser.add_argument("--root", type=Path, default=Path("data/voc"), help="of VOC (default: data/voc)")
    parser.add_argument("--noise", nargs="+", choices=list(NOISE), help="default: all settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument(
        "--ridge", type=float, default=30.0, help="of the probes (default: 30, the best on clean labels)"
    )
    parser.add_argument("--loop", action="store_true", help="correct, train again, and say what that recovers")
    parser.add_argument("--looks", type=int, nargs="+", default=[300, 900], help="entries corrected (default: 300 900)")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
