"""Files of predictions: what is written is what is read, in both formats, and models are combined row by row."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from mlcv.errors import ConfigError, DataError
from mlcv.posthoc.predictions import (
    Predicted,
    Predictions,
    apart,
    chosen_names,
    combine,
    read_predictions,
    write_predictions,
)
from tests.tiny_sets import write_rows

NAMES = ("a", "b", "c")
PARTS = [(), ("chosen",), ("truth",), ("group",), ("chosen", "truth", "group")]


def rows_of(generator, parts, count=7):
    rows = []
    for n in range(count):
        probs = generator.random(3).tolist()
        truth = [float(value) for value in generator.choice([0, 1, -1, 0.25], 3)]
        given = {"chosen": (generator.random(3) < 0.5).tolist(), "truth": truth, "group": f"p{n // 2}"}
        rows.append(Predicted(3 * n, f"f/{n}.png", probs, **{name: given[name] for name in parts}))
    return rows


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("model", ["0123456789ab", None])
def test_each_row_of_json_holds_what_is_known_of_it_and_nothing_else(tmp_path, numpy_rng, parts, model):
    rows, path = rows_of(numpy_rng, parts), tmp_path / "p.jsonl"
    write_predictions(path, NAMES, rows, model)
    lines = path.read_text().splitlines()
    for row, line in zip(rows, lines, strict=True):
        expected = {"image": row.image, "probs": dict(zip(NAMES, row.probs, strict=True)), "model": model, "rows": 7}
        if "group" in parts:
            expected["group"] = row.group
        if "truth" in parts:
            expected["truth"] = {name: None if v < 0 else v for name, v in zip(NAMES, row.truth, strict=True)}
        if "chosen" in parts:
            expected["labels"] = [name for name, there in zip(NAMES, row.chosen, strict=True) if there]
        assert json.loads(line) == expected
    write_predictions(path, NAMES, rows[:2], model)
    assert len(path.read_text().splitlines()) == 2
    assert (tmp_path / "p.1.jsonl").read_text().splitlines() == lines  # nothing is lost


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("model", ["0123456789ab", None])
def test_each_row_of_a_table_does_too_and_is_read_back(tmp_path, numpy_rng, parts, model):
    rows, path = rows_of(numpy_rng, parts), tmp_path / "p.csv"
    write_predictions(path, NAMES, rows, model)
    with path.open(newline="") as file:
        header, *cells = csv.reader(file)
    expected = ["index", "image"] + ["group"] * ("group" in parts) + [*NAMES]
    expected += [f"truth:{name}" for name in NAMES] * ("truth" in parts) + ["labels"] * ("chosen" in parts)
    assert header == [*expected, "model", "rows"]
    for row, line in zip(rows, cells, strict=True):
        told = dict(zip(header, line, strict=True))
        assert (told["index"], told["image"], told["model"], told["rows"]) == (
            str(row.index),
            row.image,
            model or "",
            "7",
        )
        assert [float(told[name]) for name in NAMES] == row.probs
        assert told.get("group") == row.group
        if "truth" in parts:
            assert [told[f"truth:{n}"] for n in NAMES] == ["" if v < 0 else f"{v:g}" for v in row.truth]
        if "chosen" in parts:
            assert told["labels"] == "|".join(chosen_names(NAMES, row.chosen))
    found = read_predictions(path, ("c", "a"))
    assert (found.name, found.class_names, found.model) == ("p", ("c", "a"), model)
    assert found.ids == tuple(row.image for row in rows)
    assert found.scores.dtype == torch.float64
    assert found.scores.tolist() == [[row.probs[2], row.probs[0]] for row in rows]
    assert read_predictions(path, ()).scores.shape == (7, 0)
    write_predictions(path, NAMES, rows[:1], model)
    assert read_predictions(path, NAMES).ids == (rows[0].image,)
    assert (tmp_path / "p.1.csv").is_file()


@pytest.mark.parametrize("part", ["probs", "chosen", "truth"])
def test_a_row_of_another_number_of_classes_is_never_written(tmp_path, part):
    whole = {"probs": [0.1, 0.2, 0.3], "chosen": [True, False, True], "truth": [1, 0, -1]}
    for wrong in (whole[part][:2], [*whole[part], 0]):
        with pytest.raises(ValueError, match=r"zip\(\) argument 2"):
            write_predictions(tmp_path / "p.jsonl", NAMES, [Predicted(0, "x", **{**whole, part: wrong})], None)
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_no_rows_has_a_header(tmp_path):
    write_predictions(tmp_path / "p.csv", NAMES, [], "x")
    assert (tmp_path / "p.csv").read_text().split() == ["index,image,a,b,c,model,rows"]


@pytest.mark.parametrize("cell", ["", "high", "1_000", "nan", "inf", "-1e999", "0,5"])
def test_a_cell_that_is_no_finite_number_is_named(tmp_path, cell):
    path = write_rows(tmp_path / "p.csv", ["image", "a", "b"], [["x", "1e-3", " 2 "], ["y", "1", cell], ["z", 1, "x"]])
    with pytest.raises(DataError) as raised:
        read_predictions(path, ["a", "b"])
    assert str(raised.value) == f"{path}:3: column 'b' holds {cell!r}; a finite score is needed"
    assert read_predictions(path, ["a"]).scores.flatten().tolist() == [0.001, 1, 1]
    assert read_predictions(path, ["a"]).model is None


@pytest.mark.parametrize("count", [2, 4])
def test_rows_of_several_models_in_one_file_are_refused(tmp_path, count):
    rows = [[n, f"{n}.png", 0.5, f"model{n % count}", 4] for n in range(4)]
    path = write_rows(tmp_path / "p.csv", ["index", "image", "a", "model", "rows"], rows)
    with pytest.raises(DataError) as raised:
        read_predictions(path, ["a"])
    some = ", ".join(f"model{n}" for n in range(min(count, 3)))
    assert str(raised.value) == f"{path} holds rows of several models ({some}); make it again with one"


@pytest.mark.parametrize("how", ["mean", "rank", None])
def test_models_are_combined_by_the_names_of_their_rows(numpy_rng, how):
    ids, models, total = [f"{n}.png" for n in range(12)], [], np.zeros((12, 3))
    for n in range(3):
        scores = numpy_rng.integers(0, 5, (12, 3)) / 4  # ties
        order = np.arange(12) if n == 0 else numpy_rng.permutation(12)
        models.append(Predictions(f"m{n}", tuple(ids[k] for k in order), torch.from_numpy(scores[order]), NAMES, "x"))
        total += rankdata(scores, axis=0) / 12 if how == "rank" else scores
    before = models[0].scores.clone()
    found = combine(models, how) if how else combine(models)
    assert found.name == f"{how or 'mean'} of 3"
    assert (found.ids, found.class_names, found.model) == (tuple(ids), NAMES, None)
    torch.testing.assert_close(found.scores, torch.from_numpy(total / 3))
    assert torch.equal(models[0].scores, before)


def test_the_rank_of_a_single_row_is_1():
    assert (
        combine([Predictions("m", ("x",), torch.tensor([[0.2, 0.7, 0.1]]).double(), NAMES)], "rank").scores.eq(1).all()
    )


def test_models_of_other_rows_or_classes_are_not_combined():
    one = Predictions("one", ("x", "y"), torch.zeros(2, 3), NAMES)
    with pytest.raises(ConfigError, match="^one and two cannot be combined: row w is only in one$"):
        combine([one, Predictions("two", ("x", "y", "z", "w"), torch.zeros(4, 3), NAMES)])
    with pytest.raises(ConfigError, match="^one and two cannot be combined: their classes differ$"):
        combine([one, Predictions("two", ("x", "y"), torch.zeros(2, 3), NAMES[::-1])])


def test_files_of_one_name_are_told_apart_whatever_their_folders(numpy_rng):
    for _ in range(200):
        folders = ["/".join(numpy_rng.choice(["a", "b", "0"], numpy_rng.integers(1, 4))) for _ in range(4)]
        paths = [Path("/runs", folder, f"{numpy_rng.choice(['p', 'q'])}.csv") for folder in folders]
        names = apart([path.stem for path in paths], paths)
        assert len(set(names)) == 4
        if len(set(paths)) == 4:
            assert all(str(path.with_suffix("")).endswith(name) for path, name in zip(paths, names, strict=True))
    assert apart(["p", "p", "q"], [Path("/A/0/p.csv"), Path("/B/0/p.csv"), Path("/q.csv")]) == ["A/0/p", "B/0/p", "q"]
