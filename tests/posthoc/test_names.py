"""Names that are markup, formulas or commands elsewhere reach every table and figure as they are."""

import csv
import html
import re

import numpy as np
import pytest

from mlcv.callbacks.results import print_scores
from mlcv.cli import main
from mlcv.metrics import multilabel_scores
from mlcv.posthoc.predictions import Predicted, read_predictions, write_predictions
from mlcv.posthoc.truth import read_truth

HOSTILE = (
    "$\\frac{a$", "cost in $ or $$", "[red]cat[/red]", "[/]", ":smile:", "_hidden", "=1+1", "+x", "-y", "@cmd",
    "'=quoted", "<script>alert(1)</script>", "a & b", "back\\slash", 'quote"d', "{{ 7 * 7 }}", "50 %", "é 漢",
    "#c^2_3~",
)  # fmt: skip


@pytest.fixture
def files(tmp_path, numpy_rng):
    """Two files of predictions with truth, of images and classes with hostile names."""
    paths = []
    targets = np.random.default_rng(0).integers(0, 2, (60, len(HOSTILE)))
    for name in ("_one", "$two$"):
        probs = (0.6 * targets + 0.4 * numpy_rng.random(targets.shape)).clip(0, 1)
        rows = [
            Predicted(n, f"{HOSTILE[n % len(HOSTILE)]} {n}", p, [v > 0.5 for v in p], t)
            for n, (p, t) in enumerate(zip(probs.tolist(), targets.tolist(), strict=True))
        ]
        paths.append(tmp_path / f"{name}.csv")
        write_predictions(paths[-1], HOSTILE, rows, "0123456789ab")
    return paths, targets


def test_predictions_come_back_and_no_cell_is_a_formula(files):
    (path, _), targets = files
    with path.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(re.match(r"[=+@\t\r]|-[^0-9.]", cell) for cell in cells)
    model = read_predictions(path, HOSTILE)
    assert model.ids == tuple(f"{HOSTILE[n % len(HOSTILE)]} {n}" for n in range(60))
    assert model.class_names == HOSTILE
    assert model.model == "0123456789ab"
    assert read_truth(path, HOSTILE).targets.tolist() == targets.tolist()


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # which fonts there are is the machine's affair
def test_every_command_shows_names_as_they_are(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "4000")
    paths, _ = files
    both = list(map(str, paths))
    assert main(["evaluate", *both, "--resamples", "2", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in HOSTILE)
    assert main(["calibrate", both[0], "--out", str(tmp_path / "c.json")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in HOSTILE)
    assert main(["report", *both, "--resamples", "2", "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    table = re.search(r'<table class="sortable">.*?</table>', page, re.DOTALL)[0]
    figures = html.unescape("".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL)))
    for name in HOSTILE:
        assert str(html.escape(name).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) in table
        assert name in figures
    assert "_one" in figures  # in the legend
    assert "<script>alert" not in page.replace("&lt;", "")


def test_the_table_of_a_run_shows_names_as_they_are(capsys, monkeypatch, numpy_rng):
    import torch

    monkeypatch.setenv("COLUMNS", "4000")
    targets = torch.from_numpy(numpy_rng.integers(0, 2, (50, len(HOSTILE))))
    print_scores(multilabel_scores(torch.rand(50, len(HOSTILE)), targets, HOSTILE), "[b]title")
    said = capsys.readouterr().out
    assert all(name in said for name in (*HOSTILE, "[b]title"))
