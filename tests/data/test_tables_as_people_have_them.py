"""A case a way in which people keep labels: a small made input, and the labels that it means."""

import gzip
import json
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest

from mlcv.data import Codes, CSVDataModule
from mlcv.data.several_rows import Long
from mlcv.data.splits import check_once, order_as_texts
from mlcv.errors import ConfigError, DataError
from mlcv.labels import Policy, Protocol
from tests.tiny_sets import write_image

PRESENT, ABSENT, UNSAID, MAYBE = 1, 0, -1, -2
NAMES = ("a", "b", "c")


def images(folder, names=NAMES):
    for n, name in enumerate(names):
        write_image(folder / f"{name}.jpg", seed=n)


def read(folder, content, name="table.csv", split="train", names=NAMES, **options):
    """Names, labels by image, and soft labels by image of a table with this content."""
    images(folder, names)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options.setdefault("fractions", (1, 0, 0))
    data = CSVDataModule(str(path), **options)
    return said(data, split)


def said(data, split="train"):
    labeled = data.read_split(split)
    states = {Path(image).stem: row.tolist() for image, row in zip(labeled.images, labeled.states, strict=True)}
    soft = {}
    if labeled.soft is not None:
        assert labeled.soft.dtype == np.float32
        assert (labeled.states[~np.isnan(labeled.soft)] == MAYBE).all()
        for image, row in zip(labeled.images, labeled.soft, strict=True):
            soft[Path(image).stem] = [None if np.isnan(value) else round(float(value), 4) for value in row]
    return data.class_names, states, soft


# ---- cells


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ("1 1.0 1. +1 true True yes Y y present POSITIVE pos 5/5 1e0", PRESENT),
        ("0 0.0 -0 false no N n absent Negative neg 0/5", ABSENT),
        ("uncertain Uncertain", MAYBE),
        ("unmentioned Unmentioned unknown ?", UNSAID),
        ("nan NaN NA N/A None null <NA> #N/A", UNSAID),
    ],
)
def test_every_spelling_has_its_state(tmp_path, cells, state):
    cells = cells.split()
    names = [f"i{n}" for n in range(len(cells))]
    text = "image,cat\n" + "".join(f"{name}.jpg,{cell}\n" for name, cell in zip(names, cells, strict=True))
    _, states, soft = read(tmp_path, text, names=names)
    assert set(map(tuple, states.values())) == {(state,)}
    assert not soft


@pytest.mark.parametrize(
    ("fractions", "states", "values"),
    [
        ("soft", [MAYBE, MAYBE, MAYBE, PRESENT], [0.3, 0.6, 0.5, None]),
        ("majority", [ABSENT, PRESENT, MAYBE, PRESENT], None),
        ("unknown", [UNSAID, UNSAID, UNSAID, PRESENT], None),
    ],
)
def test_probabilities_and_counts_are_soft_labels_or_what_is_said(tmp_path, fractions, states, values):
    text = "image,cat\na.jpg,0.3\nb.jpg,3/5\nc.jpg, 2 / 4 \nd.jpg,1.0\n"
    _, found, soft = read(tmp_path, text, names="abcd", codes=Codes(fractions=fractions))
    assert [found[name][0] for name in "abcd"] == states
    assert [soft[name][0] for name in "abcd"] == values if values else not soft


@pytest.mark.parametrize("cell", ["1.2", "5/3", "3/0", "-0.5", "34", "1/", "half"])
def test_numbers_that_are_no_labels_are_refused_with_row_and_column(tmp_path, cell):
    with pytest.raises(DataError, match=r"table.csv:3: column 'cat' holds .*label_columns"):
        read(tmp_path, f'image,cat\na.jpg,1\nb.jpg,"{cell}"\n')


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        (["1", "-1", "1"], ABSENT),  # CelebA's attributes
        (["1.0", "-1.0", "0.0", ""], MAYBE),  # CheXpert's
        (["1", "-1", "nan", "0"], MAYBE),
    ],
)
def test_minus_one_is_understood_where_other_cells_leave_one_reading_and_the_log_says_so(
    tmp_path, caplog, cells, state
):
    names = [f"i{n}" for n in range(len(cells))]
    text = "image,cat\n" + "".join(f"{name}.jpg,{cell}\n" for name, cell in zip(names, cells, strict=True))
    caplog.set_level("INFO")
    _, states, _ = read(tmp_path, text, names=names)
    assert states["i1"] == [state]
    assert f"-1 is taken for {'absent' if state == ABSENT else 'uncertain'}" in caplog.text


