"""A command opens each of its tables once, however many of its parts ask for it."""

from collections import Counter

import pytest

import mlcv
from mlcv.cli import main
from mlcv.tables import Table, read_once, read_table
from tests.tiny_sets import write_image, write_rows


@pytest.fixture(params=["small", "large"])
def opened(monkeypatch, request):
    """How often each file was opened and read to its end, as a small or a large one."""
    import mlcv.tables.table as module

    if request.param == "large":
        monkeypatch.setattr(module, "LEAST", 0)
    counts, read = Counter(), Table.__init__
    monkeypatch.setattr(
        Table, "__init__", lambda table, path, sep=None: counts.update([path.name]) or read(table, path, sep)
    )
    return counts


def predictions(folder):
    header = ["image", "cat", "dog", "truth:cat", "truth:dog", "group"]
    rows = [[f"{n}.jpg", n / 50, 1 - n / 50, n % 2, (n // 2) % 2, f"g{n % 25}"] for n in range(50)]
    return write_rows(folder / "p.csv", header, rows)


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "report"])
def test_a_command_reads_a_file_once(command, tmp_path, opened, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = predictions(tmp_path)
    if command == "report":
        pytest.importorskip("matplotlib")
    getattr(mlcv, command)(path)
    assert opened == {"p.csv": 1}


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_so_does_its_command_line(command, tmp_path, opened, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, str(predictions(tmp_path))]) == 0
    assert opened == {"p.csv": 1}


def test_init_reads_its_table_once(tmp_path, opened):
    rows = [[write_image(tmp_path / f"{n}.jpg", (16, 16), n).name, n % 2] for n in range(20)]
    mlcv.init(write_rows(tmp_path / "t.csv", ["image", "cat"], rows), tmp_path / "c.yaml")
    assert opened == {"t.csv": 1}


def test_tables_are_kept_no_longer_than_asked(tmp_path, opened):
    path = predictions(tmp_path)
    with read_once():
        assert read_table(path) is read_table(path)
    assert read_table(path) is not read_table(path)
    assert opened["p.csv"] == 3
