import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from mlcv.data import Codes, CSVDataModule
from mlcv.errors import ConfigError, DataError
from mlcv.tables import check_class_names
from tests.tiny_sets import write_csv, write_image


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path)


def module(table, **options):
    options.setdefault("codes", Codes(uncertain=("-1",)))
    return CSVDataModule(str(table), split_column="split", group_column="patient", **options)


def names_table(tmp_path, cells):
    for n in range(len(cells)):
        write_image(tmp_path / f"{n}.jpg", seed=n)
    path = tmp_path / "names.csv"
    path.write_text("file,finding\n" + "".join(f"{n}.jpg,{cell}\n" for n, cell in enumerate(cells)))
    return path


def test_columns_that_no_argument_names_are_labels(table):
    data = module(table)
    assert data.class_names == ("cat", "dog", "fish")
    assert data.read_split("train").states.tolist() == [
        [-2, 1, 0], [1, -1, 1], [0, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1],
    ]  # fmt: skip
    assert [len(data.read_split(split)) for split in ("train", "val", "test")] == [6, 2, 2]


def test_blank_cells_may_mean_negative(table):
    data = module(table, codes=Codes(uncertain=("-1",), blank="negative"))
    assert data.read_split("train").states[1, 1] == 0


def test_gzipped_tables_read_the_same(table, tmp_path):
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    assert (module(packed).read_split("train").states == module(table).read_split("train").states).all()


def test_a_cell_outside_the_codes_is_named_by_line_and_column(table):
    table.write_text(table.read_text().replace("train,-1", "train,-3"))
    with pytest.raises(DataError, match=r"table.csv:2: column 'cat' holds '-3', no word for positive \('1', 'true'"):
        module(table, codes=Codes()).read_split("train")


def test_names_in_one_cell_are_split_and_no_finding_is_no_class(tmp_path):
    path = names_table(tmp_path, ["A|B", "No Finding", "B", "", "A| C "])
    data = CSVDataModule(str(path), labels_column="finding", fractions=(1, 0, 0))
    assert data.class_names == ("A", "B", "C")
    expected = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [-1, -1, -1], [1, 0, 1]]
    assert data.read_split("train").states.tolist() == expected


def test_an_unknown_class_is_named_by_line(tmp_path):
    path = names_table(tmp_path, ["A|B", "Z"])
    data = CSVDataModule(str(path), labels_column="finding", classes=["A", "B"], fractions=(1, 0, 0))
    with pytest.raises(DataError, match=r"names.csv:3: unknown class 'Z'"):
        data.read_split("train")


def test_drawn_splits_keep_groups_together_and_cover_all(tmp_path):
    path = write_csv(tmp_path, images=40)
    data = CSVDataModule(str(path), group_column="patient", label_columns=["fish"], fractions=(0.5, 0.25, 0.25), seed=4)
    rows = {split: {Path(p).name for p in data.read_split(split).images} for split in ("train", "val", "test")}
    assert sum(map(len, rows.values())) == 40
    assert len(set.union(*rows.values())) == 40
    patients = [{int(name.split(".")[0]) // 2 for name in names} for names in rows.values()]
    assert len(set.union(*patients)) == 20
    assert [len(p) for p in patients] == [10, 5, 5]


def test_a_patient_in_two_splits_is_an_error(table):
    table.write_text(table.read_text().replace("p4,test", "p0,test"))
    with pytest.raises(DataError, match=r"patient 'p0' is in the training and the test split .*table.csv:10"):
        module(table).setup("test")


def test_splits_may_be_files(table, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("".join(table.read_text().splitlines(keepends=True)[:4]))
    data = CSVDataModule(str(table), label_columns=["dog", "fish"], val_path=str(other), codes=Codes(uncertain=("-1",)))
    assert [len(data.read_split(split)) for split in ("train", "val", "test")] == [10, 3, 3]


def test_a_missing_image_is_named_with_its_line(table):
    (table.parent / "images" / "3.jpg").unlink()
    with pytest.raises(DataError, match=r"table.csv:5: no image .*3.jpg; data.image_root"):
        module(table).read_split("train")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"label_columns": ["bird"]}, "no column 'bird'; its columns are image, patient"),
        ({"image_column": "file"}, "no column 'file'"),
        ({"label_columns": ["cat"], "labels_column": "dog"}, "exclude each other"),
        ({"fractions": (0.5, 0.1, 0.1)}, "three parts of 1"),
        ({"codes": Codes(positive=("1",), uncertain=("1",))}, "two meanings"),
    ],
)
def test_impossible_options_are_refused(table, options, problem):
    with pytest.raises(ConfigError, match=problem):
        module(table, **options).read_split("train")