@pytest.mark.parametrize("cells", [["1", "-1", "0"], ["1", "-1", ""], ["-1", "0", ""], ["0.5", "-1"], ["-1", "-1"]])
def test_minus_one_is_refused_where_it_may_be_either(tmp_path, cells):
    names = [f"i{n}" for n in range(len(cells))]
    text = "image,cat\n" + "".join(f"{name}.jpg,{cell}\n" for name, cell in zip(names, cells, strict=True))
    with pytest.raises(DataError, match=r"table.csv:\d: column 'cat' holds '-1'.*absent \(CelebA\), uncertain"):
        read(tmp_path, text, names=names)
    assert read(tmp_path, text, names=names, codes=Codes(unknown=("-1",)))[1][names[cells.index("-1")]] == [UNSAID]


def test_minus_one_is_understood_by_the_training_table_where_the_others_are_not_here(tmp_path):
    images(tmp_path)
    (tmp_path / "t.csv").write_text("image,cat\na.jpg,1\nb.jpg,-1\n")
    data = CSVDataModule(str(tmp_path / "t.csv"), val_path=str(tmp_path / "elsewhere.csv"))
    assert said(data)[1] == {"a": [PRESENT], "b": [ABSENT]}


def test_soft_labels_are_targets_of_training_and_judge_nobody(tmp_path):
    text = "image,split,cat,dog\na.jpg,train,0.25,1\nb.jpg,train,uncertain,\nc.jpg,val,0.25,0\n"
    images(tmp_path)
    (tmp_path / "t.csv").write_text(text)
    options = {"split_column": "split", "image_size": 16, "batch_size": 1, "num_workers": 0}
    data = CSVDataModule(str(tmp_path / "t.csv"), policy=Policy(uncertain="ones"), **options)
    data.setup("fit")
    assert data.datasets["train"].targets.tolist() == [[0.25, 1], [1, -1]]
    assert data.datasets["val"].targets.tolist() == [[-1, 0]]
    hidden = CSVDataModule(str(tmp_path / "t.csv"), protocol=Protocol(image_fraction=1e-9), **options)
    hidden.setup("fit")
    assert (hidden.datasets["train"].targets == -1).all()  # a protocol hides soft labels like others


def test_other_soft_labels_are_other_labels_and_hard_ones_have_the_fingerprint_that_they_had(tmp_path):
    def fingerprint(cell):
        images(tmp_path)
        path = tmp_path / "t.csv"
        path.write_text(f"image,split,cat\na.jpg,train,{cell}\nb.jpg,train,1\nc.jpg,val,0\n")
        data = CSVDataModule(str(path), split_column="split", image_size=16, batch_size=1, num_workers=0)
        data.setup("fit")
        return data.label_summary["train"]["fingerprint"]

    assert fingerprint("0.25") == fingerprint("1/4")
    assert len({fingerprint(cell) for cell in ("0.25", "0.5", "uncertain", "1", "0")}) == 5
    from mlcv.labels import fingerprint as of_states

    assert fingerprint("0") == of_states(np.array([[0], [1]], np.int8))


# ---- formats

ROWS = [["a.jpg", "0002", 1, 0], ["b.jpg", "0003", None, 1], ["c.jpg", "0002", 0, 0]]
HEADER = ["image", "patient", "cat", "dog"]
WIDE = {"a": [PRESENT, ABSENT], "b": [UNSAID, PRESENT], "c": [ABSENT, ABSENT]}


