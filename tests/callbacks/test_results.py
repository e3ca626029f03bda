import csv

import pytest
import torch

from mlcv.callbacks.results import keep_earlier, print_scores, write_rows
from mlcv.metrics import multilabel_scores


def test_an_earlier_file_is_kept_under_a_number(tmp_path):
    path = tmp_path / "test.json"
    for text in ("first", "second", "third"):
        keep_earlier(path)
        path.write_text(text)
    kept = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert kept == {"test.json": "third", "test.1.json": "first", "test.2.json": "second"}


def test_rows_come_back_as_written(tmp_path):
    rows = [{"class": "a, b", "AP": 0.5}, {"class": 'c"', "AP": float("nan")}]
    write_rows(tmp_path / "t.csv", rows)
    with (tmp_path / "t.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"class": "a, b", "AP": "0.5"}, {"class": 'c"', "AP": "nan"}]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_the_worst_class_first_and_names_what_was_left_out(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    probs = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.8, 0.5], [0.3, 0.9, 0.1]])
    targets = torch.tensor([[1, 1, 1], [0, 0, 1], [0, 0, 1]])
    print_scores(multilabel_scores(probs, targets, ["easy", "hard", "always"]), "test")
    text = capsys.readouterr().out
    assert text.index("hard") < text.index("easy")
    assert "2 of 3" in text
    assert "for want of a known positive or negative: always" in text
    assert "…" not in text
