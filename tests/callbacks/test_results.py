import pytest
import torch

from mlcv.callbacks.results import print_scores
from mlcv.metrics import multilabel_scores


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
    assert "P, R and F1 of probabilities above 0.5" in text


def test_of_very_many_classes_the_worst_and_the_best_are_printed_and_the_file_of_all_is_named(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    targets = torch.zeros(40, 200)
    targets[:20, :150] = 1  # 50 classes have no positive
    ranks = torch.arange(40, 0, -1)[:, None] / 41
    probs = torch.where(torch.arange(200) < 100, ranks, 1 - ranks).double()  # right, then wrong
    print_scores(multilabel_scores(probs, targets, [f"class-{c}" for c in range(200)], 0.3), "test", "run/all.csv")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.index("class-100 ") < text.index("… 125 more") < text.index("class-99 ")
    assert "all rows: run/all.csv" in text
    assert "above 0.3" in text
    assert "class-150, " in text
    assert "class-169 and 30 more" in text


def test_the_tables_fit_80_columns_with_long_names_and_large_counts(capsys, monkeypatch):
    names = ("Enlarged Cardiomediastinum", "No Finding", "a-name-of-one-word-that-is-longer-than-its-column-may-be")
    scores = multilabel_scores(torch.rand(8, 3).double(), torch.tensor([[0, 1, 0], [1, 0, 1]] * 4), names)
    rows = [{**row, "positives": 123_456, "negatives": 654_321, "unknown": 999_999} for row in scores.rows()]
    monkeypatch.setattr(type(scores), "rows", lambda _: rows)
    print_scores(scores, "test")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    words = text.split()
    assert words.count("123456") == words.count("654321") == words.count("999999") == 3