def delimited(sign="\t", end="\n", mark=b""):
    lines = [HEADER, *([str("" if cell is None else cell) for cell in row] for row in ROWS)]
    return mark + "".join(sign.join(line) + end for line in lines).encode()


def json_lines():
    records = [{k: v for k, v in zip(HEADER, row, strict=True) if v is not None} for row in ROWS]
    return "\n\n".join(map(json.dumps, records)).encode()


def parquet():
    import io

    import polars as pl

    frame = pl.DataFrame(ROWS, schema=HEADER, orient="row").with_columns(pl.col("dog").cast(pl.Boolean))
    buffer = io.BytesIO()
    frame.with_columns(pl.col("cat").cast(pl.Float64)).write_parquet(buffer)
    return buffer.getvalue()


def excel(rows, other_sheet=False):
    """The least that is a workbook of Excel."""
    import io

    def cell(value):
        if value is None:
            return "<c/>"
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    of = "http://schemas.openxmlformats.org"
    body = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    sheet = f"<worksheet {space}><sheetData>{body}</sheetData></worksheet>"
    names = ["one", "two"]
    kinds = "".join(
        f'<Override PartName="/xl/worksheets/{n}.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
        for n in names
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{of}/package/2006/content-types">'
        '<Override PartName="/xl/workbook.xml" ContentType='
        f'"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>{kinds}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{of}/package/2006/relationships"><Relationship Id="r" Type='
        f'"{of}/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {space} xmlns:r="{of}/officeDocument/2006/relationships"><sheets>'
        + "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"/>' for i, n in enumerate(names, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{of}/package/2006/relationships">'
        + "".join(
            f'<Relationship Id="r{i}" Type="{of}/officeDocument/2006/relationships/worksheet" '
            f'Target="worksheets/{n}.xml"/>'
            for i, n in enumerate(names, 1)
        )
        + "</Relationships>",
        "xl/worksheets/one.xml": sheet,
        "xl/worksheets/two.xml": sheet if other_sheet else f"<worksheet {space}><sheetData/></worksheet>",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, text in parts.items():
            packed.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", lambda: delimited("\t")),
        ("t.csv", lambda: delimited(";")),
        ("t.txt", lambda: delimited("|")),
        ("t.csv", lambda: delimited(",", "\r\n", b"\xef\xbb\xbf")),
        ("t.csv.gz", lambda: gzip.compress(delimited(","))),
        ("t.jsonl", json_lines),
        ("t.ndjson.gz", lambda: gzip.compress(json_lines())),
        ("t.json", lambda: b"[" + b",".join(json_lines().split(b"\n\n")) + b"]"),
        ("t.parquet", parquet),
        ("t.PQ", parquet),
        ("t.xlsx", lambda: excel([HEADER, [], *ROWS])),
    ],
)
def test_every_format_says_the_same(tmp_path, name, content):
    if name.endswith("xlsx"):
        pytest.importorskip("python_calamine")
    classes, states, _ = read(tmp_path, content(), name, group_column="patient")
    assert classes == ("cat", "dog")
    assert states == WIDE
    data = CSVDataModule(str(tmp_path / name), group_column="patient", fractions=(1, 0, 0))
    assert data.read_split("train").about["patient"].tolist() == ["0002", "0003", "0002"]  # zeros are no number's


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.jsonl", b'{"image": "a.jpg", "cat": 1}\n{"image": "b.jpg", "cat"\n', r"t.jsonl:2: no JSON"),
        ("t.jsonl", b'{"image": "a.jpg", "cat": 1}\n[1]\n', r"t.jsonl:2: \[1\] is no object"),
        ("t.jsonl", b'{"image": "a.jpg", "cat": 1, "cat": 0}\n', r"t.jsonl:1: 'cat' is there twice"),
        ("t.jsonl", b'{"image": "a.jpg", "cat": {"x": 1}}\n', r"t.jsonl:1: 'cat' holds an object"),
        ("t.jsonl", b'{"image": "a.jpg", "cat": 1}\n{"image": "b.jpg", "cat": 7}\n', r"t.jsonl:2: column 'cat' holds"),
        ("t.jsonl", b"", "the file is empty"),
        ("t.parquet", b"PAR1 not really", r"t.parquet: the table cannot be read"),
        ("t.xlsx", b"PK\3\4 not really", r"t.xlsx: the table cannot be read"),
        ("t.xlsx", excel([HEADER, *ROWS], other_sheet=True), r"t.xlsx: sheets one, two have cells"),
        ("t.xlsx", excel([HEADER, ROWS[0], ["b.jpg", "1", 7, 1]]), r"t.xlsx:3: column 'cat' holds '7'"),
    ],
)
def test_damaged_files_of_other_formats_are_named_with_their_row(tmp_path, name, content, problem):
    if name.endswith("xlsx"):
        pytest.importorskip("python_calamine")
    with pytest.raises(DataError, match=problem):
        read(tmp_path, content, name, group_column="patient" if name.endswith("xlsx") else None)


