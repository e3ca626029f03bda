"""Damaged annotation files and images: read, or refused in one sentence that names the file; never a hang."""

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from mlcv.data.chexpert import CheXpertDataModule
from mlcv.data.coco import COCODataModule
from mlcv.data.csv_table import CSVDataModule
from mlcv.data.images import read_image
from mlcv.data.voc import VOCDataModule
from mlcv.errors import DataError, UserError
from mlcv.tables import Codes
from tests.tiny_sets import write_chexpert, write_coco, write_csv, write_image, write_voc

pytestmark = pytest.mark.slow
SECONDS = 20
STRANGE = [
    None, True, -1, 0, 1e308, -(10**30), "", "\u0000", "x" * 10_000, [], {}, [[[]]], "NaN", "../../etc/passwd", "0x1F",
]  # fmt: skip


class HangError(BaseException):
    """A reader that took too long; no reader's error, which may be of any kind."""


@pytest.fixture(autouse=True)
def no_hang():
    def give_up(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, give_up)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def harm_bytes(data, random):
    """Cut, changed, doubled, or in another encoding."""
    data = bytearray(data)
    kind = random.integers(6)
    if kind == 0:
        return bytes(data[: random.integers(len(data) + 1)])
    if kind == 1:
        for place in random.integers(len(data), size=random.integers(1, 30)):
            data[place] = random.integers(256)
        return bytes(data)
    if kind == 2:
        start, end = sorted(random.integers(len(data) + 1, size=2))
        return bytes(data[:end] + data[start:])
    if kind == 3:
        start, end = sorted(random.integers(len(data) + 1, size=2))
        return bytes(data[:start] + data[end:])
    if kind == 4:
        return bytes(data).decode("utf-8", "replace").encode(str(random.choice(["utf-16", "utf-32", "utf-8-sig"])))
    return random.bytes(int(random.integers(200)))


def harm_text(text, random):
    """A number or name replaced by something strange, or a line left out or doubled."""
    lines = text.splitlines(keepends=True)
    place = int(random.integers(len(lines)))
    kind = random.integers(4)
    strange = str(STRANGE[random.integers(len(STRANGE))])
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    elif kind == 2:
        lines[place] = lines[place].replace(",", ",,", 1).replace("<", "<<", 1)
    else:
        separator = "," if "," in lines[place] else ">"
        parts = lines[place].split(separator)
        parts[random.integers(len(parts))] = strange
        lines[place] = separator.join(parts)
    return "".join(lines)


def harm_json(content, random):
    """One value, at any depth, of another type."""
    content = json.loads(json.dumps(content))
    holder, key = None, None
    node = content
    while isinstance(node, (dict, list)) and node and (holder is None or random.random() < 0.85):
        holder = node
        key = list(node)[random.integers(len(node))] if isinstance(node, dict) else int(random.integers(len(node)))
        node = node[key]
    if random.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = STRANGE[random.integers(len(STRANGE))]
    return json.dumps(content).encode()


def read(make, file):
    """Sets the data up and loads an image; a user's error must name the file, and nothing else may come."""
    signal.alarm(SECONDS)
    try:
        data = make()
        data.setup("fit")
        data.datasets["train"][0]
    except UserError as error:
        said = str(error)
        assert file.name in said, said
        assert "\n" not in said
        return 1
    finally:
        signal.alarm(0)
    return 0


def run(make, file, harms, count, random):
    whole = file.read_bytes()
    refused = 0
    for n in range(count):
        harm = harms[n % len(harms)]
        damaged = harm(whole, random)
        file.write_bytes(damaged)
        try:
            refused += read(make, file)
        except AssertionError:
            raise
        except Exception as error:
            kept = Path(f"/tmp/fuzz-{file.name}")
            kept.write_bytes(damaged)
            raise AssertionError(f"{type(error).__name__} on a damaged {file.name}, kept as {kept}: {error}") from error
    file.write_bytes(whole)
    assert read(make, file) == 0
    assert refused > count // 5


