import csv
import os
import pty
import re
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Trainer

from mlcv import Classifier, DigitScenesDataModule
from mlcv.callbacks.model_table import ModelTable, rows_of, short
from mlcv.callbacks.progress import Progress
from mlcv.cli import main

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=32", "--data.num_test=32",
    "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
    "--model.backbone=test_resnet", "--trainer.accelerator=cpu",
]  # fmt: skip
EPOCH = re.compile(
    r"epoch (\d)/(\d)  loss (\d+\.\d{4})  val/mAP (0\.\d{4}) \((best so far|best: epoch \d)\)"
    r"  \d+ s(  about \d+ s left)?"
)
ELSE = re.compile(
    r"run: \S+|(train|val): .*|part +what it is +parameters +trained|─+"
    r"|backbone +test_resnet .*|head +LinearHead .*|all .*|training on the CPU \(1 thread\), precision 32-true"
    r"|trained in \d+ s; best val/mAP 0\.\d{4} in epoch \d: \S+"
    r"|.*GPU available but not used.*"
)


def epochs(text):
    return [found for line in text.splitlines() if (found := EPOCH.fullmatch(line))]


def test_a_log_has_one_line_an_epoch_which_says_what_the_files_say(tmp_path, capsys):
    assert main(["fit", *RUN, "--trainer.max_epochs=4", "--trainer.log_every_n_steps=1", f"--run_dir={tmp_path}"]) == 0
    text = capsys.readouterr().out
    lines = epochs(text)
    assert [(one[1], one[2]) for one in lines] == [(str(n), "4") for n in range(1, 5)]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    scores = [float(row["val/mAP"]) for row in rows if row["val/mAP"]]
    for epoch, line in enumerate(lines):
        losses = [float(row["train/loss"]) for row in rows if row["train/loss"] and int(row["epoch"]) == epoch]
        assert len(losses) == 4
        assert abs(float(line[3]) - sum(losses) / 4) < 1e-3
        assert abs(float(line[4]) - scores[epoch]) < 1e-4
        best = max(range(epoch + 1), key=lambda n: scores[n])  # the first of equals
        assert line[5] == ("best so far" if best == epoch else f"best: epoch {best + 1}")
    assert all(one[6] for one in lines[:-1])
    assert lines[-1][6] is None
    best = max(range(4), key=lambda n: scores[n])
    assert f"best val/mAP {scores[best]:.4f} in epoch {best + 1}: {tmp_path / 'checkpoints' / 'best.ckpt'}" in text
    assert not re.search("[━\r\x1b]", text.partition("epoch 1/4")[2])  # nothing of a bar


def test_a_resumed_run_remembers_the_best_of_its_first_part(tmp_path, capsys):
    run = tmp_path / "run"
    more = ["--model.optim.horizon_epochs=3", "--model.optim.lr=1e-12"]
    assert main(["fit", *RUN, *more, "--trainer.max_epochs=2", f"--run_dir={run}"]) == 0
    capsys.readouterr()
    assert main(["fit", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=3"]) == 0
    (line,) = epochs(capsys.readouterr().out)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    assert line[1] == "3"
    assert line[5] == ("best so far" if best == 2 else f"best: epoch {best + 1}")


def test_accumulated_steps_have_the_loss_of_single_ones(tmp_path, capsys):
    """At a learning rate of nothing the losses are the same, whatever is added up."""
    for accumulated in (1, 2):
        options = ["--model.optim.lr=1e-12", f"--trainer.accumulate_grad_batches={accumulated}"]
        assert main(["fit", *RUN, *options, "--trainer.max_epochs=1", f"--run_dir={tmp_path / str(accumulated)}"]) == 0
    one, two = epochs(capsys.readouterr().out)
    assert abs(float(one[3]) - float(two[3])) < 2e-3


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_a_bar_that_fits_and_is_gone_at_the_end(tmp_path, columns):
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "mlcv", "fit", *RUN, "--trainer.max_epochs=2", f"--run_dir={tmp_path}"]
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=secondary, stderr=secondary, env=environment) as process:
        os.close(secondary)
        said = b""
        while True:
            try:
                said += (part := os.read(primary, 65536))
            except OSError:  # as Linux ends a terminal
                break
            if not part:
                break
    os.close(primary)
    assert process.returncode == 0, said[-2000:]
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", said.decode())
    drawn = [line for line in re.split("[\r\n]+", text) if "━" in line]
    assert any(line.startswith("epoch 1/2 ") and "0/4" in line for line in drawn)
    assert max(map(len, drawn)) <= columns
    assert text.count("epoch 1/2  loss ") == text.count("epoch 2/2  loss ") == 1
    others = {line.strip() for line in re.split("[\r\n]+", text) if "━" not in line} - {""}
    assert [line for line in others if not EPOCH.fullmatch(line) and not ELSE.fullmatch(line)] == []
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h")  # the cursor is back


def test_an_estimate_is_told_once_early_in_a_long_training(monkeypatch, capsys):
    times = iter(range(0, 100_000, 3))
    monkeypatch.setattr("mlcv.callbacks.progress._FIRST_SECONDS", 0.0)
    monkeypatch.setattr("mlcv.callbacks.clock.Clock._lap", lambda self: 30.0)
    monkeypatch.setattr("mlcv.callbacks.progress.perf_counter", lambda: float(next(times)))
    trainer = Trainer(
        max_epochs=3, callbacks=[Progress()], logger=False, enable_checkpointing=False, enable_model_summary=False,
        accelerator="cpu",
    )  # fmt: skip
    data = DigitScenesDataModule(64, 8, 8, batch_size=8, image_size=32, num_workers=0)
    trainer.fit(Classifier("test_resnet", 10), data)
    text = capsys.readouterr().out
    # Five steps of half a minute are known when six of 24 are done.
    expected = "about 9 min for 3 epochs, by the first 5 steps; validation, not timed yet, comes on top"
    assert text.count(expected) == 1


def test_the_table_of_a_model_has_what_learns_and_nothing_internal():
    method = Classifier("test_resnet", 10, freeze=["layer1"])
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in method.named_children()}
    frozen = sum(p.numel() for p in method.backbone.parameters() if not p.requires_grad)
    assert frozen
    rows = rows_of(method)
    assert [row[:2] for row in rows] == [("backbone", "test_resnet"), ("head", "LinearHead"), ("all", "")]
    assert [row[2] for row in rows] == [
        short(counted["backbone"]), short(counted["head"]), short(counted["backbone"] + counted["head"])
    ]  # fmt: skip
    assert rows[0][3] == f"{short(counted['backbone'] - frozen)} of them"
    assert rows[1][3] == "yes"
    method.backbone.requires_grad_(False)
    assert rows_of(method)[0][3] == "no, frozen"


@pytest.mark.parametrize(
    ("number", "said"), [(970, "970"), (1000, "1.00 K"), (25_557_032, "25.6 M"), (302_000_000, "302 M")]
)
def test_numbers_have_three_digits(number, said):
    assert short(number) == said


def test_the_device_and_precision_are_one_line(capsys):
    trainer = Trainer(
        max_steps=1, callbacks=[ModelTable()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        accelerator="cpu", precision="bf16-mixed", limit_val_batches=0,
    )  # fmt: skip
    data = DigitScenesDataModule(8, 8, 8, batch_size=8, image_size=32, num_workers=0)
    trainer.fit(Classifier("test_resnet", 10), data)
    threads = torch.get_num_threads()
    expected = f"training on the CPU ({threads} thread{'s' * (threads > 1)}), precision bf16-mixed"
    assert expected in capsys.readouterr().out.splitlines()