def test_a_workbook_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ConfigError, match=r"t.xlsx: .*pip install 'mlcv\[excel\]'"):
        read(tmp_path, b"PK", "t.xlsx")


@pytest.mark.parametrize("outer", ["", "train/"])
def test_a_folder_of_folders_names_the_classes_on_the_way(tmp_path, outer):
    for n, name in enumerate(["animal/dog/1.jpg", "animal/cat/2.PNG", "car/3.jpg", ".hidden/4.jpg"]):
        write_image(tmp_path / "set" / f"{outer}{name}", seed=n)
    (tmp_path / "set" / "notes.txt").write_text("no image")
    if outer:
        write_image(tmp_path / "set" / "val" / "car" / "9.jpg", seed=9)
    data = CSVDataModule(str(tmp_path / "set"), fractions=(1, 0, 0))
    classes, states, _ = said(data)
    assert classes == ("animal", "car", "cat", "dog")
    assert states == {"1": [1, 0, 0, 1], "2": [1, 0, 1, 0], "3": [0, 1, 0, 0]}
    if outer:
        assert said(data, "val")[1] == {"9": [0, 1, 0, 0]}


def test_an_image_in_the_folders_of_two_classes_has_what_its_policy_says(tmp_path):
    write_image(tmp_path / "cat" / "1.jpg", seed=1)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.jpg").hardlink_to(tmp_path / "cat" / "1.jpg")
    write_image(tmp_path / "dog" / "2.jpg", seed=2)
    data = CSVDataModule(str(tmp_path), fractions=(0.5, 0.5, 0), image_size=16, batch_size=1)
    with pytest.raises(DataError, match=r"1.jpg is (in|there twice)"):
        data.setup("fit")
    assert said(CSVDataModule(str(tmp_path), fractions=(1, 0, 0), duplicates="unknown"))[1]["1"] == [UNSAID, UNSAID]


def test_an_image_in_no_classs_folder_is_refused(tmp_path):
    write_image(tmp_path / "cat" / "1.jpg")
    write_image(tmp_path / "2.jpg")
    with pytest.raises(DataError, match="2.jpg: an image that is in no class's folder"):
        CSVDataModule(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder without images"):
        CSVDataModule(str(tmp_path / "empty"))


def test_linked_folders_are_classes_and_no_link_leads_around(tmp_path):
    write_image(tmp_path / "set" / "cat" / "1.jpg")
    write_image(tmp_path / "elsewhere" / "2.jpg", seed=2)
    (tmp_path / "set" / "bird").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    classes, states, _ = said(CSVDataModule(str(tmp_path / "set"), fractions=(1, 0, 0)))
    assert classes == ("bird", "cat")
    assert states == {"1": [0, 1], "2": [1, 0]}
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path / "set", target_is_directory=True)
    with pytest.raises(DataError, match=r"up: a link to a folder that it is in"):
        CSVDataModule(str(tmp_path / "set"))


