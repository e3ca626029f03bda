"""`mlcv init` takes a table for what it is: a case a layout, and the labels that come of it."""

import json

import pytest
import yaml

from mlcv.commands.init import init
from mlcv.data import Codes, CSVDataModule, Long
from mlcv.data.table_layout import look_at
from mlcv.errors import ConfigError
from mlcv.tables import read_table
from tests.data.test_tables_as_people_have_them import OPEN_IMAGES, VIN_DR, said
from tests.tiny_sets import write_image

BOXES = "image_id,class_name,x_min,y_min,x_max,y_max\na,dog,1,1,2,2\na,cat,1,1,2,2\nb,dog,1,1,2,2\nc,cat,0,0,1,1\n"
PAIRS = "file,tag\na.jpg,dog\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\n"
RSNA = "patientId,x,y,width,height,Target\na,1,1,2,2,1\na,5,5,2,2,1\nb,,,,,0\nc,,,,,0\n"
TAGS = "image_name,tags\na.jpg,haze river\nb.jpg,haze road\nc.jpg,river road\nd.jpg,road haze river\n"
TAGS += "".join(f"e{n}.jpg,{cell}\n" for n, cell in enumerate(["haze", "river haze", "road river", "road"]))
VOTES = "image,cat,dog\na.jpg,3/5,1\nb.jpg,5/5,0\nc.jpg,0.2,0\nd.jpg,0,1\n"
LISTS = "\n".join(
    json.dumps({"image": f"{n}.jpg", "labels": list(x)}) for n, x in zip("abcd", ["xy", "y", "", "x"], strict=True)
)


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        (
            "open.csv", OPEN_IMAGES,
            {"long": Long("LabelName", "unknown", "Confidence", "Source"), "image_suffix": ".jpg"},
            {"a": [-1, 0, 1], "b": [-1, 1, -1], "c": [-1, -1, -1]},
        ),
        (
            "vin.csv", VIN_DR,
            {"long": Long("class_name", "negative", annotator_column="rad_id"), "image_suffix": ".jpg"},
            {"a": [0, 1], "b": [0, 0], "c": [-2, 0]},
        ),
        ("boxes.tsv", BOXES.replace(",", "\t"), {"long": Long("class_name", "negative")},
         {"a": [1, 1], "b": [0, 1], "c": [1, 0]}),
        ("pairs.csv", PAIRS.replace(",", ";"), {"long": Long("tag", "negative")},
         {"a": [1, 1], "b": [0, 1], "c": [1, 0]}),
        ("rsna.csv", RSNA, {"label_columns": ["Target"], "duplicates": "majority"}, {"a": [1], "b": [0], "c": [0]}),
        ("tags.csv", TAGS, {"labels_column": "tags", "delimiter": " "},
         {"a": [1, 1, 0], "b": [1, 0, 1], "c": [0, 1, 1], "d": [1, 1, 1]}),
        ("votes.csv", VOTES, {"label_columns": ["cat", "dog"]}, {"a": [-2, 1], "b": [1, 0], "c": [-2, 0], "d": [0, 1]}),
        ("lists.jsonl", LISTS, {"labels_column": "labels"}, {"a": [1, 1], "b": [0, 1], "c": [0, 0], "d": [1, 0]}),
    ],
)  # fmt: skip
def test_a_layout_is_found_and_read_as_meant(tmp_path, name, text, options, expected):
    for n, image in enumerate(["a", "b", "c", "d", "e0", "e1", "e2", "e3"]):
        write_image(tmp_path / "photos" / f"{image}.jpg", seed=n)
    (tmp_path / name).write_text(text)
    arguments = look_at(read_table(tmp_path / name)).arguments(str(tmp_path / name))
    for kind, option in ((Long, "long"), (Codes, "codes")):
        if option in arguments:
            arguments[option] = kind(**arguments[option])
    assert {option: arguments[option] for option in options} == options
    states = said(CSVDataModule(**{**arguments, "fractions": (1, 0, 0)}))[1]
    assert {image: states[image] for image in expected} == expected


def test_a_folder_of_folders_is_understood_and_its_config_trains(tmp_path):
    for n in range(24):
        write_image(tmp_path / "set" / ("cat", "dog")[n % 2] / f"{n}.jpg", seed=n)
    config = init(tmp_path / "set", tmp_path / "a.yaml").config
    given = yaml.safe_load(config.read_text())["data"]["init_args"]
    data = CSVDataModule(**{**given, "num_workers": 0})
    data.setup("fit")
    assert data.class_names == ("cat", "dog")
    targets = data.datasets["train"].targets
    assert abs(targets.sum(dim=0) - len(targets) / 2).max() <= 1  # it draws splits by labels
    assert (targets.sum(dim=1) == 1).all()


def test_what_is_guessed_of_a_long_table_is_said(tmp_path):
    for n in range(24):
        write_image(tmp_path / f"{n}.jpg", seed=n)
    rows = [f"{n}.jpg,{label}\n" for n in range(24) for label in ("cat", "dog", "car")[n % 3 :]]
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(rows))
    started = init(tmp_path / "t.csv", tmp_path / "a.yaml")
    assert "a row for each, in column label, of 3 classes" in started.understood["labels"]
    assert any("no row is absent; if not every image was searched" in text for text in started.warnings)
    kept = yaml.safe_load(started.config.read_text())["data"]["init_args"]
    assert (kept["long"], kept["stratify"]) == ({"label_column": "label", "absent": "negative"}, True)


@pytest.mark.parametrize("source", ["machine", "crowdsource-verification"])
def test_init_says_that_what_a_machine_says_is_left_out(tmp_path, source):
    for n in range(24):
        write_image(tmp_path / f"{n}.jpg", (100, 100), n)
    rows = [f"{n}.jpg,{['verification', source][n % 2]},{label},{n % 3 // 2}\n" for n in range(24) for label in "ab"]
    (tmp_path / "t.csv").write_text("ImageID,Source,LabelName,Confidence\n" + "".join(rows))
    started = init(tmp_path / "t.csv", tmp_path / "a.yaml")
    said = any("what a machine says (Source) is unknown, or a soft label" in text for text in started.warnings)
    assert said == (source == "machine")


def test_soft_labels_of_machines_need_their_confidence(tmp_path):
    """Else what no person has verified would be present."""
    (tmp_path / "t.csv").write_text("image,label,source,confidence\na.jpg,cat,machine,0.4\n")
    for columns in ({"source_column": "source"}, {"confidence_column": "confidence"}):
        with pytest.raises(ConfigError, match=r"name their columns in data\.long\.source_column and"):
            CSVDataModule(str(tmp_path / "t.csv"), image_column="image", long=Long("label", machine="soft", **columns))
