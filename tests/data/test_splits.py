"""No image, and no patient, is in training and evaluation both, however the splits come about."""

import csv
import json
import re
from itertools import combinations

import numpy as np
import pytest
import torch

from mlcv.data import COCODataModule, CSVDataModule, LabeledImages, MultiLabelDataModule, NIHDataModule, VOCDataModule
from mlcv.data.splits import check_apart, check_once, group_keys, groups_of, hold_out, told_apart
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import write_coco, write_image, write_voc


def table(path, rows):
    """Rows of (image, patient, split, label)."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "patient", "split", "cat"], *rows])
    for image, *_ in rows:
        if not (path.parent / image).exists():
            write_image(path.parent / image, (8, 8))
    return str(path)


def patients(data, split):
    labeled = data.datasets[split].labeled
    return {cell for cell in labeled.about["patient"].tolist() if cell.strip()}


def images(data, split):
    return {str(image) for image in data.datasets[split].labeled.images}


def drawn(tmp_path, random, way):
    """A data module whose splits come about in one way, from a random table; some of its patients are blank."""
    count = int(random.integers(20, 40))
    rows = [
        [f"{n}.jpg", random.choice([f"p{random.integers(8)}", " "], p=[0.9, 0.1]), "train", n % 2] for n in range(count)
    ]
    options = {"group_column": "patient", "label_columns": ["cat"], "image_size": 8, "batch_size": 2, "num_workers": 0}
    if way == "fractions":
        return CSVDataModule(table(tmp_path / "a.csv", rows), fractions=(0.5, 0.25, 0.25), **options)
    if way == "val_fraction":
        for row in rows[-5:]:
            row[1:3] = "other", "test"
        path = table(tmp_path / "a.csv", rows)
        return CSVDataModule(path, split_column="split", val_fraction=0.3, **options)
    if way == "fold":
        for row in rows[-5:]:
            row[1:3] = "other", "test"
        path = table(tmp_path / "a.csv", rows)
        return CSVDataModule(path, split_column="split", fold=f"{random.integers(1, 4)}/3", **options)
    # Here somebody else has divided the rows, often badly.
    for row in rows:
        row[2] = random.choice(["train", "val", "test"])
        if random.random() < 0.6 and row[1].strip():
            row[1] = f"{row[1]} {row[2]}"
    if random.random() < 0.3:
        rows.append(rows[int(random.integers(count))][:])
        rows[-1][2] = random.choice(["train", "val", "test"])
    if way == "column":
        return CSVDataModule(table(tmp_path / "a.csv", rows), split_column="split", **options)
    parts = [
        table(tmp_path / f"{s}.csv", [row for row in rows if row[2] == s] or rows[:1]) for s in ("train", "val", "test")
    ]
    return CSVDataModule(parts[0], val_path=parts[1], test_path=parts[2], **options)


LONG = {"train": "training", "val": "validation", "test": "test"}


def refusal(read, seen):
    """How the one sentence begins that must refuse these splits, of which some are asked for; None if all is well."""
    images = {split: [str(image) for image in one.images] for split, one in read.items()}
    people = {split: [cell.strip() for cell in one.about["patient"]] for split, one in read.items()}
    for split in seen:
        for row, image in enumerate(images[split]):
            if image in images[split][:row]:
                return f"CSVDataModule, {split} split: {image} is there twice ("
    for one, other in combinations(read, 2):
        if one not in seen and other not in seen:
            continue
        where = f"is in the {LONG[one]} and the {LONG[other]} split ("
        for image in images[other]:
            if image in images[one]:
                return f"{image} {where}"
        for cell in people[other]:
            if cell and cell in people[one]:
                return f"patient {cell!r} {where}"
    return None


@pytest.mark.parametrize("way", ["fractions", "val_fraction", "fold", "column", "files"])
@pytest.mark.parametrize("first", ["fit", "test"])
def test_every_way_of_splitting_holds_groups_and_images_or_is_refused(tmp_path, numpy_rng, request, way, first):
    outcomes = []
    for turn in range(200 if request.config.getoption("--run-slow") else 12):
        folder = tmp_path / str(turn)
        folder.mkdir()
        data = drawn(folder, numpy_rng, way)
        read = {split: data._read(split) for split in ("train", "val", "test")}
        sentence = refusal(read, ("train", "val") if first == "fit" else ("test",))
        if sentence is not None:
            with pytest.raises(DataError, match=f"^{re.escape(sentence)}"):
                data.setup(first)
        else:
            data.setup(first)
        outcomes.append("held" if sentence is None else "refused")
    assert ("refused" in outcomes) == (way in ("column", "files"))


def test_a_patient_who_is_blank_is_nobody_and_nobodys_group():
    about = {"patient": np.array(["a", "", " ", "nan", "a", "b"])}
    labeled = LabeledImages(list("uvwxyz"), np.zeros((6, 1), np.int8), about=about)
    assert len(set(groups_of(labeled, "patient"))) == 5
    held = hold_out(labeled, "patient", 0.5, 0)
    assert held[0] == held[4]
    other = LabeledImages(["1", "2"], np.zeros((2, 1), np.int8), about={"patient": np.array(["", "nan"])})
    check_apart({"train": labeled, "val": other}, "patient")


def test_what_is_refused_is_named_with_its_rows_and_how_many_there_are(tmp_path):
    rows = [[f"{n}.jpg", f"p{n}", "train", n % 2] for n in range(8)]
    options = {"label_columns": ["cat"], "image_size": 8, "batch_size": 2, "split_column": "split"}

    def refused(changes, stage="fit", **more):
        mine = [row[:] for row in rows]
        mine[6][2] = mine[7][2] = "val"
        for place, cells in changes.items():
            mine[place] = cells
        path = table(tmp_path / "a.csv", mine)
        with pytest.raises(DataError) as caught:
            CSVDataModule(path, **{**options, **more}).setup(stage)
        return str(caught.value)

    same = refused({1: ["0.jpg", "p0", "train", 0]})
    assert f"0.jpg is there twice ({tmp_path}/a.csv:2 and {tmp_path}/a.csv:3; 1 such images). Give an image" in same
    other = refused({1: ["0.jpg", "p0", "train", 1]})
    assert "its labels contradict each other, as in 'cat'" in other
    shared = refused({6: ["./0.jpg", "p0", "val", 1]})
    assert f"is in the training and the validation split ({tmp_path}/a.csv:2 and {tmp_path}/a.csv:8)" in shared
    assert "as 1 of the 2 validation images are, 1 of them with other labels; results would be too good" in shared
    group = refused({7: ["7.jpg", "p3", "val", 1]}, group_column="patient")
    assert (
        f"patient 'p3' is in the training and the validation split ({tmp_path}/a.csv:5 and {tmp_path}/a.csv:9)" in group
    )
    assert "Leave each patient in one split" in group


def test_three_annotators_in_one_table_are_refused(tmp_path, numpy_rng):
    rows = [[f"{n % 30}.jpg", "", "", int(numpy_rng.integers(2))] for n in range(90)]
    data = CSVDataModule(table(tmp_path / "a.csv", rows), label_columns=["cat"], image_size=8)
    with pytest.raises(DataError, match="put together what several annotators say first|results would be too good"):
        data.setup("fit")


def test_an_official_split_that_evaluates_twice_on_the_same_images_is_none_of_that(tmp_path):
    for data in (
        VOCDataModule(str(write_voc(tmp_path / "voc", 2012)), 2012, image_size=16, batch_size=2),
        COCODataModule(str(write_coco(tmp_path / "coco")), image_size=16, batch_size=2),
    ):
        data.setup("fit")
        data.setup("test")
        assert images(data, "val") == images(data, "test")


def test_lists_of_voc_that_share_an_image_are_refused(tmp_path):
    root = write_voc(tmp_path / "voc", 2007, xml=True)
    lists = root / "VOC2007" / "ImageSets" / "Main"
    (lists / "val.txt").write_text((lists / "val.txt").read_text() + "train0001\n")
    with pytest.raises(DataError, match="is in the training and the validation split"):
        VOCDataModule(str(root), 2007, image_size=16, batch_size=2).setup("fit")


def test_patients_in_both_lists_of_nih_are_found(tmp_path):
    rows = [[f"{p:08d}_{n:03d}.png", "No Finding", p, "40", "M", "PA"] for p in range(6) for n in range(2)]
    header = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"]
    with (tmp_path / "Data_Entry_2017.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for name, *_ in rows:
        write_image(tmp_path / "images" / name, (8, 8))
    names = [row[0] for row in rows]
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:9]))
    (tmp_path / "test_list.txt").write_text("\n".join(names[9:]))
    data = NIHDataModule(str(tmp_path), val_fraction=0.2, image_size=8, batch_size=2)
    with pytest.raises(DataError, match="patient '4' is in the (training|validation) and the test split"):
        data.setup("fit")


def test_arrays_are_the_same_image_if_their_pixels_are(numpy_rng):
    class Arrays(MultiLabelDataModule):
        class_names = ("a",)

        def read_split(self, split):
            pixels = every[split]
            return LabeledImages(pixels, np.zeros((len(pixels), 1), np.int8))

    every = {split: numpy_rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8) for split in ("train", "val", "test")}
    Arrays(image_size=8, batch_size=2).setup("fit")
    every["test"][3] = every["train"][1]
    for stage in ("fit", "test"):
        with pytest.raises(DataError, match=r"image 1 is in the training and the test split \(image 1 and image 3\)"):
            Arrays(image_size=8, batch_size=2).setup(stage)


@pytest.mark.parametrize("way", ["symlink", "hard link", "linked folder", "absolute", "dots"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_is_itself_whatever_path_leads_to_it(tmp_path, way, split):
    rows = [[f"{n}.jpg", f"p{n}", "train" if n < 6 else "test", 0] for n in range(9)]
    path = table(tmp_path / "a.csv", rows)
    other = {"absolute": str(tmp_path / "0.jpg"), "dots": "x/../0.jpg", "linked folder": "x/0.jpg"}.get(way, "z.jpg")
    if way == "symlink":
        (tmp_path / other).symlink_to("0.jpg")
    elif way == "hard link":
        (tmp_path / other).hardlink_to(tmp_path / "0.jpg")
    elif way == "linked folder":
        (tmp_path / "x").symlink_to(tmp_path)
    else:
        (tmp_path / "x").mkdir()
    with (tmp_path / "a.csv").open("a", newline="") as file:
        csv.writer(file).writerow([other, "p9", split, 1])
    monkey = {"split_column": "split", "label_columns": ["cat"], "image_size": 8, "batch_size": 2, "num_workers": 0}
    with pytest.raises(DataError, match=r"0.jpg is (there twice|in the training and the (test|validation) split)"):
        CSVDataModule(path, group_column="patient", **monkey).setup("fit")


@pytest.mark.parametrize("other", ["p0 ", " p0", "P0", "p0", "1.0", " 1"])
def test_a_group_is_itself_however_it_is_spelled(tmp_path, other):
    rows = [[f"{n}.jpg", "1" if "1" in other else "p0", "train", 0] for n in range(4)] + [["9.jpg", other, "test", 1]]
    options = {"split_column": "split", "label_columns": ["cat"], "image_size": 8, "batch_size": 2, "num_workers": 0}
    with pytest.raises(DataError, match="is in the training and the validation split"):
        CSVDataModule(table(tmp_path / "a.csv", rows), group_column="patient", **options).setup("fit")
    drawn = CSVDataModule(table(tmp_path / "b.csv", rows), group_column="patient", label_columns=["cat"], image_size=8)
    table_read = drawn._table(drawn.paths["train"])
    drawn_from = table_read, drawn._read_table(table_read)
    held = [split for split in ("train", "val", "test") if len(drawn._images(*drawn_from, split))]
    assert len(held) == 1


def test_a_split_that_is_not_here_is_not_looked_at(tmp_path):
    root = write_coco(tmp_path / "coco")
    (root / "annotations" / "instances_train2014.json").unlink()
    data = COCODataModule(str(root), image_size=16, batch_size=2)
    data.setup("test")
    assert len(data.datasets["test"]) == 6
    assert json.dumps(data.label_summary)


def labeled(random, count, known=0.7, names=None, **about):
    """Images that are nowhere, with states of three classes."""
    states = random.integers(0, 2, (count, 3)).astype(np.int8)
    hidden = random.random((count, 3)) > known
    states[hidden] = random.choice([-1, -2], hidden.sum())
    names = names or [f"nowhere/{n}.png" for n in range(count)]
    about = {name: np.array(cells) for name, cells in about.items()}
    return LabeledImages(names, states, about=about, file="t.csv", lines=np.arange(count) + 2)


def test_a_groups_name_is_one_spelling_and_an_empty_cell_is_its_own_row():
    cells = [
        " A1 ",
        "a1",
        "Stra\u00dfe",
        "STRASSE",
        "e\u0301",
        "\u00c9",
        "1",
        "1.0",
        "01.00",
        "1.50",
        "v1.0",
        "",
        "NaN",
        "1.",
    ]
    keys = group_keys(cells)
    assert keys == ["a1", "a1", "strasse", "strasse", "\u00e9", "\u00e9", "1", "1", "01", "1.50", "v1.0", 11, 12, "1."]
    assert told_apart(["11", 11, "a"]) == ["11", "\x0011", "a"]
    about = {"who": np.array(cells)}
    given = LabeledImages([str(n) for n in range(14)], np.zeros((14, 1), np.int8), about=about)
    assert groups_of(given, "who") == keys
    assert list(groups_of(given, None)) == list(range(14))


def contradicts(one, other):
    """Classes of which one row says yes and the other no."""
    return [c for c, (a, b) in enumerate(zip(one.tolist(), other.tolist(), strict=True)) if {a, b} == {0, 1}]


@pytest.mark.parametrize("known", [0.2, 0.5, 1.0])
def test_an_image_that_is_there_twice_is_told_with_its_rows_and_what_contradicts_itself(numpy_rng, known):
    for _ in range(30):
        names = [f"nowhere/{n}.png" for n in numpy_rng.integers(0, 12, 8)]
        given = labeled(numpy_rng, 8, known, names)
        pairs = [(names.index(name), row) for row, name in enumerate(names) if name in names[:row]]
        if not pairs:
            check_once(given, "abc", "Set, train split")
            continue
        bad = [(pair, contradicts(*given.states[list(pair)])) for pair in pairs]
        (one, other), classes = next((found for found in bad if found[1]), bad[0])
        differ = f"; its labels contradict each other, as in {'abc'[classes[0]]!r}" if classes else ""
        with pytest.raises(DataError) as raised:
            check_once(given, "abc", "Set, train split")
        assert str(raised.value) == (
            f"Set, train split: {names[one]} is there twice (t.csv:{one + 2} and t.csv:{other + 2}; {len(pairs)} such "
            f"images){differ}. Give an image one row: drop the others, or put together what several annotators say "
            "first"
        )


@pytest.mark.parametrize("pair", [("train", "val"), ("train", "test"), ("val", "test")], ids="-".join)
@pytest.mark.parametrize("group", [None, "who"])
def test_what_two_splits_share_is_counted_and_its_first_is_told(numpy_rng, pair, group):
    outcomes = set()
    for _ in range(60):
        parts = []
        for _ in pair:
            names = [f"nowhere/{n}.png" for n in numpy_rng.choice(40, 6, replace=False)]
            who = numpy_rng.choice([*(f"P{n}" for n in range(30)), "", ""], 6)
            parts.append(labeled(numpy_rng, 6, 0.5, names, who=who))
        one, other = parts
        images = [(list(one.images).index(name), row) for row, name in enumerate(other.images) if name in one.images]
        people = [
            ([n for n, cell in enumerate(one.about["who"]) if cell == name][-1], row)
            for row, name in enumerate(other.about["who"])
            if name and name in one.about["who"]
        ]
        where = f"the {LONG[pair[0]]} and the {LONG[pair[1]]} split"
        differ = sum(bool(contradicts(one.states[a], other.states[b])) for a, b in images)
        if images:
            a, b = images[0]
            expected = (
                f"{one.images[a]} is in {where} (t.csv:{a + 2} and t.csv:{b + 2}), as {len(images)} of the 6 "
                f"{LONG[pair[1]]} images are{f', {differ} of them with other labels' if differ else ''}; results would "
                "be too good. Leave each image in one split"
            )
        elif group and people:
            a, b = people[0]
            expected = (
                f"who {one.about['who'][a].item()!r} is in {where} (t.csv:{a + 2} and t.csv:{b + 2}), as that of "
                f"{len(people)} of the 6 {LONG[pair[1]]} images is; results would be too good. Leave each who in one "
                "split, or have splits drawn by it: data.split_column null, mlcv init --draw_splits"
            )
        else:
            expected = None
            check_apart(dict(zip(pair, parts, strict=True)), group)
        outcomes.add((bool(images), expected is None))
        if expected is not None:
            with pytest.raises(DataError) as raised:
                check_apart(dict(zip(pair, parts, strict=True)), group)
            assert str(raised.value) == expected
    assert (True, False) in outcomes
    assert (False, True) in outcomes


def test_validation_and_test_are_the_same_images_or_have_none_in_common(numpy_rng):
    who = [f"p{n}" for n in range(6)]
    one = labeled(numpy_rng, 6, who=who)
    order = numpy_rng.permutation(6)
    check_apart({"val": one, "test": one.select(order)}, "who")
    for some in ({"val": one, "test": one.select(order[:5])}, {"val": one.select(order[:5]), "test": one}):
        with pytest.raises(DataError, match="is in the validation and the test split"):
            check_apart(some, "who")
    for name in ("val", "test"):
        with pytest.raises(DataError, match="is in the training and the"):
            check_apart({"train": one, name: one.select(order)}, "who")


def test_a_path_that_no_system_could_open_is_itself(numpy_rng):
    names = ["nowhere/a\0b.png", "nowhere/c.png"]
    given = labeled(numpy_rng, 2, names=names)
    check_once(given, "abc", "s")
    with pytest.raises(DataError, match="c.png is in the training"):
        check_apart({"train": given, "val": given.select(np.array([1]))}, None)
    with pytest.raises(DataError, match=r"nowhere/a.*b.png is in the training"):
        check_apart({"train": given, "val": given.select(np.array([0]))}, None)


def test_folds_are_all_training_images_once_and_alike_in_each_label(tmp_path, rng):
    random = np.random.default_rng(int(torch.randint(2**31, (), generator=rng)))
    of = random.integers(60, size=200)
    rows = [[f"{n}.jpg", f"p{of[n]}", "train", random.choice(["1", "0", ""], p=[0.2, 0.5, 0.3])] for n in range(200)]
    path = table(tmp_path / "a.csv", rows)
    options = {"group_column": "patient", "label_columns": ["cat"], "split_column": "split", "image_size": 8}
    seen, rates = [], []
    for number in range(1, 5):
        data = CSVDataModule(path, fold=f"{number}/4", batch_size=2, **options)
        data.setup("fit")
        held = data.datasets["val"].labeled
        assert not images(data, "train") & images(data, "val")
        assert not patients(data, "train") & patients(data, "val")
        assert images(data, "train") | images(data, "val") == {str(tmp_path / row[0]) for row in rows}
        seen += [str(image) for image in held.images]
        rates.append([(held.states == 1).mean(), (held.states >= 0).mean()])
    assert len(seen) == len(set(seen)) == 200
    assert np.ptp(rates, axis=0).max() < 0.08


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "5", "a/b", "1/5/2", ""])
def test_a_fold_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="data.fold is such as 2/5"):
        CSVDataModule("a.csv", fold=text)


def test_fewer_groups_than_folds_are_refused(tmp_path):
    path = table(tmp_path / "a.csv", [[f"{n}.jpg", "p", "train", "1"] for n in range(6)])
    data = CSVDataModule(
        path, fold="1/3", group_column="patient", label_columns=["cat"], split_column="split", image_size=8
    )
    with pytest.raises(DataError, match="1 patient\\(s\\) cannot be dealt into 3 parts"):
        data.setup("fit")
