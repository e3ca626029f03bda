#!/usr/bin/env python
"""How ChestX-ray14's labels, mined from reports, differ from what experts see in the same images.

The expert table is that of Majkowska et al. (Radiology 2020), four findings of 4,376 images, and holds the mined labels
too. Prints a row a finding: prevalence in both, how often the mined label misses a finding that the experts see, how
often it names one that they do not, and Cohen's kappa.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import cohen_kappa_score

from mlcv.data.nih import FINDINGS, read_findings
from mlcv.errors import DataError, UserError
from mlcv.labels.states import POSITIVE
from mlcv.tables import Codes, Table, column_states

SAME = {
    "Pneumothorax": ("Pneumothorax",),
    "Nodule or mass": ("Nodule", "Mass"),
    "Airspace opacity": ("Infiltration", "Consolidation", "Pneumonia", "Edema"),
}
"""Each expert finding, and the mined ones of which any means it; the last is wider than its mined names."""


def compare(mined, expert):
    """Prevalence of both, rates of missed and of false findings, kappa: booleans (M,)."""
    missed, false = (expert & ~mined).sum() / expert.sum(), (mined & ~expert).sum() / (~expert).sum()
    return mined.mean(), expert.mean(), missed, false, cohen_kappa_score(expert, mined)


def run(path, split):
    table = Table(path)
    rows = np.arange(len(table))
    if split is not None:
        rows = np.flatnonzero(np.array(table.column("Set Id")) == split)
    if not len(rows):
        raise DataError(
            f"{path}: no row of the set {split!r}; its sets are {', '.join(sorted(set(table.column('Set Id'))))}"
        )
    mined = read_findings(table)[rows] == POSITIVE
    expert = column_states(table, list(SAME), Codes(positive=("YES",), negative=("NO",)))[rows] == POSITIVE
    print(f"{len(rows)} images of {len({table.column('Patient ID')[row] for row in rows})} patients\n")
    print("| finding (mined labels) | mined | experts | missed by the mined label | named without need | kappa |")
    print("|---" * 6 + "|")
    for c, (name, parts) in enumerate(SAME.items()):
        any_of = mined[:, [FINDINGS.index(part) for part in parts]].any(axis=1)
        *rates, kappa = compare(any_of, expert[:, c])
        cells = " | ".join(f"{100 * rate:.1f} %" for rate in rates)
        print(f"| {name} ({', '.join(parts)}) | {cells} | {kappa:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="google2019_nih-chest-xray-labels.csv or .csv.gz")
    parser.add_argument("--set", help="only rows of this Set Id: val or test")
    options = parser.parse_args()
    try:
        run(options.table, options.set)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
