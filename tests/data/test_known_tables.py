"""Each recipe of docs/known-tables.md reads a made copy of its data set with the labels that it means."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlcv
from mlcv.data import Codes, CSVDataModule, Long
from tests.data.test_tables_as_people_have_them import OPEN_IMAGES, VIN_DR, said
from tests.tiny_sets import write_image

PAGE = (Path(mlcv.__file__).parents[1] / "docs" / "known-tables.md").read_text()
OPTIONS = {
    match[1]: yaml.safe_load(match[0]) for match in re.finditer(r"(?<=```yaml\n)# (\w+)\n(?:(?!```).*\n)*", PAGE)
}
FUNCTIONS = {}
exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), FUNCTIONS)


def read(root, name, images, split="train", table=None, **changes):
    for n, image in enumerate(images):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        picture = write_image(root / f"{n}.jpg", seed=n)
        picture.rename(root / image)  # the content decides what it is
    options = {**OPTIONS[name], **changes}
    if table is not None:
        options["path"] = table
    for option in ("path", "image_root"):
        options[option] = str(root / options.get(option, "."))
    options.pop("val_path", None)
    if "codes" in options:
        options["codes"] = Codes(**options["codes"])
    if "long" in options:
        options["long"] = Long(**options["long"])
    if "split_column" not in options:
        options["fractions"] = (1, 0, 0)
    data = CSVDataModule(**options)
    return (*said(data, split)[:2], data)


def test_open_images(tmp_path):
    (tmp_path / "train.csv").write_text(OPEN_IMAGES)
    classes, states, _ = read(tmp_path, "openimages", [f"images/{name}.jpg" for name in "abc"])
    assert classes == ("/m/car", "/m/cat", "/m/dog")
    assert states == {"a": [-1, 0, 1], "b": [-1, 1, -1], "c": [-1, -1, -1]}


def test_vindr(tmp_path):
    (tmp_path / "train.csv").write_text(VIN_DR)
    _, states, _ = read(tmp_path, "vindr", [f"train/{name}.dicom" for name in "abc"])
    assert states == {"a": [0, 1], "b": [0, 0], "c": [-2, 0]}


def test_rsna(tmp_path):
    text = "patientId,x,y,width,height,Target\na,1,1,2,2,1\na,5,5,2,2,1\nb,,,,,0\n"
    (tmp_path / "stage_2_train_labels.csv").write_text(text)
    classes, states, _ = read(tmp_path, "rsna", [f"stage_2_train_images/{name}.dcm" for name in "ab"])
    assert (classes, states) == (("Target",), {"a": [1], "b": [0]})


def test_padchest(tmp_path):
    text = (
        ",ImageID,ImageDir,PatientID,Labels\n"
        "0,a.png,0,007,\"['nodule', ' pleural effusion']\"\n1,b.png,12,007,['normal']\n2,c.png,12,9,\n3,d.png,0,8,[]\n"
    )
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text(text)
    FUNCTIONS["padchest"](tmp_path, tmp_path / "table.csv")
    images = ["0/a.png", "12/b.png", "12/c.png", "0/d.png"]
    classes, states, data = read(tmp_path, "padchest", images, table="table.csv")
    assert classes == ("nodule", "pleural effusion")
    assert states == {"a": [1, 1], "b": [0, 0], "c": [-1, -1], "d": [0, 0]}
    assert data.read_split("train").about["PatientID"].tolist() == ["007", "007", "9", "8"]


def test_mimic(tmp_path):
    labels = "subject_id,study_id,Edema,Pneumonia\n10000032,50414267,1.0,-1.0\n11000033,50414268,,0.0\n"
    split = (
        "dicom_id,study_id,subject_id,split\nx1,50414267,10000032,train\nx2,50414267,10000032,train\n"
        "x3,50414268,11000033,validate\n"
    )
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv").write_text(labels)
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text(split)
    FUNCTIONS["mimic"](tmp_path, tmp_path / "table.csv")
    images = [f"files/p10/p10000032/s50414267/x{n}.jpg" for n in (1, 2)] + ["files/p11/p11000033/s50414268/x3.jpg"]
    classes, states, data = read(tmp_path, "mimic", images, table="table.csv")
    assert (classes, states) == (("Edema", "Pneumonia"), {"x1": [1, -2], "x2": [1, -2]})
    assert said(data, "val")[1] == {"x3": [0, 0]}


def test_celeba(tmp_path):
    (tmp_path / "list_attr_celeba.txt").write_text("3\nBald Young \n1.jpg -1  1\n2.jpg  1 -1\n3.jpg -1 -1\n")
    (tmp_path / "list_eval_partition.txt").write_text("1.jpg 0\n2.jpg 1\n3.jpg 2\n")
    FUNCTIONS["celeba"](tmp_path, tmp_path / "table.csv")
    images = [f"img_align_celeba/{n}.jpg" for n in (1, 2, 3)]
    classes, states, data = read(tmp_path, "celeba", images, table="table.csv")
    assert (classes, states) == (("Bald", "Young"), {"1": [0, 1]})
    assert [said(data, split)[1] for split in ("val", "test")] == [{"2": [1, 0]}, {"3": [0, 0]}]


def test_nus_wide(tmp_path):
    (tmp_path / "ImageList").mkdir()
    labels = tmp_path / "Groundtruth" / "TrainTestLabels"
    labels.mkdir(parents=True)
    for part, images, given in (
        ("Train", ["actor\\0001_1.jpg", "sky\\0002_2.jpg"], {"cars": "0 1", "sky": "1 0"}),
        ("Test", ["sky\\0003_3.jpg"], {"cars": "1", "sky": "0"}),
    ):
        (tmp_path / "ImageList" / f"{part}Imagelist.txt").write_text("\r\n".join(images) + "\r\n")
        for name, cells in given.items():
            (labels / f"Labels_{name}_{part}.txt").write_text(cells.replace(" ", "\n") + "\n")
    FUNCTIONS["nus_wide"](tmp_path, tmp_path / "table.csv")
    images = ["Flickr/actor/0001_1.jpg", "Flickr/sky/0002_2.jpg", "Flickr/sky/0003_3.jpg"]
    classes, states, data = read(tmp_path, "nuswide", images, table="table.csv")
    assert (classes, states) == (("cars", "sky"), {"0001_1": [0, 1], "0002_2": [1, 0]})
    assert said(data, "test")[1] == {"0003_3": [1, 0]}
    (labels / "Labels_sky_Train.txt").write_text("1\n")
    with pytest.raises(FUNCTIONS["pl"].exceptions.ShapeError):  # never shifted in silence
        FUNCTIONS["nus_wide"](tmp_path, tmp_path / "other.csv")


def test_every_recipe_of_the_page_is_read_here():
    tested = {"openimages", "vindr", "rsna", "padchest", "mimic", "celeba", "nuswide"}
    assert set(OPTIONS) == tested
    assert np.all([isinstance(options, dict) for options in OPTIONS.values()])


def test_the_real_table_of_chexpert_is_understood_without_codes(shared_data):
    from mlcv.data.chexpert import OBSERVATIONS
    from mlcv.tables import Table

    path = shared_data / "chest_xray" / "CheXpert-v1.0-small" / "train.csv.gz"
    given = {"label_columns": list(OBSERVATIONS), "fractions": (1, 0, 0), "on_error": "skip"}
    states = CSVDataModule(str(path), **given).read_split("train").states
    table = Table(path)
    for column, name in enumerate(OBSERVATIONS):
        counts = table.spelled(name).counts()
        found = dict(zip(*np.unique(states[:, column], return_counts=True), strict=True))
        for cell, state in (("1.0", 1), ("0.0", 0), ("-1.0", -2), ("", -1)):
            assert found.get(state, 0) == counts.get(cell, 0)
