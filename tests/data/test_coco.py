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
    with pytest.raises(DataError, match="not a COCO instances file.*download the file again"):
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


def rewritten(root, change, encode=None):
    """The file as somebody else's program would have written it, with the labels it had before."""
    path = root / "annotations" / "instances_train2014.json"
    before = parse_instances(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes((encode or (lambda text: text.encode()))(json.dumps(content)))
    return path, before


def same(path, before):
    names, states = parse_instances(path)
    return names == before[0] and (states == before[1]).all()


def every_id(content, change):
    for image in content["images"]:
        image["id"] = change(image["id"])
    for category in content["categories"]:
        category["id"] = change(category["id"])
    for annotation in content["annotations"]:
        annotation["image_id"], annotation["category_id"] = (
            change(annotation["image_id"]),
            change(annotation["category_id"]),
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda content: every_id(content, str),
        lambda content: every_id(content, float),
        lambda content: every_id(content, lambda number: number - 3),  # categories from 0
        lambda content: every_id(content, lambda number: -number),
        lambda content: [image.update(id=str(image["id"])) for image in content["images"]],
        lambda content: [
            one.update({key: f"picture {one[key]}"})
            for key, place in (("id", "images"), ("image_id", "annotations"))
            for one in content[place]
        ],
        lambda content: [one.update(name=one["name"].upper()) for one in content["categories"]],
        lambda content: [
            one.update(name=f" {one['name'].title().replace(' ', '  ')} ") for one in content["categories"]
        ],
        lambda content: content["categories"].append({"id": 0, "name": "__background__"}),
        lambda content: content["categories"].reverse(),
        lambda content: [one.pop("iscrowd") for one in content["annotations"]],
        lambda content: [one.update(segmentation={"counts": "x", "size": [1, 1]}) for one in content["annotations"]],
        lambda content: [one.update(area=float("nan"), bbox=[float("inf")] * 4) for one in content["annotations"]],
        lambda content: [one.pop("id") for one in content["annotations"]],
        lambda content: content["annotations"].sort(key=lambda one: -one["category_id"]),
        lambda content: content.update(info={"year": None}, licenses=[{"x": [[]]}]),
        lambda content: [
            one.update(coco_url=f"http://images.cocodataset.org/train2014/{one.pop('file_name')}")
            for one in content["images"]
        ],
    ],
)
def test_other_programs_spellings_have_the_same_labels(root, change):
    assert same(*rewritten(root, change))


def test_a_byte_order_mark_is_passed_over(root):
    assert same(*rewritten(root, lambda content: None, lambda text: text.encode("utf-8-sig")))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda c: c["images"][3].update(id=1001),
            r"\('COCO.*01.jpg'\) and images\[3\] \('COCO.*03.jpg'\) have one id, 1001",
        ),
        (lambda c: c["images"][3].update(id="1001"), "have one id, 1001"),
        (
            lambda c: c["images"][3].update(file_name=c["images"][1]["file_name"]),
            r"\(1001\) and images\[3\] \(1003\) have one file name",
        ),
        (lambda c: c["images"][3].update(file_name="./" + c["images"][1]["file_name"]), "have one file name"),
        (
            lambda c: c["categories"][5].update(id=c["categories"][2]["id"]),
            r"categories\[2\] .* and categories\[5\] .* have one id",
        ),
        (
            lambda c: c["categories"].append({"id": 999, "name": "Person"}),
            r"\(3\) and categories\[80\] \(999\) have one name, 'person'",
        ),
        (
            lambda c: [one.update(id=f"i{min(n, 4)}") for n, one in enumerate(c["images"])],
            r"images\[4\] .* and images\[5\] .* have one id, 'i4'",
        ),
        (lambda c: [one.update(id=f"i{n}") for n, one in enumerate(c["images"])], r"has image_id \d+, which the file"),
        (lambda c: c["images"][2].update(id="a7"), r"images\[2\] has the id 'a7'; ids are whole numbers"),
        (lambda c: c["images"][2].update(id=1.5), r"images\[2\] has the id 1.5"),
        (lambda c: c["images"][2].update(id="1_0"), r"images\[2\] has the id '1_0'"),
        (lambda c: c["annotations"][2].update(image_id=float("nan")), r"annotations\[2\] has the id nan"),
        (lambda c: c["images"][2].pop("file_name"), r"images\[2\], of id 1002, has the file name ''"),
        (lambda c: c["images"][2].update(file_name="a\0b"), r"images\[2\], of id 1002"),
        (lambda c: c.pop("annotations"), "there is no list of annotations.*image_info"),
        (
            lambda c: c["categories"][79].update(name="human"),
            "'person' is missing, and there is 'human'. Give it COCO's name",
        ),
        (lambda c: c["categories"].append({"id": c["categories"][0].pop("id"), "name": "ufo"}), "required field `id`"),
        (lambda c: c.pop("images"), "missing required field `images`"),
    ],
)
def test_entries_that_would_get_other_labels_are_refused_by_name(root, change, problem):
    path, _ = rewritten(root, change)
    with pytest.raises(DataError, match=f"instances_train2014.json: .*{problem}"):
        read_instances(path)