def test_a_folder_beside_splits_makes_no_classes_of_them(tmp_path):
    for n, name in enumerate(["train/cat/1.jpg", "val/cat/2.jpg", "extra/cat/3.jpg"]):
        write_image(tmp_path / "set" / name, seed=n)
    with pytest.raises(DataError, match="train, val are splits, and extra beside them is none"):
        CSVDataModule(str(tmp_path / "set"))
    for n, name in enumerate(["train/1.jpg", "car/2.jpg"]):  # what COCO calls a train
        write_image(tmp_path / "vehicles" / name, seed=n)
    assert CSVDataModule(str(tmp_path / "vehicles")).class_names == ("car", "train")


def test_a_list_of_a_blank_says_neither_none_nor_unknown(tmp_path):
    for n in range(2):
        write_image(tmp_path / f"{n}.jpg", seed=n)
    (tmp_path / "t.csv").write_text("image,labels\n0.jpg,['cat']\n1.jpg,['']\n")
    with pytest.raises(DataError, match=r"t\.csv:3: .* a list of nothing but blanks; write \[\] if no class"):
        CSVDataModule(str(tmp_path / "t.csv"), labels_column="labels")


# ---- layouts


@pytest.mark.parametrize(
    ("cells", "delimiter"),
    [
        (["x|y", "y"], "|"),
        (["x;y", "y"], ";"),
        (["x, y", "y"], ","),
        (["x y", "y"], " "),
        (["x / y", "y"], " / "),
        (["x\ty", "y"], "\t"),
        (["['x', 'y']", "['y']"], "|"),
        (['["x", "y"]', '["y"]'], "|"),
        (["['x', '', ' y ']", "[ 'y' , ]"], "|"),
    ],
)
def test_names_in_one_cell_by_any_delimiter(tmp_path, cells, delimiter):
    quoted = [cell.replace('"', '""') for cell in cells]
    text = f'image,labels\na.jpg,"{quoted[0]}"\nb.jpg,"{quoted[1]}"\nc.jpg,\n'
    classes, states, _ = read(tmp_path, text, labels_column="labels", delimiter=delimiter, separator=",")
    assert classes == ("x", "y")
    assert states == {"a": [1, 1], "b": [0, 1], "c": [-1, -1]}


def test_lists_of_parquet_and_json_are_lists_of_names(tmp_path):
    import polars as pl

    text = '{"image": "a.jpg", "labels": ["x", "y; \'z\'"]}\n{"image": "b.jpg", "labels": []}\n{"image": "c.jpg"}\n'
    pl.read_ndjson(text.encode()).write_parquet(tmp_path / "made.parquet")
    expected = (("x", "y; 'z'"), {"a": [1, 1], "b": [0, 0], "c": [-1, -1]}, {})
    assert read(tmp_path, text, "t.jsonl", labels_column="labels") == expected
    assert read(tmp_path, (tmp_path / "made.parquet").read_bytes(), "t.parquet", labels_column="labels") == expected


OPEN_IMAGES = """ImageID,Source,LabelName,Confidence
a,verification,/m/dog,1
a,verification,/m/cat,0
a,machine,/m/car,0.8
a,machine,/m/cat,0.9
b,crowdsource-verification,/m/cat,1
b,machine,/m/dog,1.0
c,machine,/m/car,0.6
c,machine,/m/car,0.8
"""


@pytest.mark.parametrize(
    ("machine", "states", "soft"),
    [
        ("unknown", {"a": [-1, 0, 1], "b": [-1, 1, -1], "c": [-1, -1, -1]}, {}),
        (
            "soft",
            {"a": [-2, 0, 1], "b": [-1, 1, -2], "c": [-2, -1, -1]},
            {"a": [0.8, None, None], "b": [None, None, 1.0], "c": [0.7, None, None]},
        ),
    ],
)
def test_open_images_has_what_people_verified_and_machines_as_is_said(tmp_path, machine, states, soft):
    long = Long("LabelName", confidence_column="Confidence", source_column="Source", machine=machine)
    found = read(tmp_path, OPEN_IMAGES, long=long, image_suffix=".jpg")
    assert found == (("/m/car", "/m/cat", "/m/dog"), states, soft)