def as_text(harm):
    return lambda data, random: harm(data.decode(), random).encode()


def test_400_coco_files(tmp_path, numpy_rng, monkeypatch):
    monkeypatch.setenv("MLCV_CACHE", str(tmp_path / "cache"))
    file = write_coco(tmp_path) / "annotations" / "instances_train2014.json"

    def typed(data, random):
        return harm_json(json.loads(data), random)

    def make():
        return COCODataModule(str(tmp_path), 2014, image_size=32, batch_size=2, num_workers=0)

    run(make, file, [harm_bytes, typed, typed], 400, numpy_rng)


def test_200_voc_files(tmp_path, numpy_rng):
    write_voc(tmp_path, 2012, xml=True)
    file = tmp_path / "VOC2012" / "Annotations" / "train0000.xml"

    def make():
        return VOCDataModule(str(tmp_path), 2012, image_size=32, batch_size=2, num_workers=0)

    run(make, file, [harm_bytes, as_text(harm_text)], 200, numpy_rng)


def test_200_tables(tmp_path, numpy_rng):
    file = write_csv(tmp_path)

    def make():
        sizes = {"image_size": 32, "batch_size": 2, "num_workers": 0}
        codes = Codes(uncertain=("-1",))
        return CSVDataModule(str(file), split_column="split", group_column="patient", codes=codes, **sizes)

    run(make, file, [harm_bytes, as_text(harm_text)], 200, numpy_rng)


def test_200_chexpert_tables(tmp_path, numpy_rng):
    folder = write_chexpert(tmp_path)

    def make():
        return CheXpertDataModule(str(folder), image_size=32, batch_size=2, num_workers=0)

    run(make, folder / "train.csv", [harm_bytes, as_text(harm_text)], 200, numpy_rng)


def test_200_lists_of_voc(tmp_path, numpy_rng):
    for name in ("dog_train.txt", "val.txt"):
        write_voc(tmp_path / name, 2007, xml=name == "val.txt")
        file = tmp_path / name / "VOC2007" / "ImageSets" / "Main" / name

        def make(root=tmp_path / name):
            return VOCDataModule(str(root), 2007, image_size=32, batch_size=2, num_workers=0)

        run(make, file, [harm_bytes, as_text(harm_text)], 100, numpy_rng)


def test_200_lists_of_names(tmp_path, numpy_rng):
    write_csv(tmp_path)
    file = tmp_path / "names.csv"
    cells = ["A|B", "No Finding", "B", "", "C"]
    file.write_text("image,labels\n" + "".join(f"images/{n}.jpg,{cells[n % 5]}\n" for n in range(10)))

    def make():
        sizes = {"image_size": 32, "batch_size": 2, "num_workers": 0}
        return CSVDataModule(str(file), labels_column="labels", fractions=(0.5, 0.3, 0.2), **sizes)

    run(make, file, [harm_bytes, as_text(harm_text)], 200, numpy_rng)


SUFFIXES = {
    ".jpg": [], ".png": [], ".bmp": [], ".webp": [], ".gif": [], ".tif": [], ".jp2": [], ".ppm": [],
    ".tiff": [cv2.IMWRITE_TIFF_COMPRESSION, 1],
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_300_images(tmp_path, numpy_rng, suffix):
    path = write_image(tmp_path / "whole.png", (300, 400))
    whole = cv2.imencode(suffix, cv2.imread(str(path)), SUFFIXES[suffix])[1].tobytes()
    refused = 0
    for n in range(300):
        path = tmp_path / f"{n}{suffix}"
        path.write_bytes(harm_bytes(whole, numpy_rng))
        signal.alarm(SECONDS)
        try:
            image = read_image(path, 64)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert min(image.shape[:2]) >= 1
        except DataError as error:
            refused += 1
            said = str(error)
        finally:
            signal.alarm(0)
        if refused:
            assert suffix in said
            assert "\n" not in said
    assert refused > 60
