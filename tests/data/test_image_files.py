"""Images without labels: found under any name, named once, and refused one by one where they cannot be read."""

import os
import signal

import numpy as np
import pytest

from mlcv.data import ImageFilesDataModule
from mlcv.data.headers import SUFFIXES
from mlcv.data.image_files import find_images
from mlcv.data.paths import canonical
from mlcv.errors import ConfigError, DataError
from mlcv.tables import printable
from tests.tiny_sets import write_image


def build(path, **options):
    return ImageFilesDataModule(
        path, ["cat", "dog"], **{"image_size": 16, "batch_size": 2, "num_workers": 0, **options}
    )


def test_a_folder_is_searched_for_every_suffix_in_any_case(tmp_path):
    for suffix in SUFFIXES:
        write_image(tmp_path / "x.png").rename(tmp_path / f"a{suffix}")
        write_image(tmp_path / "x.png").rename(tmp_path / f"b{suffix.upper()}")
    (tmp_path / "notes.txt").touch()
    found = list(find_images(tmp_path))
    assert len(found) == 2 * len(SUFFIXES)
    assert found == sorted(found)


def test_one_file_has_one_name_however_it_is_written(tmp_path, monkeypatch):
    write_image(tmp_path / "images" / "a.png")
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "t.csv"
    table.write_text("image\nimages/a.png\n./images/a.png\nimages//a.png\nimages\\a.png\n")
    paths = ["images", "images/", "./images", "images/./a.png", "images//a.png", "t.csv", "./t.csv"]
    assert build(paths).paths == ["images/a.png"]
    assert build([str(tmp_path / "images"), f"{tmp_path}//images/", str(table)]).paths == [f"{tmp_path}/images/a.png"]


def test_tidied_paths_lead_where_the_others_did_and_are_all_alike(tmp_path, numpy_rng):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    pieces = ["a", "b", ".", "", "..", "link"]
    for _ in range(300):
        path = f"{tmp_path}/" + "/".join(numpy_rng.choice(pieces, size=numpy_rng.integers(1, 7)))
        tidy = canonical(path)
        assert os.path.realpath(tidy) == os.path.realpath(path)
        assert canonical(tidy) == tidy
        assert canonical(path.replace("/", "/./") + "/") == tidy
    assert canonical("//x/y") == "/x/y"


def test_a_url_in_a_table_is_named_by_line(tmp_path):
    (tmp_path / "t.csv").write_text("image\na.png\nhttp://x.org/b.png\n")
    with pytest.raises(DataError, match=r"t.csv:3: 'http://x.org/b.png' is a URL"):
        build(str(tmp_path / "t.csv"))


def test_pipes_and_bombs_are_skipped_by_name_and_all_others_read(tmp_path):
    names = ["a.png", "b.png", "c.png", "d.png", os.fsdecode(b"\xff.png")]
    for name in names:
        write_image(tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    data = bytearray((tmp_path / "d.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "d.png").write_bytes(data)
    signal.alarm(60)
    data = build(str(tmp_path))
    data.setup("predict")
    batches = list(data.predict_dataloader())
    signal.alarm(0)
    assert sorted(n for batch in batches for n in batch["index"].tolist()) == [0, 2, 4]
    errors = [error for batch in batches for error in batch["errors"]]
    assert len(errors) == 2
    assert "b.png: a named pipe" in errors[0]
    assert "d.png: 60000 x 60000 pixels" in errors[1]
    assert [printable(path)[-8:] for path in data.paths][-1] == r"\xff.png"


def test_the_limit_reaches_the_loader_and_the_check(tmp_path):
    large = write_image(tmp_path / "large.png", (1100, 1000))
    write_image(tmp_path / "small.png")
    for options in ({"check": True}, {}):
        data = build(str(tmp_path), max_megapixels=1, **options)
        data.setup("predict")
        batch = next(iter(data.predict_dataloader()))
        assert len(batch["index"]) == 1
        said = [*data.skipped, *batch["errors"]]
        assert len(said) == 1
        assert said[0].startswith(f"{large}: 1000 x 1100 pixels are more than the 1 megapixels")
    data = build(str(tmp_path))
    data.setup("predict")
    assert len(next(iter(data.predict_dataloader()))["index"]) == 2


@pytest.mark.parametrize("limit", [0, -1, 0.5, float("nan")])
def test_an_impossible_limit_is_refused(tmp_path, limit):
    with pytest.raises(ConfigError, match="data.max_megapixels is at least 1"):
        build(str(tmp_path), max_megapixels=limit)


def test_errors_about_names_that_are_no_utf8_can_be_printed(tmp_path):
    name = os.fsdecode(b"\xfe\xff")
    with pytest.raises(DataError, match=r"there is no .*\\xfe\\xff") as caught:
        build(str(tmp_path / name))
    assert str(caught.value).encode()
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"no image under .*\\xfe\\xff") as caught:
        build(str(tmp_path / name))
    assert str(caught.value).encode()


def test_images_are_what_the_files_hold(tmp_path):
    write_image(tmp_path / "a.png", (16, 16))
    data = build(str(tmp_path))
    data.setup("predict")
    assert data.datasets["predict"].load(0).shape == (16, 16, 3)
    assert np.isfinite(next(iter(data.predict_dataloader()))["image"]).all()


@pytest.mark.parametrize(("header", "taken"), [
    ("image", True), ("Path", True), ("Image Index", True), ("picture", True), ("a.png", False), ("cat,dog", False),
])  # fmt: skip
def test_which_column_names_the_images_is_said_or_refused(tmp_path, header, taken):
    """No other column is read as images, and no first image as a header."""
    width = header.count(",")
    (tmp_path / "t.csv").write_text(f"{header}\nb.png{',1' * width}\n")
    if taken:
        assert list(find_images(tmp_path / "t.csv")) == [str(tmp_path / "b.png")]
    else:
        with pytest.raises(DataError, match=r"t.csv: which column names the images\? None of .* is called image, path"):
            list(find_images(tmp_path / "t.csv"))
