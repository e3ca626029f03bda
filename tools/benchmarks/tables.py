#!/usr/bin/env python
"""What `mlcv` makes of tables of labels and predictions, against polars' and pandas' own reading of the same file.

Generated files of the size of CheXpert's training split: a table of labels (to label states, images and patients; and
to states alone), one of predictions with their truth, as `mlcv test` writes it (to scores and targets), and CheXpert's
own `train.csv.gz` (to its whole split, each path understood). Of the size of OpenImages a table with a row a label, and
of NIH's names in one cell (to whole splits of `CSVDataModule`). Each reading runs in a process of its own, in turn; the
least of several is shown. Time is of the processor, of all threads; it and the peak of memory are counted from after
the imports on.
"""

import argparse
import csv
import gzip
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FRAME = """
import json, re, sys, time
from pathlib import Path
{imports}
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
path, before, start = Path(sys.argv[1]), peak(), time.process_time()
{code}
print(json.dumps([time.process_time() - start, peak() - before]))
"""
POLARS = "import polars", "table = polars.read_csv(path)"
PANDAS = "import pandas", "table = pandas.read_csv(path)"
OURS = {
    "labels": (
        "import polars\nfrom mlcv.tables import Codes, Table, column_states",
        """
table = Table(path)
states = column_states(table, table.names[2:], Codes(uncertain=("-1",)))
images, patients = table.column("image"), table.column("patient")
""",
    ),
    "states": (
        "import polars\nfrom mlcv.tables import Codes, Table, column_states",
        """
table = Table(path)
states = column_states(table, table.names[2:], Codes(uncertain=("-1",)))
""",
    ),
    "predictions": (
        """
import polars
from mlcv.posthoc.columns import common_classes
from mlcv.posthoc.predictions import read_predictions
from mlcv.posthoc.truth import read_truth
from mlcv.tables import read_once
""",
        """
with read_once():
    names = common_classes([path])
    truth, predictions = read_truth(path, names), read_predictions(path, names)
""",
    ),
    "chexpert": (
        "import polars\nfrom mlcv.data import CheXpertDataModule",
        'labeled = CheXpertDataModule(str(path.parent), on_error="skip").read_split("train")',
    ),
}
ANY = """
labeled = CSVDataModule(str(path), fractions=(1, 0, 0), on_error="skip", {options}).read_split("train")
"""
OURS |= {
    "long": (
        "import polars\nfrom mlcv.data import CSVDataModule, Long",
        ANY.format(options='long=Long("LabelName", confidence_column="Confidence", source_column="Source")'),
    ),
    "names": ("import polars\nfrom mlcv.data import CSVDataModule", ANY.format(options='labels_column="labels"')),
}
STATES = ["1.0", "0.0", "-1.0", ""]
RATES = [0.13, 0.04, 0.05, 0.78]
"""How often CheXpert's cells are these."""


def write(path: Path, header: list[str], rows, packed: bool = False) -> Path:
    with gzip.open(path, "wt", newline="") if packed else path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def generate(folder: Path, count: int, classes: int) -> dict[str, Path]:
    from mlcv.data.chexpert import OBSERVATIONS

    rng = np.random.default_rng(0)
    patients = [f"patient{n // 4:05d}" for n in range(count)]
    images = [
        f"CheXpert-v1.0-small/train/{patient}/study{n % 4 + 1}/view1_frontal.jpg" for n, patient in enumerate(patients)
    ]
    names = [f"class {c}" for c in range(classes)]
    states = rng.choice(STATES, (count, max(classes, len(OBSERVATIONS))), p=RATES).tolist()
    scores = rng.random((count, classes))
    truth = [f"truth:{name}" for name in names]
    rows = enumerate(zip(images, patients, scores, states, strict=True))
    return {
        "labels": write(
            folder / "labels.csv",
            ["image", "patient", *names],
            ([image, patient, *row[:classes]] for image, patient, row in zip(images, patients, states, strict=True)),
        ),
        "predictions": write(
            folder / "predictions.csv",
            ["index", "image", "group", *names, *truth, "model", "rows"],
            (
                [n, image, patient, *score.tolist(), *(cell[:-2] for cell in row[:classes]), "0123456789abcdef", count]
                for n, (image, patient, score, row) in rows
            ),
        ),
        "chexpert": write(
            folder / "train.csv.gz",
            ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS],
            (
                [image, "FM"[n % 3 == 0], n // 4 % 73 + 18, "Frontal", "AP", *row[: len(OBSERVATIONS)]]
                for n, (image, row) in enumerate(zip(images, states, strict=True))
            ),
            packed=True,
        ),
    }


def generate_long(path: Path, count: int) -> Path:
    """About six rows an image of 600 classes, as in OpenImages' human-verified labels."""
    import polars

    rng = np.random.default_rng(0)
    images = polars.Series([f"{n:016x}" for n in range(count * 1_695_270 // 10_000_000 + 1)])
    labels = rng.integers(600, size=count)
    classes = polars.Series([f"/m/{n:05x}" for n in range(600)])
    polars.DataFrame({
        "ImageID": images.gather(np.sort(rng.integers(len(images), size=count))),
        "Source": polars.Series(["verification", "crowdsource-verification"]).gather(rng.integers(2, size=count)),
        "LabelName": classes.gather(labels),
        "Confidence": polars.Series(labels % 2),  # by the class, so that no two rows contradict each other
    }).write_csv(path)  # fmt: skip
    return path


def generate_names(path: Path, count: int) -> Path:
    """One to four of 14 names an image, in one order, as programs write them."""
    rng = np.random.default_rng(0)
    names = [f"finding {n}" for n in range(14)]
    rows = (
        [f"{n:08d}.png", "|".join(names[k] for k in np.sort(rng.choice(14, rng.integers(1, 5), False)))]
        for n in range(count)
    )
    return write(path, ["image", "labels"], rows)


def measure(reading: tuple[str, str], path: Path) -> tuple[float, float]:
    """Seconds and MiB."""
    imports, code = reading
    command = [sys.executable, "-c", FRAME.format(imports=imports, code=code), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, size = json.loads(done.stdout.splitlines()[-1])
    return seconds, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=224_000)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--long_rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5, help="of each reading, in turn (default: 5)")
    options = parser.parse_args()
    peers = {name: peer for name, peer in (("polars", POLARS), ("pandas", PANDAS)) if importlib.util.find_spec(name)}
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder), options.rows, options.classes)
        made["states"] = made["labels"]
        made["names"] = generate_names(Path(folder, "names.csv"), 200_000)
        made["long"] = generate_long(Path(folder, "long.csv"), options.long_rows)
        for name, path in made.items():
            path.read_bytes()  # the same start for all: the file is in the page cache
            readings = {**peers, "mlcv": OURS[name]}
            runs = [[measure(reading, path) for reading in readings.values()] for _ in range(options.runs)]
            least = np.array(runs).min(axis=0)
            print(f"{name}: {path.stat().st_size / 2**20:.1f} MiB")
            for reading, (seconds, size) in zip(readings, least, strict=True):
                to_polars, to_its_size = (least[-1] / (seconds, size)).tolist()
                ratio = (
                    ""
                    if reading == "mlcv"
                    else f"   mlcv takes {to_polars:.2f} of its time, {to_its_size:.2f} of its memory"
                )
                print(f"  {reading:<7} {seconds:6.3f} s {size:6.0f} MiB{ratio}")


if __name__ == "__main__":
    main()
