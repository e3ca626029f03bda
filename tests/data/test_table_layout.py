"""What the columns of a table are taken for: generated tables, of which the truth is known."""

import numpy as np
import pytest

from mlcv.data import table_layout
from mlcv.data.csv_table import CSVDataModule
from mlcv.data.table_layout import look_at
from mlcv.errors import DataError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN
from mlcv.tables import Codes, Table
from tests.tiny_sets import write_image, write_rows

STATES = {"1": POSITIVE, "0": NEGATIVE, "": UNKNOWN, "-1": UNCERTAIN}
COLUMNS = {
    "split": lambda n, rng: rng.choice(["train", "val", "test"], n).tolist(),
    "Patient ID": lambda n, rng: [f"p{k}" for k in rng.integers(0, n // 2, n)],
    "age": lambda n, rng: rng.integers(20, 90, n).astype(str).tolist(),
    "taken": lambda n, rng: [f"2020-01-{k:02d}" for k in rng.integers(1, 29, n)],
    "comment": lambda n, rng: [f"note {k} of {n} by hand" for k in range(n)],
    "nothing": lambda n, rng: [""] * n,
}


def images(folder, count, inside="images"):
    return [write_image(folder / inside / f"{n}.jpg", (8, 8), n).relative_to(folder / inside) for n in range(count)]


def table_of(folder, header, columns):
    return Table(write_rows(folder / "t.csv", header, zip(*columns, strict=True)))


@pytest.mark.parametrize("trial", range(12))
def test_generated_tables_are_understood(tmp_path, numpy_rng, trial):
    """Any order of columns, any of the others beside them, paths from any of the usual folders."""
    rng, rows, classes = numpy_rng, 24, ["cat", "dog", "great tit"]
    paths = images(tmp_path, rows, "photos/raw" if trial % 2 else "photos")
    start = [tmp_path / "photos" / "raw", tmp_path / "photos"][trial % 2 == 0]
    given = [p if trial % 3 else (start / p).relative_to(tmp_path) for p in paths]
    codes = ["1", "0", *rng.choice(["", "-1"], rng.integers(0, 3), replace=False).tolist()] if trial % 4 else ["1", "0"]
    truth = np.array([["1", "0"], *rng.choice(codes, (rows - 2, 2)).tolist(), ["0", "1"]])
    truth = np.concatenate([truth, rng.choice(codes, (rows, 1))], axis=1)
    others = [name for name in COLUMNS if rng.random() < 0.6]
    columns = {"file": list(map(str, given)), **{name: COLUMNS[name](rows, rng) for name in others}}
    columns |= {name: truth[:, c].tolist() for c, name in enumerate(classes)}
    order = rng.permutation(list(columns)).tolist()
    layout = look_at(table_of(tmp_path, order, [columns[name] for name in order]))
    assert layout.image_column == "file"
    assert layout.found == (rows, rows)
    assert set(layout.label_columns) == set(classes)
    assert layout.split_column == ("split" if "split" in others else None)
    assert layout.group_column == ("Patient ID" if "Patient ID" in others else None)
    assert set(layout.left_out) == set(others) - {"split", "Patient ID"}
    arguments = layout.arguments(str(tmp_path / "t.csv"))
    arguments = {**arguments, "codes": Codes(**arguments.get("codes", {}))}
    if "split" not in others:
        arguments |= {"fractions": (1.0, 0.0, 0.0), "group_column": None}
        found = CSVDataModule(**arguments).read_split("train").states
        expected = [[STATES[truth[row, classes.index(name)]] for name in layout.label_columns] for row in range(rows)]
        assert found.tolist() == expected


@pytest.mark.parametrize("delimiter", ["|", ";", ", "])
def test_names_in_one_cell_are_found_with_their_delimiter(tmp_path, numpy_rng, delimiter):
    names = ["cat", "dog", "cow", "hen"]
    cells = [delimiter.join(numpy_rng.choice(names, k % 3 + 1, replace=False)) for k in range(30)]
    layout = look_at(table_of(tmp_path, ["image", "what is seen"], [images(tmp_path, 30), cells]))
    assert (layout.labels_column, layout.delimiter) == ("what is seen", delimiter.strip())
    data = CSVDataModule(**layout.arguments(str(tmp_path / "t.csv")))
    assert data.class_names == tuple(sorted(names))


def test_one_class_an_image_is_a_list_of_one(tmp_path):
    cells = ["cat", "dog"] * 10
    layout = look_at(table_of(tmp_path, ["image", "species"], [images(tmp_path, 20), cells]))
    assert layout.labels_column == "species"
    assert CSVDataModule(**layout.arguments(str(tmp_path / "t.csv"))).class_names == ("cat", "dog")


@pytest.mark.parametrize(("cells", "expected"), [
    (["1", "-1"], {"negative": ("-1",)}),
    (["1", "0", "-1"], {"uncertain": ("-1",)}),
    (["1", ""], {"blank": "negative"}),
    (["1", "0", ""], {"blank": "unknown"}),
    (["yes", "no", "nan"], {"blank": "unknown"}),
    (["1", "-1", ""], {"negative": ("-1",), "blank": "unknown"}),
])  # fmt: skip
def test_codes_mean_what_is_left_for_them(tmp_path, cells, expected):
    layout = look_at(table_of(tmp_path, ["image", "cat"], [images(tmp_path, 12), (cells * 12)[:12]]))
    for name, value in expected.items():
        assert getattr(layout, name) == value


def test_paths_of_windows_and_files_without_an_ending_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    names = []
    for n in range(4):
        write_image(tmp_path / "a" / f"{n}.jpg", (8, 8), n).rename(tmp_path / "a" / f"x{n}")
        names.append(f"a\\x{n}")
    layout = look_at(table_of(tmp_path, ["n", "image", "cat"], [["7", "8", "9", "5"], names, ["1", "0", "1", "0"]]))
    assert layout.image_column == "image"


@pytest.mark.parametrize(("header", "columns", "sentence"), [
    (["image", "cat"], [[], []], "the table has no rows"),
    (["name", "cat"], [["a", "b"], ["1", "0"]], r"no column names images; its columns are name \(a, b, .*--image_root"),
    (["image", "cat"], [["a.jpg", "b.jpg"], ["1", "0"]], r"t\.csv:2: column 'image' names 'a.jpg', .* no such file"),
])  # fmt: skip
def test_what_cannot_be_understood_is_told_with_what_was_seen(tmp_path, header, columns, sentence):
    with pytest.raises(DataError, match=sentence):
        look_at(table_of(tmp_path, header, columns))


def test_a_table_without_labels_is_told_so(tmp_path):
    table = table_of(tmp_path, ["image", "age"], [images(tmp_path, 4), ["31", "45", "62", "18"]])
    with pytest.raises(DataError, match=r"no column holds labels beside the images in 'image'; seen: age \(31, 45"):
        look_at(table)


def test_a_root_that_is_given_is_the_only_one(tmp_path):
    table = table_of(tmp_path, ["image", "cat"], [images(tmp_path, 4), ["1", "0", "1", "0"]])
    assert look_at(table, tmp_path / "images").image_root == tmp_path / "images"
    with pytest.raises(DataError, match="there is no such file in .*elsewhere"):
        look_at(table, tmp_path / "elsewhere")


@pytest.mark.parametrize(("header", "cells", "why"), [
    ("is_train", ["1", "0"], "a split by its name"), ("split", ["train", "dev"], "a split by its name"),
    ("id", ["1", "0"], "numbers rows"), ("dog", ["1", "0", "1", "0", "0", "0", "maybe not"], "1 and 0, but"),
    ("dog", ["x", ""], "holds x, ... alone"),
])  # fmt: skip
def test_columns_that_could_be_taken_for_classes_are_told(tmp_path, header, cells, why):
    rows = [images(tmp_path, 14), ["1", "0"] * 7, (cells * 14)[:14]]
    layout = look_at(table_of(tmp_path, ["image", "cat", header], rows))
    assert layout.label_columns == ("cat",)
    assert layout.left_out[header].startswith(why)


def test_columns_of_one_strange_vocabulary_are_refused(tmp_path):
    header, words = ["image", "cat", "person"], ["ja", "nein"] * 6
    with pytest.raises(DataError, match="columns cat, person all hold ja, nein, no words that are known"):
        look_at(table_of(tmp_path, header, [images(tmp_path, 12), words, words[::-1]]))


def test_a_further_column_of_words_is_no_label_where_others_share_a_vocabulary(tmp_path):
    header, words = ["image", "sex", "date", "effusion", "nodule"], ["ja", "nein", "?"] * 4
    columns = [images(tmp_path, 12), ["m", "w"] * 6, ["2024-01-02", "2024-01-03"] * 6, words, ["ja", "nein"] * 6]
    with pytest.raises(DataError, match=r"columns effusion, nodule all hold \?, ja, nein, no words that are known"):
        look_at(table_of(tmp_path, header, columns))
    named = look_at(table_of(tmp_path, [*header, "findings"], [*columns, ["a|b", "c"] * 6]))
    assert named.labels_column == "findings"  # it says so itself


def test_decimal_commas_are_no_lists(tmp_path):
    columns = [images(tmp_path, 12), ["25,8", "17,1"] * 6, ["a|b", "b"] * 6]
    assert look_at(table_of(tmp_path, ["image", "size", "tags"], columns)).labels_column == "tags"


def test_a_column_is_walked_through_once_not_once_a_cell(tmp_path, monkeypatch):
    """A comment in each of a hundred thousand rows is no reason to wait."""
    looked = []
    monkeypatch.setattr(table_layout, "_delimiter", lambda cells: looked.append(len(list(cells))) or "|")
    assert table_layout._role("comment", {f"note {n} by hand": 1 for n in range(500)}).endswith("no labels")
    assert looked == [500]


@pytest.mark.parametrize("header", [["StudyID", "PatientID"], ["PatientID", "StudyID"]])
def test_a_patient_is_kept_together_not_only_a_study(tmp_path, header):
    """Each of a patient's two studies has an image: by study, a patient's images would be in two splits."""
    cells = {"StudyID": [f"s{n}" for n in range(12)], "PatientID": [f"p{n // 2}" for n in range(12)]}
    columns = [images(tmp_path, 12), *map(cells.get, header), ["1", "0"] * 6]
    layout = look_at(table_of(tmp_path, ["image", *header, "cat"], columns))
    assert layout.group_column == "PatientID"
    assert layout.left_out == {"StudyID": "PatientID is what is kept together"}


@pytest.mark.parametrize("header", ["Patient Age", "PatientSex_DICOM", "PatientBirth", "patient_gender"])
def test_what_a_patient_is_like_keeps_nothing_together(tmp_path, header):
    columns = [images(tmp_path, 12), ["61", "62", "63", "64"] * 3, [f"p{n // 2}" for n in range(12)], ["1", "0"] * 6]
    layout = look_at(table_of(tmp_path, ["image", header, "patient", "cat"], columns))
    assert (layout.group_column, layout.label_columns) == ("patient", ("cat",))
    assert look_at(table_of(tmp_path, ["image", header, "who", "cat"], columns)).group_column is None


def test_lists_of_labels_go_before_columns_of_one_number(tmp_path):
    """As PadChest has them: beside its lists a column says 0 of each file, and another by what they were made."""
    lists = ["['cat', 'dog']", "[]", "['dog']"] * 4
    columns = [images(tmp_path, 12), ["0"] * 12, ["Physician", "RNN"] * 6, lists]
    table = table_of(tmp_path, ["ImageID", "PixelRepresentation", "MethodLabel", "Labels"], columns)
    layout = look_at(table)
    assert (layout.labels_column, layout.label_columns) == ("Labels", ())
    assert layout.left_out["PixelRepresentation"] == "the labels are taken from elsewhere"
    module = CSVDataModule(fractions=[0.5, 0.25, 0.25], **layout.arguments(str(table.path)))
    states = np.concatenate([module.read_split(split).states for split in ("train", "val", "test")])
    assert (states == POSITIVE).sum(0).tolist() == [4, 8]
    assert (states == NEGATIVE).sum(0).tolist() == [8, 4]


@pytest.mark.parametrize("cells", [["0/5", "3/5", "5/5"], [".25", "0.750", "1.000"]])
def test_soft_labels_alone_are_no_names_and_no_groups(tmp_path, cells):
    columns = [images(tmp_path, 12), cells * 4, cells * 4]
    with pytest.raises(
        DataError, match="no labels, but soft ones if label_columns names it.*soft labels, and cells in other"
    ):
        look_at(table_of(tmp_path, ["image", "cat", "person"], columns))


@pytest.mark.parametrize("ending", ["", ".", ".0", ".00"])
def test_codes_are_codes_with_any_number_of_decimals(tmp_path, ending):
    """As columns of decimals, and tables with two digits everywhere, have them."""
    cells = [f"{code}{ending}" for code in ("1", "0", "-1")] * 4
    table = table_of(tmp_path, ["image", "cat"], [images(tmp_path, 12), cells])
    layout = look_at(table)
    assert (layout.label_columns, layout.uncertain, layout.negative) == (("cat",), ("-1",), ())
    states = (
        CSVDataModule(
            **{**layout.arguments(str(table.path)), "codes": Codes(uncertain=("uncertain", *layout.uncertain))},
            fractions=[1, 0, 0],
        )
        .read_split("train")
        .states
    )
    assert np.bincount(states[:, 0] + 2).tolist() == [4, 0, 4, 4]
