"""`mlcv merge`: data sets of other classes in one table, and what contradicts between them."""

import csv
import os
import sys

import numpy as np
import pytest
import yaml

from mlcv.cli import main
from mlcv.commands.merge import merge
from mlcv.data import CSVDataModule
from mlcv.errors import ConfigError, DataError
from mlcv.tables import Codes
from tests.tiny_sets import voc_states, write_coco, write_image, write_rows, write_voc


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(folder, name, classes, rows, first=0):
    """A table of images of their own content: (image, split, patient, labels ...)."""
    for n, (image, *_) in enumerate(rows):
        if not (folder / image).exists():
            write_image(folder / image, (16, 16), seed=first + n)
    return str(write_rows(folder / name, ["image", "split", "patient", *classes], rows))


def plan(tmp_path, sources, **more):
    path = tmp_path / "merge.yaml"
    path.write_text(yaml.safe_dump({"sources": sources, **more}, sort_keys=False))
    return path


def source(path, columns, **more):
    return {"path": path, "split_column": "split", "group_column": "patient", "label_columns": columns, **more}


@pytest.fixture
def two(tmp_path):
    one = table(tmp_path, "one.csv", ["cat", "dog"], [
        ["a.jpg", "train", "p", 1, 0], ["b.jpg", "train", "q", "", 1], ["c.jpg", "test", "r", 0, 0],
    ])  # fmt: skip
    other = table(tmp_path, "other.csv", ["Cat", "sofa"], [
        ["d.jpg", "train", "p", 0, 1], ["e.jpg", "test", "s", 1, ""],
    ], first=10)  # fmt: skip
    return one, other


def test_a_class_that_a_source_does_not_judge_is_unknown_for_its_images(two, tmp_path, capsys):
    one, other = two
    file = plan(tmp_path, {
        "one": source(one, ["cat", "dog"]), "other": source(other, ["Cat", "sofa"], classes={"Cat": "cat"}),
    }, hierarchy={})  # fmt: skip
    out = tmp_path / "out" / "m.csv"
    assert main(["merge", str(file), "--out", str(out)]) == 0
    rows = {row["image"].rpartition("/")[2]: row for row in read(out)}
    labels = {name: (row["cat"], row["dog"], row["sofa"]) for name, row in rows.items()}
    assert labels == {
        "a.jpg": ("1", "0", ""), "b.jpg": ("", "1", ""), "c.jpg": ("0", "0", ""),
        "d.jpg": ("0", "", "1"), "e.jpg": ("1", "", ""),
    }  # fmt: skip
    assert {row["source"] for row in rows.values()} == {"one", "other"}
    assert rows["a.jpg"]["group"] != rows["d.jpg"]["group"]  # two patients who are called p
    said = capsys.readouterr().out
    assert "only one judges dog" in said
    assert "only other judges sofa" in said
    given = yaml.safe_load(out.with_suffix(".yaml").read_text())["init_args"]
    codes = Codes(uncertain=tuple(given.pop("codes")["uncertain"]))
    data = CSVDataModule(**given, codes=codes, image_size=16, batch_size=1, num_workers=0)
    assert data.class_names == ("cat", "dog", "sofa")
    assert len(data.read_split("train")) == 3
    assert data.read_split("test").states.tolist() == [[0, 0, -1], [1, -1, -1]]


def test_paths_are_found_from_where_the_file_lies(two, tmp_path, monkeypatch):
    sources = {"one": source("one.csv", ["cat", "dog"]), "other": source("other.csv", ["sofa"])}
    file = plan(tmp_path, sources)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(merge(file, "m.csv").images) == 5
    assert len(CSVDataModule("m.csv", split_column="split", label_columns=["cat"]).read_split("train")) == 3


def test_a_child_makes_its_parent_present_and_an_absent_parent_its_children_absent(two, tmp_path):
    one, other = two
    animals = table(tmp_path, "animals.csv", ["animal"], [["f.jpg", "train", "", 0]], first=20)
    file = plan(
        tmp_path,
        {"one": source(one, ["cat", "dog"]), "animals": source(animals, ["animal"])},
        hierarchy={"animal": ["cat", "dog"]},
    )
    rows = {row["image"].rpartition("/")[2]: row for row in read_merged(file, tmp_path)}
    assert rows["a.jpg"]["animal"] == rows["b.jpg"]["animal"] == "1"
    assert rows["c.jpg"]["animal"] == ""  # it may show another animal
    assert (rows["f.jpg"]["cat"], rows["f.jpg"]["dog"]) == ("0", "0")
    del other


