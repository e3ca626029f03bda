#!/usr/bin/env python
"""Wrong labels that nobody planted: AudioSet's against five people's votes, NIH's against radiologists'.

Prints Markdown tables. AudioSet: 307 clips of whose given labels the set that a model predicted out of fold has none;
five people were asked about each entry in which the two differ, and three decide. The sets have no scores, so such
entries differ by what their class tells alone: of a given label how often the model finds that class where it is given,
of a predicted one how often the class is given where the model predicts it; or by `mlcv.audits.judge` on the sets. NIH:
how often the labels miss what radiologists see, and the other way round; without predictions for these images nothing
can be ranked. Intervals are 95 %, by resampling clips and patients.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from mlcv.audits import judge

RESAMPLES = 1000
NIH = {
    "Pneumothorax": ("Pneumothorax",),
    "Nodule or mass": ("Nodule", "Mass"),
    "Airspace opacity": ("Consolidation", "Infiltration", "Pneumonia", "Edema", "Atelectasis"),
}
"""Findings of the experts, and the labels that are taken for them."""


def table(title, head, rows):
    print(f"\n{title}\n\n| | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)


def interval(statistic, owners, seed=0):
    """A statistic of rows, and 95 % of it by resampling owners, such as clips or patients."""
    rng = np.random.default_rng(seed)
    names, owner = np.unique(owners, return_inverse=True)
    order, ends = np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))
    rows_of = np.split(order, ends[:-1])
    drawn = [
        statistic(np.concatenate([rows_of[k] for k in rng.integers(len(names), size=len(names))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return statistic(np.arange(len(owner))), low, high


def shown(values, scale=1.0, digits=3):
    value, low, high = (f"{scale * one:.{digits}f}" for one in values)
    return f"{value} ({low}-{high})"


def audioset(folder, use_other_labels):
    data = np.load(folder / "audioset_eval.npz")
    classes = int(data["num_classes"])
    given, predicted = (np.unpackbits(data[name], axis=1)[:, :classes].astype(int) for name in ("given", "predicted"))
    clip, column, is_given, yes = voted(json.loads((folder / "mturk.json").read_text()), given, predicted)
    is_wrong = np.where(is_given, yes <= 2, yes >= 3)
    both = (given & predicted).sum(axis=0)
    recall, precision = (both + 1) / (given.sum(axis=0) + 2), (both + 1) / (predicted.sum(axis=0) + 2)
    scores = {"by class": np.where(is_given, recall[column], precision[column])}
    for has_others in (False, True) if use_other_labels else (False,):
        enough = np.flatnonzero(given.sum(axis=0) >= (80 if has_others else 1))
        place = np.searchsorted(enough, column).clip(max=len(enough) - 1)
        found = judge(4.0 * predicted[:, enough] - 2, given[:, enough].astype(np.int8), other_labels=has_others)
        name = f"judge, with other labels ({len(enough)} classes)" if has_others else "judge"
        scores[name] = np.where(enough[place] == column, found.wrong[clip, place], np.nan)
    rows = {}
    for kind, chosen in (("given, not predicted", is_given), ("predicted, not given", ~is_given)):
        share = interval(lambda rows, chosen=chosen: is_wrong[rows][chosen[rows]].mean(), clip)
        rows[kind] = [chosen.sum(), shown(share, 100, 1)]
        for score in scores.values():
            used = chosen & ~np.isnan(score)

            def area(rows, used=used, score=score):
                rows = rows[used[rows]]
                return roc_auc_score(is_wrong[rows], score[rows])

            best = np.flatnonzero(used)[np.argsort(-score[used], kind="stable")[:100]]
            rows[kind] += [f"{shown(interval(area, clip))}, {is_wrong[best].mean():.2f}"]
    head = ["entries", "wrong by votes, %", *(f"{name}: AUROC, precision of the first 100" for name in scores)]
    table(f"AudioSet, {len(set(clip.tolist()))} clips with no label in common", head, rows)
    two = {
        f"{least} of 5": [
            f"{100 * (yes[is_given] < least).mean():.1f}", f"{100 * (yes[~is_given] >= least).mean():.1f}"
        ]
        for least in (2, 3, 4)
    }  # fmt: skip
    table("The same by the votes that a label needs", ["given wrong, %", "predicted right, %"], two)


def voted(clips, given, predicted):
    """Of each entry with votes: clip, class, whether it was given, and how many of five say yes.

    Names of a clip's labels come in the order of its classes.
    """
    column = {}
    for clip in clips:
        for names, sets in ((clip["given_original_labels"], given), (clip["our_guessed_labels"], predicted)):
            for name, place in zip(names, np.flatnonzero(sets[clip["id"]]), strict=True):
                if column.setdefault(name, place) != place:
                    raise ValueError(f"{name} is class {column[name]} and class {place}")
    entries = [
        (clip["id"], column[name], name in clip["given_original_labels"], yes)
        for clip in clips
        for name, yes in clip["mturk"].items()
    ]
    return tuple(np.array(some) for some in zip(*entries, strict=True))


def nih(folder):
    with gzip.open(folder / "google2019_nih-chest-xray-labels.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    patient = np.array([row["Patient ID"] for row in rows])
    found = {}
    for finding, names in NIH.items():
        expert = np.array([row[finding] == "YES" for row in rows])
        given = np.array([bool(set(names) & set(row["Finding Labels"].split("|"))) for row in rows])
        rates = [
            interval(lambda some, of=of, wrong=wrong: wrong[some][of[some]].mean(), patient)
            for of, wrong in ((expert, ~given), (~expert, given), (given, ~expert), (~given, expert))
        ]
        found[f"{finding} ({', '.join(names)})"] = [
            expert.sum(), given.sum(), *(shown(rate, 100, 1) for rate in rates)
        ]  # fmt: skip
    head = [
        "experts", "given", "missing of true, %", "false of absent, %", "given ones wrong, %", "absent ones wrong, %",
    ]  # fmt: skip
    table(f"NIH, {len(rows)} images of {len(set(patient.tolist()))} patients", head, found)
    here = {path.name for path in (folder / "images_64").glob("*.png")}
    print(f"\nImages of these that are here: {sum(row['Image Index'] in here for row in rows)}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_ = "with audioset_labels/ and chest_xray/nih/ (default: ../shared/data)"
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help=help_)
    help_ = "also rank AudioSet by judge with other labels, on classes with 80 given ones (three minutes)"
    parser.add_argument("--other_labels", action="store_true", help=help_)
    options = parser.parse_args()
    audioset(options.data / "audioset_labels", options.other_labels)
    nih(options.data / "chest_xray" / "nih")


if __name__ == "__main__":
    main()
