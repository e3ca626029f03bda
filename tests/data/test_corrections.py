"""Corrected labels: what a file changes in each data set, and what is wrong with a file, in a sentence with its row."""

import logging

import numpy as np
import pytest
import torch

import mlcv
from mlcv.cli import main
from mlcv.data import CSVDataModule, DigitScenesDataModule, VOCDataModule
from mlcv.data.corrections import COLUMNS, read_corrections
from mlcv.errors import UserError
from mlcv.files import read_checkpoint, read_json, write_table
from mlcv.labels import Policy, Protocol
from mlcv.tables import printable
from tests.tiny_sets import MAKE, of_csv, write_image, write_rows, write_voc

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


@pytest.fixture
def table(tmp_path):
    return of_csv(tmp_path)


@pytest.fixture
def corrected(tmp_path, table):
    """The table's data with corrections of these rows; the image 5.jpg is in training, 12.jpg in validation."""

    def make(*rows, header=COLUMNS, **options):
        full = [[*row, "me", "2026-01-02T03:04:05Z"] if len(row) == 5 else row for row in rows]
        path = write_rows(tmp_path / "corrections.csv", header, full)
        return CSVDataModule(**{**table, **SMALL, **options}, corrections=str(path))

    return make


def states(data):
    return {split: data._read(split).states for split in ("train", "val", "test")}


def error_of(data):
    with pytest.raises(UserError) as raised:
        data.setup("fit")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_each_split_is_corrected_and_nothing_else_changes(corrected, table, caplog):
    caplog.set_level(logging.INFO)
    before = states(CSVDataModule(**table, **SMALL))
    data = corrected(
        ["images/5.jpg", "fish", "1", "0", "wrong"],
        ["images/5.jpg", "cat", "1.0", "", "wrong"],
        ["images/4.jpg", "dog", "1", "1", "right"],
        ["images/3.jpg", "dog", "0", "0", "Unsure"],
        ["images/0.jpg", "cat", "uncertain", "1", "wrong"],
        ["images/1.jpg", "dog", "", "0", "wrong"],
        ["images/12.jpg", "cat", "0", "1", "wrong"],
        ["images/15.jpg", "fish", "0", "1", "wrong"],
    )
    data.setup("fit")
    data.setup("test")
    said = [record.message for record in caplog.records if "corrections" in record.message]
    assert len(said) == 1
    assert said[0].endswith(": rows 8; changed labels: 4 of train, 1 of val, 1 of test")
    before["train"][5, 2], before["train"][5, 0], before["train"][0, 0], before["train"][1, 1] = 0, -1, 1, 0
    before["val"][0, 0], before["test"][1, 2] = 1, 1
    for split, expected in before.items():
        targets = data.datasets[split].targets.numpy()
        assert (targets == np.where(expected == -2, -1, expected)).all()
        assert (data.datasets[split].labeled.states == expected).all()
    assert [data.label_summary[split]["corrected"] for split in before] == [4, 1, 1]


