"""CheXpert: the official layout, whole tables, patients that stay together, and errors that name the row."""

import csv
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlcv import CheXpertDataModule, Policy
from mlcv.data.chexpert import OBSERVATIONS, TASKS
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import write_chexpert


@pytest.fixture
def root(tmp_path):
    return write_chexpert(tmp_path)


def build(root, **options):
    return CheXpertDataModule(str(root), **{"image_size": 32, "batch_size": 2, "num_workers": 0, **options})


def test_states_are_the_tables_and_blanks_what_was_asked(root):
    data = build(root)
    labeled = data.read_split("train")
    assert data.class_names == OBSERVATIONS
    with (root / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    codes = {"1.0": 1, "0.0": 0, "-1.0": -2, "": 0}
    assert labeled.states.tolist() == [[codes[row[name]] for name in OBSERVATIONS] for row in rows]
    codes[""] = -1
    unknown = build(root, blank="unknown").read_split("train")
    assert unknown.states.tolist() == [[codes[row[name]] for name in OBSERVATIONS] for row in rows]
    assert labeled.about["patient"].tolist() == [row["Path"].split("/")[2] for row in rows]
    assert labeled.about["study"].tolist() == ["/".join(row["Path"].split("/")[2:4]) for row in rows]
    assert labeled.about["age"].tolist() == [row["Age"] for row in rows]
    assert labeled.about["projection"].tolist() == [row["AP/PA"] for row in rows]


def test_observations_are_all_the_five_tasks_or_named_ones_in_order(root):
    whole, names = build(root).read_split("train").states, list(OBSERVATIONS)
    tasks = build(root, observations="tasks")
    assert tasks.class_names == TASKS
    assert np.array_equal(tasks.read_split("train").states, whole[:, [names.index(n) for n in TASKS]])
    two = build(root, observations=["Fracture", "Edema"])
    assert np.array_equal(two.read_split("train").states, whole[:, [names.index("Fracture"), names.index("Edema")]])
    with pytest.raises(ConfigError, match="Oedema.*CheXpert's are No Finding"):
        build(root, observations=["Oedema"])


@pytest.mark.parametrize("view", ["frontal", "lateral"])
def test_one_kind_of_view_may_be_chosen(root, view):
    both = build(root).read_split("train")
    labeled = build(root, views=view).read_split("train")
    assert 0 < len(labeled) < len(both)
    assert all(f"_{view}." in str(image) for image in labeled.images)
    assert set(labeled.about["view"]) == {view.capitalize()}


def test_a_patient_is_in_one_split_only_and_the_same_one_each_time(tmp_path):
    root = write_chexpert(tmp_path, patients=40)
    first, second = (build(root, val_fraction=0.3, seed=seed) for seed in (0, 1))
    for data in (first, second):
        data.setup("fit")
        patients = [set(data.datasets[split].labeled.about["patient"]) for split in ("train", "val")]
        assert not patients[0] & patients[1]
        assert len(patients[0] | patients[1]) == 40
        assert len(patients[1]) == 12
    assert set(first.datasets["val"].labeled.images) != set(second.datasets["val"].labeled.images)
    again = build(root, val_fraction=0.3)
    again.setup("fit")
    assert again.datasets["val"].labeled.images == first.datasets["val"].labeled.images


def test_batches_of_grey_images_have_three_channels_and_resolved_targets(root):
    data = build(root, policy=Policy("ones"))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 32, 32)
    assert ((batch["target"] >= 0) & (batch["target"] <= 1)).all()
    assert data.augment.flip is False


def test_the_test_table_may_list_studies_whose_views_are_found(root):
    with (root / "groundtruth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Study", *TASKS])
        writer.writerow(["CheXpert-v1.0/valid/patient90000/study1", 1, 0, 0, 0, 1])
    labeled = build(root, test_table="groundtruth.csv", observations="tasks").read_split("test")
    assert [image.rpartition("/")[2] for image in labeled.images] == ["view1_frontal.jpg", "view2_lateral.jpg"]
    assert labeled.states.tolist() == [[1, 0, 0, 0, 1]] * 2
    shutil.rmtree(root / "valid" / "patient90000")
    with pytest.raises(DataError, match=r"groundtruth.csv:2: no image of the study"):
        build(root, test_table="groundtruth.csv", observations="tasks").read_split("test")


def test_tables_may_be_gzipped(root):
    expected = build(root).read_split("train").states
    (root / "train.csv.gz").write_bytes(gzip.compress((root / "train.csv").read_bytes()))
    (root / "train.csv").unlink()
    assert np.array_equal(build(root).read_split("train").states, expected)


