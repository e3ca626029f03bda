"""ChestX-ray14 in its official layout, and what is wrong with one that is not."""

import csv
import gzip

import pytest

from mlcv import NIHDataModule
from mlcv.data.nih import FINDINGS
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import write_nih


@pytest.fixture
def root(tmp_path):
    return write_nih(tmp_path)


def build(root, **options):
    return NIHDataModule(
        str(root), **{"image_size": 32, "batch_size": 4, "num_workers": 0, "val_fraction": 0.3, **options}
    )


def test_lists_labels_and_patients_are_the_official_ones(root):
    data = build(root)
    data.setup("fit")
    data.setup("test")
    sizes = {split: len(dataset) for split, dataset in data.datasets.items()}
    assert sizes == {"train": 14, "val": 6, "test": 4}
    patients = {split: set(d.labeled.about["patient"]) for split, d in data.datasets.items()}
    assert not patients["train"] & patients["val"]
    named = [{FINDINGS[c] for c in row.nonzero()[0]} for row in data.datasets["test"].labeled.states]
    assert named == [set(), {"Hernia"}, {"Mass", "Nodule"}, {"Effusion", "Pleural_Thickening", "Edema"}]
    assert data.datasets["test"].labeled.about["sex"].tolist() == ["M", "F", "M", "F"]
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (
            lambda lists: lists.update(train="00000000_000.png\n\n00000001_000.png\n00000000_000.png\n"),
            r"train_val_list.txt:4: 00000000_000.png is in .*train_val_list.txt:1 already",
        ),
        (
            lambda lists: lists.update(test=lists["test"] + "00000003_000.png\n"),
            r"test_list.txt:5: 00000003_000.png is in .*train_val_list.txt:4 already",
        ),
        (
            lambda lists: lists.update(table=lists["table"] + lists["table"].splitlines()[3] + "\n"),
            r"v2020.csv:26: 00000002_000.png is in .*v2020.csv:4 already",
        ),
    ],
)
def test_an_image_that_is_listed_twice_is_named_with_both_places(root, harm, problem):
    files = {"train": "train_val_list.txt", "test": "test_list.txt", "table": "Data_Entry_2017_v2020.csv"}
    lists = {key: (root / name).read_text() for key, name in files.items()}
    harm(lists)
    for key, name in files.items():
        (root / name).write_text(lists[key])
    with pytest.raises(DataError, match=problem):
        build(root).setup("fit")


def test_lists_with_a_mark_blanks_or_other_line_ends_are_the_same(root):
    plain = build(root).read_split("train")
    path = root / "train_val_list.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \r\n\r\n"))
    assert build(root).read_split("train").images == plain.images
    (root / "test_list.txt").unlink()  # nobody asked for it
    assert build(root).read_split("train").images == plain.images


def test_one_projection_may_be_chosen(root):
    labeled = build(root, projections="PA").read_split("train")
    assert len(labeled) == 13
    assert set(labeled.about["projection"]) == {"PA"}


def test_what_is_wrong_is_named(root):
    with pytest.raises(ConfigError, match="has no validation split"):
        build(root, val_fraction=0)
    (root / "images_012" / "images" / "00000002_000.png").unlink()
    with pytest.raises(DataError, match=r"v2020.csv:4: no image 00000002_000.png in images/"):
        build(root).setup("fit")
    table = root / "Data_Entry_2017_v2020.csv"
    text = table.read_text()
    table.write_text(text.replace("Mass|Nodule", "Mass|Lump", 1))
    with pytest.raises(DataError, match=r"v2020.csv:4: unknown finding 'Lump'"):
        build(root, on_error="skip").setup("fit")
    table.write_text(text)
    (root / "train_val_list.txt").write_text("00000000_000.png\nother.png\n")
    with pytest.raises(DataError, match=r"train_val_list.txt:2: other.png is not in"):
        build(root).setup("fit")
    (root / "train_val_list.txt").unlink()
    with pytest.raises(DataError, match="official lists"):
        build(root).setup("fit")
    (root / "Data_Entry_2017.csv").write_text(text)
    with pytest.raises(DataError, match=r"found Data_Entry_2017.csv, Data_Entry_2017_v2020.csv; give data.table"):
        build(root).setup("fit")


def test_the_whole_table_has_the_counts_of_its_cells(shared_data, tmp_path):
    path = shared_data / "chest_xray" / "nih" / "Data_Entry_2017_v2020.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "train_val_list.txt").write_text("\n".join(row["Image Index"] for row in rows))
    labeled = build(tmp_path, on_error="skip").read_split("train")
    assert labeled.states.shape == (112120, 14)
    for c, name in enumerate(FINDINGS):
        assert (labeled.states[:, c] == 1).sum() == sum(name in row["Finding Labels"].split("|") for row in rows)
