import time

import numpy as np
import pytest

from mlcv.data import VOCDataModule
from mlcv.data.coco import COCO_CLASSES
from mlcv.data.voc import VOC_CLASSES, read_annotation, read_boxes, read_class_lists
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


OBJECT = (
    "<object><name>{}</name>{}<bndbox><xmin>17</xmin><ymin>1</ymin><xmax>32</xmax><ymax>48</ymax></bndbox></object>"
)
SWAPPED = OBJECT.replace("17", "0").replace("32", "17").replace(">0<", ">32<")
SIZE = "<size><width>64</width><height>48</height></size>"
BOX = [0.25, 0, 0.25, 1]


def written(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def labels(path):
    return {VOC_CLASSES[c]: int(state) for c, state in enumerate(read_annotation(path)) if state}


@pytest.mark.parametrize(
    "content",
    [
        f"<annotation>{SIZE}{OBJECT.format('dog', '')}</annotation>",
        f'<?xml version="1.0"?>\n<annotation xmlns="http://a.b/c">{SIZE}{OBJECT.format("dog", "")}</annotation>',
        f'<v:annotation xmlns:v="urn:v">{SIZE}{OBJECT.format("dog", "")}</v:annotation>',
        f"<annotations><annotation>{SIZE}{OBJECT.format('dog', '')}</annotation></annotations>",
        f"<annotation><source><annotation>VOC</annotation></source>{SIZE}{OBJECT.format('dog', '')}</annotation>",
        f"<data><item><annotation>{SIZE}{OBJECT.format('dog', '')}</annotation></item></data>",
        f"<Annotation>{SIZE}{OBJECT.format('dog', '')}</Annotation>".replace("object", "Object").replace(
            "name", "NAME"
        ),
        f"<annotation>{SIZE}{OBJECT.format('  DOG ', '')}</annotation>",
        f"<annotation>{SIZE}{OBJECT.format('Dog', '<difficult>0.0</difficult>')}</annotation>",
        f"<annotation>{SIZE}{OBJECT.format('dog', '<difficult>Unspecified</difficult>')}</annotation>",
        f"<annotation>{SIZE}{OBJECT.format('dog', '<difficult/>')}</annotation>",
        f"<annotation>{SIZE}{OBJECT.format('dog', '')}</annotation>".encode("utf-16"),
        f"<annotation>{SIZE}{OBJECT.format('dog', '')}</annotation>".encode("utf-8-sig"),
        f"<annotation>{SIZE}{OBJECT.format('dog', '').replace('17', '17,0').replace('32', '32.0')}</annotation>",
        f"<annotation>{SIZE}{SWAPPED.format('dog', '')}</annotation>",
    ],
)
def test_other_programs_annotations_have_the_same_labels_and_boxes(tmp_path, content):
    path = written(tmp_path, content)
    assert labels(path) == {"dog": 1}
    np.testing.assert_allclose(read_boxes(path), [[VOC_CLASSES.index("dog"), *BOX]])


@pytest.mark.parametrize("mark", ["1", " 1 ", "true", "True", "1.0", "yes"])
def test_difficult_objects_are_unknown_however_they_are_marked(tmp_path, mark):
    path = written(tmp_path, f"<annotation>{OBJECT.format('dog', f'<difficult>{mark}</difficult>')}</annotation>")
    assert labels(path) == {"dog": -1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<html><body>404</body></html>", "<html> with 0 annotations in it"),
        ("<!DOCTYPE html><html><body>404</body></html>", "it has a DOCTYPE, as web pages have"),
        ("<annotation></annotation>", "an empty annotation"),
        ("<annotation><note>later</note></annotation>", "an empty annotation"),
        (f"<a><annotation>{SIZE}</annotation><annotation>{SIZE}</annotation></a>", "<a> with 2 annotations in it"),
        (f"<annotation>{OBJECT.format('airplane', '')}</annotation>", "'airplane', which VOC spells 'aeroplane'"),
        (
            f"<annotation>{OBJECT.format('Dining Table', '')}</annotation>",
            "'dining table', which VOC spells 'diningtable'",
        ),
        (f"<annotation>{OBJECT.format('', '')}</annotation>", "an object of class ''"),
        (
            f"<annotation>{OBJECT.format('dog', '<difficult>2</difficult>')}</annotation>",
            "<difficult>2</difficult>; it is 0 or 1",
        ),
        ("", "not a readable XML file"),
        (b"\x89PNG", "not a readable XML file"),
    ],
)
def test_what_says_nothing_about_an_image_is_refused_not_all_negative(tmp_path, content, problem):
    with pytest.raises(DataError, match=f"a.xml: .*{problem}"):
        read_annotation(written(tmp_path, content))


