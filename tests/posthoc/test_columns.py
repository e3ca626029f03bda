"""Which column is what: found by name, told, or asked for in a sentence; and what a truth is beside its labels."""

import gzip

import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError, DataError, UserError
from mlcv.posthoc.columns import (
    TASKS,
    check_no_copies,
    class_column,
    common_classes,
    is_ours,
    name_column,
    read_ids,
)
from mlcv.posthoc.matching import read_all
from mlcv.posthoc.predictions import Predicted, write_predictions
from mlcv.posthoc.truth import TruthFile, label_states, read_truth
from mlcv.tables import NAME_COLUMNS, Codes, Table
from tests.tiny_sets import write_rows


@pytest.fixture(autouse=True)
def one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")


def test_the_first_usual_header_names_the_rows_unless_another_is_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    assert name_column(["a", "Path", "IMAGE"], path) == "IMAGE"  # in the order of the usual ones
    assert name_column(["a", "Path"], path, "a") == "a"
    assert name_column(["a", "Path"], path, "absent") == "Path"
    with pytest.raises(DataError) as raised:
        name_column(["a", "b"], path, "absent")
    assert str(raised.value) == (
        f"{path}: which column names the rows? None of a, b is called {', '.join(NAME_COLUMNS)}; give its header with "
        "--id"
    )


def test_names_of_rows_are_all_there_and_all_different(tmp_path):
    path = write_rows(tmp_path / "t.csv", ["n", "image"], [["x", "a"], ["y", "'=b"], ["x", "c"]])
    assert read_ids(Table(path)) == ("a", "=b", "c")
    with pytest.raises(DataError) as raised:
        read_ids(Table(path), "n")
    assert str(raised.value) == f"{path}:4: x is in {path}:2 already; drop one of the two"
    with pytest.raises(DataError, match=f"^{path}: which column names the rows"):
        read_ids(Table(write_rows(path, ["a", "b"], [["x", "y"]])))
    with pytest.raises(DataError, match=f"^{path}: there is no row below the header$"):
        read_ids(Table(write_rows(path, ["a", "b"], [])))  # whatever its columns are called


@pytest.mark.parametrize("told", [["3"] * 2, ["3", "4"], ["2", "5"]])
def test_a_file_of_ours_has_as_many_rows_as_it_says(tmp_path, told):
    header = ["index", "image", "a", "model", "rows"]
    path = write_rows(tmp_path / "t.csv", header, [[n, n, 0.5, "m", rows] for n, rows in enumerate(told)])
    assert is_ours(Table(path))
    with pytest.raises(DataError) as raised:
        read_ids(Table(path))
    assert str(raised.value) == (
        f"{path} has 2 rows and says that it has {' or '.join(sorted(set(told)))}: it was cut off, or put together; "
        "make it again, or take the column `rows` out if that is meant"
    )
    assert is_ours(Table(write_rows(tmp_path / "t.csv", header[:2] + header[3:], [])))  # of no class
    for absent in header[:2] + header[3:]:
        others = [name for name in header if name != absent]
        path = write_rows(tmp_path / "t.csv", others, [[n] * len(others) for n in range(2)])
        assert not is_ours(Table(path))
        assert absent == "image" or read_ids(Table(path)) == ("0", "1")


def test_a_class_is_found_under_the_header_that_keeps_a_spreadsheet_from_running_it(tmp_path):
    table = Table(write_rows(tmp_path / "t.csv", ["image", "'=a", "b"], [["x", 1, 0]]))
    assert [class_column(table, name) for name in ("=a", "b", "c")] == ["'=a", "b", "c"]