def test_a_missing_empty_or_ragged_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no table .*nowhere.csv"):
        CSVDataModule(str(tmp_path / "nowhere.csv"))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        CSVDataModule(str(empty))
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("image,cat\na.jpg,1\nb.jpg,1,0\n")
    with pytest.raises(DataError, match=r"ragged.csv:3: 3 cells under a header of 2"):
        CSVDataModule(str(ragged)).read_split("train")


def test_a_wrong_split_name_is_named_by_line(table):
    table.write_text(table.read_text().replace("p4,test", "p4,holdout"))
    with pytest.raises(DataError, match=r"table.csv:10: column 'split' holds 'holdout'"):
        module(table).read_split("train")


def test_the_real_nih_table_has_its_counts(shared_data):
    path = shared_data / "chest_xray" / "nih" / "Data_Entry_2017_v2020.csv.gz"
    data = CSVDataModule(str(path), labels_column="Finding Labels", fractions=(1, 0, 0), on_error="skip")
    states = data.read_split("train").states
    assert states.shape == (112120, 14)
    assert np.count_nonzero(~(states == 1).any(axis=1)) == 60361  # "No Finding"
    assert (states == 1).sum(axis=0)[data.class_names.index("Infiltration")] == 19894


def small(tmp_path, text, images=("images/a.jpg", "images/b.jpg", "images/c.jpg"), encoding="utf-8", **options):
    """The training split of a table with this content, all of whose rows train."""
    for n, name in enumerate(images):
        write_image(tmp_path / name, seed=n)
    path = tmp_path / "small.csv"
    path.write_bytes(text.encode(encoding))
    data = CSVDataModule(str(path), fractions=(1, 0, 0), **options)
    return data, data.read_split("train")


