#!/usr/bin/env python
"""HeLlO on digit scenes: a small CLIP learns another domain from a teacher, and students learn from either.

For each seed: a CLIP of the scenes of configs/digits/mini_clip.yaml; a teacher of the shifted scenes of
configs/digits/shifted.yaml; projectors of several ranks that learn from the teacher; and equal students of hard labels,
of soft labels stored once an image, of the teacher's labels and of the projectors' labels of every view.

Every run is an `mlcv fit` with a test behind it, in a process of its own; finished ones are not repeated. Prints a
table of mean and standard deviation over seeds, and writes it with a plot and all rows beside the runs.
"""

import argparse
import csv
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from compare import fit, mlcv, spread

from mlcv.commands.begun import begin
from mlcv.errors import UserError
from mlcv.files import read_checkpoint

SCENES, EPOCHS = 12000, 100
"""Training scenes, and epochs of views whose stored labels a projector is weighed against, both in float32."""
CLASSES, BYTES = 10, 4
ZERO, RANKS = "CLIP, zero-shot", (1, 4, 16)


class Seed:
    """The runs of one seed, in three steps of which each needs the one before."""

    def __init__(self, seed, options):
        self.folder, self.options = options.folder / str(seed), options
        self.seeds = [f"--seed_everything={seed}", f"--data.seed={seed}"]
        self.scenes = f"--data.num_train={options.scenes}"
        self.teacher = self.folder / "teacher" / "checkpoints" / "best.ckpt"
        self.soft = self.folder / "soft_labels.npy"

    def fit(self, name, config, *differences):
        metrics = fit(
            self.folder / name, config, [*differences, self.scenes, *self.seeds, *self.options.options],
            self.options.threads,
        )  # fmt: skip
        if metrics is None:
            sys.exit(1)
        return metrics

    def start(self):
        """Jobs of the first step."""
        return [
            lambda: self.fit("clip", "configs/digits/mini_clip.yaml"),
            lambda: self.fit("teacher", "configs/digits/shifted.yaml"),
        ]

    def projectors(self):
        """Jobs of the second step; the first stores the teacher's labels, too."""
        return [self.store, *(lambda rank=rank: self.projector(rank) for rank in (0, *RANKS))]

    def projector(self, rank):
        # Without updates scale and bias alone learn, which leaves the order of a class' scores as CLIP has it.
        zero = ["--model.lora.head_rank=0", "--model.lora.batch_statistics=false", "--trainer.max_epochs=1"]
        self.fit(
            f"projector-{rank}", "configs/digits/projector.yaml", f"--model.weights={self.folder / 'clip' / 'clip.pt'}",
            f"--model.teacher={self.teacher}", f"--model.lora.rank={rank}", *([] if rank else zero),
        )  # fmt: skip
        self.predict(f"projector-{rank}")

    def store(self):
        begin(self.soft, self.teacher)
        if not self.soft.is_file():
            said = ["--split", "train", "--predictions", self.soft, "--calibration", "none"]
            done = mlcv(self.options.threads, "predict", "--ckpt_path", self.teacher, *said)
            if done.returncode:
                sys.exit(done.stderr[-500:])
        self.predict("teacher")

    def predict(self, name):
        folder = self.folder / name
        checkpoint = folder / "checkpoints" / ("best.ckpt" if name == "teacher" else "last.ckpt")
        begin(folder / "predictions.csv", checkpoint)
        if not (folder / "predictions.csv").is_file():
            done = mlcv(self.options.threads, "predict", "--ckpt_path", checkpoint)
            if done.returncode:
                sys.exit(done.stderr[-500:])

    def students(self):
        """Jobs of the third step."""
        names = {"soft labels, stored": self.soft, "teacher, online": self.teacher}
        names |= {f"projector of rank {r}, online": self.file(r) for r in RANKS[1:]}
        jobs = [
            lambda source=source, name=name: self.fit(
                f"student-{name}", "configs/digits/student.yaml", f"--model.teacher={source}"
            )
            for name, source in names.items()
        ]
        return [lambda: self.fit("student-hard labels", "configs/digits/shifted.yaml", "--trainer.max_epochs=4"), *jobs]

    def file(self, rank):
        return self.folder / f"projector-{rank}" / "projector.safetensors"

    def rows(self):
        """What each run found: name, part, mAP (%), KL from the teacher, bytes."""
        view = BYTES * self.options.scenes * CLASSES
        teacher = read_probs(self.folder / "teacher" / "predictions.csv")
        yield row("teacher", "teacher", self.metric("teacher"), 0.0, weights_size(self.teacher))
        for rank in (0, *RANKS):
            probs = read_probs(self.folder / f"projector-{rank}" / "predictions.csv")
            name = f"projector of rank {rank}" if rank else ZERO
            kl, size = bernoulli_kl(teacher, probs), self.file(rank).stat().st_size if rank else 0
            yield row("projector", name, self.metric(f"projector-{rank}"), kl, size)
        sizes = {
            "hard labels": self.options.scenes * CLASSES // 8, "soft labels, stored": view,
            "teacher, online": weights_size(self.teacher),
            **{f"projector of rank {r}, online": self.file(r).stat().st_size for r in RANKS[1:]},
        }  # fmt: skip
        for name, size in sizes.items():
            yield row("student", name, self.metric(f"student-{name}"), None, size)

    def metric(self, name):
        return 100 * json.loads((self.folder / name / "test.json").read_text())["metrics"]["mAP"]