def test_classes_are_what_all_files_have_in_the_order_of_the_first(tmp_path, capsys, monkeypatch):
    one = write_rows(tmp_path / "one.csv", ["image", "age", "c", "a", "'=b", "index"], [])
    two = write_rows(tmp_path / "two.csv", ["a", "c", "Path", "'=b", "sex"], [])
    assert common_classes([one, two, one]) == ("c", "a", "=b")
    assert capsys.readouterr().out == (
        f"rows are named by 'image' of {one}, 'Path' of {two}\n3 classes: c, a, =b; not classes: age, sex\n"
    )
    assert common_classes([one, two], ids="sex") == ("c", "a", "=b")
    assert f"'image' of {one}, 'sex' of {two}\n3 classes: c, a, =b; not classes: Path, age\n" in capsys.readouterr().out
    assert common_classes([one, two], ["a"]) == ("a",)
    assert "1 classes: a; not classes: =b, age, c, sex\n" in capsys.readouterr().out
    assert common_classes([one], ["tasks"]) == TASKS
    assert common_classes([one], ["tasks", "a"]) == ("tasks", "a")
    many = write_rows(tmp_path / "many.csv", ["image", *(f"c{n}" for n in range(9)), *(f"d{n}" for n in range(9))], [])
    capsys.readouterr()
    common_classes([many], [f"c{n}" for n in range(9)])
    assert capsys.readouterr().out.endswith(
        "9 classes: c0, c1, c2, c3, c4, c5, c6, c7, ...; not classes: d0, d1, d2, d3, d4, d5, d6, d7\n"
    )
    monkeypatch.setenv("COLUMNS", "30")  # a narrow terminal breaks the line itself, so that it can be copied
    common_classes([many], [f"c{n}" for n in range(8)] + [f"d{n}" for n in range(9)] + ["c8"])
    assert capsys.readouterr().out.endswith("\n18 classes: c0, c1, c2, c3, c4, c5, c6, c7, ...\n")
    common_classes([many], [f"c{n}" for n in range(8)])
    assert "8 classes: c0, c1, c2, c3, c4, c5, c6, c7; not" in capsys.readouterr().out
    other = write_rows(tmp_path / "other.csv", ["image", "z"], [])
    with pytest.raises(ConfigError) as raised:
        common_classes([one, two, other])
    assert str(raised.value) == f"{one} and {two} have no class in common; give --classes"
    with pytest.raises(DataError, match=f"^{tmp_path / 'bare.csv'}: which column names the rows"):
        common_classes([one, write_rows(tmp_path / "bare.csv", ["a", "c"], [])])


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\u2028b", "a\x07b"])
def test_a_class_that_could_not_be_told_apart_in_print_is_refused(tmp_path, name):
    path = tmp_path / "p.csv"
    write_rows(path, ["image", name, f"truth:{name}"], [["1.jpg", 0.5, 1]])
    with pytest.raises(ConfigError, match="holds a character that cannot be printed; rename the column"):
        common_classes([path])


def test_a_file_of_ours_says_itself_which_columns_are_classes(tmp_path, capsys):
    rows = [Predicted(n, str(n), [0.5, 0.5], [True, False], [n % 2, 1], f"g{n}") for n in range(4)]
    path = tmp_path / "p.csv"
    write_predictions(path, ["a", "b"], rows, "x")
    wider = tmp_path / "wider.csv"
    lines = path.read_text().splitlines()
    wider.write_text("\n".join([f"fold,{lines[0]}", *(f"1,{line}" for line in lines[1:])]))
    assert common_classes([wider]) == ("a", "b")
    assert "2 classes: a, b; not classes: fold\n" in capsys.readouterr().out


def test_a_column_that_is_the_truth_itself_is_no_prediction(numpy_rng):
    targets = torch.from_numpy(numpy_rng.integers(0, 2, (30, 3)))
    scores = targets.double() * 0.5
    targets[:, 2] = -1
    check_no_copies(scores, targets, "abc", "p.csv")
    scores[:, 1] = targets[:, 1]
    targets[::2, 1] = -1  # what is unknown is no difference
    with pytest.raises(ConfigError) as raised:
        check_no_copies(scores, targets, "abc", "p.csv")
    assert str(raised.value) == (
        "p.csv: the column 'b' is the same in the truth, so it is no prediction; say with --classes which columns are "
        "classes (and name it there if it is one)"
    )
    scores[1, 1] += 0.5
    check_no_copies(scores, targets, "abc", "p.csv")


def test_a_truth_is_its_labels_and_what_else_stands_beside_them(tmp_path, numpy_rng):
    cells = numpy_rng.choice(["1", "0", "-1", "", "1.0"], (40, 2))
    cells[:2] = [["1", "0"], ["0", "1"]]
    header = ["age", "image", "b", "group", "a", "truth", "index"]
    rows = [[n, f"{n}.png", cells[n, 1], "g", cells[n, 0], "t", n] for n in range(40)]
    path = tmp_path / "t.csv.gz"
    plain = write_rows(tmp_path / "t.csv", header, rows)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    truth = read_truth(path, ("a", "b"))
    meaning = {"1": 1, "1.0": 1, "0": 0, "-1": -1, "": -1}
    assert truth.ids == tuple(f"{n}.png" for n in range(40))
    assert truth.targets.dtype == torch.int64
    assert truth.targets.tolist() == [[meaning[a], meaning[b]] for a, b in cells]
    assert truth.about == {"age": tuple(map(str, range(40))), "truth": ("t",) * 40}
    assert truth.groups is None
    by_age = read_truth(path, ("a", "b"), Codes(negative=("-1",), uncertain=("0",)), "age")
    assert by_age.ids == tuple(map(str, range(40)))
    assert by_age.about["image"] == truth.ids
    assert "age" not in by_age.about
    assert by_age.targets.tolist() == [
        [{0: -1, -1: 0 if c == "-1" else -1}.get(meaning[c], 1) for c in row] for row in cells
    ]