@pytest.mark.parametrize(
    "text",
    [
        "image,cat,dog\nimages/a.jpg,1,0\nimages/b.jpg,,1\n",
        "image;cat;dog\nimages/a.jpg;1;0\nimages/b.jpg;;1\n",
        "image\tcat\tdog\nimages/a.jpg\t1\t0\nimages/b.jpg\t\t1\n",
        "image|cat|dog\nimages/a.jpg|1|0\nimages/b.jpg||1\n",
        "image, cat, dog\nimages/a.jpg, 1, 0\n images/b.jpg , , 1\n",
        "image,cat,dog,\nimages/a.jpg,1,0,\nimages/b.jpg,,1,\n",
        ",image,cat,dog\n0,images/a.jpg,1,0\n1,images/b.jpg,,1\n",
        "image,cat,dog\rimages/a.jpg,1,0\r\rimages/b.jpg,,1\r",
        "image,cat,dog\n\nimages\\a.jpg,yes,No\n\n./images//b.jpg,NaN,TRUE\n\n",
        '"image","cat","dog"\n"images/a.jpg","1.0","0.0"\n"images/./b.jpg","?","1."\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_other_programs_have_the_same_labels(tmp_path, text, encoding):
    data, labeled = small(tmp_path, text, encoding=encoding)
    assert data.class_names == ("cat", "dog")
    assert labeled.states.tolist() == [[1, 0], [-1, 1]]
    assert [str(image) for image in labeled.images] == [f"{tmp_path}/images/{name}.jpg" for name in "ab"]


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        # a wrong separator
        (
            "image;size, cm;cat\nimages/a.jpg;1,5;1\n",
            {},
            r"small.csv: are its cells divided by a comma or by a semicolon",
        ),
        ("image,cat\nimages/a.jpg,1\n", {"separator": ";"}, "there is no label column beside 'image,cat'"),
        # no header
        (
            "images/a.jpg,1,0\nimages/b.jpg,0,1\n",
            {},
            r"small.csv:1: images/a.jpg, 1, 0 are cells, not names of columns",
        ),
        ("nowhere/z.PNG,yes,no\nimages/b.jpg,no,yes\n", {}, "are cells, not names of columns"),
        ("7,1,0\n8,0,1\n", {}, "7, 1, 0 are cells, not names of columns"),
        ("images/a.jpg,1,1\nimages/b.jpg,0,1\n", {}, r"two columns are called '1'.*first line of column names"),
        ("", {}, "small.csv: the file is empty"),
        # columns of something else
        (
            "image,age,cat\nimages/a.jpg,34,1\n",
            {},
            r"small.csv:2: column 'age' holds '34'.*name those that do in data.label_columns",
        ),
        ("image,cat\nimages/a.jpg,1.3\n", {}, r"column 'cat' holds '1.3'.*data.codes"),
        ("image,cat\nimages/a.jpg,2\n", {}, r"column 'cat' holds '2'.*data.codes"),
        ("image,cat\nimages/a.jpg,\"['A', 'B']\"\n", {}, r"data.labels_column"),
        # names
        (
            "image,Cat,cat\nimages/a.jpg,1,0\n",
            {},
            r"small.csv \(data.label_columns\): the class names 'Cat' and 'cat' differ",
        ),
        ("image,cat,index\nimages/a.jpg,1,0\n", {}, "the class name 'index' is what a column of another meaning"),
        ("image,cat,truth:cat\nimages/a.jpg,1,0\n", {}, "starts with 'truth:'"),
        ("image,a|b\nimages/a.jpg,1\n", {"separator": ","}, "holds '|'"),
        ("image,,cat\nimages/a.jpg,1,0\n", {}, "column 2 has no name, but line 2 holds '1'"),
        (
            "image,labels\nimages/a.jpg,Cat|dog\nimages/b.jpg,cat\n",
            {"labels_column": "labels"},
            "'Cat' and 'cat' differ",
        ),
        (
            "image,labels\nimages/a.jpg,cat dog\nimages/b.jpg,cat  dog\n",
            {"labels_column": "labels"},
            "differ in case or blanks",
        ),
        (
            "image,labels\nimages/a.jpg,A;B\nimages/b.jpg,B\n",
            {"labels_column": "labels"},
            r"small.csv:2: column 'labels' holds 'A;B', and no cell holds '\|'.*--data.delimiter ';'",
        ),
        (
            "image,labels\nimages/a.jpg,None\n",
            {"labels_column": "labels"},
            r"small.csv:2: column 'labels' holds 'None', which may mean.*--data.no_finding None",
        ),
        (
            "image,labels\nimages/a.jpg,\"['A' 'B']\"\n",
            {"labels_column": "labels"},
            r"small.csv:2: .* no list that can be read",
        ),
        ('image,labels\nimages/a.jpg,"[A, B]"\n', {"labels_column": "labels"}, "no list that can be read"),
        # images
        ("image,cat\nhttps://x.org/a.jpg,1\n", {}, r"small.csv:2: 'https://x.org/a.jpg' is a URL"),
        ("image,cat\nC:\\\\x\\\\a.jpg,1\n", {}, "is a path of another computer"),
        ("image,cat\nimages/a.jpg,1\n,0\n", {}, "small.csv:3: names no image"),
        # several rows an image
        (
            "patientId,x,y,width,height,Target\nimages/a.jpg,1,1,2,2,1\nimages/a.jpg,5,5,2,2,1\n",
            {"label_columns": ["Target"]},
            r"small.csv:3: a table with a row for each box \(images/a.jpg is in .*small.csv:2, too\)",
        ),
        (
            "image_id,class_name,x_min,y_min,x_max,y_max\nimages/a.jpg,dog,1,1,2,2\n",
            {},
            "small.csv:2: a table with a row for each box, and one row an image is needed",
        ),
        (
            "ImageID,Source,LabelName,Confidence\nimages/a.jpg,h,/m/1,1\nimages/a.jpg,h,/m/2,0\n",
            {},
            "small.csv:3: a table with a row for each annotation",
        ),
        (
            "image,label\nimages/a.jpg,cat\nimages/a.jpg,dog\n",
            {"labels_column": "label"},
            "a table with a row for each annotation",
        ),
    ],
)
def test_what_would_become_nonsense_is_refused_with_its_place(tmp_path, text, options, problem):
    with pytest.raises((DataError, ConfigError), match=problem):
        small(tmp_path, text, **options)


