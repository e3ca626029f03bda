"""Writes data sets of a few small images in their official layouts."""

import csv
import json

import cv2
import numpy as np

from mlcv.data.chexpert import OBSERVATIONS
from mlcv.data.coco import COCO_CLASSES
from mlcv.data.voc import VOC_CLASSES
from mlcv.tables import Codes


def write_image(path, size=(48, 64), seed=0, quality=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.blur(pixels, (5, 5)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


def write_rows(path, header, rows):
    """A CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_coco(root, year=2014, images=6):
    """Each image has an object of class (n mod 80), every other one another of class 0, in JSON order."""
    for split in ("train", "val"):
        part = f"{split}{year}"
        names = [f"COCO_{part}_{n:012d}.jpg" for n in range(images)]
        for n, name in enumerate(names):
            write_image(root / part / name, seed=n)
        # COCO's ids run to 90 with gaps; what matters is that they are no positions.
        categories = [{"id": 2 * c + 3, "name": name} for c, name in enumerate(COCO_CLASSES)]
        owners = [(n, n % 80) for n in range(images)] + [(n, 0) for n in range(0, images, 2)]
        annotations = [
            {"id": i, "image_id": 1000 + n, "category_id": 2 * c + 3, "bbox": [1, 1, 5, 5], "iscrowd": 0}
            for i, (n, c) in enumerate(owners)
        ]
        content = {
            "images": [{"id": 1000 + n, "file_name": name} for n, name in enumerate(names)],
            "annotations": annotations,
            "categories": categories[::-1],
        }
        path = root / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps(content))
    return root


def voc_states(images=6):
    """1, -1 and 0 (difficult) as VOC's lists have them."""
    codes = np.full((images, len(VOC_CLASSES)), -1)
    codes[np.arange(images), np.arange(images) % 20] = 1
    codes[0, 5] = 0
    return codes


def write_voc(root, year=2007, images=6, xml=False):
    folder = root / f"VOC{year}"
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split in ("train", "val", "trainval", "test"):
        ids = [f"{split}{n:04d}" for n in range(images)]
        codes = voc_states(images)
        for n, name in enumerate(ids):
            write_image(folder / "JPEGImages" / f"{name}.jpg", seed=n)
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
        if xml:
            (folder / "Annotations").mkdir(exist_ok=True)
            for name, row in zip(ids, codes, strict=True):
                (folder / "Annotations" / f"{name}.xml").write_text(_annotation(row))
        else:
            for c, cls in enumerate(VOC_CLASSES):
                lines = (f"{name} {code:2d}\n" for name, code in zip(ids, codes[:, c], strict=True))
                (lists / f"{cls}_{split}.txt").write_text("".join(lines))
    return root


def _annotation(codes):
    objects = [(cls, code) for cls, code in zip(VOC_CLASSES, codes, strict=True) if code >= 0]
    box = "<bndbox><xmin>17</xmin><ymin>1</ymin><xmax>32</xmax><ymax>48</ymax></bndbox>"
    text = "".join(
        f"<object><name>{cls}</name><difficult>{int(code == 0)}</difficult>{box}</object>" for cls, code in objects
    )
    source = "<source><database>VOC</database><annotation>PASCAL VOC</annotation><image>flickr</image></source>"
    return (
        f"<annotation><folder>VOC</folder>{source}<size><width>64</width><height>48</height></size>{text}</annotation>"
    )


def write_csv(root, images=10):
    """Columns image, patient, split, cat, dog, fish; two images a patient; one cell uncertain, one blank."""
    rows = []
    for n in range(images):
        write_image(root / "images" / f"{n}.jpg", seed=n)
        split = "train" if n < images - 4 else "val" if n < images - 2 else "test"
        rows.append([f"images/{n}.jpg", f"p{n // 2}", split, str(n % 2), str((n + 1) % 2), "1.0" if n % 3 else "0"])
    rows[0][3], rows[1][4] = "-1", ""
    path = root / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "patient", "split", "cat", "dog", "fish"], *rows])
    return path


def write_chexpert(root, patients=6):
    """Two studies a patient, the first with two views; every state in every column; 3 validation patients."""
    folder = root / "CheXpert-v1.0-small"
    random = np.random.default_rng(0)
    for split, count, start in (("train", patients, 0), ("valid", 3, 90000)):
        rows = []
        for patient in range(start, start + count):
            for study, views in (("study1", ("view1_frontal", "view2_lateral")), ("study2", ("view1_frontal",))):
                cells = random.choice(["1.0", "0.0", "-1.0", ""] if split == "train" else ["1.0", "0.0"], 14)
                for view in views:
                    path = f"{folder.name}/{split}/patient{patient:05d}/{study}/{view}.jpg"
                    grey = cv2.cvtColor(random.integers(0, 256, (40, 48, 3), dtype=np.uint8), cv2.COLOR_BGR2GRAY)
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(root / path), grey)
                    kind = ("Frontal", "AP") if "frontal" in view else ("Lateral", "")
                    rows.append([path, "Female" if patient % 2 else "Male", str(30 + patient % 60), *kind, *cells])
        with (folder / f"{split}.csv").open("w", newline="") as file:
            header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS]
            csv.writer(file).writerows([header, *rows])
    return folder


def write_nih(root, images=24):
    """Two images a patient in two folders of archives; the last four are the test list."""
    cells = ["No Finding", "Hernia", "Mass|Nodule", "Effusion|Pleural_Thickening|Edema"]
    rows = [
        [f"{n:08d}_000.png", cells[n % 4], 0, n // 2, 40 + n, "MF"[n % 2], ("PA", "AP")[n % 3 == 0]]
        for n in range(images)
    ]
    for n, row in enumerate(rows):
        write_image(root / ("images_001/images" if n % 2 else "images_012/images") / row[0], (40, 40), seed=n)
    header = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
    write_rows(root / "Data_Entry_2017_v2020.csv", [*header, "View Position"], rows)
    (root / "train_val_list.txt").write_text("".join(f"{row[0]}\n" for row in rows[:-4]))
    (root / "test_list.txt").write_text("".join(f"{row[0]}\n" for row in rows[-4:]))
    return root


def of_csv(folder):
    codes = Codes(uncertain=("-1",))
    return {"path": str(write_csv(folder, 16)), "split_column": "split", "group_column": "patient", "codes": codes}


def of_files(folder):
    for n in range(5):
        write_image(folder / "some" / f"{n}.png", seed=n)
    return {"path": str(folder / "some"), "classes": ["cat", "dog", "fish"]}


MAKE = {
    "COCODataModule": lambda folder: {"root": str(write_coco(folder, images=9))},
    "CSVDataModule": of_csv,
    "CheXpertDataModule": lambda folder: {"root": str(write_chexpert(folder))},
    "DigitScenesDataModule": lambda folder: {"num_train": 12, "num_val": 5, "num_test": 7},
    "ImageFilesDataModule": of_files,
    "NIHDataModule": lambda folder: {"root": str(write_nih(folder))},
    "VOCDataModule": lambda folder: {"root": str(write_voc(folder, images=9))},
}
"""The arguments of each DataModule over a set that was just written into a folder, for the contract of all."""