def weights_size(checkpoint):
    """Bytes of a checkpoint's weights, without its optimizer's."""
    return sum(tensor.nbytes for tensor in read_checkpoint(checkpoint)["state_dict"].values())


def row(part, name, mean_ap, kl, size):
    return {"part": part, "name": name, "mAP": mean_ap, "KL": kl, "bytes": size}


def read_probs(path):
    """Probabilities (N, C) of a predictions.csv."""
    with path.open(encoding="utf-8") as file:
        rows = [row[2 : 2 + CLASSES] for row in csv.reader(file)][1:]
    return np.array(rows, dtype=float).clip(1e-6, 1 - 1e-6)


def bernoulli_kl(true, said):
    """Mean over images and classes of the divergence of two Bernoulli distributions, in nats."""
    return float(np.mean(true * np.log(true / said) + (1 - true) * np.log((1 - true) / (1 - said))))


def collect(seeds):
    """Rows of the same name together: {(part, name): [row of each seed]}."""
    table = {}
    for seed in seeds:
        for found in seed.rows():
            table.setdefault((found["part"], found["name"]), []).append(found)
    return table


def write_table(path, table, scenes):
    labels = BYTES * scenes * CLASSES * EPOCHS
    lines = [
        "| part | labels from | mAP | KL from the teacher | stored | of the labels of 100 epochs |",
        "|---" * 6 + "|",
    ]
    for (part, name), rows in table.items():
        scores = [found["mAP"] for found in rows]
        kl = "" if part != "projector" else f"{statistics.mean(found['KL'] for found in rows):.3f}"
        size = rows[0]["bytes"]
        cells = f"{statistics.mean(scores):.1f} ± {spread(scores):.1f} | {kl} | {size / 1024:,.0f} KiB"
        lines.append(f"| {part} | {name} | {cells} | {100 * size / labels:.2g} % |")
    lines.append(f"| | soft labels of {EPOCHS} epochs | | | {labels / 1024:,.0f} KiB | 100 % |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def write_plot(path, table, scenes):
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("the plot needs matplotlib: pip install matplotlib")
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", width_ratios=(1, 1.2))
    labels = BYTES * scenes * CLASSES * EPOCHS / 1024
    for (part, name), rows in table.items():
        scores, size = [found["mAP"] for found in rows], rows[0]["bytes"] / 1024
        if part != "student" and size:
            style = {"fmt": "o", "color": "C3" if part == "teacher" else "C0", "capsize": 2}
            axes[0].errorbar(size, statistics.mean(scores), spread(scores), **style)
            axes[0].annotate(
                name, (size, statistics.mean(scores)), xytext=(6, -12), textcoords="offset points", fontsize=8
            )
    for place, text in ((labels, f"soft labels of\n{EPOCHS} epochs "), (labels / 100, "1 % of them ")):
        axes[0].axvline(place, color="0.5", linestyle=":")
        where = {"xycoords": axes[0].get_xaxis_transform(), "ha": "right", "va": "bottom"}
        axes[0].annotate(text, (place, 0.02), fontsize=8, color="0.4", **where)
    axes[0].set(xscale="log", xlabel="stored (KiB)", ylabel="mAP (%)", title="teacher and projectors")
    students = [(name, [found["mAP"] for found in rows]) for (part, name), rows in table.items() if part == "student"]
    for place, (_, scores) in enumerate(students[::-1]):
        axes[1].errorbar(statistics.mean(scores), place, xerr=spread(scores), fmt="o", color="C2", capsize=3)
    axes[1].set_yticks(range(len(students)), [name for name, _ in students[::-1]])
    axes[1].set(xlabel="mAP (%)", title="the same student, by where its labels come from")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=SCENES, help="training scenes (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/compare-hello"), help="of the runs")
    parser.add_argument("options", nargs="*", help="more options of `mlcv fit` for every run, behind --")
    options = parser.parse_args()
    seeds = [Seed(seed, options) for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for seed in seeds:
            for step in (seed.start, seed.projectors, seed.students):
                list(pool.map(lambda job: job(), step()))
    table = collect(seeds)
    with (options.folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["seed", "part", "name", "mAP", "KL", "bytes"])
        writer.writeheader()
        writer.writerows({"seed": n, **found} for rows in table.values() for n, found in enumerate(rows))
    write_table(options.folder / "table.md", table, options.scenes)
    write_plot(options.folder / "plot.png", table, options.scenes)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
