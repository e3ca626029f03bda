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
