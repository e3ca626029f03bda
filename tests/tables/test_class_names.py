"""Names of classes that would be lost, or mistaken for a column, are refused before anything is trained."""

import csv
import string

import pytest

from mlcv.data import DigitScenesDataModule, ImageFilesDataModule
from mlcv.data.chexpert import OBSERVATIONS
from mlcv.data.coco import COCO_CLASSES
from mlcv.data.nih import FINDINGS
from mlcv.data.voc import VOC_CLASSES
from mlcv.errors import DataError
from mlcv.tables import RESERVED, TRUTH, check_class_names
from tests.tiny_sets import write_image


@pytest.mark.parametrize(
    "names", [VOC_CLASSES, COCO_CLASSES, OBSERVATIONS, FINDINGS, list("0123456789"), ["caf\u00e9", "\u732b"]]
)
def test_names_of_real_data_sets_pass(names):
    check_class_names(names, "somewhere")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (" cat", "starts or ends with a blank"),
        ("cat\n", "starts or ends with a blank"),
        ("cat|dog", "holds '|'"),
        ("c\0at", "cannot be printed"),
        ("c\x1bat", "cannot be printed"),
        ("c\u2028at", "cannot be printed"),
        ("c\ud800at", "cannot be printed"),
        ("truth:cat", "starts with 'truth:'"),
        ("logit:cat", "starts with 'logit:'"),
        *((name, "is what a column of another meaning is called") for name in RESERVED),
    ],
)
def test_a_name_that_files_cannot_hold_is_refused_with_its_source(name, problem):
    with pytest.raises(DataError, match=f"my table: the class name .*{problem}"):
        check_class_names(["bird", name], "my table")


@pytest.mark.parametrize("twin", ["cat fish", "Cat Fish", "CAT  FISH", "cat\u00a0fish"])
def test_two_spellings_of_one_name_are_refused(twin):
    with pytest.raises(DataError, match="come twice|differ in case or blanks only"):
        check_class_names(["cat fish", "dog", twin], "my table")
    with pytest.raises(DataError, match="differ in case"):
        check_class_names(["stra\u00dfe", "STRASSE"], "my table")
    with pytest.raises(DataError, match="differ in case"):
        check_class_names(["caf\u00e9", "cafe\u0301"], "my table")


def test_no_class_at_all_is_refused():
    with pytest.raises(DataError, match="there is no class"):
        check_class_names([], "my table")


def test_names_that_pass_come_back_from_a_file_of_labels_and_one_of_columns(tmp_path, numpy_rng):
    """The property behind the list: what is joined by | and written as CSV is read as it was."""
    characters = [*string.printable, "|", "\u00e9", "\u2028", "\x85", "\ufeff", "\u3000", "\ud83d"]
    passed = 0
    for _ in range(2000):
        names = ["".join(numpy_rng.choice(characters, size=numpy_rng.integers(0, 6))) for _ in range(2)]
        try:
            check_class_names(names, "generated")
        except DataError:
            continue
        passed += 1
        path = tmp_path / "labels.csv"
        header = ["index", "image", *names, *(TRUTH + name for name in names), "labels"]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, [0, "a", 1, 1, 1, 1, "|".join(names)]])
        assert len(path.read_text(encoding="utf-8").splitlines()) == 2
        assert len(set(header)) == len(header)
        with path.open(newline="", encoding="utf-8") as file:
            read, row = csv.reader(file)
        assert read == header
        assert row[-1].split("|") == names
    assert passed > 200


def test_every_data_module_passes_the_check_before_its_splits_are_read(tmp_path):
    class Pets(DigitScenesDataModule):
        class_names = ("cat", "Cat", *"23456789")

        def read_split(self, split):
            pytest.fail("the names were not checked first")

    with pytest.raises(DataError, match="Pets: the class names 'cat' and 'Cat' differ"):
        Pets().setup("fit")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="data.classes: the class name 'labels'"):
        ImageFilesDataModule(str(tmp_path), ["cat", "labels"])