def test_a_parent_that_no_source_judges_follows_from_its_children(two, tmp_path, capsys):
    file = plan(tmp_path, {"one": source(two[0], ["cat", "dog"])}, hierarchy={"pet": ["cat", "dog"], "being": ["pet"]})
    assert main(["merge", str(file), "--out", str(tmp_path / "m.csv")]) == 0
    assert "no source has labels of pet, being: what follows from other classes" in capsys.readouterr().out
    rows = {row["image"].rpartition("/")[2]: (row["pet"], row["being"]) for row in read(tmp_path / "m.csv")}
    assert rows == {"a.jpg": ("1", "1"), "b.jpg": ("1", "1"), "c.jpg": ("", "")}


@pytest.mark.parametrize("config", ["codes", "names", "val"])
def test_the_config_of_a_merged_table_goes_over_any_other(two, tmp_path, config):
    """As `--data merged.yaml` behind a `--config`: what that says of its own table is not left."""
    merge(plan(tmp_path, {"one": source(two[0], ["cat", "dog"]), "other": source(two[1], ["Cat", "sofa"],
          classes={"Cat": "cat"})}), tmp_path / "m.csv")  # fmt: skip
    own = {"codes": {"codes": {"positive": ["ja"], "negative": ["nein"], "blank": "negative"}},
           "names": {"labels_column": "x", "long": {"label_column": "y"}, "duplicates": "soft"},
           "val": {"val_fraction": 0.5, "group_column": "z"}}[config]  # fmt: skip
    merged = yaml.safe_load((tmp_path / "m.yaml").read_text())["init_args"]
    for key, value in own.items():
        assert merged[key] != value
        assert not isinstance(value, dict) or merged[key] is None or set(value) <= set(merged[key])


def read_merged(file, tmp_path):
    merge(file, tmp_path / "m.csv")
    return read(tmp_path / "m.csv")


@pytest.mark.parametrize("policy", ["raise", "unknown", "first"])
def test_what_contradicts_on_one_image_is_listed_and_decided(two, tmp_path, policy):
    one, _ = two
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())  # another path, the same image
    again = table(tmp_path, "again.csv", ["cat", "dog", "sofa"], [["copy.jpg", "train", "p", 0, 0, 1]])
    file = plan(
        tmp_path,
        {"one": source(one, ["cat", "dog"]), "again": source(again, ["cat", "dog", "sofa"])},
        conflicts=policy,
    )
    out = tmp_path / "m.csv"
    if policy == "raise":
        with pytest.raises(DataError, match=r"1 contradiction \(1 of labels\), such as .*a\.jpg, class 'cat'"):
            merge(file, out)
        assert not out.exists()
        assert len(read(tmp_path / "m_conflicts.csv")) == 1
        return
    merge(file, out)
    (row,) = (row for row in read(out) if row["image"].endswith("a.jpg"))
    assert not [row for row in read(out) if row["image"].endswith("copy.jpg")]
    assert (row["cat"], row["dog"], row["sofa"]) == ("" if policy == "unknown" else "1", "0", "1")
    assert row["source"] == "one+again"
    assert "one says positive, again negative" in read(tmp_path / "m_conflicts.csv")[0]["what"]


def test_an_image_that_one_source_trains_on_and_another_tests_on_is_tested(two, tmp_path):
    one, _ = two
    again = table(tmp_path, "again.csv", ["sofa"], [["a.jpg", "test", "", 1], ["g.jpg", "train", "", 0]], first=30)
    sources = {"one": source(one, ["cat", "dog"]), "again": source(again, ["sofa"])}
    with pytest.raises(DataError, match="it is in train of one, and in (val|test) of again"):
        merge(plan(tmp_path, sources), tmp_path / "m.csv")
    rows = read_merged(plan(tmp_path, sources, conflicts="first"), tmp_path)
    assert next(row["split"] for row in rows if row["image"].endswith("a.jpg")) == "test"


