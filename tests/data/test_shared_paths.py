"""Paths of images: one block of memory, which loader processes share, and in which nothing is lost."""

import gc
import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mlcv.data.items import Files, Items
from mlcv.data.samples import LabeledImages, MultiLabelDataset
from mlcv.data.transforms import Transform

ODD = ["a.png", "", "./b//c.png", "\udcff\udc80.png", "\ud800.png", "né ü.jpg", "\U0001f431", "with\nline", "a\0b"]
PIXELS = np.zeros((4, 4, 3), np.uint8)
COUNT = 60_000


class Strings(list):
    """Paths as Python keeps them, and what items need beside that."""

    read = name = keys = select = fingerprint = unreadable = Files.name


def private_mib():
    """Memory of this process alone, which is not shared with the one that it is forked from."""
    return sum(map(int, re.findall(r"^Private_\w+: +(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M))) / 1024


def grown(dataset, answer):
    gc.disable()  # it would copy what the tests have in memory
    dataset[0, 0]
    before = private_mib()
    for epoch in (0, 1):
        for step in range(COUNT):
            dataset[epoch, step * 7919 % COUNT]
    answer.put(private_mib() - before)


def growth_of_a_worker(images, monkeypatch):
    monkeypatch.setattr("mlcv.data.items.read_image", lambda path, *others: PIXELS)
    monkeypatch.setattr(Strings, "read", lambda self, index, *others: PIXELS[: len(self[index])])
    labeled = LabeledImages(images, np.zeros((COUNT, 3), np.int8))
    dataset = MultiLabelDataset(labeled, torch.zeros(COUNT, 3), Transform([], 1))
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    worker = context.Process(target=grown, args=(dataset, answer))
    worker.start()
    mib = answer.get(timeout=120)
    worker.join()
    return mib


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="Linux alone says what memory is shared")
def test_a_worker_does_not_grow_with_the_number_of_paths(monkeypatch):
    paths = [f"/data/CheXpert/train/patient{n:05d}/study1/view1_frontal.jpg" for n in range(COUNT)]
    assert isinstance(Strings(), Items)
    copied = growth_of_a_worker(Strings(paths), monkeypatch)
    assert copied > 5  # MiB
    assert growth_of_a_worker(paths, monkeypatch) < copied / 3  # pages of other objects are copied, too


def test_every_path_comes_out_as_it_was_given():
    files = Files([*ODD, Path("x") / "y.png"])
    assert list(files) == [*ODD, "x/y.png"]
    assert [files[n] for n in range(len(files))] == [*ODD, "x/y.png"]
    assert files[-1] == "x/y.png"
    assert list(files[1:5:2]) == [ODD[1], ODD[3]]
    assert "a.png" in files
    assert "b.png" not in files
    with pytest.raises(IndexError):
        files[len(files)]
    assert list(Files([])) == []


def test_rows_are_chosen_and_sent_to_another_process_without_loss():
    files = Files(ODD)
    rows = np.array([3, 0, 3, 8, 1])
    assert list(files.select(rows)) == [ODD[row] for row in rows]
    assert len(files.select(np.array([], np.intp))) == 0
    assert pickle.loads(pickle.dumps(files)) == files
    assert files != Files(ODD[1:])


def test_the_fingerprint_is_that_of_the_last_parts_of_the_paths():
    paths = [f"/a/b/c/{n}/x.png" for n in range(3)]
    assert Files(paths).fingerprint() == Files([path.replace("/a/b", "/elsewhere") for path in paths]).fingerprint()
    assert Files(paths).fingerprint() == "b4fd4510d9a0"  # as in checkpoints of 0.1.0
    assert Files(paths).fingerprint() != Files(paths[::-1]).fingerprint()
