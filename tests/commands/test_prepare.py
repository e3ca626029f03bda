"""`mlcv prepare`: images made small once are the same images; nothing is done twice, or taken for what it is not."""

import json
import logging
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import mlcv.data
from mlcv import prepare
from mlcv.cli import main
from mlcv.commands import prepare as command
from mlcv.commands.prepare import prepare_data
from mlcv.data.images import read_image
from mlcv.data.prepared import MANIFEST, Prepared
from mlcv.data.transforms import Augment
from mlcv.errors import ConfigError, DataError, Stopped
from mlcv.runs import Run
from tests.data.test_dicom import RAMP, write_dicom
from tests.tiny_sets import MAKE, write_image, write_rows

SIZES = {"image_size": 16, "batch_size": 2, "num_workers": 0, "augment": Augment(min_scale=0.5)}
NEEDED = 23  # 16 pixels of the smallest crop: 16 / sqrt(.5), rounded up
WITH_FILES = sorted(set(MAKE) - {"DigitScenesDataModule"})


def run(data, out, **options):
    return prepare_data(data, out, **{"side": None, "form": "auto", "workers": 2, **options})


@pytest.fixture
def table(tmp_path):
    """Six photographs of 120 x 90."""
    for n in range(6):
        write_image(tmp_path / "images" / f"{n}.jpg", (90, 120), seed=n)
    rows = [[f"images/{n}.jpg", ["train", "train", "val"][n % 3], n // 3] for n in range(6)]
    return write_rows(tmp_path / "t.csv", ["image", "split", "cat"], rows)


def of(table, **options):
    return mlcv.data.CSVDataModule(str(table), split_column="split", **{**SIZES, **options})


def place(out, path):
    return Path(f"{out}{Path(path).absolute()}")


@pytest.mark.parametrize("name", WITH_FILES)
def test_every_data_set_of_files_reads_the_same_images_made_small(name, tmp_path):
    given = {**MAKE[name](tmp_path), **SIZES}
    build = getattr(mlcv.data, name)
    plain = build(**given)
    outcome = run(plain, tmp_path / "small")
    assert outcome.unreadable == {}
    assert outcome.made + outcome.same > 0
    assert outcome.side == NEEDED
    again = build(**given, prepared=str(tmp_path / "small"))
    stages = ["test"] if name == "ImageFilesDataModule" else ["fit", "test"]
    for stage in stages:
        plain.setup(stage)
        again.setup(stage)
    for split, dataset in plain.datasets.items():
        small = again.datasets[split]
        assert small.labeled.fingerprint() == dataset.labeled.fingerprint()
        assert small.describe(0) == dataset.describe(0)
        assert (small.targets == dataset.targets).all()
        for index in range(len(dataset)):
            before, after = dataset.labeled.items.read(index, None, plain.grey, 1), small.load(index)
            assert min(after.shape[:2]) == NEEDED
            smaller = cv2.resize(before, after.shape[1::-1], interpolation=cv2.INTER_AREA).reshape(after.shape)
            assert np.abs(smaller.astype(int) - after).mean() < 6  # JPEG, of noise


def test_what_is_no_jpeg_is_kept_without_loss(tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 2**12, (70, 60), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "tiny.png"), deep[:9, :8])
    cv2.imwrite(str(tmp_path / "colour.bmp"), rng.integers(0, 256, (60, 70, 3), dtype=np.uint8))
    data = mlcv.data.ImageFilesDataModule(str(tmp_path), ["a"], **SIZES)
    run(data, tmp_path / "out", side=20)
    for name, shape in (("deep.png", (23, 20)), ("tiny.png", (9, 8)), ("colour.bmp", (20, 23))):
        whole, small = read_image(tmp_path / name), read_image(place(tmp_path / "out", tmp_path / name))
        assert small.shape == (*shape, 3)
        expected = cv2.resize(whole, shape[::-1], interpolation=cv2.INTER_AREA) if min(whole.shape[:2]) > 20 else whole
        assert (small == expected).all()
    with Image.open(place(tmp_path / "out", tmp_path / "deep.png")) as found:
        assert (found.format, found.mode) == ("PNG", "L")


def test_a_dicom_file_becomes_what_is_seen_of_it(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.kron(RAMP, np.ones((20, 20), int)))
    run(mlcv.data.ImageFilesDataModule(str(path), ["a"], **SIZES), tmp_path / "out", side=30)
    small = read_image(place(tmp_path / "out", path))
    assert (small == cv2.resize(read_image(path), (40, 30), interpolation=cv2.INTER_AREA)).all()


def test_a_turned_photograph_is_upright_and_an_odd_name_stays(tmp_path):
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8), (120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe \n.jpg")
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    run(mlcv.data.ImageFilesDataModule(str(tmp_path), ["a"], **SIZES), tmp_path / "out", side=40)
    small = read_image(place(tmp_path / "out", path))
    assert small.shape == (60, 40, 3)
    expected = cv2.resize(read_image(path), (40, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 4


def test_small_photographs_are_linked_as_they_are(table, tmp_path):
    outcome = run(of(table), tmp_path / "out", side=90)
    assert (outcome.made, outcome.same) == (0, 6)
    assert place(tmp_path / "out", tmp_path / "images" / "1.jpg").samefile(tmp_path / "images" / "1.jpg")
    assert run(of(table), tmp_path / "out", side=90).kept == 6


def test_on_another_disk_they_are_copied(table, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(command.os, "link", refuse)
    run(of(table), tmp_path / "out", side=90)
    there = place(tmp_path / "out", tmp_path / "images" / "1.jpg")
    assert there.read_bytes() == (tmp_path / "images" / "1.jpg").read_bytes()
    assert run(of(table), tmp_path / "out", side=90).kept == 6


def test_what_is_done_is_kept_and_what_has_changed_is_done_again(table, tmp_path):
    assert run(of(table), tmp_path / "out").made == 6
    os.utime(tmp_path / "images" / "2.jpg", (1, 1))  # older, as from an archive
    place(tmp_path / "out", tmp_path / "images" / "3.jpg").unlink()
    again = run(of(table), tmp_path / "out")
    assert (again.made, again.kept) == (2, 4)
    assert run(of(table), tmp_path / "out").kept == 6


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_was_stopped_goes_on(table, tmp_path, monkeypatch, signum):
    made, small_image = [], command.small_image

    def stopping(*arguments, **options):
        made.append(arguments[0])
        if len(made) == 4:
            raise Stopped(signum) if signum == signal.SIGTERM else KeyboardInterrupt
        return small_image(*arguments, **options)

    monkeypatch.setattr(command, "small_image", stopping)
    with pytest.raises(Stopped) as caught:
        run(of(table), tmp_path / "out", workers=1)
    assert caught.value.signum == signum
    assert "give the same command again" in caught.value.advice
    assert run(of(table), tmp_path / "out", workers=1).kept >= 3
    hidden = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name.startswith(".")]
    assert hidden == []


def test_a_file_is_whole_or_not_there(table, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ConfigError, match="No space left"):
        run(of(table), tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_folder_of_other_settings_is_not_mixed(table, tmp_path):
    run(of(table), tmp_path / "out")
    for options, said in (({"side": 50}, "--side 23 --format auto, and now it is --side 50"), ({"form": "png"}, "png")):
        with pytest.raises(ConfigError, match=f"{said}.*or choose another folder"):
            run(of(table), tmp_path / "out", **options)


def test_unreadable_images_are_told_at_the_end_and_told_again_in_training(table, tmp_path):
    (tmp_path / "images" / "4.jpg").write_bytes(b"no image")
    outcome = run(of(table), tmp_path / "out")
    assert [Path(path).name for path in outcome.unreadable] == ["4.jpg"]
    assert outcome.made == 5
    data = of(table, prepared=str(tmp_path / "out"), on_error="skip", check=True)
    data.setup("fit")
    assert len(data.datasets["train"]) == 3
    assert str(tmp_path / "images" / "4.jpg") in str(data.skipped)
    write_image(tmp_path / "images" / "4.jpg", (90, 120), seed=9)
    mended = run(of(table), tmp_path / "out")
    assert (mended.made, mended.kept, mended.unreadable) == (1, 5, {})
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["unreadable"] == {}


def test_what_is_said_of_other_data_in_the_same_folder_stays(table, tmp_path):
    bad = tmp_path / "other" / "bad.jpg"
    bad.parent.mkdir()
    bad.write_bytes(b"no image")
    run(mlcv.data.ImageFilesDataModule(str(bad), ["a"], **SIZES), tmp_path / "out")
    run(of(table), tmp_path / "out")
    assert list(Prepared.open(tmp_path / "out").unreadable) == [str(bad)]


def test_data_that_are_not_prepared_or_too_small_are_refused(table, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        ConfigError, match=f"has no {MANIFEST}; `mlcv prepare --out {out}` makes it.*--data.prepared null"
    ):
        of(table, prepared=str(out)).setup("fit")
    run(of(table), out)
    with pytest.raises(ConfigError, match="shorter side of 23 pixels.* needs 46; prepare them with --side 46"):
        of(table, prepared=str(out), image_size=32).setup("fit")
    of(table, prepared=str(out), image_size=10).setup("fit")
    changed = tmp_path / "images" / "0.jpg"
    os.utime(changed, (2e9, 2e9))
    with pytest.raises(DataError, match=r"1 of 4 images are not in .*, or are newer than there, such as .*0.jpg"):
        of(table, prepared=str(out)).setup("fit")
    changed.rename(tmp_path / "elsewhere.jpg")  # sources need not be on this machine
    of(table, prepared=str(out), on_error="skip").setup("fit")
    place(out, changed).unlink()
    with pytest.raises(DataError, match="give the command `mlcv prepare"):
        of(table, prepared=str(out), on_error="skip").setup("fit")
    (out / MANIFEST).write_text('{"side": "23"}')
    with pytest.raises(ConfigError, match="no manifest of `mlcv prepare`"):
        of(table, prepared=str(out), on_error="skip").setup("fit")


def test_images_in_memory_have_nothing_to_prepare(tmp_path):
    digits = mlcv.data.DigitScenesDataModule(12, 4, 4, image_size=32, batch_size=2, num_workers=0)
    with pytest.raises(ConfigError, match="nothing to prepare"):
        run(digits, tmp_path / "out")
    digits.prepared = tmp_path
    with pytest.raises(ConfigError, match=r"data.prepared is for images in files"):
        digits.setup("fit")


def test_splits_that_are_not_there_are_left_out_with_a_word(tmp_path, caplog):
    given = MAKE["CheXpertDataModule"](tmp_path)
    (Path(given["root"]) / "valid.csv").unlink()
    caplog.set_level(logging.WARNING)
    assert run(mlcv.data.CheXpertDataModule(**given, **SIZES), tmp_path / "out").made == 18
    assert "the val split cannot be read (CheXpert: no valid.csv" in caplog.text


def test_the_command_prepares_and_its_images_are_trained_on(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--data=CSVDataModule", "--data.path=t.csv", "--data.split_column=split", "--data.image_size=32",
        "--data.batch_size=2", "--data.num_workers=0", "--model=Classifier", "--model.backbone=test_resnet",
    ]  # fmt: skip
    (tmp_path / "images" / "5.jpg").write_bytes(b"")
    assert main(["prepare", *options, "--out", "small"]) == 2
    assert "1 image could not be read, all others are in small; the first: images/5.jpg" in capsys.readouterr().err
    write_image(tmp_path / "images" / "5.jpg", (90, 120))
    assert main(["prepare", *options, "--out", "small", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "images of 46 pixels: 1 made smaller, 5 there already" in said
    assert "use them: --data.prepared small" in said
    trained = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--run_dir=run"]
    read = []
    monkeypatch.setattr("mlcv.data.prepared.read_image", lambda path, *others: (read.append(path), IMAGE)[1])
    assert main(["fit", *options, *trained, "--data.prepared", "small"]) == 0
    assert {Path(path) for path in read} == {place(tmp_path / "small", f"images/{n}.jpg") for n in range(6)}
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert Run(best).data().prepared == Path("small")
    (tmp_path / "small").rename(tmp_path / "gone")
    assert Run(best).data().prepared is None  # of a report's pictures
    assert main(["validate", "--ckpt_path", str(best), "--data.prepared", "null"]) == 0


IMAGE = np.full((46, 61, 3), 90, np.uint8)


def test_relative_paths_are_found_from_where_the_config_lies(table, tmp_path, monkeypatch):
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {class_path: CSVDataModule, init_args: {path: t.csv, split_column: split}}\n"
        "model: {class_path: Classifier, init_args: {backbone: test_resnet}}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["prepare", f"--config={config}", "--side=20"]) == 0
    assert place(Path("prepared").absolute(), tmp_path / "images" / "0.jpg").is_file()


def test_python_gets_what_was_done(table, tmp_path):
    options = [
        "--data=CSVDataModule", f"--data.path={table}", "--data.split_column=split", "--model=Classifier",
        "--model.backbone=test_resnet",
    ]  # fmt: skip
    outcome = prepare(options, tmp_path / "out", side=30, form="jpeg")
    assert (outcome.folder, outcome.side, outcome.made) == (tmp_path / "out", 30, 6)
    with pytest.raises(ConfigError, match="form is one of auto, jpeg, png"):
        prepare(options, tmp_path / "out", form="gif")