def test_a_truth_that_judges_nothing_says_how_its_cells_are_read(tmp_path):
    path = write_rows(tmp_path / "t.csv", ["image", "a", "b"], [["x", "1", "-1"], ["y", "1", ""]])
    with pytest.raises(DataError) as raised:
        read_truth(path, ("a", "b"))
    assert str(raised.value) == (
        f"{path}: no class has a positive and a negative, so there is nothing to judge by; its cells are read 2 as "
        "positive, 0 as negative, 1 as unknown, 1 as uncertain. Say what they mean with --positive, --negative, "
        "--uncertain, --blank and --fractions"
    )


def ours(path, order, targets, probs, **more):
    rows = [Predicted(n, f"{n}.png", probs[n].tolist(), truth=targets[n].tolist(), **more) for n in order]
    write_predictions(path, ["a", "b"], rows, "x")
    return path


def test_labels_of_a_file_with_both_are_those_of_the_truth(tmp_path, numpy_rng):
    targets, probs = numpy_rng.integers(-1, 2, (20, 2)), numpy_rng.random((20, 2))
    targets[:2] = [[0, 1], [1, 0]]
    path = ours(tmp_path / "p.csv", range(20), targets, probs)
    assert label_states(Table(path), ("b", "a"), Codes()).tolist() == targets[:, ::-1].tolist()
    truth = read_truth(path, ("a", "b"))
    assert truth.targets.tolist() == targets.tolist()
    assert truth.about == {}


def test_files_that_hold_their_truth_are_of_the_same_images_or_refused(tmp_path, numpy_rng, capsys):
    targets, probs = numpy_rng.integers(-1, 2, (20, 2)), numpy_rng.random((20, 2))
    targets[:2] = [[0, 1], [1, 0]]
    one = ours(tmp_path / "one.csv", range(20), targets, probs)
    hidden = np.where(numpy_rng.random((20, 2)) < 0.5, -1, targets)  # what one does not know is no difference
    hidden[:2] = targets[:2]
    order = numpy_rng.permutation(20)
    two = ours(tmp_path / "two.csv", order, hidden, probs)
    names, truth, models = read_all([one, two], TruthFile())
    assert (names, truth.targets.tolist()) == (("a", "b"), targets.tolist())
    assert [model.name for model in models] == ["one", "two"]
    assert models[1].scores.tolist() == probs[order].tolist()
    for c in (0, 1):  # a yes for a no, and a no for a yes
        other = hidden.copy()
        other[1, c] = 1 - other[1, c]
        three = ours(tmp_path / f"three{c}.csv", order, other, probs)
        with pytest.raises(DataError) as raised:
            read_all([one, three], TruthFile())
        line = order.tolist().index(1) + 2
        assert str(raised.value) == (
            f"{three}:{line}: the labels of 1.png are not those of the first file, so these are other images of the "
            "same name, or corrected labels: say which truth counts with --truth"
        )
    assert len(read_all([one, three], TruthFile(one))[2]) == 2  # the user says it
    fewer = ours(tmp_path / "fewer.csv", [1, 5], np.where(np.arange(20)[:, None] == 1, targets, -1), probs)
    assert len(read_all([one, fewer], TruthFile())[2]) == 2  # rows that are absent are the judge's affair
    bare = write_rows(tmp_path / "bare.csv", ["image", "a", "b"], [[f"{n}.png", 0.5, 0.5] for n in range(20)])
    assert len(read_all([one, bare], TruthFile())[2]) == 2


@pytest.mark.parametrize("more", ["image", "place"])  # what would be taken for the name, and is none
def test_an_unusual_header_names_the_rows_of_every_file_that_has_it(tmp_path, numpy_rng, more):
    targets, probs = numpy_rng.integers(0, 2, (20, 1)), numpy_rng.random((20, 1))
    targets[:2, 0] = 0, 1
    order = numpy_rng.permutation(20)
    header = ["key", more, "group", "a"]
    truth = write_rows(tmp_path / "t.csv", header, [[f"k{n}", n % 2, f"g{n % 3}", targets[n, 0]] for n in range(20)])
    model = write_rows(tmp_path / "p.csv", header, [[f"k{n}", n % 2, f"g{n % 3}", probs[n, 0]] for n in order])
    names, found, (read,) = read_all([model], TruthFile(truth, ("a",), ids="key"))
    assert names == ("a",)
    assert found.ids == tuple(f"k{n}" for n in range(20))
    assert read.ids == tuple(f"k{n}" for n in order)
    assert found.groups == tuple(f"g{n % 3}" for n in range(20))