@pytest.mark.parametrize(("absent", "state"), [("negative", ABSENT), ("unknown", UNSAID)])
def test_a_row_a_box_is_present_and_a_class_without_a_row_is_what_is_said(tmp_path, absent, state):
    text = (
        "image,class,x_min,y_min,x_max,y_max\n"
        "a.jpg,dog,0,0,5,5\nb.jpg,No finding,,,,\na.jpg,cat,1,1,2,2\n./a.jpg,dog,7,7,9,9\nc.jpg,cat,0,0,1,1\n"
    )
    classes, states, _ = read(tmp_path, text, long=Long("class", absent=absent))
    assert classes == ("cat", "dog")
    assert states == {"a": [1, 1], "b": [state, state], "c": [1, state]}


def test_a_long_table_that_contradicts_itself_is_refused_or_follows_the_policy(tmp_path):
    text = "image,label,says\na.jpg,dog,1\nb.jpg,dog,0\na.jpg,dog,0\na.jpg,dog,1\nc.jpg,dog,maybe\n"
    long, codes = Long("label", confidence_column="says"), Codes(uncertain=("maybe",))
    with pytest.raises(DataError, match=r"table.csv:2 and .*table.csv:4: one says that 'dog' is present in .*a.jpg"):
        read(tmp_path, text, long=long, codes=codes)
    expected = {"first": (1, {}), "unknown": (-1, {}), "majority": (1, {}), "soft": (-2, 0.6667)}
    for policy, (state, value) in expected.items():
        _, states, soft = read(tmp_path, text, long=long, codes=codes, duplicates=policy)
        assert states == {"a": [state], "b": [0], "c": [-2]}, policy
        assert (soft["a"] == [value] and soft["b"] == [None]) if value else not soft


VIN_DR = """image_id,class_name,rad_id
a,Nodule,R1
a,Nodule,R2
a,Edema,R3
b,No finding,R1
b,No finding,R2
b,No finding,R3
c,Edema,R1
c,Edema,R1
c,No finding,R2
"""


@pytest.mark.parametrize(
    ("policy", "states", "soft"),
    [
        ("majority", {"a": [0, 1], "b": [0, 0], "c": [-2, 0]}, {}),
        ("unknown", {"a": [-1, -1], "b": [0, 0], "c": [-1, 0]}, {}),
        ("first", {"a": [0, 1], "b": [0, 0], "c": [1, 0]}, {}),
        (
            "soft",
            {"a": [-2, -2], "b": [0, 0], "c": [-2, 0]},
            {"a": [0.3333, 0.6667], "b": [None, None], "c": [0.5, None]},
        ),
    ],
)
def test_several_annotators_of_an_image_are_put_together(tmp_path, policy, states, soft):
    long = Long("class_name", absent="negative", annotator_column="rad_id")
    found = read(tmp_path, VIN_DR, long=long, image_suffix=".jpg", duplicates=policy, no_finding="No finding")
    assert found == (("Edema", "Nodule"), states, soft)


def test_annotators_who_disagree_are_refused_with_their_rows(tmp_path):
    long = Long("class_name", absent="negative", annotator_column="rad_id")
    with pytest.raises(DataError, match=r"table.csv:2 and .*table.csv:4: one says that 'Edema'.*a.jpg"):
        read(tmp_path, VIN_DR, long=long, image_suffix=".jpg")


def merged_by_hand(rows, policy):
    """State and soft label of one entry from what the rows of an image say."""
    votes = [value for value in rows if value is not None and value != "maybe"]
    if policy == "first":
        first = rows[0]
        if first in (0, 1):
            return first, None
        return (UNSAID if first is None else MAYBE), (first if isinstance(first, float) else None)
    if not votes:
        return (MAYBE if "maybe" in rows else UNSAID), None
    if len(set(votes)) > 1:
        share = sum(votes) / len(votes)
        if policy == "unknown":
            return UNSAID, None
        if policy == "soft":
            return MAYBE, share
        return (PRESENT if share > 0.5 else ABSENT if share < 0.5 else MAYBE), None
    return (votes[0], None) if votes[0] in (0, 1) else (MAYBE, votes[0])


