"""`mlcv data`: the sheet names what was planted, fails on what it is asked to, and shows names as letters."""

import json
import logging
import re
import shutil

import cv2
import numpy as np
import pytest

import mlcv
from mlcv.cli import main
from mlcv.sheets.findings import KINDS
from tests.tiny_sets import MAKE, write_rows

EVIL = '<img src=x onerror="alert(1)">'


def photograph(path, rng, brightness=1.0, size=(72, 96)):
    """An image like no other."""
    path.parent.mkdir(exist_ok=True, parents=True)
    layers = [cv2.resize(rng.random((n, n + 2, 3)), size[::-1], interpolation=cv2.INTER_CUBIC) for n in (5, 30)]
    pixels = np.clip(brightness * 255 * (0.7 * layers[0] + 0.3 * layers[1]), 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def rows(tmp_path):
    """40 images in three splits, one patient each, labels by turns; the same ones always, as one draw in a hundred
    may stand out by chance.
    """
    rng = np.random.default_rng(0)
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    for n in range(40):
        photograph(tmp_path / "images" / f"{n}.png", rng)
    return [[f"images/{n}.png", split, f"p{n}", n % 2, (n + 1) % 2] for n, split in enumerate(splits)]


def config(folder, rows, header=("image", "split", "patient", "cat", "dog"), **options):
    write_rows(folder / "t.csv", header, rows)
    labels = options.pop("labels", list(header[3:]))
    given = {"path": str(folder / "t.csv"), "split_column": "split", "group_column": "patient", "label_columns": labels}
    data = {"class_path": "CSVDataModule", "init_args": {**given, "num_workers": 0, "batch_size": 2, **options}}
    model = {"class_path": "Classifier", "init_args": {"backbone": "test_resnet"}}
    path = folder / "c.yaml"
    path.write_text(json.dumps({"data": data, "model": model}))
    return ["--config", str(path)]


def sheet(tmp_path, rows, **options):
    given = {name: options.pop(name) for name in ("header", "labels") if name in options}
    return mlcv.data_sheet(config(tmp_path, rows, **given), tmp_path / "s.html", **options)


def kinds(found):
    return [one.kind for one in found.findings]


def test_nothing_is_said_of_data_that_are_all_right(tmp_path, rows, capsys):
    options = config(tmp_path, rows)
    assert main(["data", *options, "--out", str(tmp_path / "s.html"), "--fail-on", ",".join(KINDS)]) == 0
    out = capsys.readouterr().out
    assert "nothing stands out" in out
    assert len(out.splitlines()) <= 30
    page = (tmp_path / "s.html").read_text()
    assert "Nothing stands out" in page
    assert page.count("<figure>") >= 12
    assert not re.search(r'(src|href)="(?!data:)', page)


@pytest.mark.parametrize("blank", ["unknown", "negative"])
def test_the_page_says_where_blank_cells_count_as_absent(tmp_path, rows, blank):
    """They are known there, but nobody said so."""
    found = mlcv.data_sheet(config(tmp_path, rows, codes={"blank": blank}), tmp_path / "s.html", images=False)
    assert ("blank cells" in found.path.read_text()) == (blank == "negative")


def test_what_is_planted_is_found_and_fails_what_it_should(tmp_path, rows, capsys):
    shutil.copy(tmp_path / "images/0.png", tmp_path / "images/30.png")  # of training, in validation, with other labels
    rows[30][3:] = [1, 0]
    image = cv2.imread(str(tmp_path / "images/2.png"))
    cv2.imwrite(str(tmp_path / "images/6.png"), cv2.resize(image[:, ::-1], (80, 60)))
    rows[39][2] = "P1"
    (tmp_path / "images/9.png").write_bytes(b"no image")
    found = sheet(tmp_path, rows)
    assert kinds(found) == ["leakage", "leakage", "conflicts", "duplicates", "unreadable"]
    texts = [one.text for one in found.findings]
    assert texts[0].startswith("1 pair of copies (1 exact) between train and val, such as images/0.png and images/30")
    assert texts[1] == "1 of patient in both train and test, such as 'p1'"
    assert texts[2].endswith("in cat, dog")
    assert texts[3].startswith("1 pair of copies (0 exact) within train, such as images/2.png and images/6.png")
    assert "9.png" in texts[4]
    assert [one.kind for one in found.failed(["unreadable", "drift"])] == ["unreadable"]
    copies = found.numbers["images"]["copies"]
    assert [one["is_mirrored"] for one in copies] == [False, True]
    assert [one["contradict"] for one in copies] == [["cat", "dog"], []]
    options = ["data", *config(tmp_path, rows), "--out", str(tmp_path / "s.html")]
    assert main([*options, "--fail-on", "drift,leakage"]) == 1
    assert capsys.readouterr().out.count("FAILS leakage") == 2
    assert main([*options, "--fail_on", "drift"]) == 0
    assert main(options) == 0


def test_a_wrong_word_is_refused_with_those_that_there_are(tmp_path, rows, capsys):
    out = tmp_path / "s.html"
    assert main(["data", *config(tmp_path, rows), "--out", str(out), "--fail-on", "leakage,conflict"]) == 2
    said = capsys.readouterr().err
    assert "'conflict'" in said
    assert all(kind in said for kind in KINDS)
    assert not out.exists()
    assert main(["data", *config(tmp_path, rows), "--out", str(out), "--by", "site"]) == 2
    assert "besides labels the data have patient" in capsys.readouterr().err
    assert main(["data", *config(tmp_path, rows), "--out", str(tmp_path / "s.json")]) == 2


def test_stored_features_choose_typical_and_confusing_images_and_find_what_was_cut(tmp_path, rows):
    first = cv2.imread(str(tmp_path / "images" / "0.png"))
    cv2.imwrite(str(tmp_path / "images" / "39.png"), cv2.resize(first[11:-11, 14:-14], (96, 72)))  # 15 % of each side
    options = config(tmp_path, rows)
    plain = mlcv.data_sheet(options, tmp_path / "s.html")
    assert "Typical" not in plain.path.read_text()
    assert plain.numbers["images"]["copies"] == []
    mlcv.features(options, tmp_path / "features", dtype="float32")
    stored = np.load(tmp_path / "features" / "pooled.npy")
    stored[39] = stored[0]  # a random network is no judge of likeness
    np.save(tmp_path / "features" / "pooled.npy", stored)
    found = mlcv.data_sheet([*options, f"--data.features={tmp_path / 'features'}"], tmp_path / "t.html", examples=3)
    page = found.path.read_text()
    part = page[page.index("Typical and confusing") : page.index("<h2>Examples")]
    titles = re.findall(r'title="([^"]*)"', part)
    for name, other in (("cat", "dog"), ("dog", "cat")):
        begins, confusing = f"<h3>{name}<small>typical</small></h3>", f"<h3><small>not {name}</small></h3>"
        (strip,) = re.findall(f"{begins}.*?{confusing}.*?</div>", part, re.DOTALL)
        labels = [title.rpartition(": ")[2] for title in re.findall(r'title="([^"]*)"', strip)]
        assert labels == [name] * 3 + [other] * 3
    assert len(titles) == 12
    (pair,) = found.numbers["images"]["copies"]
    assert [name.rpartition("/")[2] for name in pair["names"]] == ["0.png", "39.png"]


def test_sources_are_compared_where_a_column_says_them(tmp_path, numpy_rng):
    rows = []
    for n in range(120):
        photograph(tmp_path / "images" / f"{n}.png", numpy_rng, brightness=1.0 if n % 2 else 0.5)
        label = int(numpy_rng.random() < (0.9 if n % 2 else 0.1))
        rows.append([f"images/{n}.png", "val" if n % 6 > 3 else "train", n, label, n % 5 == 0, "ab"[n % 2]])
    header = ("image", "split", "patient", "cat", "dog", "source")
    found = sheet(tmp_path, [[*row[:4], int(row[4]), row[5]] for row in rows], header=header, labels=["cat", "dog"])
    by_source = [one.text for one in found.findings if one.kind == "drift"]
    assert any(text.startswith("by source, how often cat is there differs") for text in by_source)
    assert any(text.startswith("by source, brightness differs") for text in by_source)
    shortcuts = [one.text for one in found.findings if one.kind == "shortcuts"]
    assert any(text.startswith("brightness alone tells cat") for text in shortcuts)
    assert any(text.startswith("source alone tells cat") for text in shortcuts)
    assert not any("dog" in text for text in [*by_source, *shortcuts])
    assert found.numbers["compared"]["source"]["parts"] == {"a": 60, "b": 60}
    assert set(found.numbers["compared"]) == {"split", "source"}


def test_any_column_of_a_table_may_be_compared_by(tmp_path, rows, capsys):
    header = ("image", "split", "patient", "cat", "dog", "scanner")
    rows = [[*row, "old" if n < 20 else "new"] for n, row in enumerate(rows)]
    options = config(tmp_path, rows, header, labels=["cat", "dog"])
    found = mlcv.data_sheet(options, tmp_path / "s.html", by="scanner")
    assert found.numbers["compared"]["scanner"]["parts"] == {"new": 20, "old": 20}
    assert main(["data", *options, "--out", str(tmp_path / "s.html"), "--by", "scaner"]) == 2
    assert "there is no such column; besides labels the data have patient" in capsys.readouterr().err


def test_data_alone_have_a_sheet_without_a_model(tmp_path, rows):
    config(tmp_path, rows)
    data = json.loads((tmp_path / "c.yaml").read_text())["data"]
    (tmp_path / "d.yaml").write_text(json.dumps(data))
    (tmp_path / "alone.yaml").write_text(json.dumps({"data": data}))
    for option in (f"--data={tmp_path / 'd.yaml'}", f"--config={tmp_path / 'alone.yaml'}"):
        found = mlcv.data_sheet([option], tmp_path / "s.html", images=False)
        assert found.numbers["what"]["splits"]["train"]["images"] == 24


def test_names_are_letters_on_the_page(tmp_path, rows):
    evil = "images/<b>&.png"
    shutil.move(tmp_path / rows[0][0], tmp_path / evil)
    rows[0][0] = evil
    shutil.copy(tmp_path / evil, tmp_path / "images/1.png")
    header = ("image", "split", "patient", EVIL, "</script>")
    found = sheet(tmp_path, rows, header=header, about="<i>mine</i>")
    page = found.path.read_text()
    for text in (EVIL, "<b>", "<i>mine", "</script></"):
        assert text not in page
    assert "&lt;b&gt;&amp;.png" in page
    assert page.count("</script>") == 1
    assert page.count("onerror") == page.count("onerror=&#34;") + page.count("onerror=&quot;")


def test_the_json_file_has_all_numbers_and_no_others(tmp_path, rows):
    found = sheet(tmp_path, rows)
    stored = json.loads((tmp_path / "s.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert stored["labels"]["val"]["classes"][0]["positive"] == 4
    assert stored["what"]["splits"]["train"]["fingerprint"]
    assert stored["together"]["both"] == found.numbers["together"]["both"]
    sheet(tmp_path, rows)
    assert (tmp_path / "s.1.html").exists()  # the earlier page


def test_one_class_of_which_nothing_is_known_has_a_sheet(tmp_path, rows):
    found = sheet(tmp_path, [[*row[:4], ""] for row in rows], labels=["dog"])
    assert kinds(found) == ["unjudged", "unjudged"]
    assert found.numbers["labels"]["train"]["classes"][0]["unknown"] == 24
    assert "nan" not in found.path.read_text().lower().replace("isnan", "")


def test_no_image_is_opened_for_labels_alone(tmp_path, rows):
    for row in rows:
        (tmp_path / row[0]).unlink()
    rows[39][2] = "p1"
    found = sheet(tmp_path, rows, images=False)
    assert kinds(found) == ["leakage"]
    assert "images" not in found.numbers
    assert "No image was opened" in found.path.read_text()
    assert not (tmp_path / "s.npz").exists()


def test_data_without_a_single_image_that_can_be_read_have_a_sheet(tmp_path, rows):
    for row in rows:
        (tmp_path / row[0]).write_bytes(b"")
    found = sheet(tmp_path, rows)
    assert kinds(found) == ["unreadable"]
    assert found.findings[0].text.startswith("40 images cannot be read")


def test_splits_that_cannot_be_read_are_left_out(tmp_path, rows, caplog):
    with caplog.at_level(logging.WARNING):
        found = sheet(tmp_path, rows[:24])
    assert list(found.numbers["labels"]) == ["train"]
    assert "the val split cannot be read" in caplog.text


def test_radiographs_say_what_is_not_found(tmp_path, rows):
    for row in rows:
        path = tmp_path / row[0]
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    found = sheet(tmp_path, rows)
    assert found.numbers["images"]["compared_as"] == "radiographs"
    assert "cut by a twentieth is mostly not found" in found.path.read_text()


@pytest.mark.parametrize("name", sorted(set(MAKE) - {"ImageFilesDataModule"}))
def test_every_data_set_has_a_sheet(name, tmp_path):
    data = {"class_path": name, "init_args": MAKE[name](tmp_path / "data")}
    path = tmp_path / "c.yaml"
    (tmp_path / "data").mkdir(exist_ok=True)
    model = {"class_path": "Classifier", "init_args": {"backbone": "test_resnet"}}
    path.write_text(json.dumps({"data": data, "model": model}, default=lambda one: one.__dict__))
    found = mlcv.data_sheet(["--config", str(path)], tmp_path / "s.html")
    images = sum(labels["images"] for labels in found.numbers["labels"].values())
    assert images > 0
    assert found.numbers["images"]["unreadable"] == {}


def test_a_split_that_is_there_and_cannot_be_read_fails(tmp_path, rows, capsys):
    write_rows(tmp_path / "val.csv", ["image", "patient", "cat", "dog"], [["images/0.png", "x", 1, 7]])
    options = config(tmp_path, rows, split_column=None, val_path=str(tmp_path / "val.csv"))
    out = tmp_path / "s.html"
    assert main(["data", *options, "--out", str(out), "--fail-on", "leakage"]) == 2
    assert "val.csv:2: column 'dog' holds '7'" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_but_an_earlier_page_is_written_over(tmp_path, rows, capsys):
    options = config(tmp_path, rows)
    before = (tmp_path / "t.csv").read_bytes()
    for name in ("t.csv", "t", "t.NPZ"):
        assert main(["data", *options, "--out", str(tmp_path / name)]) == 2
        assert "a page's name ends with .html" in capsys.readouterr().err
    assert (tmp_path / "t.csv").read_bytes() == before
    np.savez(tmp_path / "s.npz", mine=np.arange(3))
    assert main(["data", *options, "--out", str(tmp_path / "s.html")]) == 0
    assert np.load(tmp_path / "s.1.npz")["mine"].tolist() == [0, 1, 2]
    assert main(["data", *options, "--out", str(tmp_path / "s.html")]) == 0
    assert not (tmp_path / "s.2.npz").exists()
    capsys.readouterr()
    assert main(["data", *options, "--out", str(tmp_path / "t.csv" / "s.html")]) == 2
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert "looking at images" not in said.out
