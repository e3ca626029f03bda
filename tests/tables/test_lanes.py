"""Large plain tables are read by polars, all others by `csv`: nobody can tell which of the two it was."""

import csv
import gzip
import io
import itertools
import math
import struct
import sys
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import polars
import pytest

import mlcv.tables.table as module
from mlcv.errors import DataError
from mlcv.tables import Table

CELLS = [
    "", "0", "1", "1.0", "-1", "0.5", "a", "a b", "a ", "nan", "NA", "null", "1e5", "1_0", "\u0661", "\u732b.jpg", "#",
    "caf\u00e9", "\u00a0", "x/y.png", "'=1", "-0.0", "0.1000000000000000055", "inf", "\x1f", "2024-01-01", "True",
]  # fmt: skip
STRANGE = [*CELLS, " a", "  ", 'a"b', '"', '""', "a,b", "a;b", "a\nb", "a\r\nb", "\0", "\ufeff", "\t", "x" * 200]


@pytest.fixture
def lanes(monkeypatch):
    """Reads a table both ways, which must say the same of it; whether polars has read it at all."""

    def read(path, separator=None):
        said, readers = [], []
        for least in (0, sys.maxsize):
            monkeypatch.setattr(module, "LEAST", least)
            try:
                table = Table(path, separator)
            except DataError as error:
                said.append(str(error))
            else:
                said.append(content(table))
                readers.append(type(table._columns).__name__)
        assert said[0] == said[1]
        assert readers[1:] in ([], ["Listed"])
        return readers[:1] == ["PolarsColumns"]

    return read


def content(table):
    """All that a table says, asked for in an order that differs from column to column."""
    rows = np.arange(len(table))
    said = [table.names, table.lines(rows).tolist(), [table.where(row) for row in rows]]
    for order, name in zip(itertools.cycle(itertools.permutations(range(3))), table.names, strict=False):
        asks = [table.column, table.spelled, table.numbers]
        answers = {place: asks[place](name) for place in order}
        cells, spelled, numbers = (answers[place] for place in range(3))
        assert spelled.texts() == list(cells)
        assert list(spelled.counts()) == list(dict.fromkeys(cells))
        assert [cells[row] for row in spelled.first] == spelled.cells
        said.append((list(cells), spelled.counts(), numbers if numbers is None else numbers.tobytes()))
    return said


