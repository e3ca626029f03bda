"""`mlcv audit --votes`: tables of answers in each layout, the files it writes, and what is refused."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from mlcv.commands.audit import main
from mlcv.commands.votes_file import VotesFile, read_votes
from mlcv.data import CSVDataModule
from mlcv.errors import ConfigError, DataError
from mlcv.tables import Codes

LONG = "image,rater,cat,dog\na.png,ann,1,0\na.png,bob,1,\na.png,cy,0,0\nb.png,ann,0,maybe\nb.png,bob,0,1\n"
LONGER = (
    "image,class,rater_id,answer\na.png,cat,ann,yes\na.png,dog,ann,no\na.png,cat,bob,yes\na.png,cat,cy,no\n"
    "a.png,dog,cy,no\nb.png,cat,ann,no\nb.png,dog,ann,unsure\nb.png,cat,bob,no\nb.png,dog,bob,yes\n"
)
WIDE = "image,class,ann,bob,cy\na.png,cat,1,1,0\na.png,dog,0,,0\nb.png,cat,0,0,\nb.png,dog,-1,1,\n"
EACH = {
    "ann": "image,cat,dog\na.png,1,0\nb.png,0,-1\n",
    "bob": "image,cat,dog\na.png,1,\nb.png,0,1\n",
    "cy": "image,cat,dog\na.png,0,0\nb.png,,\n",
}
SAID = {
    ("a.png", "cat", "ann", 2), ("a.png", "dog", "ann", 0), ("a.png", "cat", "bob", 2), ("a.png", "cat", "cy", 0),
    ("a.png", "dog", "cy", 0), ("b.png", "cat", "ann", 0), ("b.png", "dog", "ann", 1), ("b.png", "cat", "bob", 0),
    ("b.png", "dog", "bob", 2),
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def to(text, name="votes.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return to


def said(answers):
    votes = answers.votes
    return {
        (answers.images[answers.image[item]], answers.class_names[answers.column[item]], answers.annotators[who], what)
        for item, who, what in zip(votes.item, votes.annotator, votes.answer, strict=True)
    }


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("text", [LONG, LONGER, WIDE])
def test_each_layout_says_the_same(text, write):
    assert said(read_votes(VotesFile((write(text),)))) == SAID


def test_a_file_each_says_the_same(write):
    assert said(read_votes(VotesFile(tuple(write(text, f"{who}.csv") for who, text in EACH.items())))) == SAID


def test_an_annotator_a_column_without_classes_is_one_class(write):
    path = write("image,ann,bob\na.png,1,1\nb.png,0,1\n")
    assert read_votes(VotesFile((path,))).class_names == ["label"]
    assert read_votes(VotesFile((path,), classes=("cat",))).class_names == ["cat"]


@pytest.mark.parametrize("text", [LONG, LONGER, WIDE])
def test_classes_that_are_asked_for_are_read_alone(text, write):
    found = read_votes(VotesFile((write(text),), classes=("dog",)))
    assert said(found) == {one for one in SAID if one[1] == "dog"}


def test_unusual_headers_are_named(write):
    lines = [line.split(",") for line in LONGER.splitlines()[1:]]
    path = write("\n".join(["who,picture,what,is_there", *(f"{who},{a},{b},{cell}" for a, b, who, cell in lines)]))
    assert said(read_votes(VotesFile((path,), "picture", "who", "what", "is_there"))) == SAID


def test_what_was_understood_is_said(write, caplog):
    with caplog.at_level(logging.INFO):
        read_votes(VotesFile((write(LONG),)))
    assert "images in 'image', annotators in 'rater', a class a column (cat, dog)" in caplog.text


def test_numbers_from_no_to_yes_are_read_as_they_are_said_to_be(write):
    path = write("image,rater,cat\na.png,ann,2\na.png,bob,1\na.png,cy,0\n")
    with pytest.raises(DataError, match=r"votes\.csv:2: .*'2'.*--positive"):
        read_votes(VotesFile((path,)))
    found = read_votes(VotesFile((path,), codes=Codes(positive=("2",), uncertain=("1",))))
    assert said(found) == {("a.png", "cat", "ann", 2), ("a.png", "cat", "bob", 1), ("a.png", "cat", "cy", 0)}


def test_who_says_nothing_is_left_out_with_a_warning(write, caplog):
    found = read_votes(VotesFile((write("image,ann,bob,cy\na.png,1,1,\nb.png,0,1,\n"),)))
    assert found.annotators == ["ann", "bob"]
    assert "no answer of cy" in caplog.text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LONG + "a.png,ann,1,1\n", r"votes\.csv:7: .*in .*votes\.csv:2 already"),
        (LONG + "b.png,bob,1,1\na.png,ann,1,1\n", r"votes\.csv:7: .*in .*votes\.csv:6 already"),
        (LONG + "c.png,ann,perhaps,1\n", r"votes\.csv:7: column 'cat' holds 'perhaps'"),
        (LONG + "c.png,,1,1\n", r"votes\.csv:7: column 'rater' is blank"),
        (LONG + ",ann,1,1\n", r"votes\.csv:7: column 'image' is blank"),
        ("image,rater,cat\na.png,ann,\n", "nobody has answered"),
        ("image,rater,cat\n", "no row"),
        ("image,rater\na.png,ann\n", "no column of answers"),
        ("image,rater,class,this,that\na.png,ann,cat,1,1\n", "--answer"),
    ],
)
def test_bad_tables_are_refused_in_a_sentence(text, sentence, write):
    with pytest.raises(DataError, match=sentence):
        read_votes(VotesFile((write(text),)))


@pytest.mark.parametrize("option", ["image", "annotator", "class_column", "answer"])
def test_a_column_that_is_not_there_is_named(option, write):
    with pytest.raises(DataError, match=r"no column 'nobody'"):
        read_votes(VotesFile((write(LONGER),), **{option: "nobody"}))


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("image,rater,cat\na.png,ann,1\nb.png,ann,0\n", [], "no two annotators"),
        ("image,rater,cat\na.png,ann,1\nb.png,bob,0\n", [], "no two annotators"),
        (LONG, ["--method", "raykar"], "--predictions"),
        (LONG, ["--sure", "0.3"], "--sure"),
        (LONG, ["--trainer.max_epochs", "3"], "trains nothing"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(text, options, sentence, write, tmp_path):
    with pytest.raises((ConfigError, DataError), match=sentence):
        main(["--votes", str(write(text)), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out" / "labels.csv").exists()


def many(numpy_rng, images=40):
    """A long table of three annotators who are right nine times in ten, predictions, and the truth."""
    truth = numpy_rng.random((images, 2)) < 0.4
    lines = ["image,rater,cat,dog"]
    for who in ("ann", "bob", "cy"):
        right = numpy_rng.random(truth.shape) < 0.9
        given = np.where(right, truth, ~truth).astype(int)
        lines += [f"{row}.png,{who},{cat},{dog}" for row, (cat, dog) in enumerate(given)]
    probs = np.where(truth, 0.8, 0.1) + numpy_rng.uniform(-0.05, 0.05, truth.shape)
    predictions = ["image,cat,dog", *(f"{row}.png,{cat},{dog}" for row, (cat, dog) in enumerate(probs))]
    return "\n".join(lines) + "\n", "\n".join(predictions) + "\n", truth


@pytest.mark.parametrize("method", ["", "dawid_skene", "majority", "crowdlab"])
def test_labels_and_annotators_are_written(method, write, tmp_path, numpy_rng, capsys):
    votes, predictions, truth = many(numpy_rng)
    out = tmp_path / "out"
    options = ["--method", method] if method else []
    if method in ("", "crowdlab"):
        options += ["--predictions", str(write(predictions, "predictions.csv"))]
    main(["--votes", str(write(votes)), "--out", str(out), *options])
    labels = np.array([[row["cat"], row["dog"]] for row in rows(out / "labels.csv")])
    assert (labels == truth.astype(int).astype(str)).mean() > 0.85
    people = rows(out / "annotators.csv")
    assert {row["annotator"] for row in people} == {"ann", "bob", "cy"}
    # 40 votes a class are too few for rates of their own; crowdlab knows no others.
    assert {row["class"] for row in people} == ({"cat", "dog"} if method == "crowdlab" else {"all"})
    for row in people:
        for what in ("sensitivity", "specificity"):
            low, rate, high = (float(row[what + end]) for end in ("_low", "", "_high"))
            assert 0 <= low <= rate <= high <= 1
    printed = capsys.readouterr().out
    assert "240 answers of 3 people on 80 labels of 40 images" in printed
    assert (method or "raykar") in printed


def test_rates_are_of_each_class_where_that_is_asked_for(write, tmp_path, numpy_rng):
    main(["--votes", str(write(many(numpy_rng)[0])), "--out", str(tmp_path / "out"), "--rates_of", "classes"])
    assert [row["class"] for row in rows(tmp_path / "out" / "annotators.csv")] == ["cat"] * 3 + ["dog"] * 3


def test_unasked_and_undecided_labels_are_blank(write, tmp_path):
    text = "image,rater,cat,dog\na.png,ann,1,\na.png,bob,0,\nb.png,ann,1,1\nb.png,bob,1,0\n"
    main(["--votes", str(write(text)), "--out", str(tmp_path / "out"), "--method", "majority"])
    found = [[row["cat"], row["dog"]] for row in rows(tmp_path / "out" / "labels.csv")]
    assert found == [["", ""], ["1", ""]]
    found = [[row["cat"], row["dog"]] for row in rows(tmp_path / "out" / "probabilities.csv")]
    assert found == [["0.5", ""], ["1", "0.5"]]
    main(["--votes", str(tmp_path / "votes.csv"), "--out", str(tmp_path / "soft"), "--method", "majority", "--soft"])
    found = [[row["cat"], row["dog"]] for row in rows(tmp_path / "soft" / "labels.csv")]
    assert found == [["0.5", ""], ["1", "0.5"]]


def test_predictions_of_an_image_are_missed(write, tmp_path, numpy_rng):
    votes, predictions, _ = many(numpy_rng)
    short = write(predictions.replace("7.png", "x.png"), "predictions.csv")
    with pytest.raises(DataError, match=r"no predictions for 7\.png"):
        main(["--votes", str(write(votes)), "--out", str(tmp_path / "out"), "--predictions", str(short)])


def test_classes_without_predictions_are_left_out(write, tmp_path, numpy_rng, caplog):
    votes, predictions, _ = many(numpy_rng)
    other = write(predictions.replace("dog", "cow"), "predictions.csv")
    main(["--votes", str(write(votes)), "--out", str(tmp_path / "out"), "--predictions", str(other)])
    assert list(rows(tmp_path / "out" / "labels.csv")[0]) == ["image", "cat"]
    assert "no predictions for dog" in caplog.text


def test_soft_labels_are_what_a_training_learns_from(write, tmp_path, numpy_rng):
    votes, _, _ = many(numpy_rng)
    out = tmp_path / "out"
    main(["--votes", str(write(votes)), "--out", str(out), "--soft"])
    for row in range(41):
        (tmp_path / f"{row}.png").touch()
    empty = str(write("image,cat,dog\n40.png,1,0\n", "val.csv"))
    header, *lines = (out / "labels.csv").read_text().splitlines()
    (out / "labels.csv").write_text("\n".join([header, *lines[::-1]]))  # sorted by somebody
    data = CSVDataModule(str(out / "labels.csv"), str(tmp_path), val_path=empty, test_path=empty, num_workers=0)
    labeled = data.read_split("train")
    told = {row["image"]: [float(row["cat"]), float(row["dog"])] for row in rows(out / "probabilities.csv")}
    p = np.array([told[Path(path).name] for path in labeled.images])
    is_soft = ~np.isnan(labeled.soft)
    np.testing.assert_array_equal(is_soft, np.abs(p - 0.5) < 0.49)
    assert is_soft.any()
    np.testing.assert_allclose(labeled.soft[is_soft], p[is_soft])
    np.testing.assert_array_equal(labeled.states[~is_soft], np.round(p)[~is_soft])
    data.image_size = 32
    data.setup("fit")
    targets = data.datasets["train"].targets
    np.testing.assert_allclose(np.asarray(targets)[is_soft], p[is_soft], rtol=1e-6)


def test_soft_labels_are_no_fewer_where_a_label_must_be_surer(write, tmp_path, numpy_rng):
    votes, _, _ = many(numpy_rng)
    main(["--votes", str(write(votes)), "--out", str(tmp_path), "--soft", "--sure", "0.9999"])
    found, told = rows(tmp_path / "labels.csv"), rows(tmp_path / "probabilities.csv")
    between = 0
    for one, other in zip(found, told, strict=True):
        for name in ("cat", "dog"):
            assert (one[name] == "") == (other[name] == "")
            between += one[name] == other[name] and not 0.01 < float(other[name]) < 0.99
    assert between


def test_names_that_a_spreadsheet_would_run_are_names_to_a_training(write, tmp_path):
    text = "image,rater,=odd\n-1.png,ann,1\n-1.png,bob,1\n@a.png,ann,0\n@a.png,bob,0\n"
    main(["--votes", str(write(text)), "--out", str(tmp_path), "--method", "majority"])
    for name in ("-1.png", "@a.png"):
        (tmp_path / name).touch()
    data = CSVDataModule(str(tmp_path / "labels.csv"), fractions=(1, 0, 0))
    assert data.class_names == ("=odd",)
    assert sorted(Path(path).name for path in data.read_split("train").images) == ["-1.png", "@a.png"]


def test_crowdlab_says_whom_it_drops(write, tmp_path, numpy_rng, caplog):
    truth = np.arange(200) < 6
    lines = ["image,rater,cat"]
    for who in ("ann", "bob", "cy"):
        given = np.where(numpy_rng.random(200) < 0.88, truth, ~truth).astype(int)
        lines += [f"{row}.png,{who},{cat}" for row, cat in enumerate(given)]
    predictions = "\n".join(["image,cat", *(f"{row}.png,{0.9 if cat else 0.1}" for row, cat in enumerate(truth))])
    main([
        "--votes", str(write("\n".join(lines))), "--predictions", str(write(predictions, "p.csv")), "--out",
        str(tmp_path / "out"), "--method", "crowdlab",
    ])  # fmt: skip
    assert "no weight to everybody on cat" in caplog.text


@pytest.mark.parametrize("method", ["dawid_skene", "majority", "raykar", "crowdlab"])
@pytest.mark.parametrize("silent", ["a", "z"])
def test_a_class_without_any_answer_stays_blank(method, silent, write, tmp_path, numpy_rng):
    truth = numpy_rng.random(60) < 0.4
    classes = ["a", "m"] if silent == "a" else ["m", "z"]
    lines = [
        f"{n},{who},{name},{int(y ^ (numpy_rng.random() < 0.1)) if name == 'm' else ''}"
        for n, y in enumerate(truth) for name in classes for who in ("ann", "bob", "cy")
    ]  # fmt: skip
    votes = write("\n".join(["image,annotator,class,answer", *lines]))
    scores = [f"{n},{0.3 + 0.4 * y},{0.3 + 0.4 * y}" for n, y in enumerate(truth)]
    predicted = write("\n".join([f"image,{','.join(classes)}", *scores]), "p.csv")
    model = ["--predictions", str(predicted)] if method in ("raykar", "crowdlab") else []
    main(["--votes", str(votes), "--method", method, "--rates_of", "classes", "--out", str(tmp_path), *model])
    found = rows(tmp_path / "labels.csv")
    assert {row[silent] for row in found} == {""}
    assert np.mean([row["m"] == str(int(y)) for row, y in zip(found, truth, strict=True)]) > 0.9
    assert {row["class"] for row in rows(tmp_path / "annotators.csv")} == {"m"}


def test_who_answers_too_little_to_be_judged_is_told_of(write, tmp_path, caplog):
    for votes, is_told in ((2, True), (20, False)):
        lines = [f"{n},p{k}-{n // votes},{n % 3 == 0:d}" for n in range(60) for k in (0, 1)]
        path = write("\n".join(["image,annotator,cat", *lines]))
        caplog.clear()
        main(["--votes", str(path), "--out", str(tmp_path)])
        assert ("too few to tell how good each of them is" in caplog.text) == is_told


def test_what_is_not_sure_enough_is_never_rounded_to_a_sure_label(write, tmp_path, numpy_rng):
    text = "image,rater,cat,dog\n" + "".join(f"{n}.png,r{k},{n % 2},{n % 2}\n" for n in range(40) for k in range(2))
    main(["--votes", str(write(text)), "--out", str(tmp_path), "--soft", "--sure", "0.9999999"])
    cells = [float(row[name]) for row in rows(tmp_path / "labels.csv") for name in ("cat", "dog")]
    told = [float(row[name]) for row in rows(tmp_path / "probabilities.csv") for name in ("cat", "dog")]
    assert {round(p) for p in told if min(p, 1 - p) < 1e-4} == {0, 1}
    assert set(cells) <= {0.0001, 0.9999}
