import json
import os
from pathlib import Path

import numpy as np
import pytest

from mlcv.data import COCODataModule, coco
from mlcv.data.coco import COCO_CLASSES, parse_instances, read_instances
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import write_coco


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco")


def edit(root, change, split="train"):
    path = root / "annotations" / f"instances_{split}2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_states_follow_the_annotations_and_the_files_order(root):
    labeled = COCODataModule(str(root)).read_split("train")
    expected = np.zeros((6, 80), int)
    expected[np.arange(6), np.arange(6)] = 1
    expected[::2, 0] = 1
    assert (labeled.states == expected).all()
    assert [path.name for path in labeled.images] == [f"COCO_train2014_{n:012d}.jpg" for n in range(6)]


def test_real_files_give_what_pycocotools_gives(shared_data):
    from pycocotools.coco import COCO

    path = shared_data / "coco_tiny" / "annotations" / "instances_val2017.json"
    names, states = parse_instances(path)
    official = COCO(str(path))
    ids = official.getCatIds()
    assert [category["name"] for category in official.loadCats(ids)] == list(COCO_CLASSES)
    for image, row in zip(official.loadImgs(official.getImgIds()), states[_order(official, names)], strict=True):
        present = {a["category_id"] for a in official.loadAnns(official.getAnnIds(image["id"], iscrowd=None))}
        assert [ids[c] for c in np.flatnonzero(row)] == sorted(present)


def _order(official, names):
    return [names.index(image["file_name"]) for image in official.loadImgs(official.getImgIds())]


def test_the_second_start_reads_no_json(root, monkeypatch):
    path = root / "annotations" / "instances_val2014.json"
    first = read_instances(path)
    monkeypatch.setattr(coco, "parse_instances", lambda path: pytest.fail("the cache was not used"))
    second = read_instances(path)
    assert first[0] == second[0]
    assert (first[1] == second[1]).all()


def test_a_changed_file_is_read_anew(root):
    path = root / "annotations" / "instances_train2014.json"
    before = read_instances(path)[1]
    edit(root, lambda content: content["annotations"].pop())
    assert read_instances(path)[1].sum() == before.sum() - 1


def test_a_damaged_cache_is_made_anew(root):
    path = root / "annotations" / "instances_train2014.json"
    before = read_instances(path)[1]
    (stored,) = Path(os.environ["MLCV_CACHE"]).iterdir()
    stored.write_bytes(b"PK\x03\x04 half a file")
    assert (read_instances(path)[1] == before).all()


def test_an_annotation_that_names_no_image_is_named(root):
    def orphan(content):
        content["annotations"][3]["image_id"] = 77

    path = edit(root, orphan)
    with pytest.raises(DataError, match="instances_train2014.json: annotation 3 has image_id 77"):
        read_instances(path)


def test_an_annotation_of_an_unknown_class_is_named(root):
    def stranger(content):
        content["annotations"][2]["category_id"] = 999

    with pytest.raises(DataError, match="annotation 2 has category_id 999"):
        read_instances(edit(root, stranger))


def test_other_categories_point_to_the_csv_reader(root):
    def rename(content):
        content["categories"][0]["name"] = "unicorn"

    with pytest.raises(DataError, match="'unicorn'.*CSVDataModule"):
        read_instances(edit(root, rename))


def test_what_is_no_annotation_file_is_an_error(root):
    path = root / "annotations" / "instances_train2014.json"
    path.write_text('{"images": [')
    with pytest.raises(DataError, match="not a COCO instances file.*download it again"):
        read_instances(path)


def test_a_missing_file_or_folder_says_where_to_get_it(root, tmp_path):
    with pytest.raises(DataError, match=r"instances_train2014.json not found.*annotations_trainval2014.zip"):
        COCODataModule(str(tmp_path)).read_split("train")
    (root / "val2014").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"no folder .*val2014.*val2014.zip"):
        COCODataModule(str(root)).read_split("val")


def test_missing_images_are_counted_and_the_first_is_named(root):
    (root / "train2014" / "COCO_train2014_000000000002.jpg").unlink()
    with pytest.raises(DataError, match=r"lists 6 images, of which 1 are not in .*COCO_train2014_000000000002.jpg"):
        COCODataModule(str(root)).read_split("train")
    assert len(COCODataModule(str(root), on_error="skip").read_split("train")) == 6


def test_a_file_without_annotations_is_all_negative(root):
    path = edit(root, lambda content: content["annotations"].clear())
    assert (read_instances(path)[1] == 0).all()


def test_other_years_do_not_exist(root):
    with pytest.raises(ConfigError, match="2014 or 2017"):
        COCODataModule(str(root), year=2015)
