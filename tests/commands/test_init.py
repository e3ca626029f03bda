"""`mlcv init`: from a table to a config that trains."""

import pytest
import yaml

import mlcv
from mlcv.cli import main
from mlcv.commands import init as module
from mlcv.errors import ConfigError
from tests.tiny_sets import write_image, write_rows


def write_table(folder, rows=40, size=(120, 140), positive="1", negative="0"):
    names = [write_image(folder / "photos" / f"{n}.jpg", size, n).name for n in range(rows)]
    cells = [[name, positive if n % 2 else negative, negative if n % 3 else positive] for n, name in enumerate(names)]
    return write_rows(folder / "my.csv", ["image", "cat", "dog"], cells)


@pytest.fixture
def unconnected(monkeypatch):
    """Neither a network nor a package with weights."""
    monkeypatch.setattr(module, "hub_answers", lambda: False)
    monkeypatch.setattr(module, "packaged_names", lambda **_: [])


def read(path):
    return yaml.safe_load(path.read_text())


def test_its_config_trains_and_says_what_was_understood(tmp_path, monkeypatch, capsys, unconnected):
    write_table(tmp_path, size=(40, 56))
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my.csv"]) == 0
    said = capsys.readouterr().out
    for part in ("column image, in photos; 40 of 40 are there", "cat, dog", "24 train, 8 val, 8 test", "my.yaml"):
        assert part in said
    quick = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.num_workers=0"]
    assert main(["fit", "--config", "my.yaml", *quick]) == 0
    assert (tmp_path / "runs" / "my" / "0" / "test.json").is_file()


def test_a_patient_in_two_splits_is_told_and_splits_can_be_drawn_by_it(tmp_path, capsys, unconnected):
    table = write_table(tmp_path)
    header, *rows = table.read_text().splitlines()
    splits = ("train", "train", "val", "test")
    rows = [f"{row},p{n % 7},{splits[n % 4]}" for n, row in enumerate(rows)]
    table.write_text("\n".join([f"{header},patient,split", *rows]))
    line = ["init", str(table), "--out", str(tmp_path / "a.yaml")]
    assert main(line) == 2
    assert "data.split_column null, mlcv init --draw_splits" in capsys.readouterr().err
    assert not (tmp_path / "a.yaml").exists()
    assert main([*line, "--draw_splits"]) == 0
    given = read(tmp_path / "a.yaml")["data"]["init_args"]
    assert given["group_column"] == "patient"
    assert given.get("split_column") is None
    assert given["stratify"]


def test_without_network_and_weights_it_takes_a_network_that_needs_none_and_says_so(tmp_path, unconnected):
    started = mlcv.init(write_table(tmp_path), tmp_path / "a.yaml")
    assert "no weights can be downloaded here, and none are installed" in started.understood["network"]
    assert "weights" not in read(started.config)["model"]["init_args"]


def test_with_a_network_it_downloads_weights(tmp_path, monkeypatch, unconnected):
    monkeypatch.setattr(module, "hub_answers", lambda: True)
    started = mlcv.init(write_table(tmp_path), tmp_path / "a.yaml")
    assert read(started.config)["model"]["init_args"]["weights"] == "pretrained"


def test_with_installed_weights_it_takes_them(tmp_path, monkeypatch, unconnected):
    monkeypatch.setattr(module, "packaged_names", lambda **_: ["tf_efficientnet_lite0"])
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    started = mlcv.init(write_table(tmp_path), tmp_path / "a.yaml")
    assert read(started.config)["model"]["init_args"]["weights"] == "installed"


@pytest.mark.parametrize("rows", [20, 40, 200])
def test_batches_fit_the_images(tmp_path, rows, unconnected):
    data = read(mlcv.init(write_table(tmp_path, rows, (20, 20)), tmp_path / "a.yaml").config)["data"]["init_args"]
    assert 2 <= data["batch_size"] <= max(2, 0.6 * rows / 8)


def test_a_batch_fits_the_memory(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_AVPHYS_PAGES": 2**18}[name])
    size = module._batch_size(100_000, 448)
    assert size == 2 or size * module._BYTES_A_PIXEL * 448**2 <= 2**29
    assert module._batch_size(100_000, 64) == 32


def test_nothing_is_replaced(tmp_path, unconnected):
    (tmp_path / "a.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.yaml exists"):
        mlcv.init(write_table(tmp_path), tmp_path / "a.yaml")
    assert (tmp_path / "a.yaml").read_text() == "mine"


def test_doubts_are_told(tmp_path, unconnected):
    started = mlcv.init(write_table(tmp_path, 30, negative=""), tmp_path / "a.yaml")
    assert any("fewer than 10 training images" in doubt for doubt in started.warnings)
    assert any("blank cells were taken" in doubt for doubt in started.warnings)
    assert read(started.config)["data"]["init_args"]["codes"] == {"blank": "negative"}


def test_missing_images_are_skipped_and_told(tmp_path, unconnected):
    table = write_table(tmp_path)
    (tmp_path / "photos" / "3.jpg").unlink()
    started = mlcv.init(table, tmp_path / "a.yaml")
    assert "1 of 40 images are missing, and will be skipped" in started.warnings
    assert read(started.config)["data"]["init_args"]["on_error"] == "skip"
    for n in range(4, 25):
        (tmp_path / "photos" / f"{n}.jpg").unlink()
    warnings = mlcv.init(table, tmp_path / "b.yaml").warnings
    assert any("22 of 40 images are missing, and will be skipped; so many that" in doubt for doubt in warnings)


@pytest.mark.parametrize(("size", "is_large"), [((1400, 1600), True), ((300, 400), False)])
def test_of_large_images_it_says_that_they_can_be_made_small(tmp_path, unconnected, size, is_large):
    said = mlcv.init(write_table(tmp_path, 20, size), tmp_path / "a.yaml").understood["training"]
    assert ("mlcv prepare" in said) == is_large


def test_of_many_images_it_says_how_many_were_looked_for(tmp_path, unconnected):
    said = mlcv.init(write_table(tmp_path, 210, (20, 20)), tmp_path / "a.yaml").understood["images"]
    assert said.endswith("200 of 210 looked for, 200 are there")
