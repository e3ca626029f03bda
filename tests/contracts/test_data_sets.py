"""What every DataModule in `mlcv.data` must do, on a tiny set in its official layout; a new one adds that to MAKE."""

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mlcv.data
from mlcv.data import MultiLabelDataModule
from mlcv.errors import UserError
from mlcv.labels.policies import Policy
from mlcv.labels.protocols import Protocol
from tests.tiny_sets import MAKE

CLASSES = [
    cls
    for cls in (getattr(mlcv.data, name) for name in mlcv.data.__all__)
    if inspect.isclass(cls) and issubclass(cls, MultiLabelDataModule) and cls is not MultiLabelDataModule
]


UNLABELLED = {"ImageFilesDataModule"}
NO_FOLDER = {"DigitScenesDataModule"}
SIZE = 32


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def make(cls, tmp_path):
    """Builds the data set with other options, of the same files."""
    if cls.__name__ not in MAKE:
        pytest.fail(f"{cls.__name__} has no tiny set in MAKE, so nobody knows whether it keeps the contract")
    given = MAKE[cls.__name__](tmp_path)
    sizes = {"image_size": SIZE, "batch_size": 4, "num_workers": 0}
    return lambda **options: cls(**{**given, **sizes, **options})


@pytest.fixture
def labelled(cls, make):
    if cls.__name__ in UNLABELLED:
        pytest.skip("has no labels, and nothing to train on")
    return make


def splits(data):
    return ("test",) if type(data).__name__ in UNLABELLED else ("train", "val", "test")


def set_up(data):
    for stage in ("test",) if type(data).__name__ in UNLABELLED else ("fit", "test"):
        data.setup(stage)
    return data