def test_one_file_holds_its_own_truth_and_groups(tmp_path, numpy_rng):
    targets, probs = numpy_rng.integers(0, 2, (20, 2)), numpy_rng.random((20, 2))
    targets[:2] = [[0, 1], [1, 0]]
    found = read_all([ours(tmp_path / "p.csv", range(20), targets, probs, group="g")], TruthFile())[1]
    assert found.groups == ("g",) * 20
    assert found.unit == "groups by 'group'"


def test_copies_of_the_truth_are_looked_for_where_nobody_said_what_a_class_is(tmp_path, numpy_rng):
    targets, probs = numpy_rng.integers(0, 2, (20, 1)), numpy_rng.random((20, 1))
    targets[:2, 0] = 0, 1
    rows = [[f"{n}.png", n % 2, targets[n, 0]] for n in range(20)]
    truth = write_rows(tmp_path / "t.csv", ["image", "fold", "a"], rows)
    order = numpy_rng.permutation(20)
    shuffled = [[f"{n}.png", n % 2, probs[n, 0]] for n in order]
    model = write_rows(tmp_path / "p.csv", ["image", "fold", "a"], shuffled)
    with pytest.raises(ConfigError, match=f"^{model}: the column 'fold' is the same in the truth"):
        read_all([model], TruthFile(truth))
    assert read_all([model], TruthFile(truth, ("fold", "a")))[0] == ("fold", "a")
    studies = write_rows(tmp_path / "s.csv", ["Study", "a"], [[f"patient{n}/study1", targets[n, 0]] for n in range(20)])
    views = [[f"/x/patient{n}/study1/view{v}.jpg", probs[n, 0]] for n in range(20) for v in range(2)]
    model = write_rows(tmp_path / "v.csv", ["Path", "a"], views)
    assert read_all([model], TruthFile(studies), "mean")[0] == ("a",)
    with pytest.raises(DataError, match="20 of the 20 rows of the truth have no prediction"):
        read_all([model], TruthFile(studies))


@pytest.mark.parametrize("holder", ["truth", "predictions", "both", "none"])
@pytest.mark.parametrize("asked", [None, "Who"])
def test_groups_come_from_the_first_file_that_tells_them_of_every_row(tmp_path, numpy_rng, holder, asked, capsys):
    column = asked or "group"
    targets, probs = numpy_rng.integers(0, 2, (20, 1)), numpy_rng.random((20, 1))
    targets[:2, 0] = 0, 1
    people = [f"P{n % 4}" if n % 5 else "" for n in range(20)]

    def write(name, cells, has_groups, order, whose):
        rows = [[f"{n}.png", cells[n, 0], *([whose[n]] if has_groups else [])] for n in order]
        return write_rows(tmp_path / name, ["image", "a", *([column] if has_groups else [])], rows)

    truth = write("t.csv", targets, holder in ("truth", "both"), range(20), people)
    others = [f"q{n % 3}" for n in range(20)] if holder == "both" else people
    order = numpy_rng.permutation(20)
    model = write("p.csv", probs, holder in ("predictions", "both"), order, others)
    source = TruthFile(truth, ("a",), group=asked)
    if holder == "none":
        if asked is None:
            assert read_all([model], source)[1].groups is None
        else:
            with pytest.raises(ConfigError) as raised:
                read_all([model], source)
            assert str(raised.value) == (
                "--group Who: neither truth nor predictions have this column for all rows of the truth"
            )
        return
    found = read_all([model], source)[1]
    assert found.unit == f"groups by {column!r}"
    wanted = [whose.lower() if whose else None for whose in people]
    for row in range(20):
        for other in range(20):
            same = row == other or (wanted[row] is not None and wanted[row] == wanted[other])
            assert (found.groups[row] == found.groups[other]) == same
    # Of predictions that lack a row of the truth nobody knows whose it is.
    if holder == "predictions":
        fewer = write("f.csv", probs, True, order[1:], people)
        if asked is None:
            assert read_all([fewer], source)[1].groups is None
        else:
            with pytest.raises(UserError, match="--group Who"):
                read_all([fewer], source)
        assert read_all([fewer, model], source)[1].groups == found.groups
