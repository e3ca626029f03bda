#!/usr/bin/env python
"""What several people say together, on real votes: reassessed ImageNet (85 people) and CheXpert's radiologists.

Prints Markdown tables. ImageNet: agreement of Dawid-Skene with the released scores, and accuracy and AUROC on the
pairs that five experts judged, from five of the 78 people's votes drawn twenty times. CheXpert: three radiologists and
the mean of ten models' predictions against the majority of five others, AUROC for each task.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from mlcv.audits.annotators import calibrated, dawid_skene, majority, raykar
from mlcv.audits.crowdlab import crowdlab
from mlcv.audits.votes import YES, Votes
from mlcv.posthoc.predictions import read_predictions
from mlcv.tables import read_table

TASKS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")


def imagenet(folder: Path) -> None:
    """Agreement with the released scores, and what five votes a pair are worth."""
    data = np.load(folder / "annotators" / "reassessed_imagenet.npz")
    people = int(max(data["vote_rater"].max(), data["gold_rater"].max())) + 1
    votes = Votes(data["vote_pair"], data["vote_rater"], data["vote_answer"], len(data["score"]), people)
    start = time.process_time()
    found = dawid_skene(votes)
    seconds = time.process_time() - start
    agree = ((found.probability > 0.5) == (data["score"] > 0.5)).mean()
    print(f"Dawid-Skene on {len(votes.item):,} votes: {seconds:.1f} s, agrees with the released scores on "
          f"{100 * agree:.2f} % of pairs\n")  # fmt: skip
    pairs = len(data["gold_pair_image"])
    experts = np.bincount(data["gold_expert_item"], data["gold_expert_answer"] / 2, pairs) / 5
    truth = experts > 0.5
    rng = np.random.default_rng(0)
    rows: dict[str, list[tuple[float, float]]] = {"vote": [], "Dawid-Skene": []}
    for _ in range(20):
        order = rng.permutation(len(data["gold_rater"]))
        item, answer, who = (data[f"gold_rater{end}"][order] for end in ("_item", "_answer", ""))
        first = np.argsort(item, kind="stable")
        rank = np.arange(len(item)) - np.searchsorted(item[first], item[first])
        chosen = first[rank < 5]
        gold = Votes(item[chosen], who[chosen], answer[chosen], pairs, people)
        for name, one in (("vote", majority(gold)), ("Dawid-Skene", dawid_skene(gold))):
            p = one.probability
            rows[name].append((((p > 0.5) == truth).mean(), roc_auc_score(truth, p)))
    print("| five votes a pair, 20 draws | accuracy | AUROC |\n|---|---|---|")
    for name, values in rows.items():
        mean, sd = np.mean(values, axis=0), np.std(values, axis=0)
        print(f"| {name} | {mean[0]:.3f} ± {sd[0]:.3f} | {mean[1]:.3f} ± {sd[1]:.3f} |")


def chexpert(folder: Path) -> None:
    """Three readers and a model against the majority of five others."""
    root = folder / "chest_xray" / "chexpert_test"

    def labels(path: Path) -> tuple[list[str], np.ndarray]:
        table = read_table(path)
        cells = [[float(cell) for cell in table.column(name)] for name in TASKS]
        return list(table.column("Study")), np.array(cells).T

    studies, truth = labels(root / "groundtruth.csv")

    def aligned(path: Path) -> np.ndarray:
        names, found = labels(path)
        place = {name: row for row, name in enumerate(names)}
        return found[[place[name] for name in studies]]

    readers = np.stack(
        [aligned(path) for path in sorted((root / "radiologists" / "benchmark_radiologists").glob("*.csv"))]
    )
    scores = []
    for path in sorted((root / "example_models" / "predictions" / "standard").glob("*.csv")):
        model = read_predictions(path, TASKS)
        place = {name: row for row, name in enumerate(model.ids)}
        scores.append(logit(np.clip(model.scores.numpy()[[place[name] for name in studies]], 1e-6, 1 - 1e-6)))
    logits = np.mean(scores, axis=0)
    columns = ["AUROC", "three radiologists' vote", "Dawid-Skene", "Raykar's form", "CROWDLAB", "ten models"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for c, name in enumerate(TASKS):
        who, item = np.divmod(np.arange(readers[:, :, c].size), len(studies))
        votes = Votes(item, who, np.where(readers[:, :, c].ravel() > 0.5, YES, 0), len(studies), len(readers))
        prior = calibrated(logits[:, c], votes.share)
        found = [majority(votes), dawid_skene(votes), raykar(votes, prior), crowdlab(votes, prior)]
        values = [roc_auc_score(truth[:, c], one.probability) for one in found]
        values.append(roc_auc_score(truth[:, c], logits[:, c]))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def main() -> None:
    """Reads the folder of real data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with annotators/ and chest_xray/")
    folder = parser.parse_args().data
    imagenet(folder)
    chexpert(folder)


if __name__ == "__main__":
    main()
