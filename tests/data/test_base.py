import csv
import json
import logging
import threading

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from mlcv import Classifier
from mlcv.cli import main
from mlcv.data import CSVDataModule, DigitScenesDataModule
from mlcv.data.loading import set_up_worker
from mlcv.data.samples import Collate, Normalize
from mlcv.data.transforms import ImageStatistics
from mlcv.errors import ConfigError, DataError, find_user_error
from mlcv.labels import Protocol
from tests.tiny_sets import write_csv


def digits(**options):
    sizes = {"num_train": 60, "num_val": 20, "num_test": 20, "batch_size": 8, "image_size": 32}
    return DigitScenesDataModule(**(sizes | options))


def csv_images(tmp_path, **options):
    path = write_csv(tmp_path)
    options = {"label_columns": ["fish"], "split_column": "split", "batch_size": 2, "image_size": 32, **options}
    return CSVDataModule(str(path), **options)


def test_a_batch_is_normalised_with_the_backbones_statistics():
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    sample = {"image": image, "target": torch.zeros(2), "index": 7}
    batch = Collate(Normalize(mean, std))([sample, sample])
    expected = (image / 255 - np.array(mean)) / np.array(std)
    torch.testing.assert_close(batch["image"][1], torch.from_numpy(expected.transpose(2, 0, 1)).float())
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["index"].tolist() == [7, 7]


def test_the_protocol_touches_the_training_split_only():
    clean, worse = digits(), digits(protocol=Protocol(known_fraction=0.5, positives_only=True))
    for data in (clean, worse):
        data.setup("fit")
        data.setup("test")
    assert (worse.datasets["train"].targets == -1).float().mean() > 0.5
    for split in ("val", "test"):
        assert torch.equal(worse.datasets[split].targets, clean.datasets[split].targets)
    assert worse.label_summary["train"]["negative"] == 0


def test_held_out_validation_images_leave_the_training_split():
    data = digits(val_fraction=0.25)
    data.setup("fit")
    train, val = (data.datasets[split].labeled.images for split in ("train", "val"))
    assert (len(train), len(val)) == (45, 15)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in val}


def test_each_epoch_has_its_own_order_which_the_seed_decides():
    def orders(seed):
        data = digits(seed=seed, num_train=64)
        data.setup("fit")
        loader = data.train_dataloader()
        found = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            found.append([i for batch in loader for i in batch["index"].tolist()])
        return found

    first, second = orders(1)
    assert sorted(first) == list(range(64))
    assert first != second
    assert [first, second] == orders(1)
    assert first != orders(2)[0]


def test_an_unreadable_image_stops_the_loader_with_its_path(tmp_path):
    data = csv_images(tmp_path, num_workers=1)
    (tmp_path / "images" / "2.jpg").write_bytes(b"\xff\xd8 half")
    data.setup("fit")
    with pytest.raises(DataError) as caught:
        list(data.train_dataloader())
    sentence = str(find_user_error(caught.value))
    assert sentence.startswith(str(tmp_path / "images" / "2.jpg"))
    assert "\n" not in sentence


def test_a_skipped_image_is_logged_and_counted(tmp_path, caplog):
    data = csv_images(tmp_path, on_error="skip", num_workers=0)
    (tmp_path / "images" / "2.jpg").write_bytes(b"")
    data.setup("fit")
    caplog.set_level(logging.WARNING)
    batches = [data.on_before_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    indices = [index for batch in batches for index in batch["index"].tolist()]
    assert sorted(indices) == [0, 1, 3, 3, 4, 5]  # the next one takes its place
    assert len(data.skipped) == 1
    data.teardown("fit")
    assert "2.jpg" in caplog.text
    assert "1 unreadable images were skipped in all" in caplog.text


@pytest.mark.parametrize(("cells", "judges"), [(["0.3"] * 4, False), (["1"] * 4, False), (["1", "0"] * 2, True)])
def test_a_split_that_judges_nothing_is_told(tmp_path, caplog, cells, judges):
    csv_images(tmp_path)
    rows = [f"images/{n}.jpg,val,{cell}" for n, cell in enumerate(cells)] + ["images/5.jpg,train,1"]
    (tmp_path / "t.csv").write_text("image,split,a\n" + "\n".join(rows))
    caplog.set_level(logging.INFO)
    CSVDataModule(str(tmp_path / "t.csv"), split_column="split", label_columns=["a"], image_size=32).setup("validate")
    line = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("val: 4 images"))
    assert line.endswith("so nothing can be judged") is not judges


