"""Stored features: a head learns from them what it learns on the frozen network, and they are of these images alone."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mlcv
from mlcv.cli import main
from mlcv.data import DigitScenesDataModule
from mlcv.data.features import Features
from mlcv.data.transforms import Augment
from mlcv.errors import ConfigError, DataError, UserError
from mlcv.runs import Run

SMALL = [
    "--config=digits/bce", "--data.num_train=48", "--data.num_val=16", "--data.num_test=16", "--data.image_size=64",
    "--data.batch_size=8", "--data.num_workers=0",
]  # fmt: skip
STILL = [f"--data.augment.{option}" for option in ("strength=0", "cutout=0", "flip=false", "min_scale=1")]


def stored(folder, **options):
    return mlcv.features([*SMALL, *STILL], folder, dtype="float32", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("features")
    stored(path, patches=True)
    return path


def trained(tmp_path, name, *options):
    run = tmp_path / name
    command = ["fit", *SMALL, *STILL, "--run_dir", run, "--trainer.max_epochs=2", "--model.freeze=['']", *options]
    assert main(list(map(str, command))) == 0
    return run / "checkpoints" / "last.ckpt"


def head_of(path):
    return {name: value for name, value in Run(path).contents["state_dict"].items() if not name.startswith("backbone.")}


def assert_same_head(features, images):
    ours, theirs = head_of(features), head_of(images)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["LinearHead", "CSRAHead", "MLDecoderHead", "Query2LabelHead"])
def test_a_head_learns_what_it_learns_on_the_frozen_network(head, folder, tmp_path):
    small = ["--model.head.width=32", "--model.head.hidden=64"] if head in ("MLDecoderHead", "Query2LabelHead") else []
    options = ("--model.head", head, *small)
    images = trained(tmp_path, "images", *options)
    features = trained(tmp_path, "features", *options, "--data.features", folder)
    assert_same_head(features, images)
    assert main(["validate", "--ckpt_path", str(features)]) == 0


def test_a_checkpoint_of_features_predicts_images(folder, tmp_path):
    checkpoint = trained(tmp_path, "run", "--data.features", folder)
    ways = {"images": ["--data.features=null"], "features": []}
    for name, options in ways.items():
        path = tmp_path / f"{name}.npy"
        assert main(["predict", "--ckpt_path", str(checkpoint), "--predictions", str(path), *options]) == 0
    found = [np.load(tmp_path / f"{name}.npy") for name in ways]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_what_was_stopped_goes_on_and_nothing_is_done_twice(folder, tmp_path, monkeypatch):
    path = tmp_path / "again"
    shutil.copytree(folder, path)
    done, pooled = (np.load(path / f"{name}.npy", mmap_mode="r+") for name in ("done", "pooled"))
    whole = pooled.copy()
    done[10:30], pooled[10:30], pooled[0] = 0, 0, 7  # what is there already is left alone
    del done, pooled
    stored(path, patches=True)
    again = np.load(path / "pooled.npy")
    np.testing.assert_allclose(again[1:], whole[1:], atol=1e-6)
    assert (again[0] == 7).all()
    assert np.load(path / "done.npy").all()


def test_each_epoch_draws_a_view_of_each_image(tmp_path):
    varied = ["--data.augment.min_scale=0.5", "--data.augment.strength=0.5"]
    mlcv.features([*SMALL, *varied], tmp_path / "views", views=3, dtype="float32")
    augment = Augment(resize="squash", min_scale=0.5, flip=False, strength=0.5, cutout=0.0)
    given = {"image_size": 64, "batch_size": 8, "features": str(tmp_path / "views"), "augment": augment}
    data = DigitScenesDataModule(48, 16, 16, **given)
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    seen = [train.__getitems__([(epoch, index) for index in range(48)])["image"] for epoch in range(12)]
    views = np.load(tmp_path / "views" / "pooled.views.npy")
    for batch in seen:
        assert all((views[:, row] == batch[row].numpy()).all(axis=1).any() for row in range(48))
    assert len({tuple(batch[5].tolist()) for batch in seen}) == 3
    assert (val.__getitems__([3])["image"].numpy() == np.load(tmp_path / "views" / "pooled.npy")[48 + 3]).all()
    again = train.__getitems__([(4, 7)])["image"][0]
    assert torch.equal(again, seen[4][7])


def test_half_precision_is_float32_when_it_is_read(tmp_path):
    mlcv.features([*SMALL, *STILL], tmp_path / "half")
    data = DigitScenesDataModule(48, 16, 16, image_size=64, batch_size=8, features=str(tmp_path / "half"))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].dtype == torch.float32
    assert batch["image"].ndim == 2
    assert batch["target"].shape == (8, 10)


def test_views_that_are_not_all_there_are_told(tmp_path):
    varied = ["--data.augment.min_scale=0.5"]
    mlcv.features([*SMALL, *varied], tmp_path / "views", views=2)
    np.load(tmp_path / "views" / "done.views.npy", mmap_mode="r+")[1, 7] = 0  # as where it was stopped
    augment = Augment(resize="squash", min_scale=0.5, flip=False, strength=0.0, cutout=0.0)
    given = {"image_size": 64, "batch_size": 8, "features": str(tmp_path / "views"), "augment": augment}
    data = DigitScenesDataModule(48, 16, 16, **given)
    with pytest.raises(DataError, match="1 of 48 images have none, such as image 7"):
        data.setup("fit")
    data.setup("validate")


def test_an_image_that_cannot_be_read_has_not_the_next_ones_features(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(16):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"{n}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    rows = [f"{n}.png,{n % 2},{'train' if n < 8 else 'val' if n < 12 else 'test'}" for n in range(16)]
    (tmp_path / "t.csv").write_text("\n".join(["image,cat,split", *rows]))
    options = ["--model=Classifier", "--model.backbone=test_resnet", "--data=CSVDataModule", "--data.batch_size=4"]
    options += [
        f"--data.path={tmp_path / 't.csv'}",
        "--data.split_column=split",
        "--data.image_size=64",
        "--data.num_workers=0",
    ]
    stored = mlcv.features([*options, "--data.on_error=skip"], tmp_path / "out", views=2)
    for are_views in (False, True):
        done = stored.array("done", are_views)
        assert (done[..., 3] == 0).all()
        assert done.sum() == done.size - done.size // done.shape[-1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--data.image_size=32"], "image_size"),
        (["--data.num_train=40"], "not those of"),
        (["--model.backbone=resnet18"], "statistics"),
        (["--seed_everything=1"], "weights"),
        (["--data.features=elsewhere"], "mlcv features"),
    ],
)
def test_features_of_something_else_are_refused_in_one_sentence(options, word, folder, tmp_path, capsys):
    command = ["fit", *SMALL, *STILL, "--data.features", folder, "--run_dir", tmp_path / "run", *options]
    assert main(list(map(str, command))) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert word in said
    assert said.startswith("mlcv: error: ")


def test_a_head_of_patches_wants_patches(tmp_path):
    stored(tmp_path / "pooled")
    with pytest.raises(ConfigError, match="--patches"):
        Features.open(tmp_path / "pooled").array("places")


def test_a_folder_of_other_features_is_not_written_over(folder):
    before = (folder / "features.json").read_text()
    with pytest.raises(ConfigError, match="another views"):
        stored(folder, patches=True, views=1)
    with pytest.raises(UserError, match="--dtype"):
        mlcv.features(SMALL, folder, dtype="int8")
    assert (folder / "features.json").read_text() == before
    assert json.loads(before)["splits"]["val"] == {**json.loads(before)["splits"]["val"], "start": 48, "count": 16}


def test_images_without_features_are_told_or_left_out(folder, tmp_path):
    path = tmp_path / "torn"
    shutil.copytree(folder, path)
    done = np.load(path / "done.npy", mmap_mode="r+")
    done[3] = 0
    data = DigitScenesDataModule(48, 16, 16, image_size=64, batch_size=8, features=str(path))
    with pytest.raises(DataError, match="1 of 48 images have none, such as image 3"):
        data.setup("fit")
    data.on_error = "skip"
    data.setup("fit")
    assert len(data.datasets["train"]) == 47
    assert len(data.datasets["train"].targets) == 47


@pytest.mark.parametrize("method", [
    ["--model=PUMLC", "--model.global_branches=null", "--model.head=LinearHead", "--model.mixup_weight=0"],
    ["--model=PatchCT"],
    ["--model=MetaRescaling"],
], ids=["PU-MLC", "PatchCT", "STORM"])  # fmt: skip
def test_other_methods_learn_from_features_what_they_learn_on_the_frozen_network(method, folder, tmp_path):
    options = [*method, "--model.backbone=test_resnet", "--model.optim.horizon_epochs=null"]
    images = trained(tmp_path, "images", *options)
    features = trained(tmp_path, "features", *options, "--data.features", folder)
    assert_same_head(features, images)


def test_mixup_is_of_features_where_there_are_no_images(folder, tmp_path):
    method = [
        "--model=PUMLC",
        "--model.backbone=test_resnet",
        "--model.global_branches=null",
        "--model.head=LinearHead",
    ]
    trained(tmp_path, "mixed", *method, "--data.features", folder, "--trainer.log_every_n_steps=1")
    rows = list(csv.DictReader((tmp_path / "mixed" / "metrics.csv").open()))
    assert [row for row in rows if row["train/loss_mixup"] and float(row["train/loss_mixup"]) > 0]


@pytest.mark.parametrize("harm", ["cut", "short", "gone", "names"])
def test_what_was_damaged_is_told_and_stored_again(folder, tmp_path, harm):
    path = tmp_path / "torn"
    shutil.copytree(folder, path)
    file = path / ("images.json" if harm == "names" else "places.npy")
    if harm == "short":
        np.save(file, np.load(file)[:-1])
    elif harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    if harm != "names":
        with pytest.raises(ConfigError, match=r"places.npy cannot be read .*with --patches"):
            Features.open(path).array("places")
    stored(path, patches=True)
    for name in ("places.npy", "pooled.npy", "images.json"):
        assert (path / name).read_bytes() == (folder / name).read_bytes()


def test_a_manifest_of_something_else_is_none(tmp_path):
    (tmp_path / "features.json").write_text('{"splits": {}, "weights": "x"}')
    with pytest.raises(ConfigError, match="has no features.json"):
        Features.open(tmp_path)


def test_a_file_in_the_folders_place_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file cannot be written .*--out"):
        stored(tmp_path / "file")
