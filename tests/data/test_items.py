"""Images of one's own kind stand where files and arrays do: in splits, checks, batches and predictions."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from lightning.pytorch import Trainer

from mlcv import Classifier, MultiLabelDataModule
from mlcv.callbacks.predictions import PredictionWriter
from mlcv.data import ImageFilesDataModule, LabeledImages
from mlcv.data.items import Arrays, Files, Items, items_of
from mlcv.errors import ConfigError, DataError


@dataclass
class Shards:
    """Images in several arrays; of each its shard and its place there. Those that are black are unreadable."""

    shards: list
    places: list

    def __len__(self):
        return len(self.places)

    def read(self, index, min_side, grey, max_megapixels):
        shard, row = self.places[index]
        if not self.shards[shard][row].any():
            raise DataError(f"{self.name(index)} is black")
        return self.shards[shard][row]

    def name(self, index):
        return "{}/{}".format(*self.places[index])

    def keys(self):
        return list(self.places)

    def select(self, rows):
        return Shards(self.shards, [self.places[row] for row in rows])

    def fingerprint(self):
        return str(self.places)

    def unreadable(self, min_side, threads, max_megapixels):
        return {
            n: DataError(f"{self.name(n)} is black")
            for n, (s, r) in enumerate(self.places)
            if not self.shards[s][r].any()
        }


class Sharded(MultiLabelDataModule):
    class_names = ("a", "b")

    def __init__(self, splits, **kwargs):
        super().__init__(image_size=32, batch_size=4, num_workers=0, **kwargs)
        self.splits = splits

    def read_split(self, split):
        images = self.splits[split]
        return LabeledImages(images, np.ones((len(images), 2), np.int8))


@pytest.fixture
def shards(numpy_rng):
    return [numpy_rng.integers(1, 256, (6, 40, 40, 3), dtype=np.uint8) for _ in range(3)]


def splits(shards):
    names = ("train", "val", "test")
    return {name: Shards(shards, [(n, row) for row in range(6)]) for n, name in enumerate(names)}


def test_own_images_are_batched_and_named(shards):
    data = Sharded(splits(shards))
    data.setup("fit")
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert data.datasets["test"].describe(2) == "2/2"
    assert np.array_equal(data.datasets["val"].load(3), shards[1][3])


def test_own_images_in_two_splits_are_found(shards):
    wrong = splits(shards)
    wrong["val"].places[2] = (0, 4)
    with pytest.raises(DataError, match="0/4 is in the training and the validation split"):
        Sharded(wrong).setup("fit")
    wrong["val"].places[2] = (1, 3)
    with pytest.raises(DataError, match="1/3 is there twice"):
        Sharded(wrong).setup("fit")


def test_own_images_that_cannot_be_read_are_left_out_or_told(shards):
    shards[0][5] = 0
    with pytest.raises(DataError, match=r"1 of 6 images cannot be read; the first: 0/5 is black"):
        Sharded(splits(shards), check=True).setup("fit")
    data = Sharded(splits(shards), check=True, on_error="skip")
    data.setup("fit")
    assert len(data.datasets["train"]) == 5
    assert data.skipped == {"0/5 is black"}


def test_what_is_given_is_known_by_its_kind(shards):
    kinds = [items_of(given) for given in (shards[0], ["a.png"], splits(shards)["val"])]
    assert [type(kind) for kind in kinds] == [Arrays, Files, Shards]
    assert all(isinstance(kind, Items) for kind in kinds)


def test_images_of_one_name_are_each_predicted(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(Shards, "name", lambda self, index: "{1}.jpg".format(*self.places[index]))
    data = Sharded({"test": Shards(shards, [(n, row) for n in range(3) for row in range(6)])})
    for name in ("p.npy", "p.csv"):
        writer = PredictionWriter(tmp_path / name)
        Trainer(callbacks=[writer], logger=False, enable_progress_bar=False, accelerator="cpu").predict(
            Classifier("test_resnet", 2), data, return_predictions=False
        )
    assert np.load(tmp_path / "p.npy").shape == (18, 2)
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 19


def test_what_lacks_a_part_of_items_is_told(shards):
    class Short:
        def __len__(self):
            return 3

        def read(self, index, min_side, grey, max_megapixels):
            return shards[0][index]

    with pytest.raises(ConfigError, match="Short stands for images and lacks fingerprint, keys, name, sel"):
        items_of(Short())


def test_an_array_of_a_folder_is_of_all_its_images_however_often_it_was_stopped(tmp_path, numpy_rng):
    for n in range(4):
        cv2.imwrite(str(tmp_path / f"{n}.png"), numpy_rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    said = []
    for done in (frozenset(), frozenset([str(tmp_path / "0.png"), str(tmp_path / "2.png")])):
        data = ImageFilesDataModule(str(tmp_path), ["a"], image_size=32, num_workers=0)
        data.done = done
        data.setup("predict")
        said.append(data.predicted_images())
    assert said[0] == said[1]