def test_an_image_that_is_held_out_takes_its_patient_with_it(two, tmp_path):
    """Else the patient's other images train, and no command reads the table."""
    one = table(tmp_path, "one.csv", ["cat"], [
        ["a.jpg", "train", "p", 1], ["b.jpg", "train", "p", 0], ["c.jpg", "train", "q", 0], ["d.jpg", "val", "s", 1],
        ["e.jpg", "val", "s", 0],
    ])  # fmt: skip
    again = table(tmp_path, "again.csv", ["sofa"], [
        ["a.jpg", "test", "t", 1], ["f.jpg", "train", "u", 0], ["d.jpg", "test", "v", 0], ["g.jpg", "val", "w", 0],
    ], first=30)  # fmt: skip
    sources = {"one": source(one, ["cat"]), "again": source(again, ["sofa"])}
    rows = read_merged(plan(tmp_path, sources, conflicts="unknown"), tmp_path)
    assert {row["image"].rpartition("/")[2]: row["split"] for row in rows} == {
        "a.jpg": "test", "b.jpg": "test", "c.jpg": "train", "d.jpg": "test", "e.jpg": "test", "f.jpg": "train",
        "g.jpg": "val",
    }  # fmt: skip
    told = {row["image"].rpartition("/")[2]: row for row in read(tmp_path / "m_conflicts.csv")}
    assert set(told) == {"a.jpg", "b.jpg"}
    assert "it is in train, and another image of its group one:p in test" in told["b.jpg"]["what"]
    assert (told["b.jpg"]["class"], told["b.jpg"]["done"]) == ("", "never trains")


