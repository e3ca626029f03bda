"""The commands of docs/audit.md, as they stand there, on a small table of photographs with planted errors."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlcv.cli import main
from mlcv.commands import audit_folds, stages
from tests.tiny_sets import write_image, write_rows

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sixty images of noise, dark or bright; each tenth label is wrong."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows, decided = [], []
    for n in range(60):
        is_bright = n % 2
        write_image(tmp_path / "images" / f"{n}.jpg", (48, 48), seed=n)
        given = 1 - is_bright if n % 10 == 3 else is_bright
        rows.append([f"images/{n}.jpg", given, int(rng.integers(2)), "test" if n >= 40 else "train"])
        if given != is_bright:
            decided.append([f"images/{n}.jpg", "bright", given, is_bright, "wrong", "me", "2026-11-27T00:00:00Z"])
    write_rows(tmp_path / "my.csv", ["image", "bright", "other", "split"], rows)
    write_rows(tmp_path / "corrections.csv", ["image", "class", "given", "label", "decision", "who", "when"], decided)
    answers = [[f"images/{n}.jpg", who, n % 2, ""] for n in range(20) for who in ("me", "you")]
    write_rows(tmp_path / "votes.csv", ["image", "annotator", "bright", "other"], answers)
    data = {"path": "my.csv", "label_columns": ["bright", "other"], "split_column": "split", "val_fraction": 0.2}
    data |= {"image_size": 48, "batch_size": 8, "num_workers": 0}
    model = {"backbone": "tf_efficientnet_lite0", "weights": "installed", "freeze": ["conv_stem", "blocks"]}
    trainer = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({
        "data": {"class_path": "CSVDataModule", "init_args": data},
        "model": {"class_path": "Classifier", "init_args": model},
        "trainer": trainer, "test_after_fit": True,
    }))  # fmt: skip
    return tmp_path


@pytest.mark.slow
def test_the_page_on_audits_holds_word_by_word(folder, capsys):
    for _, *words in commands():
        assert main(words) == 0, words
    said = capsys.readouterr().out
    assert "expected to be wrong" in said
    assert "trained on given labels and on corrected labels" in said
    for name in ("entries.csv", "classes.csv", "suggestions.csv", "audit.html", "train_predictions.csv"):
        assert (folder / "runs" / "audit" / name).is_file()


def test_the_first_command_of_the_page_works(folder, monkeypatch, capsys):
    def call(*arguments):
        assert main(list(arguments)) == 0

    monkeypatch.setattr(stages, "call", call)  # in this process, which is faster
    monkeypatch.setattr(audit_folds, "call", call)
    (_, *words), *_ = commands()
    assert main([*words, "--folds", "2"]) == 0
    with (folder / "runs" / "audit" / "entries.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"train", "test"}
    assert len(rows) == 120
    assert (folder / "runs" / "audit" / "features" / "pooled.npy").is_file()
    assert "known labels" in capsys.readouterr().out