@pytest.mark.parametrize("policy", ["first", "unknown", "majority", "soft"])
def test_rows_of_one_image_are_merged_as_by_hand(tmp_path, numpy_rng, policy):
    kinds = [None, "maybe", 0, 1, 0.25, 0.75]
    cells = {None: "", "maybe": "uncertain", 0: "0", 1: "1", 0.25: "0.25", 0.75: "3/4"}
    names = [f"i{n}" for n in range(9)]
    rows = [(names[numpy_rng.integers(9)], [kinds[k] for k in numpy_rng.integers(6, size=4)]) for _ in range(40)]
    text = "image,p,q,r,s\n" + "".join(f"{n}.jpg,{','.join(cells[k] for k in row)}\n" for n, row in rows)
    _, states, soft = read(tmp_path, text, names=names, duplicates=policy)
    for name in {name for name, _ in rows}:
        for place in range(4):
            state, value = merged_by_hand([row[place] for owner, row in rows if owner == name], policy)
            assert states[name][place] == state
            found = soft[name][place] if soft else None
            assert found == (None if value is None else pytest.approx(value, abs=1e-4))


# ---- conflicts


def test_two_rows_of_an_image_are_refused_and_links_to_one_file_are_one_image(tmp_path):
    images(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "t.csv").write_text("image,cat\na.jpg,1\nlink.jpg,0\nb.jpg,0\n./a.jpg,1\n")
    data = CSVDataModule(str(tmp_path / "t.csv"), fractions=(1, 0, 0), image_size=16, batch_size=1)
    labeled = data.read_split("train")
    with pytest.raises(DataError, match=r"a.jpg is there twice \(.*t.csv:2 and .*t.csv:3; 2 such.*contradict"):
        check_once(labeled, data.class_names, "made")
    data = CSVDataModule(str(tmp_path / "t.csv"), fractions=(1, 0, 0), duplicates="majority")
    assert said(data)[1] == {"a": [1], "b": [0]}


def test_names_that_differ_in_case_or_blanks_are_named_with_their_rows(tmp_path):
    text = "image,labels\na.jpg,Cat|dog\nb.jpg,dog\nc.jpg,cat\n"
    with pytest.raises(DataError, match=r"'Cat' and 'cat' differ in case.*table.csv:2 and .*table.csv:4"):
        read(tmp_path, text, labels_column="labels")


@pytest.mark.parametrize("column", ["split", "patient"])
def test_rows_of_an_image_in_two_splits_or_of_two_patients_are_refused(tmp_path, column):
    cells = {"split": ("train", "val"), "patient": ("p1", "p2")}[column]
    text = f"image,{column},cat\na.jpg,{cells[0]},1\nb.jpg,{cells[0]},1\na.jpg,{cells[1]},1\n"
    option = {"split": "split_column", "patient": "group_column"}[column]
    with pytest.raises(DataError, match=rf"table.csv:2 and .*table.csv:4: .*a.jpg has '{cells[0]}' and '{cells[1]}'"):
        read(tmp_path, text, duplicates="first", **{option: column})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"long": Long("says")}, "no column 'says'"),
        ({"long": Long("label"), "labels_column": "label"}, "exclude each other"),
        ({"duplicates": "last"}, "data.duplicates is one of raise, first"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, problem):
    with pytest.raises(ConfigError, match=problem):
        read(tmp_path, "image,label\na.jpg,dog\n", **options)


# ---- drawn splits


