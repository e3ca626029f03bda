"""`mlcv audit --votes`: three ways of writing down who said what, and what comes of it."""

import csv

import numpy as np
import pytest

from mlcv.cli import main
from mlcv.commands.audit_votes import agree
from mlcv.data import CSVDataModule
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import write_image, write_rows

WORDS = {0: "no", 1: "maybe", 2: "yes"}


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def made(seed, images=60):
    """Truth of two classes, and answers of four people of whom the last guesses."""
    rng = np.random.default_rng(seed)
    truth = rng.random((images, 2)) < 0.4
    answers = {}
    for person, right in (("ann", 0.97), ("bob", 0.95), ("cy", 0.9), ("dee", 0.5)):
        for row, column in np.ndindex(truth.shape):
            is_right = rng.random() < right
            answers[row, column, person] = 1 if rng.random() < 0.05 else 2 * int(truth[row, column] == is_right)
    return truth, answers


def write(tmp_path, answers, layout):
    people = ["ann", "bob", "cy", "dee"]
    images = sorted({row for row, _, _ in answers})
    if layout == "an answer a row":
        rows = [[f"{row}.jpg", person, "ab"[c], WORDS[answer]] for (row, c, person), answer in answers.items()]
        return write_rows(tmp_path / "v.csv", ["image", "annotator", "class", "answer"], rows)
    if layout == "a column a class":
        rows = [[f"{row}.jpg", p, *(WORDS[answers[row, c, p]] for c in (0, 1))] for row in images for p in people]
        return write_rows(tmp_path / "v.csv", ["image", "rater", "a", "b"], rows)
    rows = [[f"{row}.jpg", *(WORDS[answers[row, 0, p]] for p in people)] for row in images]
    return write_rows(tmp_path / "a.csv", ["image", *people], rows)


@pytest.mark.parametrize("layout", ["an answer a row", "a column a class", "a column a person"])
def test_each_layout_gives_labels_and_who_is_good(tmp_path, seed, layout, capsys):
    truth, answers = made(seed)
    path = write(tmp_path, answers, layout)
    assert main(["audit", "--votes", str(path)]) == 0
    classes = ("a",) if layout == "a column a person" else ("a", "b")
    rows = read(tmp_path / "labels.csv")
    assert [row["image"] for row in rows] == [f"{row}.jpg" for row in range(60)]
    found = np.array([[row[name] for name in classes] for row in rows])
    right = found == np.where(truth[:, : len(classes)], "1", "0")
    assert right.mean() > 0.9
    table = read(tmp_path / "annotators.csv")
    assert len(table) == 4 * len(classes)
    of = {(row["annotator"], row["class"]): row for row in table}
    assert float(of["ann", "a"]["sensitivity"]) > float(of["dee", "a"]["sensitivity"])
    for row in table:
        assert int(row["votes"]) == 60
        assert float(row["specificity_low"]) <= float(row["specificity"]) <= float(row["specificity_high"])
    assert "votes on" in capsys.readouterr().out


def test_a_model_has_a_say_and_its_probabilities_are_calibrated(tmp_path, seed):
    truth, answers = made(seed)
    some = {key: answer for key, answer in answers.items() if key[2] in ("cy", "dee")}
    path = write(tmp_path, some, "an answer a row")
    logits = 6.0 * truth - 3
    rows = [[f"{row}.jpg", *(1 / (1 + np.exp(-logits[row])))] for row in range(60)]
    predictions = write_rows(tmp_path / "p.csv", ["image", "a", "b"], rows)
    with_model = agree(path, predictions, soft=True)
    alone = agree(path, out=tmp_path / "alone")
    assert (with_model.method, alone.method) == ("raykar", "dawid_skene")
    accuracy = [((one.probability > 0.5) == truth).mean() for one in (with_model, alone)]
    assert accuracy[0] > accuracy[1]
    assert 0 < float(read(tmp_path / "labels.csv")[0]["a"]) < 1
    assert agree(path, predictions, method="crowdlab", out=tmp_path / "c").probability.shape == (60, 2)


def test_labels_are_read_by_the_table_reader(tmp_path, seed):
    _, answers = made(seed, images=6)
    agree(write(tmp_path, answers, "an answer a row"), sure=0.99)
    for row in range(6):
        write_image(tmp_path / f"{row}.jpg", (8, 8), seed=row)
    data = CSVDataModule(str(tmp_path / "labels.csv"), fractions=(1.0, 0.0, 0.0), image_size=8, batch_size=1)
    assert data.class_names == ("a", "b")
    assert data.read_split("train").states.shape == (6, 2)


@pytest.mark.parametrize(
    ("header", "rows", "sentence"),
    [
        (["picture", "annotator", "a"], [["1.jpg", "x", 1]], "no column names the image"),
        (["image", "annotator", "a"], [["1.jpg", "x", "perhaps"]], "v.csv:2: column 'a' holds 'perhaps'"),
        (["image", "annotator", "a"], [["1.jpg", "", 1]], "v.csv:2: column 'annotator' is empty"),
        (["image", "annotator", "a"], [["1.jpg", "x", 1], ["1.jpg", "x", 0]], "v.csv:3: 'x' has answered that already"),
        (["image", "annotator", "a"], [["1.jpg", "x", ""]], "there is no answer in it"),
        (["image", "annotator", "a"], [["1.jpg", "x", 1], ["2.jpg", "y", 0]], "no two annotators have answered"),
    ],
)
def test_what_is_no_table_of_votes_is_told_with_its_row(tmp_path, header, rows, sentence):
    path = write_rows(tmp_path / "v.csv", header, rows)
    with pytest.raises(DataError, match=sentence):
        agree(path)
    assert not (tmp_path / "labels.csv").exists()


def test_a_method_that_needs_a_model_says_so(tmp_path, seed):
    _, answers = made(seed, images=4)
    path = write(tmp_path, answers, "an answer a row")
    with pytest.raises(ConfigError, match="needs predictions of a model"):
        agree(path, method="raykar")
    other = write_rows(tmp_path / "p.csv", ["image", "a", "b"], [["0.jpg", 0.5, 0.5]])
    with pytest.raises(DataError, match=r"no prediction for 1\.jpg, as of 3 of 4 images"):
        agree(path, other)
