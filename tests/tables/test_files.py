"""Only regular files are opened, and every name can be printed and told from all others."""

import os
import re
import signal
import socket

import pytest

from mlcv.errors import DataError
from mlcv.tables import Table, exists, is_file, is_folder, open_regular, printable, read_lines, read_regular


@pytest.fixture(autouse=True)
def no_hang():
    """A reader that waits for a pipe ends the test."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def back(text):
    """The name that `printable` has written, by what its docstring says."""
    found = re.split(r"\\x([0-9a-f]{2})", text)
    return b"".join(bytes([int(part, 16)]) if place % 2 else part.encode() for place, part in enumerate(found))


def test_names_of_any_bytes_are_printed_as_utf8_and_come_back(numpy_rng):
    names = [
        b"plain.png",
        "b\u00e9\u00e8\u732b \u00df.png".encode(),
        b"back\\slash",
        b"\\xff",
        b"\xff",
        b"\\x5cxff",
        b"a\nb",
        b"\\\\xff",
    ]
    alphabet = [*b"ab/ .\n\x1b\\xf5c09", 0xC3, 0xA9, 0xFF, 0x80, 0xED]
    names += [bytes(numpy_rng.choice(alphabet, size=numpy_rng.integers(1, 12))) for _ in range(3000)]
    names = list(dict.fromkeys(names))
    printed = [printable(os.fsdecode(name)) for name in names]
    assert [back(text) for text in printed] == names
    assert len(set(printed)) == len(names)
    for text in printed:
        assert text.encode().decode() == text
        assert text.isprintable()


def test_ordinary_names_are_printed_as_they_are():
    for name in ("images/1.jpg", "Bilder \u00fc\u00f6/\u732b.png", r"a\b.png", r"C:\x.png", "50%.png"):
        assert printable(name) == name


def test_halves_of_characters_that_no_file_name_holds_are_printed_too():
    assert printable("a\ud800.jpg") == r"a\ud800.jpg"
    assert printable(r"a\ud800.jpg") == r"a\x5cud800.jpg"


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def special(request, tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's whole name has 108 characters at most
        socket.socket(socket.AF_UNIX).bind("a.csv")
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return request.param, path


@pytest.mark.parametrize("read", [open_regular, read_regular, read_lines, Table])
def test_what_is_no_regular_file_is_refused_without_waiting(special, read):
    kind, path = special
    with pytest.raises(DataError, match=rf"a\.csv: a (named )?{kind}, not a regular file"):
        read(path)


def test_a_pipe_that_takes_the_place_of_a_file_after_the_first_look_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    regular = (tmp_path / "file").stat()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("mlcv.tables.files.os.stat", lambda path: regular)
    with pytest.raises(DataError, match="a named pipe, not a regular file"):
        open_regular(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "No such file"), ("nul\0byte", "null byte"), ("x" * 300, "too long")]
)
def test_a_file_that_cannot_be_opened_is_named_with_the_reason(tmp_path, name, why):
    with pytest.raises(DataError, match=f"cannot be read .*{why}"):
        read_regular(tmp_path / name)


@pytest.mark.parametrize("name", ["nowhere", "nul\0byte", "x" * 5000, "a/" * 3000])
def test_names_that_nothing_can_have_are_names_of_nothing(tmp_path, name):
    for ask in (exists, is_file, is_folder):
        assert ask(tmp_path / name) is False
    assert (exists(tmp_path), is_file(tmp_path), is_folder(tmp_path)) == (True, False, True)


def test_links_to_files_are_followed_and_sizes_bounded(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"content"
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes, where at most 1,000 are expected"):
        read_regular(tmp_path / "sparse", largest=1000)


def test_lines_come_with_their_numbers_however_they_end(tmp_path):
    path = tmp_path / "list.txt"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(b"\xef\xbb\xbf" + end.join(["a 1", "", "  ", "b\t-1"]).encode())
        assert read_lines(path) == [(1, ["a", "1"]), (4, ["b", "-1"])]
    path.write_bytes(b"a 1\nb\xe9 1\n")
    with pytest.raises(DataError, match=r"list.txt:2: not in UTF-8"):
        read_lines(path)
