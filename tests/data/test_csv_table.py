import gzip

import numpy as np
import pytest

from mlcv.data import Codes, CSVDataModule
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import write_csv, write_image


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path)


def module(table, **options):
    options.setdefault("codes", Codes(uncertain=("-1",)))
    return CSVDataModule(str(table), split_column="split", group_column="patient", **options)


def names_table(tmp_path, cells):
    for n in range(len(cells)):
        write_image(tmp_path / f"{n}.jpg", seed=n)
    path = tmp_path / "names.csv"
    path.write_text("file,finding\n" + "".join(f"{n}.jpg,{cell}\n" for n, cell in enumerate(cells)))
    return path


def test_columns_that_no_argument_names_are_labels(table):
    data = module(table)
    assert data.class_names == ("cat", "dog", "fish")
    assert data.read_split("train").states.tolist() == [
        [-2, 1, 0], [1, -1, 1], [0, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1],
    ]  # fmt: skip
    assert [len(data.read_split(split)) for split in ("train", "val", "test")] == [6, 2, 2]


def test_blank_cells_may_mean_negative(table):
    data = module(table, codes=Codes(uncertain=("-1",), blank="negative"))
    assert data.read_split("train").states[1, 1] == 0


def test_gzipped_tables_read_the_same(table, tmp_path):
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    assert (module(packed).read_split("train").states == module(table).read_split("train").states).all()


def test_a_cell_outside_the_codes_is_named_by_line_and_column(table):
    with pytest.raises(DataError, match=r"table.csv:2: column 'cat' holds '-1', expected one of blank, '0', '1'"):
        module(table, codes=Codes()).read_split("train")


def test_names_in_one_cell_are_split_and_no_finding_is_no_class(tmp_path):
    path = names_table(tmp_path, ["A|B", "No Finding", "B", "", "A| C "])
    data = CSVDataModule(str(path), labels_column="finding", fractions=(1, 0, 0))
    assert data.class_names == ("A", "B", "C")
    expected = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [-1, -1, -1], [1, 0, 1]]
    assert data.read_split("train").states.tolist() == expected


def test_an_unknown_class_is_named_by_line(tmp_path):
    path = names_table(tmp_path, ["A|B", "Z"])
    data = CSVDataModule(str(path), labels_column="finding", classes=["A", "B"], fractions=(1, 0, 0))
    with pytest.raises(DataError, match=r"names.csv:3: unknown class 'Z'"):
        data.read_split("train")


def test_drawn_splits_keep_groups_together_and_cover_all(tmp_path):
    path = write_csv(tmp_path, images=40)
    data = CSVDataModule(str(path), group_column="patient", label_columns=["fish"], fractions=(0.5, 0.25, 0.25), seed=4)
    rows = {split: {p.name for p in data.read_split(split).images} for split in ("train", "val", "test")}
    assert sum(map(len, rows.values())) == 40
    assert len(set.union(*rows.values())) == 40
    patients = [{int(name.split(".")[0]) // 2 for name in names} for names in rows.values()]
    assert len(set.union(*patients)) == 20
    assert [len(p) for p in patients] == [10, 5, 5]


def test_a_patient_in_two_splits_is_an_error(table):
    table.write_text(table.read_text().replace("p4,test", "p0,test"))
    with pytest.raises(DataError, match=r"table.csv:10: patient 'p0' is also in the training split"):
        module(table).read_split("test")


def test_splits_may_be_files(table, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("".join(table.read_text().splitlines(keepends=True)[:4]))
    data = CSVDataModule(str(table), label_columns=["dog", "fish"], val_path=str(other), codes=Codes(uncertain=("-1",)))
    assert [len(data.read_split(split)) for split in ("train", "val", "test")] == [10, 3, 3]


def test_a_missing_image_is_named_with_its_line(table):
    (table.parent / "images" / "3.jpg").unlink()
    with pytest.raises(DataError, match=r"table.csv:5: no image .*3.jpg; data.image_root"):
        module(table).read_split("train")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"label_columns": ["bird"]}, "no column 'bird'; its columns are image, patient"),
        ({"image_column": "file"}, "no column 'file'"),
        ({"label_columns": ["cat"], "labels_column": "dog"}, "exclude each other"),
        ({"fractions": (0.5, 0.1, 0.1)}, "three parts of 1"),
        ({"codes": Codes(positive=("1",), uncertain=("1",))}, "two meanings"),
    ],
)
def test_impossible_options_are_refused(table, options, problem):
    with pytest.raises(ConfigError, match=problem):
        module(table, **options).read_split("train")


def test_a_missing_empty_or_ragged_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no table .*nowhere.csv"):
        CSVDataModule(str(tmp_path / "nowhere.csv"))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        CSVDataModule(str(empty))
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("image,cat\na.jpg,1\nb.jpg,1,0\n")
    with pytest.raises(DataError, match=r"ragged.csv:3: 3 cells under a header of 2"):
        CSVDataModule(str(ragged)).read_split("train")


def test_a_wrong_split_name_is_named_by_line(table):
    table.write_text(table.read_text().replace("p4,test", "p4,holdout"))
    with pytest.raises(DataError, match=r"table.csv:10: column 'split' holds 'holdout'"):
        module(table).read_split("train")


def test_the_real_nih_table_has_its_counts(shared_data):
    path = shared_data / "chest_xray" / "nih" / "Data_Entry_2017_v2020.csv.gz"
    data = CSVDataModule(str(path), labels_column="Finding Labels", fractions=(1, 0, 0), on_error="skip")
    states = data.read_split("train").states
    assert states.shape == (112120, 14)
    assert np.count_nonzero(~(states == 1).any(axis=1)) == 60361  # "No Finding"
    assert (states == 1).sum(axis=0)[data.class_names.index("Infiltration")] == 19894
