"""Tables for a terminal: as wide as it at most, each row a line."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from mlcv.terminal import print_side_by_side, print_table, shortened


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=80, markup=False, emoji=False, highlight=False)


def lines_of(terminal):
    return terminal.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("zebra", 5, "zebra"),
        ("enlarged cardiomediastinum", 11, "enlar…tinum"),
        ("a photograph of a dog", 12, "a phot…a dog"),
        ("長い名前の犬の写真", 9, "長い…写真"),
        ("zebra", 1, "…"),
    ],
)
def test_a_long_name_loses_its_middle(name, width, expected):
    assert shortened(name, width) == expected
    assert cell_len(expected) <= width


@pytest.mark.parametrize("count", [10, 80, 1000])
def test_a_class_is_a_line_whatever_its_name_and_many_are_cut_to_both_ends(terminal, count):
    rows = [[f"{n} of a photograph of a large brown dog on the lawn of a house by the sea {n}", "0.1234", "123456"]
            for n in range(count)]  # fmt: skip
    print_table(terminal, ["class", "AP", "pos"], rows, "lowest first", "run/per_class.csv")
    lines = lines_of(terminal)
    assert max(map(cell_len, lines)) <= 80
    shown = [int(line.split()[0]) for line in lines if "0.1234" in line]
    assert all(line.split()[-3] == line.split()[0] for line in lines if "0.1234" in line)  # the name's end is there
    if count == 10:
        assert shown == list(range(10))
        assert len(lines) == 13
    else:
        assert shown == [*range(20), *range(count - 5, count)]
        assert f"… {count - 25} more" in lines[23]
        assert lines[-1] == "all rows: run/per_class.csv"


def test_columns_are_in_full_if_they_fit_else_in_short_and_else_in_several_tables(terminal):
    names = ["traffic light", "enlarged cardiomediastinum"]
    cell = ("0.853 (.81-.89)", "0.853")
    for count, form, tables in ((3, cell[0], 1), (5, cell[1], 1), (16, cell[1], 2)):
        terminal.file = io.StringIO()
        columns = {str(n): [cell, cell] for n in range(count)}
        print_side_by_side(terminal, "class", names, columns, "AP")
        lines = lines_of(terminal)
        assert max(map(cell_len, lines)) <= 80
        assert terminal.file.getvalue().count(form) == 2 * count
        assert ("(" in terminal.file.getvalue()) == (form == cell[0])
        assert lines.count("AP") == tables
        headers = [line.split()[1:] for line in lines if line.startswith("class")]
        assert [one for header in headers for one in header] == list(columns)