def test_they_come_before_protocol_and_policy(corrected):
    rows = ["images/5.jpg", "fish", "1", "0", "wrong"], ["images/0.jpg", "cat", "uncertain", "1", "wrong"]

    def targets(*rows, **options):
        data = corrected(*rows, **options)
        data.setup("fit")
        return data.datasets["train"].targets

    plain, turned = targets(*rows), targets(*rows, protocol=Protocol(flip_negatives=1.0, flip_positives=1.0))
    known = plain >= 0
    assert plain[5, 2] == 0
    assert torch.equal(turned[known], 1 - plain[known])
    assert targets(policy=Policy("zeros"))[0, 0] == 0
    assert targets(*rows, policy=Policy("zeros"))[0, 0] == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["images/99.jpg", "cat", "1", "0", "wrong"], "'images/99.jpg' is in no split (train, val, test)"),
        (["images/5.jpg", "fisch", "1", "0", "wrong"], "no class 'fisch'; is it 'fish'?"),
        (["images/5.jpg", "x", "1", "0", "wrong"], "no class 'x'; there are cat, dog, fish"),
        (["images/5.jpg", "fish", "1", "2", "wrong"], "column 'label' holds '2'"),
        (["images/5.jpg", "fish", "absent?", "0", "wrong"], "column 'given' holds 'absent?'"),
        (["images/5.jpg", "fish", "1", "0", "maybe"], "column 'decision' holds 'maybe'; it is wrong, right, unsure"),
        (["images/5.jpg", "fish", "0", "1", "wrong"], "was 0 when somebody looked, and is 1 now: labels have changed "
         "since; it is corrected already"),
        (["images/5.jpg", "fish", "", "0", "wrong"], "was blank when somebody looked, and is 1 now: labels have "
         "changed since; look again"),
        (["images/5.jpg", "fish", "0", "0", "right"], "was 0 when somebody looked, and is 1 now"),
        (["images/5.jpg", "fish", "1", "1", "wrong"], "called wrong, and stays 1"),
        (["images/5.jpg", "fish", "1", "", "unsure"], "the decision is 'unsure', which changes nothing"),
        (["images/5.jpg", "fish", "1", "0", "right"], "the decision is 'right', which changes nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_said_with_file_and_row(corrected, row, said):
    fine = ["images/4.jpg", "dog", "1", "1", "right"]
    text = error_of(corrected(fine, row))
    assert "corrections.csv:3: " in text
    assert said in text


@pytest.mark.parametrize("other", [["1", "", "wrong"], ["1", "1", "right"], ["1", "1", "unsure"]])
def test_rows_that_contradict_each_other_are_refused_whichever_is_later(corrected, other):
    rows = [["images/5.jpg", "fish", "1", "0", "wrong"], ["root/images/5.jpg"[5:], "fish", *other]]
    for order in (rows, rows[::-1]):
        text = error_of(corrected(*order))
        assert "corrections.csv:3: " in text
        assert "corrections.csv:2; decide which" in text


def test_what_is_corrected_is_a_copy(corrected):
    data = corrected(["images/5.jpg", "fish", "1", "0", "wrong"])
    given = data.read_split("train")
    found = read_corrections(data.corrections, lambda split: given, data.class_names)
    assert found.apply("train", given).states[5, 2] == 0
    assert given.states[5, 2] == 1


def test_rows_that_agree_count_once(corrected):
    row = ["images/5.jpg", "fish", "1", "0", "wrong"]
    data = corrected(row, row)
    data.setup("fit")
    assert data.label_summary["train"]["corrected"] == 1


def test_a_file_that_is_none_is_named(corrected, table, tmp_path):
    data = CSVDataModule(**table, **SMALL, corrections=str(tmp_path / "no.csv"))
    assert f"there is no file {tmp_path / 'no.csv'}" in error_of(data)
    data = corrected(["images/5.jpg", "fish", "0"], header=("image", "class", "label"))
    assert "no column 'given'; corrections have" in error_of(data)
    path = tmp_path / "corrections.csv"
    path.write_bytes("image,class,given,label,decision\nimages/5.jpg,fi\xdfh,1,0,wrong\n".encode("latin-1"))
    assert "corrections.csv:2: byte 0xdf is no UTF-8" in error_of(corrected_by(table, path))
    path.write_text("image,class,given,label,decision\nimages/5.jpg,fish,1,0\n")
    assert "corrections.csv:2: 4 cells under a header of 5" in error_of(corrected_by(table, path))
    path.write_text("")
    assert "no column 'image'" in error_of(corrected_by(table, path))


def corrected_by(table, path):
    return CSVDataModule(**table, **SMALL, corrections=str(path))


@pytest.mark.parametrize("text", [
    "image;class;given;label;decision;who;when\nimages/5.jpg;fish;1;0;wrong;me;\n",
    "\ufeffimage,class,given,label,decision\n\nimages/5.jpg,fish,1.0,0,WRONG\n",
    "image\tclass\tgiven\tlabel\tdecision\nimages\\5.jpg\tfish\ttrue\tfalse\twrong\n",
])  # fmt: skip
def test_a_spreadsheets_file_is_read_as_meant(table, tmp_path, text):
    path = tmp_path / "corrections.csv"
    path.write_bytes(text.encode("utf-16") if text[0] != "\ufeff" else text.encode())
    data = corrected_by(table, path)
    data.setup("fit")
    assert data.datasets["train"].targets[5, 2] == 0


def test_a_file_without_decisions_changes_nothing(corrected):
    data = corrected()
    data.setup("fit")
    assert data.label_summary["train"]["corrected"] == 0


def test_an_image_is_found_by_the_end_of_its_path_wherever_its_folder_lies(corrected, table, tmp_path):
    root = f"{tmp_path.name}/images/5.jpg"
    for name in ("5.jpg", f"{tmp_path}/images/5.jpg", root, f"/elsewhere/{root}"):
        data = corrected([name, "fish", "1", "0", "wrong"])
        data.setup("fit")
        assert data.datasets["train"].targets[5, 2] == 0
    assert "in no split" in error_of(corrected(["/elsewhere/5.jpg/5.jpg", "fish", "1", "0", "wrong"]))


def test_a_name_that_may_mean_two_images_is_refused(tmp_path):
    for folder in "ab":
        write_image(tmp_path / folder / "1.jpg", seed=ord(folder))
    rows = [["a/1.jpg", "train", 1], ["b/1.jpg", "test", 1]]
    table = write_rows(tmp_path / "t.csv", ["image", "split", "cat"], rows)
    path = write_rows(tmp_path / "c.csv", [*COLUMNS, "split"], [["1.jpg", "cat", 1, 0, "wrong", "", "", ""]])
    given = {"path": str(table), "split_column": "split", "corrections": str(path), **SMALL}
    with pytest.raises(UserError, match=r"c.csv:2: which image is '1.jpg'.*Give more of its path"):
        CSVDataModule(**given)._read("train")
    write_rows(path, [*COLUMNS, "split"], [["1.jpg", "cat", 1, 0, "wrong", "", "", "test"]])
    assert CSVDataModule(**given)._read("train").states.tolist() == [[1]]
    assert CSVDataModule(**given)._read("test").states.tolist() == [[0]]


NAMES = ['a, "b".jpg', "=1+1.jpg", "'x.jpg", "жук 🐞.jpg", "two\nlines.jpg", "a  blank .jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_characters_are_found_as_files_of_predictions_write_them(tmp_path, name):
    write_image(tmp_path / name)
    cls = "=cat, 'grey'"
    table = write_rows(tmp_path / "t.csv", ["image", cls], [[name, 1]])
    for spelling in {name, printable(name), printable(tmp_path / name)}:
        path = tmp_path / "c.csv"
        path.unlink(missing_ok=True)
        write_table(path, COLUMNS, [[spelling, cls, 1, 0, "wrong", "=me", ""]])
        data = CSVDataModule(path=str(table), val_path=str(table), corrections=str(path), **SMALL)
        assert data._read("train").states.tolist() == [[0]]


def test_images_without_files_are_told_apart_by_their_split(tmp_path):
    few = {"num_train": 6, "num_val": 3, "num_test": 3, **SMALL}
    plain = DigitScenesDataModule(**few)
    given = plain.read_split("test").states[1, 4]
    header = [*COLUMNS, "split"]

    def made(split):
        row = ["image 1", "4", given, 1 - given, "wrong", "me", "", split]
        return DigitScenesDataModule(**few, corrections=str(write_rows(tmp_path / "c.csv", header, [row])))

    data = made("test")
    data.setup("fit")
    data.setup("test")
    assert data.datasets["test"].targets[1, 4] == 1 - given
    assert [data.label_summary[split]["corrected"] for split in ("train", "val", "test")] == [0, 0, 1]
    assert "Say which in a column 'split'" in error_of(made(""))
    rows = [["image 5", "4", 0, 1, "wrong", "me", "", "test"]]  # there are six in training alone
    data = DigitScenesDataModule(**few, corrections=str(write_rows(tmp_path / "c.csv", header, rows)))
    assert "'image 5' is not in the test split" in error_of(data)
    assert "column 'split' holds 'tests'" in error_of(made("tests"))


def test_rows_of_a_split_that_cannot_be_read_here_are_passed_over_and_others_not(tmp_path):
    root = write_voc(tmp_path / "voc", images=9)
    for path in (root / "VOC2007/ImageSets/Main").glob("*test.txt"):
        path.unlink()
    name = "JPEGImages/test0001.jpg"
    header = [*COLUMNS, "split"]

    def made(split):
        path = write_rows(tmp_path / "c.csv", header, [[name, "cat", 0, 1, "wrong", "me", "", split]])
        data = VOCDataModule(str(root), **SMALL, corrections=str(path))
        data.setup("fit")
        return data

    data = made("test")
    assert data.label_summary["train"]["corrected"] == 0
    assert "rows 1, 1 of them of splits that are not here; changed labels: 0 of train" in str(data._corrections)
    with pytest.raises(UserError, match=r"in no split \(train, val\)"):
        made("")


@pytest.mark.parametrize("name", sorted(MAKE))
def test_every_data_set_takes_corrections(name, tmp_path):
    given = MAKE[name](tmp_path)
    cls = getattr(mlcv.data, name)
    plain = cls(**given, **SMALL)
    splits = ("test",) if name == "ImageFilesDataModule" else ("train", "val", "test")
    rows = []
    for split in splits:
        labeled = plain._read(split)
        old = int(labeled.states[1, 2])
        new = 0 if old == 1 else 1
        cell = {-1: "", -2: "uncertain"}.get(old, old)
        rows.append([printable(labeled.name(1)), plain.class_names[2], cell, new, "wrong", "me", "", split])
    path = write_rows(tmp_path / "corrections.csv", [*COLUMNS, "split"], rows)
    data = cls(**given, **SMALL, corrections=str(path))
    for stage in ("test",) if len(splits) == 1 else ("fit", "test"):
        data.setup(stage)
    for split, row in zip(splits, rows, strict=True):
        expected = plain._read(split).states
        expected[1, 2] = row[3]
        assert (data.datasets[split].labeled.states == expected).all()
        assert data.label_summary[split]["corrected"] == 1


def test_predicting_needs_no_corrections(table, tmp_path):
    data = corrected_by(table, tmp_path / "gone.csv")
    data.setup("predict")
    assert len(data.datasets["predict"]) == 2


FIT = ["--config=digits/bce", "--data.num_train=24", "--data.num_val=8", "--data.num_test=8", "--data.image_size=32",
       "--data.batch_size=8", "--data.num_workers=0", "--trainer.max_epochs=1"]  # fmt: skip


def test_a_run_says_by_which_corrections_and_does_not_go_on_with_others(tmp_path, capsys):
    data = DigitScenesDataModule(24, 8, 8, image_size=32)
    given = {split: int(data.read_split(split).states[2, 3]) for split in ("train", "test")}
    path = tmp_path / "corrections.csv"
    header = [*COLUMNS, "split"]
    rows = [["image 2", "3", label, 1 - label, "wrong", "me", "", split] for split, label in given.items()]
    write_rows(path, header, rows)
    run = tmp_path / "run"
    option = f"--data.corrections={path}"
    assert main(["fit", *FIT, option, f"--run_dir={run}", "--test_after_fit=true"]) == 0
    last = run / "checkpoints" / "last.ckpt"
    facts = read_checkpoint(last)["trained_on"]["corrections"]
    tested = read_json(run / "test.json", "result")
    assert facts.endswith(" (1 training labels)")
    assert tested["trained_with_corrections"] == facts
    assert tested["labels"]["test"]["corrections"] == facts[:12]
    assert tested["labels"]["test"]["corrected"] == 1
    mlcv.report(run, resamples=10, out=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert f"trained with corrections {facts}, judged by labels of which 1 are corrected ({facts[:12]})" in page
    capsys.readouterr()
    write_rows(path, header, [*rows, ["image 3", "3", "0", "0", "unsure", "me", "", "test"]][::2])
    assert main(["fit", f"--ckpt_path={last}", "--more_epochs=1"]) == 2
    said = capsys.readouterr().err
    assert f"corrections: {facts}" in said
    assert main(["fit", f"--ckpt_path={last}", "--more_epochs=1", "--data.corrections=null"]) == 2
    assert "(now None)" in capsys.readouterr().err


def test_stored_features_are_trained_with_corrected_labels(tmp_path):
    options = [*FIT, *(f"--data.augment.{option}" for option in ("strength=0", "cutout=0", "flip=false"))]
    options.append("--data.augment.min_scale=1")
    mlcv.features(options, tmp_path / "features", dtype="float32")
    data = DigitScenesDataModule(24, 8, 8, image_size=32, batch_size=8, features=str(tmp_path / "features"))
    given = int(data.read_split("train").states[2, 3])
    row = ["image 2", "3", given, 1 - given, "wrong", "me", "", "train"]
    data.corrections = write_rows(tmp_path / "c.csv", [*COLUMNS, "split"], [row])
    data.setup("fit")
    batch = data.datasets["train"].__getitems__([2])
    assert batch["image"].ndim == 2
    assert batch["target"][0, 3] == 1 - given