def test_a_worker_whose_command_has_ended_is_no_traceback_and_other_errors_are(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    set_up_worker(0)

    def fails(error):
        raise error

    for error in (ConnectionResetError(), BrokenPipeError(), ValueError("a mistake")):
        thread = threading.Thread(target=fails, args=(error,))
        thread.start()
        thread.join()
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1
    assert "a mistake" in said


def test_a_batch_without_a_readable_image_is_an_error():
    with pytest.raises(DataError, match="a whole batch of 2 images cannot be read; the first: a.jpg"):
        Collate(None)([{"error": "a.jpg: empty"}, {"error": "b.jpg: empty"}])


def test_whole_batches_of_unreadable_images_end_nothing_where_they_are_skipped(tmp_path, capsys):
    table = write_csv(tmp_path)
    for n in (0, 1, 2, 6, 8):  # in batches of one, all of some
        (tmp_path / "images" / f"{n}.jpg").write_bytes(b"")
    options = [
        "--data=CSVDataModule", f"--data.path={table}", "--data.label_columns=[fish]", "--data.split_column=split",
        "--data.image_size=32", "--data.batch_size=2", "--data.num_workers=0", "--data.on_error=skip",
        "--model=Classifier", "--model.backbone=test_resnet", "--trainer.max_epochs=2",
        "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--test_after_fit=true",
    ]  # fmt: skip
    run = tmp_path / "run"
    assert main(["fit", *options, "--run_dir", str(run)]) == 0
    last = str(run / "checkpoints" / "last.ckpt")
    for name in ("validate", "test"):
        assert main([name, "--ckpt_path", last, "--data.batch_size=1"]) == 0
    assert main(["predict", "--ckpt_path", last, "--data.batch_size=1"]) == 2  # says which it could not read
    assert "1 image could not be read" in capsys.readouterr().err
    rows = list(csv.DictReader((run / "val_predictions.csv").open()))
    assert [row["image"].rpartition("/")[2] for row in rows] == ["7.jpg"]
    skipped = json.loads((run / "val.json").read_text())["skipped_images"]
    (tmp_path / "images" / "9.jpg").write_bytes(b"")
    assert main(["test", "--ckpt_path", last]) == 2
    assert "no image of the test split can be read, so there is nothing to judge" in capsys.readouterr().err
    assert [name.rpartition("/")[2].partition(":")[0] for name in skipped] == ["6.jpg"]


def test_training_on_nothing_but_unreadable_images_is_an_error(tmp_path):
    data = csv_images(tmp_path, on_error="skip", num_workers=0)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    data.setup("fit")
    with pytest.raises(DataError, match="none of 6 images in a row can be read"):
        list(data.train_dataloader())


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_check_finds_bad_images_before_training(tmp_path, on_error):
    data = csv_images(tmp_path, check=True, on_error=on_error)
    (tmp_path / "images" / "1.jpg").write_bytes(b"")
    if on_error == "raise":
        with pytest.raises(DataError, match=r"1 of 6 images cannot be read; the first: .*1.jpg"):
            data.setup("fit")
    else:
        data.setup("fit")
        assert len(data.datasets["train"]) == 5
        assert len(data.datasets["train"].targets) == 5


def test_too_little_shared_memory_is_found_before_training(tmp_path, monkeypatch):
    data = csv_images(tmp_path, num_workers=2)
    data.setup("fit")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("mlcv.data.loading.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"--shm-size=8g.*data.num_workers"):
        data.train_dataloader()


def test_a_batch_larger_than_the_training_split_is_refused():
    data = digits(batch_size=100)
    data.setup("fit")
    with pytest.raises(ConfigError, match="60 training images do not fill one batch of 100.*at most 60"):
        data.train_dataloader()


@pytest.mark.parametrize("options", [{"val_fraction": 1.0}, {"image_size": 0}, {"batch_size": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        digits(**options)


def test_augmentation_does_not_depend_on_the_number_of_workers(tmp_path):
    def images(workers):
        data = csv_images(tmp_path, num_workers=workers)
        data.setup("fit")
        return torch.cat([batch["image"] for batch in data.train_dataloader()])

    assert torch.equal(images(0), images(2))


def test_the_loader_works_under_a_trainer():
    data = digits()
    trainer = Trainer(logger=False, enable_checkpointing=False)
    data.trainer = trainer
    data.setup("fit")
    assert len(data.train_dataloader()) == 7


def test_a_batch_is_normalised_also_from_windows_on_larger_images():
    image = np.random.default_rng().integers(0, 256, (9, 8, 3), dtype=np.uint8)
    windows = [image[1:6, 2:7], image[::-1][:5, :5]]
    samples = [{"image": window, "target": torch.zeros(1), "index": n} for n, window in enumerate(windows)]
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    batch = Collate(Normalize(mean, std))(samples)["image"]
    expected = (np.stack(windows) / 255 - np.array(mean)) / np.array(std)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(batch.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("first", [False, True])
def test_images_are_what_the_backbone_expects_in_python_too(first):
    """Even if the data were looked at before there was a network."""
    given = ImageStatistics((0.1, 0.2, 0.3))
    for statistics, expected in ((None, ImageStatistics((0.5,) * 3, (0.5,) * 3, "bilinear", 0.95)), (given, given)):
        data = digits(statistics=statistics)
        if first:
            data.setup("fit")
        trainer = Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, logger=False,
                          enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")  # fmt: skip
        trainer.fit(Classifier("test_resnet", 10), data)
        assert data.statistics == expected
        image = data.datasets["val"].load(0)
        batch = next(iter(data.val_dataloader()))
        pixels = torch.from_numpy(image).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (expected.mean, expected.std))
        torch.testing.assert_close(batch["image"][0], (pixels - mean) / std, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_images_have_the_trainers_precision_and_pass_a_modules_own_hook(precision):
    class Doubling(Classifier):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return {**batch, "image": batch["image"] * 2}

        def training_step(self, batch, batch_idx):
            seen.append(batch["image"])
            return super().training_step(batch, batch_idx)

    seen = []
    trainer = Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, logger=False, precision=precision,
                      enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")  # fmt: skip
    trainer.fit(Doubling("test_resnet", 10), data := digits(num_workers=0))
    expected = 2 * next(iter(data.train_dataloader()))["image"]
    assert seen[0].dtype == {"bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]
    torch.testing.assert_close(seen[0].float(), expected, atol=2e-2, rtol=2e-2)


def test_a_transform_that_gives_floats_is_refused():
    sample = {"image": np.zeros((4, 4, 3), np.float32), "target": torch.zeros(1), "index": 0}
    with pytest.raises(ConfigError, match="a transform gives images of float32, and uint8 is needed"):
        Collate(None)([sample])