@pytest.mark.parametrize(
    ("cells", "options", "states"),
    [
        (["['A', 'B']", "['B']", "[]"], {}, [[1, 1], [0, 1], [0, 0]]),
        (['["A", "B"]', "['', ' B ']", "['A',]"], {}, [[1, 1], [0, 1], [1, 0]]),
        (["A|B", "no finding", "NaN"], {}, [[1, 1], [0, 0], [-1, -1]]),
        (["A|B", "NO  FINDING", "?"], {"codes": Codes(blank="negative")}, [[1, 1], [0, 0], [-1, -1]]),
        (["A|B", "none", "NA"], {"no_finding": "none", "codes": Codes(blank="negative")}, [[1, 1], [0, 0], [0, 0]]),
        (["A;B", "B", "null"], {"delimiter": ";"}, [[1, 1], [0, 1], [-1, -1]]),
    ],
)
def test_lists_of_names_are_read_as_meant(tmp_path, cells, options, states):
    text = "image\tlabels\n" + "".join(f"images/{name}.jpg\t{cell}\n" for name, cell in zip("abc", cells, strict=True))
    data, labeled = small(tmp_path, text, labels_column="labels", separator="\t", **options)
    assert data.class_names == ("A", "B")
    assert labeled.states.tolist() == states


def test_names_that_hold_a_sign_or_a_word_for_nothing_are_classes_if_they_are_named(tmp_path):
    text = 'image,labels\nimages/a.jpg,"lung, left"\nimages/b.jpg,NA\nimages/c.jpg,"lung, right"\n'
    classes = ["NA", "lung, left", "lung, right"]
    _, labeled = small(tmp_path, text, labels_column="labels", classes=classes)
    assert labeled.states.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(DataError, match=r"if ',' divides the names, give --data.delimiter ','.*data.classes"):
        small(tmp_path, text, labels_column="labels")


def test_lists_of_any_names_come_back_from_either_way_of_writing_them(tmp_path, numpy_rng):
    letters = [*"abcXYZ 019'\"\\,;[](){}", "\u00e9"]
    images = [f"images/{n}.jpg" for n in range(12)]
    for name in images:
        write_image(tmp_path / name)
    checked = 0
    for _ in range(60):
        names = {"".join(numpy_rng.choice(letters, size=5)).strip() for _ in range(4)}
        try:
            check_class_names(sorted(names), "generated")
        except DataError:
            continue
        names = sorted(name for name in names if not (name.startswith("[") and name.endswith("]")))
        present = numpy_rng.random((12, len(names))) < 0.5
        for join in ("|".join, repr, lambda chosen: json.dumps(chosen, ensure_ascii=False)):
            path = tmp_path / "lists.csv"
            with path.open("w", newline="", encoding="utf-8") as file:
                rows = (
                    [name, join([n for n, p in zip(names, row, strict=True) if p])]
                    for name, row in zip(images, present, strict=True)
                )
                csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["image", "labels"], *rows])
            data = CSVDataModule(str(path), labels_column="labels", classes=names, fractions=(1, 0, 0), separator=",")
            found = data.read_split("train").states
            said = present.any(axis=1) | (join != "|".join)  # a blank cell says nothing
            assert (found == np.where(said[:, None], present, -1)).all()
            checked += 1
    assert checked > 60


def test_a_file_whose_name_has_a_backslash_or_blank_is_found_by_it(tmp_path):
    names = ("images/a\\b.jpg", "images/c.jpg ")
    write_image(tmp_path / "images" / "x.jpg")
    for name in names:
        (tmp_path / name).hardlink_to(tmp_path / "images" / "x.jpg")
    _, labeled = small(tmp_path, '"image",cat\nimages/a\\b.jpg,1\n"images/c.jpg ",0\n', images=())
    assert [str(image) for image in labeled.images] == [f"{tmp_path}/{name}" for name in names]


def test_an_empty_split_is_named_with_its_table(table):
    table.write_text(table.read_text().replace("val", "train").replace("test", "train"))
    with pytest.raises(DataError, match="table.csv: no row is in the val split by column 'split'"):
        module(table).read_split("val")