def random_table(random, cells):
    """A table as some program may write it; seldom a sound one, if its cells are strange."""
    width, rows = int(random.integers(1, 6)), int(random.choice([0, 1, 2, 5, 40, 250]))
    header = [f"{random.choice(['image', 'cat', 'x y', '1'])}{n}" for n in range(width)]
    if random.random() < 0.2:
        header[random.integers(width)] = str(random.choice(["", " ", header[0], "caf\u00e9"]))
    kinds = [random.choice(cells, size=random.integers(1, 6)) for _ in header]
    lines = [[str(random.choice(kind)) for kind in kinds] for _ in range(rows)]
    if random.random() < 0.3:  # numbers that none of the first lines has led to expect otherwise
        for line in lines:
            line[0] = repr(random.random())
        if lines and random.random() < 0.3:
            lines[-1][0] = str(random.choice(cells))
    separator, end = str(random.choice([",", ";", "\t", "|"])), str(random.choice(["\n", "\n", "\r\n", "\r"]))
    file = io.StringIO(newline="")
    quoting = [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC][random.integers(4)]
    csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end).writerows([header, *lines])
    text = file.getvalue()
    what = random.random()
    if what < 0.1:
        text = text.removesuffix(end)
    elif what < 0.15:
        text += separator * (width - 1)
    elif what < 0.2:
        text = end + text
    elif what < 0.25:
        text = text.replace(end, end + end, 1)
    elif what < 0.3:
        text = text.replace(separator, separator + " ")
    coding = str(random.choice(["utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    data = text.encode(coding, errors="replace")
    return gzip.compress(data) if random.random() < 0.1 else data


@pytest.mark.parametrize(("cells", "least"), [(CELLS, 60), (STRANGE, 5)], ids=["plain", "strange"])
def test_tables_of_all_dialects_are_read_the_same(tmp_path, lanes, numpy_rng, cells, least):
    path, plain = tmp_path / "t.csv", 0
    for _ in range(400):
        path.write_bytes(random_table(numpy_rng, cells))
        plain += lanes(path, str(numpy_rng.choice([",", ";"])) if numpy_rng.random() < 0.1 else None)
    assert plain >= least


@pytest.mark.parametrize("quoted", [False, True])
def test_a_plain_table_with_some_wrong_bytes_is_read_the_same(tmp_path, lanes, numpy_rng, quoted):
    lines = [f'images/{n}.jpg,"p{n % 7}",{n % 2},{n / 7!r},,caf\u00e9' for n in range(150)]
    data = ("image,patient,cat,score,none,word\n" + "\n".join(lines) + "\n").encode()
    data = data if quoted else data.replace(b'"', b"")
    path, plain = tmp_path / "t.csv", 0
    path.write_bytes(data)
    assert lanes(path)
    for _ in range(600):
        wrong = bytearray(data)
        for _ in range(int(numpy_rng.integers(1, 4))):
            place = int(numpy_rng.integers(len(wrong)))
            new = numpy_rng.choice(np.frombuffer(b'\n\r\0",; \tx1\xe9\xc3\xa9', np.uint8), size=numpy_rng.integers(3))
            wrong[place : place + int(numpy_rng.integers(3))] = new.tobytes()
        path.write_bytes(bytes(wrong))
        plain += lanes(path)
    assert plain > 50


@pytest.mark.parametrize(
    ("content", "is_plain"),
    [
        ("image,cat\na.jpg,1\nb.jpg,\n", True),
        ("image,cat\r\na.jpg,1\r\nb.jpg,\r\n", True),
        ("\ufeffimage,cat\na.jpg,1", True),
        ('"image","cat"\n"a.jpg",1\n"b.jpg",""\n', True),
        (",image\n0,a.jpg\n1,b.jpg\n", True),
        ("image;cat\na.jpg;1\n", True),
        ("image\na.jpg\n", True),
        ("image,cat\n\u732b,1\n", True),
        ("image,cat\na.jpg,1,0\nb.jpg\n", False),  # as many separators as it should have
        ("image,cat\n" + "a.jpg,1\n" * 150 + "a.jpg,1,0\nb.jpg\n", False),
        ("image,cat\n" + "a.jpg,1\n" * 150 + "a.jpg,1,0\n", False),
        ("image,cat\n" + "a.jpg,1\n" * 150 + "b.jpg\n", False),
        ("image,cat\na.jpg,1\n\nb.jpg,0\n", False),
        ("image,cat\na.jpg,1\n\u00a0,\u2003\nb.jpg,0\n", False),
        ("image,cat\na.jpg,1\n,\n", False),
        ("image,cat\na.jpg,1\n,", False),
        ("\nimage,cat\na.jpg,1\n", False),
        ("image,cat\na.jpg, 1\n", False),
        ("image,cat\n a.jpg,1\n", False),
        (" image,cat\na.jpg,1\n", False),
        ('image,cat\n5" disk,1\n', False),
        ('image,cat\n"a""b",1\n', False),
        ('image,cat\n"a,b",1\n', False),
        ('image,cat\n"a\nb",1\n', False),
        ('image,cat\n"a.jpg,1\n', False),
        ('image,cat\n"a"x,1\n', False),
        ('image,cat\nx"a",1\n', False),
        ("image,cat\ra.jpg,1\r", False),
        ("image,cat\na.jpg,1\rb.jpg,1\n", False),
        ("image,cat\n" + "a.jpg,1\n" * 150 + "a\0.jpg,1\n", False),
        ("image,cat\n", False),
        ("", False),
        ("\n\n", False),
        ("image,cat\n" + "a.jpg,1\n" * 150 + "a" * 140_000 + ",1\n", False),
        ("image,cat\n" + "a.jpg,1\n" * 150 + "a" * 60_000 + ",1\n", True),
    ],
)
def test_only_what_is_plain_is_given_to_polars(tmp_path, lanes, content, is_plain):
    path = tmp_path / "t.csv"
    path.write_text(content, newline="")
    assert lanes(path) == is_plain


def test_a_damaged_archive_is_left_to_csv(tmp_path, lanes):
    packed = gzip.compress(b"image,cat\n" + b"a.jpg,1\n" * 1000)
    path = tmp_path / "t.csv.gz"
    for data in (packed[:-20], packed[:-4], packed[:40] + b"x" + packed[41:], packed[:5]):
        path.write_bytes(data)
        assert not lanes(path)
    path.write_bytes(packed)
    assert lanes(path)


def bits(value):
    return struct.pack("d", value)


def halfway(random):
    """Exact decimals between two neighbours, and a bit beside: the hardest to round."""
    mantissa, exponent = int(random.integers(2**52, 2**53)), int(random.integers(-200, 200))
    middle = Fraction(2 * mantissa + 1) * Fraction(2) ** (exponent - 1)
    with localcontext(prec=900):
        digits = format(Decimal(middle.numerator) / Decimal(middle.denominator), "e")
    number, _, power = digits.partition("e")
    return [digits, f"{number}1e{power}", f"{number[:17]}e{power}"]


def test_numbers_are_the_floats_that_python_reads(tmp_path, monkeypatch, numpy_rng):
    monkeypatch.setattr(module, "LEAST", 0)
    any_bits = np.frombuffer(numpy_rng.bytes(8 * 20_000), np.float64)
    values = [*any_bits[np.isfinite(any_bits)].tolist(), *numpy_rng.random(20_000).tolist()]
    cells = [form % value for value in values for form in ("%r", "%.17g", "%.16g", "%.20f", "%.30e", "%+.3f")]
    cells += [cell for _ in range(2000) for cell in halfway(numpy_rng)]
    cells += ["5e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308", "-0", "1e-400"]
    cells = [cell for cell in cells if math.isfinite(float(cell))]
    path = tmp_path / "t.csv"
    path.write_text("score\n" + "\n".join(cells) + "\n")
    table = Table(path)
    assert type(table._columns).__name__ == "PolarsColumns"
    assert table.numbers("score").tobytes() == b"".join(bits(float(cell)) for cell in cells)


def test_polars_takes_nothing_for_a_number_that_python_does_not():
    """Every text of up to three characters of these; what polars refuses, Python is asked for."""
    characters = "09+-.eE_ nafi\u0661xd,\x1f\u00a0"
    cells = ["".join(one) for length in (1, 2, 3) for one in itertools.product(characters, repeat=length)]
    cells += ["1_000", "0x10", "1e5f", "infinity", "-Infinity", "1e+5", "00.5e-01", "1,000", "1e999", "\uff11"]
    frame = polars.read_csv(
        "\n".join(cells).encode(), has_header=False, quote_char=None, separator="|", schema={"": polars.Float64},
        ignore_errors=True,
    )  # fmt: skip
    values = frame.to_series().to_list()
    assert len(values) == len(cells)
    taken = [(cell, value) for cell, value in zip(cells, values, strict=True) if value is not None]
    assert len(taken) > 50
    for cell, value in taken:
        assert "_" not in cell
        assert bits(float(cell)) == bits(value) or (math.isnan(value) and math.isnan(float(cell)))


def test_odd_numbers_among_many_are_read_as_python_reads_them(tmp_path, lanes):
    path = tmp_path / "t.csv"
    for cell in ("1_000", "nan", "inf", "0.5 ", "\u0661", "", "1e999", "x", "+.5e1", "-0", "\xa00.5"):
        path.write_text("score,cat\n" + "".join(f"{n / 7!r},1\n" for n in range(150)) + f"{cell},0\n", encoding="utf-8")
        assert lanes(path)