def change(root, row, column, value):
    with (root / "train.csv").open() as file:
        rows = list(csv.reader(file))
    if column in rows[0]:
        rows[row][rows[0].index(column)] = value
    with (root / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return rows


def test_a_missing_column_is_named(root):
    change(root, 0, "Edema", "Oedema")
    with pytest.raises(DataError, match=r"train.csv: no column 'Edema'; its columns are Path, Sex"):
        build(root).read_split("train")


def test_an_unknown_code_is_named_with_its_row(root):
    change(root, 3, "Fracture", "2")
    with pytest.raises(DataError, match=r"train.csv:4: column 'Fracture' holds '2', no word for positive"):
        build(root).read_split("train")


def test_a_path_that_comes_twice_is_named_with_both_rows(root):
    rows = change(root, 0, "", "")
    change(root, 4, "Path", rows[2][0])
    with pytest.raises(DataError, match=r"train.csv:5: .* is in .*train.csv:3 already"):
        build(root).read_split("train")


@pytest.mark.parametrize(
    "prefix",
    [
        "CheXpert-v1.0/",
        "CheXpert-v1.0-small/",
        "./CheXpert-v1.0/",
        "data/CheXpert-v1.0/",
        "",
        "./",
        "/x/y//",
        "CheXpert-v1.0/./",
    ],
)
def test_paths_count_from_the_split_on_whatever_stands_before(root, prefix):
    plain = build(root).read_split("train")
    table = root / "train.csv"
    table.write_text(table.read_text().replace("CheXpert-v1.0-small/train", f"{prefix}train"))
    labeled = build(root).read_split("train")
    assert list(map(str, labeled.images)) == list(map(str, plain.images))
    assert (labeled.about["study"] == plain.about["study"]).all()


def test_one_image_under_two_prefixes_is_named_with_both_rows(root):
    rows = change(root, 0, "", "")
    change(root, 4, "Path", rows[2][0].replace("CheXpert-v1.0-small", "CheXpert-v1.0"))
    with pytest.raises(
        DataError, match=r"train.csv:5: CheXpert-v1.0/.* is in .*train.csv:3 already, as CheXpert-v1.0-small/"
    ):
        build(root).read_split("train")


def test_patients_are_found_in_the_batches_of_the_archive(root):
    plain = build(root).read_split("train")
    for batch, patients in (
        ("CheXpert-v1.0 batch 2 (train 1)", range(3)),
        ("CheXpert-v1.0 batch 3 (train 2)", range(3, 6)),
    ):
        (root / batch).mkdir()
        for patient in patients:
            (root / "train" / f"patient{patient:05d}").rename(root / batch / f"patient{patient:05d}")
    labeled = build(root).read_split("train")
    assert all(Path(image).is_file() for image in labeled.images)
    assert [str(image).partition("/patient0")[2] for image in labeled.images] == [
        str(image).partition("/patient0")[2] for image in plain.images
    ]
    assert len(build(root).read_split("val")) == 9


def test_words_for_empty_cells_are_blank_in_labels_and_in_what_is_known_of_a_patient(root):
    table = root / "train.csv"
    plain = build(root).read_split("train")
    with table.open() as file:
        rows = list(csv.reader(file))
    with table.open("w", newline="") as file:  # as pandas may write it, with its index
        csv.writer(file).writerows(
            [["", *rows[0]], *([str(n), *(cell or "nan" for cell in row)] for n, row in enumerate(rows[1:]))]
        )
    labeled = build(root).read_split("train")
    assert (labeled.states == plain.states).all()
    assert all((labeled.about[name] == column).all() for name, column in plain.about.items())


def test_columns_beside_path_and_labels_may_be_missing(root):
    table = root / "train.csv"
    with table.open() as file:
        rows = list(csv.reader(file))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([row[0], *row[5:]] for row in rows)
    labeled = build(root).read_split("train")
    assert set(labeled.about["sex"]) == set(labeled.about["projection"]) == {""}
    assert set(labeled.about["patient"]) == {f"patient{n:05d}" for n in range(6)}


def test_a_path_of_another_kind_is_named(root):
    change(root, 2, "Path", "images/1.jpg")
    with pytest.raises(DataError, match=r"train.csv:3: 'images/1.jpg' is no path of CheXpert's"):
        build(root).read_split("train")


def test_a_path_without_image_is_named_before_training_or_left_to_skip(root):
    labeled = build(root).read_split("train")
    missing = labeled.images[2]
    (root / missing.removeprefix(f"{root}/")).unlink()
    with pytest.raises(DataError, match=r"train.csv:4: no image .*data.on_error skip"):
        build(root).setup("fit")
    assert len(build(root, on_error="skip").read_split("train")) == len(labeled)


def test_a_folder_without_tables_says_which_archive(tmp_path):
    with pytest.raises(DataError, match=r"no train.csv \(or train.csv.gz\) under .*stanfordmlgroup"):
        build(tmp_path).setup("fit")


def test_the_whole_table_has_the_counts_of_its_columns(shared_data):
    """And those of the paper's table come near: it counts the 187,641 studies."""
    folder = shared_data / "chest_xray" / "CheXpert-v1.0-small"
    labeled = build(folder, on_error="skip", blank="unknown").read_split("train")
    assert labeled.states.shape == (223414, 14)
    with gzip.open(folder / "train.csv.gz", "rt", newline="") as file:
        rows = list(csv.reader(file))
    header, cells = rows[0], np.array(rows[1:])
    for c, name in enumerate(OBSERVATIONS):
        column = cells[:, header.index(name)]
        for text, state in (("1.0", 1), ("0.0", 0), ("-1.0", -2), ("", -1)):
            assert (labeled.states[:, c] == state).sum() == (column == text).sum(), (name, text)
    assert len(set(labeled.about["patient"])) == 64540
    studies = dict(zip(labeled.about["study"], labeled.states[:, OBSERVATIONS.index("Edema")], strict=True))
    assert len(studies) == pytest.approx(187641, rel=1e-3)
    assert sum(state == 1 for state in studies.values()) == pytest.approx(48905, rel=0.01)
