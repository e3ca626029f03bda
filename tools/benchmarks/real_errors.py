#!/usr/bin/env python
"""Wrong labels that nobody planted: AudioSet's against five people's votes, NIH's against radiologists'.

Prints Markdown tables. AudioSet: given and out-of-fold predicted label sets of 20,371 clips, without scores; 1,229
entries of 307 clips, of which people were asked because the two differ, ranked by `mlcv.audits.judge`. NIH: how often
the labels miss what radiologists see, and the other way round; without predictions for these images nothing can be
ranked.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from mlcv.audits import judge
from mlcv.audits.votes import wilson

FINDINGS = {"Pneumothorax": {"Pneumothorax"}, "Nodule or mass": {"Nodule", "Mass"}}
"""The expert's, and the labels of NIH that mean it."""


def audioset(folder: Path) -> None:
    """Average precision of the judgement, and how many of the asked entries are wrong."""
    data = np.load(folder / "audioset_eval.npz")
    given, predicted = (np.unpackbits(data[name], axis=1)[:, :527] for name in ("given", "predicted"))
    asked = json.loads((folder / "mturk.json").read_text(encoding="utf-8"))
    place = {name: c for c, name in enumerate(_names(asked, given, predicted)) if name}
    known = (given.sum(axis=0) >= 10) & (given.sum(axis=0) < len(given) - 10)
    found = judge(np.where(predicted[:, known], 2.0, -2.0), given[:, known].astype(np.int8), other_labels=False)
    column = np.cumsum(known) - 1
    wrong, score = [], []
    for clip in asked:
        for name, votes in clip["mturk"].items():
            c = place.get(name)
            if c is None or not known[c]:
                continue
            is_there = votes >= 3
            wrong.append(is_there != bool(given[clip["id"], c]))
            score.append(found.wrong[clip["id"], column[c]])
    print("| AudioSet, entries asked | wrong | average precision of the judgement |\n|---|---|---|")
    print(f"| {len(wrong)} | {100 * np.mean(wrong):.1f} % | {average_precision_score(wrong, score):.2f} |")


def _names(asked: list[dict], given: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Class names by their columns: of each name the column that is in all clips that list it, and in few others."""
    found = [""] * given.shape[1]
    for kind, table in (("given_original_labels", given), ("our_guessed_labels", predicted)):
        clips: dict[str, list[int]] = {}
        for clip in asked:
            for name in clip[kind]:
                clips.setdefault(name, []).append(clip["id"])
        listed = np.array([clip["id"] for clip in asked])
        for name, ids in clips.items():
            likely = table[ids].all(axis=0) & ~np.array([bool(one) for one in found])
            if kind == "given_original_labels":
                likely &= table[listed].sum(axis=0) == len(ids)
            if likely.sum() == 1 and name not in found:
                found[int(np.flatnonzero(likely)[0])] = name
    return found


def nih(folder: Path) -> None:
    """Rates of missing and false labels, with 95 % intervals."""

    def rows(name: str) -> list[dict[str, str]]:
        with gzip.open(folder / name, "rt", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    given = {row["Image Index"]: set(row["Finding Labels"].split("|")) for row in rows("Data_Entry_2017_v2020.csv.gz")}
    experts = rows("google2019_nih-chest-xray-labels.csv.gz")
    columns = ["NIH, radiologists say", "images", "of those present unlabelled", "of those absent labelled"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, labels in FINDINGS.items():
        said = np.array([row[name] == "YES" for row in experts])
        labelled = np.array([bool(given[row["Image Index"]] & labels) for row in experts])
        cells = []
        for of, miss in ((said, ~labelled), (~said, labelled)):
            rate, count = miss[of].mean(), of.sum()
            low, high = wilson(np.array(rate), np.array(float(count)))
            cells.append(f"{100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
        print(f"| {name} | {len(said)} | {cells[0]} | {cells[1]} |")


def main() -> None:
    """Reads the folder of real data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with audioset_labels/ and chest_xray/nih/")
    folder = parser.parse_args().data
    audioset(folder / "audioset_labels")
    nih(folder / "chest_xray" / "nih")


if __name__ == "__main__":
    main()
