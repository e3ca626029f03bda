"""Files are whole or not there; tables come back as written, with nothing in them that a spreadsheet would run."""

import contextlib
import csv
import json
import os
import threading

import numpy as np
import pytest
import torch

from mlcv.errors import ConfigError
from mlcv.files import (
    keep_earlier,
    read_array,
    read_checkpoint,
    read_json,
    shielded,
    unshielded,
    whole_file,
    write_table,
    write_text,
)


def test_an_earlier_file_is_kept_under_a_number(tmp_path):
    path = tmp_path / "test.json"
    for text in ("first", "second", "third"):
        write_text(path, text, keep=True)
    kept = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert kept == {"test.json": "third", "test.1.json": "first", "test.2.json": "second"}


def test_files_that_are_kept_at_once_never_take_each_others_name(tmp_path):
    def keep(number):
        (tmp_path / f"{number}").mkdir()
        mine = tmp_path / f"{number}" / "a.txt"
        for turn in range(20):
            mine.write_text(f"{number} {turn}")
            mine.replace(shared / f"a{number}.txt")
            keep_earlier(shared / f"a{number}.txt")
            (shared / "a.txt").write_text("x")
            try:
                keep_earlier(shared / "a.txt")
            except FileNotFoundError:  # another was faster
                continue

    shared = tmp_path / "shared"
    shared.mkdir()
    threads = [threading.Thread(target=keep, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(shared.glob("a[0-9].*.txt"))) == 80


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_file_that_is_not_finished_leaves_the_earlier_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write():
        with whole_file(path, keep=True) as file:
            file.write("half")
            raise error

    with pytest.raises((ValueError, KeyboardInterrupt, ConfigError)):
        write()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "before")]


@pytest.mark.parametrize("name", ["x" * 251 + ".jpg", "é" * 125 + ".jpg"])
def test_a_name_of_any_length_that_a_folder_takes_is_written(tmp_path, name):
    with whole_file(tmp_path / name, "wb") as file:
        file.write(b"all")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"x.txt cannot be written .*choose another place"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_what_is_no_text_leaves_the_earlier_table_and_is_shown(tmp_path):
    write_table(tmp_path / "t.csv", ["image"], [["a.jpg"]])
    with pytest.raises(ConfigError, match=r"t\.csv cannot be written: it would hold 'b.*udcff.*no text"):
        write_table(tmp_path / "t.csv", ["image"], [["b\udcff.jpg"]])
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text().split() == ["image", "a.jpg"]


def test_rows_come_back_as_written(tmp_path):
    write_table(tmp_path / "t.csv", ["class", "AP"], [["a, b", 0.5], ['c"', float("nan")]])
    with (tmp_path / "t.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"class": "a, b", "AP": "0.5"}, {"class": 'c"', "AP": "nan"}]


def test_no_text_in_a_table_begins_as_a_formula_and_every_text_comes_back(tmp_path, numpy_rng):
    letters = list("=+-@'\t\rab 1\"\n,")
    texts = ["".join(numpy_rng.choice(letters, numpy_rng.integers(0, 6))) for _ in range(2000)]
    write_table(tmp_path / "t.csv", ["text"], [[text, 0] for text in texts])
    with (tmp_path / "t.csv").open(newline="") as file:
        found = [row[0] for row in list(csv.reader(file))[1:]]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in found)
    assert [unshielded(cell) for cell in found] == texts
    assert len({shielded(text) for text in set(texts)}) == len(set(texts))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff", '{"a": 1'])
def test_json_that_cannot_be_read_is_told(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a.json is no readable table \("):
        read_json(path, "table")
    with pytest.raises(ConfigError, match="no readable table"):
        read_json(tmp_path / "none.json", "table")
    path.write_text(json.dumps([1, {"a": None}]))
    assert read_json(path, "table") == [1, {"a": None}]


@pytest.mark.parametrize(
    "content", [[1, 2], {"weights": 1}, {"state_dict": 3}, {"state_dict": {"a": "text"}}, torch.zeros(2)], ids=str
)
def test_what_is_no_checkpoint_is_told(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="it has no state_dict of tensors"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_arrays_are_finite_numbers_or_told(tmp_path, numpy_rng):
    path = tmp_path / "a.npy"
    for dtype in (np.float64, np.float16, np.int8, np.uint16, bool):
        given = numpy_rng.random((3, 4)).astype(dtype)
        np.save(path, given)
        assert read_array(path, "model.teacher").dtype == np.float32
        assert (read_array(path, "model.teacher") == given.astype(np.float32)).all()
    whole = path.read_bytes()
    bad = [np.array(["x"]), np.zeros(2, complex), np.array([np.nan]), np.array([1e300]), np.zeros(2, "M8[s]"),
           np.zeros(2, [("a", int)]), np.array([{}], object)]  # fmt: skip
    for array in bad:
        np.save(path, array)
        with pytest.raises(ConfigError, match=r"^model.teacher: .*a.npy (is no array|holds)"):
            read_array(path, "model.teacher")
    np.savez(tmp_path / "a.npz", a=np.zeros(2))
    huge = whole.replace(b"(3, 4)", b"(3, 4000000000)".ljust(15))[:128] + b"x"
    for content in (whole[:-3], b"", b"text", (tmp_path / "a.npz").read_bytes(), huge, whole.replace(b"{", b"(")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"a.npy is no array of numbers"):
            read_array(path, "model.teacher")


def test_a_damaged_checkpoint_is_told(tmp_path, numpy_rng):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(100)}}, path)
    whole = path.read_bytes()
    for _ in range(60):
        harmed = bytearray(whole)
        for place in numpy_rng.integers(len(whole), size=3):
            harmed[place] = numpy_rng.integers(256)
        path.write_bytes(bytes(harmed[: numpy_rng.integers(1, len(whole))] if numpy_rng.random() < 0.5 else harmed))
        with contextlib.suppress(ConfigError):  # a changed number is read; what is not must be told in one sentence
            read_checkpoint(path)
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(ConfigError, match="no file"):
        read_checkpoint(tmp_path / "pipe.ckpt")
