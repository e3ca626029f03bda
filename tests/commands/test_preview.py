"""`mlcv preview`: the pixels are those of the network, and the captions say what the labels are."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from mlcv import CSVDataModule, DigitScenesDataModule, Policy, Protocol, preview
from mlcv.cli import main
from mlcv.commands.preview import _FONT, _GREY, _RED, _SIDE, _caption, _shown, picture
from mlcv.data.transforms import ImageStatistics
from tests.tiny_sets import write_rows

FONT = ImageFont.load_default(_FONT)
CONFIG = [
    "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=8", "--data.num_test=8",
    "--data.image_size=32", "--data.batch_size=8", "--model=Classifier", "--model.backbone=test_resnet",
]  # fmt: skip


def texts(target, names):
    return [text for text, _ in _caption(torch.tensor(target), names, FONT)]


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG")])
def test_the_command_draws_a_picture_and_nothing_else(tmp_path, monkeypatch, capsys, suffix, kind):
    monkeypatch.chdir(tmp_path)
    assert main(["preview", *CONFIG, "--images", "4", f"--out=out/batch.{suffix}"]) == 0
    assert f"picture: out/batch.{suffix}" in capsys.readouterr().out
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [
        f"out/batch.{suffix}"
    ]
    with Image.open(f"out/batch.{suffix}") as drawn:
        assert drawn.format == kind
        assert drawn.width > 2 * _SIDE
        assert np.asarray(drawn).std() > 10


def test_a_network_is_neither_built_nor_downloaded(tmp_path):
    options = [*CONFIG[:-1], "--model.backbone=resnet50", "--model.weights=pretrained"]  # hubs are offline in tests
    assert preview(options, tmp_path / "a.png", images=1).is_file()


def test_shown_are_the_images_of_the_first_batch_as_the_network_gets_them():
    statistics = ImageStatistics(mean=(0.2, 0.5, 0.7), std=(0.3, 0.1, 0.2))
    make = lambda: DigitScenesDataModule(  # noqa: E731
        64, 8, 8, batch_size=16, image_size=32, num_workers=0, statistics=statistics, seed=3
    )
    data = make()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    for image in batch["image"][:3]:
        seen = np.asarray(_shown(image, statistics.mean, statistics.std))[3::7, 3::7]  # of each pixel one of seven
        pixels = image.permute(1, 2, 0) * torch.tensor(statistics.std) + torch.tensor(statistics.mean)
        np.testing.assert_allclose(seen, (255 * pixels).numpy(), atol=0.6)
    other = make()
    sheet = np.asarray(picture(other, images=4))
    for n in range(4):  # two by two
        shown = np.asarray(_shown(batch["image"][n], statistics.mean, statistics.std))
        assert any(
            (sheet[top : top + _SIDE, left : left + _SIDE] == shown).all()
            for left in (12, 24 + _SIDE)
            for top in range(12, sheet.shape[0] - _SIDE)
        )
    assert (other.batch_size, other.num_workers) == (16, 0)


def test_positives_soft_maybe_and_unknown_labels_are_told_apart():
    names = ["cat", "dog", "fish", "horse", "owl"]
    lines = _caption(torch.tensor([1.0, 0.0, 0.25, -1.0, -2.0]), names, FONT)
    assert [text for text, _ in lines] == ["cat, fish 0.25", "maybe: owl", "unknown: horse"]
    assert [colour for _, colour in lines[1:]] == [_RED, _GREY]
    assert texts([0.0] * 5, names) == ["none of the classes"]
    assert texts([0.0, 0.0, 0.0, 0.0, -1.0], names) == ["nothing known to be there", "unknown: owl"]
    assert texts([-1.0] * 5, names) == ["nothing known to be there", "unknown: cat, dog, fish, horse, owl"]


@pytest.mark.parametrize("classes", [20, 80, 500])
def test_captions_of_many_classes_stay_short(classes):
    names = [f"class-{n:03d}" for n in range(classes)]
    for positive in (0, 5, classes):
        lines = texts([1.0] * positive + [-1.0] * (classes - positive), names)
        assert len(lines) <= 6
        assert all(FONT.getlength(line) <= _SIDE for line in lines)
        if classes - positive > 20:
            assert lines[-1] == f"unknown: {classes - positive} of {classes} classes"
    assert texts([1.0], ["a" * 200])[0].endswith("…")


def test_any_data_can_be_seen(tmp_path):
    for n in range(12):
        Image.new("RGB", (40, 30), (20 * n, 90, 10)).save(tmp_path / f"{n}.png")
    rows = [[f"{n}.png", n % 2, "" if n % 3 else 1] for n in range(12)]
    table = write_rows(tmp_path / "t.csv", ["image", "red, very", "Größe"], rows)
    data = CSVDataModule(str(table), image_size=32, batch_size=4, protocol=Protocol(), policy=Policy())
    assert picture(data, images=64).width > 2 * _SIDE  # as many as the batch has


def test_a_name_that_is_no_pictures_is_told(tmp_path, capsys):
    assert main(["preview", *CONFIG, "--output", str(tmp_path / "batch.txt")]) == 2
    assert "let it end in .png or .jpg" in capsys.readouterr().err