def test_official_data_sets_are_joined_by_their_own_readers(tmp_path):
    write_voc(tmp_path / "voc")
    write_coco(tmp_path / "coco", year=2017)
    for seed, image in enumerate(sorted(tmp_path.rglob("*.jpg"))):
        write_image(image, seed=seed)  # each of its own content
    names = {"aeroplane": "airplane", "tvmonitor": "tv", "motorbike": "motorcycle", "sofa": "couch"}
    names |= {"diningtable": "dining table", "pottedplant": "potted plant"}
    file = plan(tmp_path, {
        "voc": {"class_path": "VOCDataModule", "init_args": {"root": str(tmp_path / "voc")}, "classes": names},
        "coco": {"class_path": "COCODataModule", "init_args": {"root": str(tmp_path / "coco"), "year": 2017}},
    })  # fmt: skip
    merged = merge(file, tmp_path / "m.csv")
    assert len(merged.class_names) == 80
    assert merged.unmapped["voc"] == []
    assert len(merged.unmapped["coco"]) == 60
    voc = np.array([source == "voc" for source in merged.sources])
    columns = [merged.class_names.index(name) for name in merged.unmapped["coco"]]
    assert (merged.states[voc][:, columns] == -1).all()
    assert (merged.states[~voc] >= 0).all()
    states = voc_states()
    assert (merged.states[voc] == 1).sum() == (states == 1).sum() * voc.sum() / len(states)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"surces": {}}, "there is no key 'surces'"),
        ({"classes": ["cow"]}, "no source has 'cow'"),
        ({"hierarchy": {"cat": ["lion"]}}, "there is no class 'lion'"),
        ({"classes": ["cat", "animal"]}, "no source has 'animal'"),
        ({"sources": {"a+b": {"path": "x.csv"}}}, r"sources: a\+b: \+ joins the names"),
        ({"conflicts": "ignore"}, "conflicts is one of raise, unknown, first"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(two, tmp_path, change, sentence):
    given = dict(change)
    file = plan(tmp_path, given.pop("sources", {"one": source(two[0], ["cat", "dog"])}), **given)
    with pytest.raises(ConfigError, match=sentence):
        merge(file, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_a_source_that_does_not_exist_or_has_no_such_class_is_named(two, tmp_path):
    with pytest.raises(ConfigError, match="sources: one: classes: it has no class 'cow'"):
        merge(plan(tmp_path, {"one": source(two[0], ["cat"], classes={"cow": "x"})}), tmp_path / "m.csv")
    with pytest.raises(ConfigError, match="sources: one"):
        merge(plan(tmp_path, {"one": {"class_path": "NoDataModule"}}), tmp_path / "m.csv")
    with pytest.raises((ConfigError, DataError), match=r"nothing\.csv"):
        merge(plan(tmp_path, {"one": {"path": str(tmp_path / "nothing.csv")}}), tmp_path / "m.csv")


def test_nothing_is_absent_only_because_of_a_label_that_does_not_stand(two, tmp_path):
    """One source says that there is an animal, another that there is none: of cats and dogs nobody has spoken."""
    one = table(tmp_path, "x.csv", ["animal", "cat"], [["h.jpg", "train", "", 1, ""]], first=40)
    other = table(tmp_path, "y.csv", ["animal", "dog"], [["h.jpg", "train", "", 0, ""]])
    sources = {"x": source(one, ["animal", "cat"]), "y": source(other, ["animal", "dog"])}
    for policy, animal in (("first", "1"), ("unknown", "")):
        file = plan(tmp_path, sources, hierarchy={"animal": ["cat", "dog"]}, conflicts=policy)
        (row,) = read_merged(file, tmp_path)
        assert (row["animal"], row["cat"], row["dog"]) == (animal, "", "")
    del two


def test_what_the_list_of_conflicts_says_is_done_is_done_under_whatever_path(two, tmp_path):
    one, _ = two
    (tmp_path / "dup.jpg").write_bytes((tmp_path / "b.jpg").read_bytes())
    other = table(tmp_path, "y.csv", ["animal", "cat"], [["dup.jpg", "train", "", 0, 1]])
    file = plan(
        tmp_path,
        {"one": source(one, ["cat", "dog"]), "y": source(other, ["animal", "cat"])},
        hierarchy={"animal": ["cat", "dog"]},
        conflicts="unknown",
    )
    rows = {row["image"]: row for row in read_merged(file, tmp_path)}
    listed = [row for row in read(tmp_path / "m_conflicts.csv") if row["done"] == "unknown"]
    assert listed
    for row in listed:
        assert rows[row["image"]][row["class"]] == ""


def test_patients_with_an_image_in_common_are_one(two, tmp_path):
    one, _ = two
    images = [["a.jpg", "train", "7", 1], ["k.jpg", "train", "7", 0], ["l.jpg", "train", "8", 0]]
    again = table(tmp_path, "y.csv", ["sofa"], images, first=50)
    sources = {"one": source(one, ["cat", "dog"]), "again": source(again, ["sofa"])}
    rows = {row["image"].rpartition("/")[2]: row["group"] for row in read_merged(plan(tmp_path, sources), tmp_path)}
    assert rows["a.jpg"] == rows["k.jpg"]
    assert len({rows["a.jpg"], rows["b.jpg"], rows["l.jpg"]}) == 3


@pytest.mark.parametrize("out", ["one.csv", "merge.csv"])
def test_what_is_read_is_not_written_over(two, tmp_path, out):
    file = plan(tmp_path, {"one": source(two[0], ["cat", "dog"])})
    before = {path: path.read_bytes() for path in (tmp_path / "one.csv", file)}
    with pytest.raises(ConfigError, match="is read here, and would be written over"):
        merge(file, tmp_path / out)
    assert {path: path.read_bytes() for path in before} == before


def test_conflicts_of_an_earlier_table_are_not_taken_for_this_ones(two, tmp_path):
    (tmp_path / "m_conflicts.csv").write_text("of another table")
    read_merged(plan(tmp_path, {"one": source(two[0], ["cat", "dog"])}), tmp_path)
    assert not (tmp_path / "m_conflicts.csv").exists()
    assert (tmp_path / "m_conflicts.1.csv").read_text() == "of another table"


def reader(out, **more):
    given = yaml.safe_load(out.with_suffix(".yaml").read_text())["init_args"]
    codes = Codes(uncertain=tuple(given.pop("codes")["uncertain"]))
    return CSVDataModule(**given | more, codes=codes, image_size=16, batch_size=1, num_workers=0)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_soft_labels_are_joined_where_nobody_is_sure(tmp_path, ending):
    one = table(tmp_path, "x.csv", ["cat", "kitten", "dog"], [
        ["a.jpg", "train", "", 0.25, 0.5, "uncertain"], ["b.jpg", "train", "", 0.75, 1, 0.5],
        ["c.jpg", "train", "", 0, 0, "3/5"], ["d.jpg", "test", "", 0, "", 1],
    ])  # fmt: skip
    other = table(tmp_path, "y.csv", ["dog"], [
        ["a.jpg", "train", "", 0.125], ["b.jpg", "train", "", 1], ["e.jpg", "train", "", ""],
    ], first=10)  # fmt: skip
    sources = {
        "x": {"path": one, "split_column": "split", "label_columns": ["cat", "kitten", "dog"],
              "codes": {"uncertain": ["uncertain"]}, "classes": {"kitten": "cat"}},
        "y": {"path": other, "split_column": "split", "label_columns": ["dog"]},
    }  # fmt: skip
    out = tmp_path / f"m.{ending}"
    merge(plan(tmp_path, sources), out)
    labeled = reader(out, val_fraction=0).read_split("train")
    order = [str(name).rpartition("/")[2] for name in labeled.images]
    rows = {name: (labeled.states[n].tolist(), labeled.soft[n].tolist()) for n, name in enumerate(order)}
    assert rows["a.jpg"] == ([-2, -2], [0.5, 0.125])  # the likelier of two names, and the one who has a number
    assert rows["b.jpg"][0] == [1, 1]  # a kitten is a cat; who knows goes before who doubts
    assert np.isnan(rows["b.jpg"][1]).all()
    assert rows["c.jpg"][0] == [0, -2]
    assert rows["c.jpg"][1][1] == pytest.approx(0.6)
    assert rows["e.jpg"][0] == [-1, -1]
    assert reader(out).read_split("test").states.tolist() == [[-1, 1]]  # no kitten is known, so no cat is ruled out


def test_a_merged_parquet_table_holds_numbers_and_says_what_the_csv_says(two, tmp_path):
    pl = pytest.importorskip("polars")
    one, other = two
    sources = {"one": source(one, ["cat", "dog"]), "other": source(other, ["Cat", "sofa"], classes={"Cat": "cat"})}
    for ending in ("csv", "parquet"):
        merge(plan(tmp_path, sources), tmp_path / f"m.{ending}")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert [str(frame.schema[name]) for name in ("image", "group", "cat", "sofa")] == ["String"] * 2 + ["Int8"] * 2
    wanted = [{name: cell or None for name, cell in row.items()} for row in read(tmp_path / "m.csv")]
    found = [{name: None if cell is None else str(cell) for name, cell in row.items()} for row in frame.to_dicts()]
    assert found == wanted
    splits = [reader(tmp_path / f"m.{ending}", val_fraction=0.3).read_split("test") for ending in ("csv", "parquet")]
    assert splits[0].states.tolist() == splits[1].states.tolist()


def test_a_class_named_like_a_column_of_the_table_is_refused(tmp_path):
    one = table(tmp_path, "x.csv", ["Source"], [["a.jpg", "train", "", 1]])
    file = plan(tmp_path, {"x": source(one, ["Source"])})
    with pytest.raises(ConfigError, match="'Source' is a column of the merged table"):
        merge(file, tmp_path / "m.csv")
    merge(plan(tmp_path, {"x": source(one, ["Source"], classes={"Source": "origin"})}), tmp_path / "m.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_name_that_no_table_can_hold_is_told(tmp_path, ending):
    (tmp_path / "in" / "cat").mkdir(parents=True)
    write_image(tmp_path / "in" / "cat" / "b.jpg")
    (tmp_path / "in" / "cat" / "b.jpg").rename(os.fsdecode(os.fsencode(tmp_path / "in" / "cat") + b"/a\xff.jpg"))
    file = plan(tmp_path, {"x": {"path": str(tmp_path / "in"), "fractions": [1, 0, 0]}})
    with pytest.raises(DataError, match=r"sources: x: no table can hold .*a\\xff\.jpg, which is no UTF-8"):
        merge(file, tmp_path / f"m.{ending}")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_odd_file_names_are_kept(tmp_path, ending):
    names = ["a,b.jpg", 'a"b.jpg', "=1.jpg", "é ü.jpg", "a\nb.jpg"]
    one = table(tmp_path, "x.csv", ["cat"], [[name, "train", "", n % 2] for n, name in enumerate(names)])
    out = tmp_path / f"m.{ending}"
    merge(plan(tmp_path, {"x": source(one, ["cat"])}), out)
    labeled = reader(out, val_fraction=0).read_split("train")
    assert [str(name).rpartition("/")[2] for name in labeled.images] == names
    assert labeled.states[:, 0].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_soft_labels_are_written_whole_and_stay_soft(tmp_path, ending):
    values = [1.2345e-10, 0.0123456789, 0.99999997, 0.0, 1.0, 0.25]
    rows = [[f"{n}.jpg", "a", value, "machine"] for n, value in enumerate(values)]
    for n in range(len(rows)):
        write_image(tmp_path / f"{n}.jpg", (16, 16), seed=n)
    write_rows(tmp_path / "long.csv", ["image", "label", "confidence", "source"], rows)
    long = {"label_column": "label", "confidence_column": "confidence", "source_column": "source", "machine": "soft"}
    given = {"path": str(tmp_path / "long.csv"), "image_column": "image", "fractions": [1, 0, 0], "long": long}
    out = tmp_path / f"m.{ending}"
    merge(plan(tmp_path, {"x": given}), out)
    labeled = reader(out, val_fraction=0).read_split("train")
    assert (labeled.states == -2).all()
    np.testing.assert_allclose(labeled.soft[:, 0], values, atol=2e-7, rtol=0)


@pytest.mark.parametrize("fault", ["image", "cell"])
def test_a_split_that_is_there_and_cannot_be_read_is_no_split_that_is_not_there(tmp_path, fault):
    table(tmp_path, "x.csv", ["cat"], [["a.jpg", "", "", 1], ["b.jpg", "", "", 0]])
    write_rows(tmp_path / "val.csv", ["image", "cat"], [["c.jpg", 7 if fault == "cell" else 1]])
    if fault == "cell":
        write_image(tmp_path / "c.jpg", (16, 16), seed=9)
    given = {"path": str(tmp_path / "x.csv"), "val_path": str(tmp_path / "val.csv"), "label_columns": ["cat"]}
    with pytest.raises(
        DataError, match=r"val\.csv:2: " + ("no image" if fault == "image" else "column 'cat' holds '7'")
    ):
        merge(plan(tmp_path, {"x": given}), tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()
    (tmp_path / "val.csv").unlink()  # it may be on another machine
    assert merge(plan(tmp_path, {"x": given}), tmp_path / "m.csv").splits == ["train", "train"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"classes": "cat"}, "`classes` is a list of names"),
        ({"classes": ["cat", 1]}, "`classes` is a list of names"),
        ({"hierarchy": ["cat"]}, "`hierarchy` has of each parent a list"),
        ({"hierarchy": {"animal": "cat"}}, "`hierarchy` has of each parent a list"),
        ({"hierarchy": {"animal": [True]}}, "`hierarchy` has of each parent a list"),
    ],
)
def test_names_that_yaml_takes_for_something_else_are_refused(two, tmp_path, more, said):
    with pytest.raises(ConfigError, match=said):
        merge(plan(tmp_path, {"one": source(two[0], ["cat", "dog"])}, **more), tmp_path / "m.csv")


@pytest.mark.parametrize("renamed", [["cat"], {"cat": 1}, {"cat": True}, "cat"])
def test_other_names_of_a_source_are_names(two, tmp_path, renamed):
    with pytest.raises(ConfigError, match="sources: one: classes: of each class"):
        merge(plan(tmp_path, {"one": source(two[0], ["cat", "dog"], classes=renamed)}), tmp_path / "m.csv")


def test_a_contradiction_of_a_data_set_that_tests_on_what_validates_is_told_once(tmp_path):
    one = table(tmp_path, "x.csv", ["cat"], [["a.jpg", "train", "", 0], ["b.jpg", "train", "", 1]])
    other = table(tmp_path, "y.csv", ["cat"], [["a.jpg", "test", "", 1], ["c.jpg", "train", "", 0]], first=5)
    sources = {"x": source(one, ["cat"]), "y": source(other, ["cat"])}
    merged = merge(plan(tmp_path, sources, conflicts="unknown"), tmp_path / "m.csv")
    assert [one.column for one in merged.conflicts] == [None, 0]
    assert dict(zip(merged.images, merged.splits, strict=True))[str(tmp_path / "a.jpg")] == "test"
    assert merged.states[:, 0].tolist() == [-1, 1, 0]