def test_an_annotation_of_a_category_beyond_the_80_is_refused(root):
    def add(content):
        content["categories"].append({"id": 7000, "name": "ufo"})
        content["annotations"][1]["category_id"] = 7000

    path, _ = rewritten(root, add)
    with pytest.raises(DataError, match="annotation 1 is of category 'ufo', which is none of COCO's 80"):
        read_instances(path)


def test_no_merge_of_two_files_moves_a_label(root, tmp_path, numpy_rng):
    """Whatever ids collide, an image has the labels that its own file gave it, or the merged file is refused."""
    path = root / "annotations" / "instances_train2014.json"
    names, states = parse_instances(path)
    truth = dict(zip(names, states.tolist(), strict=True))
    content = json.loads(path.read_text())
    merged = tmp_path / "merged.json"
    refused = 0
    for _ in range(60):
        parts = []
        for half in (slice(0, 3), slice(3, 6)):
            part = json.loads(json.dumps({**content, "images": content["images"][half]}))
            ids = {
                image["id"]: int(number)
                for image, number in zip(part["images"], numpy_rng.permutation(8), strict=False)
            }
            part["annotations"] = [one for one in part["annotations"] if one["image_id"] in ids]
            for entry, key in [
                *((one, "id") for one in part["images"]),
                *((one, "image_id") for one in part["annotations"]),
            ]:
                entry[key] = ids[entry[key]]
            parts.append(part)
        both = {key: parts[0][key] + parts[1][key] for key in ("images", "annotations")}
        merged.write_text(json.dumps({**both, "categories": content["categories"]}))
        try:
            found = parse_instances(merged)
        except DataError:
            refused += 1
            continue
        assert dict(zip(found[0], found[1].tolist(), strict=True)) == truth
    assert 0 < refused < 60


@pytest.mark.parametrize("place", ["", "train2014/", "./", "nested/folder/"])
def test_names_with_folders_are_found_where_they_lead(root, place):
    folder = root / "train2014"
    if place == "nested/folder/":
        (folder / place).mkdir(parents=True)
        for file in folder.glob("*.jpg"):
            file.rename(folder / place / file.name)
    _, before = rewritten(root, lambda c: [one.update(file_name=place + one["file_name"]) for one in c["images"]])
    labeled = COCODataModule(str(root)).read_split("train")
    assert all(Path(image).is_file() for image in labeled.images)
    assert (labeled.states == before[1]).all()
    assert "./" not in str(labeled.images[0])
    (root / "images").mkdir()
    folder.rename(root / "images" / "train2014")
    assert all(Path(image).is_file() for image in COCODataModule(str(root)).read_split("train").images)


def test_names_beyond_ascii_come_from_the_cache_as_from_the_file(root):
    names = ["\u00e9.jpg", "\u732b \u72ac.jpg", "\U0001f408.jpg"]

    def rename(content):
        for image, name in zip(content["images"], names, strict=False):
            (root / "train2014" / image["file_name"]).rename(root / "train2014" / name)
            image["file_name"] = name

    path, _ = rewritten(root, rename)
    for _ in range(2):
        assert read_instances(path)[0][:3] == names
    assert len(COCODataModule(str(root)).read_split("train")) == 6


def test_a_cache_of_another_parser_is_not_used(root, monkeypatch):
    path = root / "annotations" / "instances_train2014.json"
    read_instances(path)
    parsed = []
    monkeypatch.setattr(
        coco, "parse_instances", lambda path: parsed.append(path) or (["a.jpg"], np.zeros((1, 80), np.int8))
    )
    monkeypatch.setattr(coco, "PARSED", coco.PARSED + 1)
    assert read_instances(path)[0] == ["a.jpg"]
    assert parsed == [path]


def test_labels_that_are_all_negative_are_said_aloud(root, caplog):
    edit(root, lambda content: content["annotations"].clear())
    COCODataModule(str(root)).read_split("train")
    assert "instances_train2014.json: no image has an object, so all labels are negative" in caplog.text
