"""Tables as people's programs write them: read as meant, or refused with file and line."""

import csv
import gzip

import pytest

from mlcv.errors import DataError
from mlcv.tables import Table, read_header

ROWS = [["image", "age, in years", "cat;fish"], ["a b.jpg", "4;5", "1"], ["b.jpg", "x,y", ""], ['c "c".jpg', "", "0"]]


@pytest.fixture(autouse=True, params=["small", "large"])
def size(request, monkeypatch):
    """Every table here is small; as a large one it is read in another way, if it is plain."""
    if request.param == "large":
        monkeypatch.setattr("mlcv.tables.table.LEAST", 0)


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def columns(table):
    return {name: list(table.column(name)) for name in table.names}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_with_a_mark_and_line_ends_make_no_difference(tmp_path, ends, encoding, packed):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    data = ends.join(["image,ca\u00e7a", "\u732b.jpg,1", "b.jpg,0"]).encode(encoding)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert columns(Table(path)) == {"image": ["\u732b.jpg", "b.jpg"], "ca\u00e7a": ["1", "0"]}
    assert read_header(path) == ["image", "ca\u00e7a"]
    assert Table(path).where(1) == f"{path}:3"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_and_may_be_given(tmp_path, separator):
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(ROWS)
    expected = dict(zip(ROWS[0], map(list, zip(*ROWS[1:], strict=True)), strict=True))
    assert columns(Table(path)) == columns(Table(path, separator)) == expected
    assert read_header(path) == ROWS[0]


def test_generated_tables_are_read_as_they_were_written_or_said_to_be_ambiguous(tmp_path, numpy_rng):
    """Whatever the cells hold, no table is read with the wrong separator in silence."""
    pieces = ["a", "b1", "0", "1", ",", ";", "\t", "|", '"', "0,5", "x;y", "\u00e9", " "]
    read, refused = 0, []
    for _ in range(400):
        shape = numpy_rng.integers(2, 6), numpy_rng.integers(2, 5)
        rows = [
            ["".join(numpy_rng.choice(pieces, size=numpy_rng.integers(1, 4))).strip() or "z" for _ in range(shape[1])]
            for _ in range(shape[0])
        ]
        rows[0] = [f"{cell}{n}" for n, cell in enumerate(rows[0])]
        separator = str(numpy_rng.choice([",", ";", "\t"]))
        path = tmp_path / "t.csv"
        with path.open("w", newline="") as file:
            csv.writer(
                file, delimiter=separator, quoting=csv.QUOTE_ALL if numpy_rng.random() < 0.5 else csv.QUOTE_MINIMAL
            ).writerows(rows)
        try:
            table = Table(path)
        except DataError as error:
            refused.append(str(error))
            continue
        assert [list(table.names), *zip(*columns(table).values(), strict=True)] == [rows[0], *map(tuple, rows[1:])]
        read += 1
    assert read > 200
    assert all("divided by" in problem for problem in refused)


def test_two_separators_that_fit_are_asked_for(tmp_path):
    path = write(tmp_path / "t.csv", "image;size, cm;cat\na.jpg;1,5;1\n")
    with pytest.raises(DataError, match=r"t.csv: are its cells divided by a comma or by a semicolon\?.*data.separator"):
        Table(path)
    assert columns(Table(path, ";")) == {"image": ["a.jpg"], "size, cm": ["1,5"], "cat": ["1"]}


def test_a_table_of_one_column_needs_no_separator(tmp_path):
    assert columns(Table(write(tmp_path / "t.csv", "image\na;b.jpg\nc.jpg\n"))) == {"image": ["a;b.jpg", "c.jpg"]}


def test_lines_without_content_are_passed_over_and_counted(tmp_path):
    table = Table(write(tmp_path / "t.csv", '\nimage,cat\n"a\nb.jpg",1\n\n,\n  ,  \nc.jpg,0\n'))
    assert columns(table) == {"image": ["a\nb.jpg", "c.jpg"], "cat": ["1", "0"]}
    assert [table.where(row).rpartition(":")[2] for row in range(2)] == ["3", "8"]


def test_blanks_around_headers_and_after_separators_are_left_out(tmp_path):
    table = Table(write(tmp_path / "t.csv", 'image, cat , "dog"\na.jpg, 1, "0"\n'))
    assert columns(table) == {"image": ["a.jpg"], "cat": ["1"], "dog": ["0"]}


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("image,cat,\na.jpg,1,\nb.jpg,0,\n", ("image", "cat")),  # a comma too many
        (",image,cat\n0,a.jpg,1\n7,b.jpg,0\n", ("image", "cat")),  # pandas' index
        (",cat\na.jpg,1\nb.jpg,0\n", ("", "cat")),  # the images are pandas' index
        ("image,cat\n", ("image", "cat")),
    ],
)
def test_columns_without_a_name_are_left_out_if_they_say_nothing(tmp_path, content, names):
    table = Table(write(tmp_path / "t.csv", content))
    assert table.names == names
    assert len(table) == max(content.count("\n") - 1, 0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("image,,cat\na.jpg,,1\nb.jpg,3,0\n", r"t.csv:1: column 2 has no name, but line 3 holds '3'"),
        ("image,cat\na.jpg,1\nb.jpg,1,0\n", r"t.csv:3: 3 cells under a header of 2; quote"),
        ("image,cat\na.jpg,1,\n", r"t.csv:2: 3 cells under a header of 2; the line ends with a separator"),
        ("image,cat,cat \na.jpg,1,0\n", r"t.csv:1: two columns are called 'cat'"),
        ('image,cat\n"a.jpg,1\nb.jpg,0\n', r"t.csv:2: the table cannot be read \(unexpected end of data"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem):
        Table(write(tmp_path / "t.csv", content))


def test_other_encodings_are_named_by_line_and_byte(tmp_path):
    lines = ["image,cat", *(f"{n}.jpg,1" for n in range(30_000)), "caf\u00e9.jpg,0"]
    with pytest.raises(DataError, match=r"t.csv:30002: byte 0xe9 is no UTF-8"):
        Table(write(tmp_path / "t.csv", "\n".join(lines), "latin-1"))
    with pytest.raises(DataError, match="UTF-16 without a byte order mark"):
        Table(write(tmp_path / "t.csv", "image,cat\na.jpg,1\n", "utf-16-le"))
    (tmp_path / "u.csv").write_bytes("image,cat\na.jpg,1\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="u.csv: the table cannot be read .*truncated"):
        Table(tmp_path / "u.csv")


def test_damaged_archives_and_missing_files_are_refused(tmp_path):
    packed = gzip.compress(b"image,cat\n" + b"a.jpg,1\n" * 1000)
    (tmp_path / "t.csv.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match="t.csv.gz: the table cannot be read"):
        Table(tmp_path / "t.csv.gz")
    with pytest.raises(DataError, match="no table .*nowhere.csv"):
        Table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="empty.csv: the file is empty"):
        read_header(write(tmp_path / "empty.csv", ""))