def loader(data, split):
    return {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()


def names(labeled):
    return [labeled.name(row) for row in range(len(labeled))]


def test_no_data_set_is_left_out():
    """Neither by the package, nor here, nor here still that is gone there."""
    found = {one for one in subclasses(MultiLabelDataModule) if one.__module__.startswith("mlcv.data.")}
    assert found == set(CLASSES)
    assert set(MAKE) == {one.__name__ for one in CLASSES}
    assert set(MAKE) >= UNLABELLED | NO_FOLDER


def subclasses(cls):
    return {one for child in cls.__subclasses__() for one in (child, *subclasses(child))}


def test_has_classes_of_different_names(make):
    data = make()
    assert isinstance(data.class_names, tuple)
    assert data.num_classes == len(data.class_names) == len(set(data.class_names)) > 0
    assert all(isinstance(name, str) and name.strip() == name != "" for name in data.class_names)


def test_every_split_is_read_with_a_state_for_each_image_and_class(make):
    data = make()
    for split in splits(data):
        labeled = data.read_split(split)
        assert len(labeled) > 0
        assert labeled.states.shape == (len(labeled), data.num_classes)
        assert labeled.states.dtype == np.int8
        assert np.isin(labeled.states, (1, 0, -1, -2)).all()
        assert ((labeled.states >= 0).any()) == (type(data).__name__ not in UNLABELLED)
        assert all(len(column) == len(labeled) for column in labeled.about.values())
        assert labeled.lines is None or len(labeled.lines) == len(labeled)
        assert data.group is None or data.group in labeled.about
        again = make().read_split(split)
        assert names(again) == names(labeled)
        assert (again.states == labeled.states).all()


def test_training_labels_hold_positives_and_negatives(labelled):
    states = labelled().read_split("train").states
    assert (states == 1).any()
    assert (states == 0).any()


def test_batches_hold_each_image_once_with_its_target_and_its_index(make):
    data = set_up(make())
    for split in splits(data):
        dataset, seen = data.datasets[split], []
        for batch in loader(data, split):
            assert (
                {"image", "target", "index", "errors"} <= set(batch) <= {"image", "target", "index", "errors", "boxes"}
            )
            count = len(batch["index"])
            assert batch["image"].shape == (count, 3, SIZE, SIZE)
            assert batch["image"].dtype == torch.float32
            assert batch["image"].isfinite().all()
            assert batch["target"].shape == (count, data.num_classes)
            assert batch["target"].dtype == torch.float32
            assert ((batch["target"] == -1) | ((batch["target"] >= 0) & (batch["target"] <= 1))).all()
            assert torch.equal(batch["target"], dataset.targets[batch["index"]])
            assert batch["index"].dtype == torch.int64
            assert batch["errors"] == []
            assert all(boxes.shape[1:] == (5,) for boxes in batch.get("boxes", []))
            assert len(batch.get("boxes", batch["index"])) == count
            seen += batch["index"].tolist()
            if split != "train":
                for row, index in enumerate(batch["index"].tolist()):
                    alone = dataset[index]
                    assert alone["index"] == index
                    assert torch.equal(alone["target"], batch["target"][row])
        assert len(set(seen)) == len(seen)
        whole = (
            len(dataset) // 4 * 4 if split == "train" else len(dataset)
        )  # a small last batch is left out of training
        assert len(seen) == whole
        assert seen == sorted(seen) or split == "train"


def test_every_image_is_there_and_has_the_channels_of_its_set(make):
    data = set_up(make())
    for split in splits(data):
        labeled = data.datasets[split].labeled
        shown = [data.datasets[split].load(row) for row in range(len(labeled))]
        assert all(image.dtype == np.uint8 and image.ndim == 3 for image in shown)
        assert {image.shape[2] for image in shown} == {1 if data.grey else 3}
        assert len({image.tobytes() for image in shown}) == len(shown)
        assert all(isinstance(image, np.ndarray) or Path(image).is_file() for image in labeled.images)


@pytest.mark.parametrize(
    "protocol",
    [
        {"known_fraction": 0.3}, {"flip_positives": 1.0}, {"flip_negatives": 1.0}, {"single_positive": True},
        {"positives_only": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_protocol_changes_the_training_labels_and_no_others(labelled, protocol):
    plain, worse = set_up(labelled()), set_up(labelled(protocol=Protocol(**protocol)))
    for split in splits(plain):
        one, other = plain.datasets[split], worse.datasets[split]
        assert names(other.labeled) == names(one.labeled)
        assert torch.equal(other.targets, one.targets) == (split != "train")
    policy = Policy()
    states = Protocol(**protocol).apply(plain.datasets["train"].labeled.states)
    assert torch.equal(worse.datasets["train"].targets, policy.resolve(states, plain.class_names))


def test_a_part_that_is_held_out_is_the_seeds_and_whole_groups(labelled):
    def held(seed):
        data = labelled(val_fraction=0.4, seed=seed)
        data.setup("fit")
        return data, {split: names(data.datasets[split].labeled) for split in ("train", "val")}

    data, parts = held(3)
    assert held(3)[1] == parts
    if type(data).__name__ in NO_FOLDER:  # its seed is that of the images, too
        assert len(parts["val"]) == round(0.4 * 12)
        return
    every = names(data.read_split("train"))
    assert sorted(parts["train"] + parts["val"]) == sorted(every)
    assert 0 < len(parts["val"]) < len(every)
    assert any(set(held(seed)[1]["val"]) != set(parts["val"]) for seed in range(4, 10))
    if data.group is not None:
        owners = [set(data.datasets[split].labeled.about[data.group]) for split in ("train", "val")]
        assert not owners[0] & owners[1]
        assert len(set.union(*owners)) < len(every)  # or nothing was asked
    else:
        assert len(parts["val"]) == round(0.4 * len(every))


def test_splits_share_neither_images_nor_groups(labelled):
    data = set_up(labelled())
    read = {split: data.datasets[split].labeled for split in splits(data)}
    if type(data).__name__ not in NO_FOLDER:
        keys = {split: set(map(str, labeled.images)) for split, labeled in read.items()}
        assert not keys["train"] & (keys["val"] | keys["test"])
    if data.group is not None:
        owners = {split: set(labeled.about[data.group]) for split, labeled in read.items()}
        assert not owners["train"] & (owners["val"] | owners["test"])


def test_a_place_where_nothing_is_gives_a_sentence_that_names_it(cls, make, tmp_path):
    place = next((name for name in ("root", "path") if name in inspect.signature(cls).parameters), None)
    if cls.__name__ in NO_FOLDER:
        assert place is None
        pytest.skip("reads no files of the user's")
    wrong = tmp_path / "elsewhere"
    with pytest.raises(UserError) as raised:
        set_up(make(**{place: str(wrong)}))
    assert str(wrong) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not wrong.exists()


def test_a_worker_process_makes_the_batches_of_none(make):
    alone, beside = set_up(make()), set_up(make(num_workers=1))
    for split in splits(alone):
        batches = [list(loader(data, split)) for data in (alone, beside)]
        assert len(batches[0]) == len(batches[1]) > 0
        for one, other in zip(*batches, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("image", "target", "index"))


def test_can_be_sent_to_a_process_that_shares_no_memory(make):
    """Where workers are spawned, a data set and what makes its batches are pickled."""
    data = set_up(make())
    for split in splits(data):
        given = loader(data, split)
        dataset, collate = pickle.loads(pickle.dumps((given.dataset, given.collate_fn)))
        keys = [(1, 1), (1, 0)] if split == "train" else [1, 0]
        one = given.collate_fn([given.dataset[key] for key in keys])
        other = collate([dataset[key] for key in keys])
        assert all(torch.equal(one[key], other[key]) for key in ("image", "target", "index"))
        assert one["index"].tolist() == [1, 0]


def test_documents_every_argument(cls):
    inherited = inspect.signature(MultiLabelDataModule).parameters
    for name, parameter in inspect.signature(cls).parameters.items():
        assert parameter.kind is not parameter.VAR_POSITIONAL
        assert re.search(rf"^ {{8}}{name}: \S", cls.__doc__, re.MULTILINE), name
    assert "kwargs: see `MultiLabelDataModule`." in cls.__doc__
    for name in inherited:
        assert re.search(rf"^ {{8}}{name}: \S", MultiLabelDataModule.__doc__, re.MULTILINE), name
    documented = re.findall(r"^ {8}(\w+): \S", cls.__doc__.partition("Args:")[2].partition("Raises:")[0], re.MULTILINE)
    assert set(documented) <= {*inspect.signature(cls).parameters, *inherited}