@pytest.mark.parametrize("way", ["fractions", "val_fraction"])
def test_stratified_splits_keep_groups_whole_and_rare_labels_in_every_split(tmp_path, numpy_rng, seed, way):
    count = 120
    names = [f"i{n}" for n in range(count)]
    groups = numpy_rng.permutation(np.arange(count) // 2)
    rare = np.isin(groups, numpy_rng.choice(60, 3, replace=False)).astype(int)
    common = (numpy_rng.random(count) < 0.4).astype(int)
    rows = zip(names, groups, rare, common, strict=True)
    text = "image,who,split,rare,common\n" + "".join(f"{n}.jpg,p{g},train,{r},{c}\n" for n, g, r, c in rows)
    images(tmp_path, names)
    (tmp_path / "t.csv").write_text(text)
    options = {"group_column": "who", "label_columns": ["rare", "common"], "stratify": True, "seed": seed}
    if way == "fractions":
        data = CSVDataModule(str(tmp_path / "t.csv"), fractions=(0.6, 0.2, 0.2), **options)
        splits = ["train", "val", "test"]
    else:
        data = CSVDataModule(str(tmp_path / "t.csv"), split_column="split", val_fraction=0.25, **options)
        splits = ["train", "val"]
    read_splits = {split: data._given(split) for split in splits}
    people = [set(labeled.about["who"]) for labeled in read_splits.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 60
    for labeled in read_splits.values():
        assert (labeled.states[:, 0] == 1).any()
        assert abs((labeled.states[:, 1] == 1).mean() - common.mean()) < 0.05
    if way == "fractions":
        nothing = CSVDataModule(str(tmp_path / "t.csv"), fractions=(0.5, 0.5, 0), **options)
        with pytest.raises(DataError, match="no row is in the test split"):
            nothing.read_split("test")


def test_splits_are_drawn_as_before_unless_it_is_asked_for(tmp_path):
    """Which images a checkpoint of an earlier version was trained on must not change."""
    names = [f"i{n}" for n in range(12)]
    images(tmp_path, names)
    (tmp_path / "t.csv").write_text("image,cat\n" + "".join(f"{n}.jpg,1\n" for n in names))
    data = CSVDataModule(str(tmp_path / "t.csv"), fractions=(0.5, 0.25, 0.25), seed=3)
    keys = np.unique(np.array([str(n) for n in range(12)]), return_inverse=True)[1]
    for count in (0, 1, 10, 11, 1234):
        texts = np.array([str(n) for n in range(count)], np.str_)
        assert (order_as_texts(count) == np.unique(texts, return_inverse=True)[1]).all()
    place = np.empty(12)
    place[np.random.default_rng(3).permutation(12)] = (np.arange(12) + 0.5) / 12
    for split, (low, high) in {"train": (0, 0.5), "val": (0.5, 0.75), "test": (0.75, 1)}.items():
        wanted = [names[n] for n in range(12) if low <= place[keys[n]] < high]
        assert list(said(data, split)[1]) == wanted


def test_soft_labels_go_with_their_images_and_give_way_to_corrections(tmp_path):
    from mlcv.data.corrections import Corrections

    images(tmp_path)
    (tmp_path / "t.csv").write_text("image,cat,dog\na.jpg,0.25,1\nb.jpg,0.75,0.5\nc.jpg,0,1\n")
    labeled = CSVDataModule(str(tmp_path / "t.csv"), fractions=(1, 0, 0)).read_split("train")
    turned = labeled.select(np.array([1, 0]))
    np.testing.assert_array_equal(turned.soft, np.array([[0.75, 0.5], [0.25, np.nan]], np.float32))
    changes = np.array([0, 1]), np.array([0, 1]), np.array([MAYBE, PRESENT], np.int8)
    corrected = Corrections(tmp_path / "c.csv", "", 2, 0, {"train": changes}).apply("train", labeled)
    assert Policy(uncertain="zeros").resolve(corrected.states, ("cat", "dog"), corrected.soft).tolist() == [
        [0, 1], [0.75, 1], [0, 1],
    ]  # fmt: skip
    assert labeled.soft[0, 0] == np.float32(0.25)


def test_a_column_without_labels_does_not_hide_what_minus_one_means(tmp_path):
    text = "image,cat,who\ni0.jpg,1,ann\ni1.jpg,0,bob\ni2.jpg,-1,ann\ni3.jpg,,bob\n"
    with pytest.raises(DataError, match="column 'who' holds 'ann'"):
        read(tmp_path, text, names=["i0", "i1", "i2", "i3"])
