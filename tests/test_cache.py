import numpy as np
import pytest

from mlcv.cache import cached, file_key


def test_makes_once_and_again_for_another_key_or_a_damaged_file(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(3), "b": np.array(["x"])}

    for _ in range(2):
        stored = cached("thing", "key", make)
        assert stored["a"].tolist() == [0, 1, 2]
        assert stored["b"].tolist() == ["x"]
    assert len(made) == 1
    cached("thing", "another", make)
    assert len(made) == 2
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"PK\x03\x04 half a file")
    cached("thing", "key", make)
    assert len(made) == 3


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLCV_CACHE", str(tmp_path / "file" / "folder"))
    assert cached("thing", "key", lambda: {"a": np.ones(1)})["a"] == 1
    assert "cannot be written" in caplog.text


def test_the_key_of_a_file_changes_with_it(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    before = file_key(path)
    path.write_text("xy")
    assert file_key(path) != before
    with pytest.raises(FileNotFoundError):
        file_key(tmp_path / "b")
