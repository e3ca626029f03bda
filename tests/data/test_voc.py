import numpy as np
import pytest

from mlcv.data import VOCDataModule
from mlcv.data.voc import VOC_CLASSES, read_class_lists
from mlcv.errors import ConfigError, DataError
from tests.tiny_sets import voc_states, write_voc


def as_states(codes):
    return np.select([codes == 1, codes == -1], [1, 0], -1)


@pytest.mark.parametrize("xml", [False, True])
def test_lists_and_xml_give_the_same_states(tmp_path, xml):
    data = VOCDataModule(str(write_voc(tmp_path, xml=xml)))
    labeled = data.read_split("test")
    assert (labeled.states == as_states(voc_states())).all()
    assert labeled.images[1] == tmp_path / "VOC2007" / "JPEGImages" / "test0001.jpg"


@pytest.mark.parametrize("place", ["", "VOCdevkit"])
def test_the_folder_is_found_under_the_usual_names(tmp_path, place):
    write_voc(tmp_path / place)
    assert len(VOCDataModule(str(tmp_path)).read_split("train")) == 6
    assert len(VOCDataModule(str(tmp_path / place / "VOC2007")).read_split("train")) == 6


def test_the_complete_official_lists_of_2007_have_their_published_counts(shared_data):
    lists = shared_data / "voc_lists" / "VOC2007" / "ImageSets" / "Main"
    for name, images in (("trainval", 5011), ("test", 4952)):
        ids, states = read_class_lists([lists / f"{cls}_{name}.txt" for cls in VOC_CLASSES])
        assert states.shape == (images, 20)
        assert len(set(ids)) == images
        assert (states == 1).any(axis=1).mean() > 0.99


def test_2012_tests_on_val_and_2007_on_test():
    assert VOCDataModule("x", 2007).lists["test"] == "test"
    assert VOCDataModule("x", 2012).lists["test"] == "val"
    with pytest.raises(ConfigError, match="2007 or 2012"):
        VOCDataModule("x", 2010)


def test_a_missing_folder_says_which_archive_to_get(tmp_path):
    with pytest.raises(DataError, match=r"no ImageSets/Main under .*VOCtrainval_06-Nov-2007.tar"):
        VOCDataModule(str(tmp_path)).read_split("train")


def test_one_missing_list_is_named(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "VOC2007" / "ImageSets" / "Main" / "cow_val.txt").unlink()
    with pytest.raises(DataError, match=r"cow_val.txt is missing beside 19 of its kind"):
        VOCDataModule(str(tmp_path)).read_split("val")


def test_a_malformed_line_is_named_by_file_and_number(tmp_path):
    write_voc(tmp_path)
    path = tmp_path / "VOC2007" / "ImageSets" / "Main" / "dog_val.txt"
    lines = path.read_text().splitlines()
    lines[2] = "val0002 7"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"dog_val.txt:3: expected .*got 'val0002 7'"):
        VOCDataModule(str(tmp_path)).read_split("val")


def test_lists_of_different_images_are_refused(tmp_path):
    write_voc(tmp_path)
    path = tmp_path / "VOC2007" / "ImageSets" / "Main" / "dog_val.txt"
    path.write_text(path.read_text().replace("val0004", "val0009"))
    with pytest.raises(DataError, match=r"dog_val.txt:5: not the image of the same line"):
        VOCDataModule(str(tmp_path)).read_split("val")


def test_a_missing_image_is_named(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "VOC2007" / "JPEGImages" / "val0003.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the 6 images of the list 'val' are missing.*val0003.jpg"):
        VOCDataModule(str(tmp_path)).read_split("val")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<annotation><object><name>unicorn</name></object></annotation>", "'unicorn'"),
        ("<annotation>", "not a readable XML"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, content, problem):
    write_voc(tmp_path, xml=True)
    (tmp_path / "VOC2007" / "Annotations" / "val0001.xml").write_text(content)
    with pytest.raises(DataError, match=rf"val0001.xml.*{problem}"):
        VOCDataModule(str(tmp_path)).read_split("val")


def test_boxes_come_with_the_images_that_are_tested(tmp_path):
    data = VOCDataModule(str(write_voc(tmp_path, xml=True)), image_size=32, batch_size=2, num_workers=0)
    data.setup("fit")
    assert "boxes" not in next(iter(data.train_dataloader()))
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert [boxes[:, 0].tolist() for boxes in batch["boxes"]] == [[0, 5], [1]]  # the difficult one, too
    np.testing.assert_allclose(batch["boxes"][0][0, 1:], [0.25, 0, 0.25, 1])
    path = tmp_path / "VOC2007" / "Annotations" / "test0001.xml"
    path.write_text(path.read_text().replace("<xmin>17</xmin>", "<xmin>left</xmin>"))
    with pytest.raises(DataError, match=r"test0001.xml: a box or the image's size"):
        data.read_split("test")