def test_every_coco_name_is_read_or_answered_with_vocs(tmp_path):
    for name in COCO_CLASSES:
        path = written(tmp_path, f"<annotation>{OBJECT.format(name, '')}</annotation>")
        if name in VOC_CLASSES:
            assert labels(path) == {name: 1}
        else:
            with pytest.raises(DataError, match="which VOC spells|VOC's classes are"):
                read_annotation(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-8-sig"])
def test_entities_that_expand_without_end_are_refused_at_once(tmp_path, encoding):
    layers = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 30))
    text = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "dog">{layers}]>'
    text += f"<annotation>{SIZE}{OBJECT.format('&e29;', '')}</annotation>"
    path = written(tmp_path, text.encode(encoding))
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"a.xml: it has a DOCTYPE"):
        read_annotation(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text.replace("<xmin>17</xmin>", "<xmin>left</xmin>"),
        lambda text: text.replace("<xmin>17</xmin>", ""),
        lambda text: text.replace("<xmin>17</xmin>", "<xmin>nan</xmin>"),
        lambda text: text.replace("bndbox", "polygon"),
        lambda text: text.replace("<width>64</width>", "<width>0</width>"),
        lambda text: text.replace("<width>64</width>", "<width>-64</width>"),
        lambda text: text.replace("size>", "extent>").replace("<annotation>", "<annotation><filename>a</filename>", 1),
    ],
)
def test_labels_need_no_boxes_and_an_image_without_usable_ones_has_none(tmp_path, caplog, harm):
    data = VOCDataModule(str(write_voc(tmp_path, xml=True)))
    whole = data.read_split("test")
    path = tmp_path / "VOC2007" / "Annotations" / "test0001.xml"
    path.write_text(harm(path.read_text()))
    labeled = data.read_split("test")
    assert (labeled.states == whole.states).all()
    assert [len(boxes) for boxes in labeled.boxes] == [2, 0, 1, 1, 1, 1]
    assert labeled.boxes[1].shape == (0, 5)
    assert "1 of 6 images have no boxes that can be used: " in caplog.text
    assert "test0001.xml" in caplog.text
    with pytest.raises(DataError, match="test0001.xml: a box or the image's size is missing or no number"):
        read_boxes(path)


def lists(tmp_path, text):
    path = tmp_path / "dog_val.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_lists([path])


@pytest.mark.parametrize(
    "text", ["\ufeffa 1\nb -1\n", "a\t1\r\n\r\nb\t-1", "a  1 \n b -1\n\n", "a 1.0\nb -1.0", "a +1\nb -1"]
)
def test_lists_in_other_spellings_are_the_same(tmp_path, text):
    ids, states = lists(tmp_path, text)
    assert (ids, states.tolist()) == (["a", "b"], [[1], [0]])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1\n\na -1\n", "dog_val.txt:3: a is in line 1 already"),
        ("a 1\nb 0\n", "dog_val.txt:2: 'b 0' says that b is difficult, but no line says absent.*write -1"),
        ("a 1 x\n", "dog_val.txt:1: expected '<image id> 1, -1 or 0', got 'a 1 x'"),
        ("a\n", "dog_val.txt:1: expected"),
        ("a 0.5\n", "dog_val.txt:1: expected"),
        ("a nan\n", "dog_val.txt:1: expected"),
        (b"a 1\n\xe9 1\n", "dog_val.txt:2: not in UTF-8"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused_by_line(tmp_path, text, problem):
    with pytest.raises(DataError, match=problem):
        lists(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("val0001\nval0001", "val.txt:3: val0001 is in line 2 already"),
        ("val0001 1", "val.txt:2: expected '<image id>' alone"),
    ],
)
def test_a_list_of_images_names_each_once_and_nothing_else(tmp_path, line, problem):
    path = write_voc(tmp_path, xml=True) / "VOC2007" / "ImageSets" / "Main" / "val.txt"
    path.write_text(path.read_text().replace("val0001", line))
    with pytest.raises(DataError, match=problem):
        VOCDataModule(str(tmp_path)).read_split("val")


def test_real_annotations_have_boxes_and_the_labels_of_the_lists(shared_data):
    """Of which <source> holds an <annotation>, too."""
    lists = [shared_data / "voc2012" / "ImageSets" / "Main" / f"{name}_val.txt" for name in VOC_CLASSES]
    ids, states = read_class_lists(lists)
    for image, listed in zip(ids[:200], states, strict=False):
        path = shared_data / "voc2012" / "Annotations" / f"{image}.xml"
        boxes = read_boxes(path)
        assert len(boxes)
        shown = set(boxes[:, 0].astype(int).tolist())
        assert set(np.flatnonzero(read_annotation(path) == 1)) | set(np.flatnonzero(listed == 1)) <= shown
