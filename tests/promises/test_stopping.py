"""Whoever stops a command, and however: it ends at once, says how to go on, and leaves nothing half done."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress

import cv2
import numpy as np
import pytest

from mlcv.cli import main
from mlcv.commands.stages import call
from mlcv.errors import Stopped, find_user_error

RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=64", "--data.num_val=40", "--data.num_test=40",
    "--data.image_size=32", "--data.batch_size=4", "--model=Classifier", "--model.backbone=test_resnet",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    assert main(["fit", *RUN, "--trainer.max_epochs=1", "--run_dir", str(run), "--test_after_fit=true"]) == 0
    return run


def stop(python, command, signum, is_under_way, folder, *, whole_group=False):
    """Exit status, seconds until the end, and standard error of a command that is sent a signal on its way."""
    with python.start("-m", "mlcv", *command, cwd=folder, new_session=whole_group) as process:
        deadline = time.monotonic() + 120
        while not is_under_way() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, process.stderr[-2000:]
        began = time.monotonic()
        if whole_group:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        error = process.communicate(timeout=120)[1]
    return process.returncode, time.monotonic() - began, error


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_prediction_stops_and_goes_on(trained, tmp_path, python, signum):
    images = tmp_path / "images"
    images.mkdir()
    for n in range(800):
        cv2.imwrite(str(images / f"{n}.png"), np.full((32, 32, 3), n % 256, np.uint8))
    out = tmp_path / "out.csv"
    command = ["predict", "--ckpt_path", trained / "checkpoints" / "last.ckpt", "--data.path", images]
    command += ["--predictions", out, "--data.batch_size", 1, "--data.num_workers", 0]
    parts = lambda: list(tmp_path.glob("out.csv.*.part0"))  # noqa: E731
    status, seconds, error = stop(
        python, command, signum, lambda: parts() and parts()[0].stat().st_size > 2000, tmp_path
    )
    assert status == 128 + signum, error
    assert seconds < 20
    assert "mlcv: stopped. What is predicted is kept: give the same command again to go on" in error
    assert "Traceback" not in error
    before = len(parts()[0].read_text().splitlines())
    assert 0 < before < 800
    assert not out.exists()
    assert main(list(map(str, command))) == 0
    assert len(list(csv.DictReader(out.open()))) == 800


def test_a_signal_to_all_processes_of_a_run_ends_it_likewise(trained, tmp_path, python):
    """As process managers send it: the loader processes may be gone first."""
    images = tmp_path / "images"
    images.mkdir()
    for n in range(2000):
        cv2.imwrite(str(images / f"{n}.png"), np.full((32, 32, 3), n % 256, np.uint8))
    command = ["predict", "--ckpt_path", trained / "checkpoints" / "last.ckpt", "--data.path", images]
    command += ["--predictions", tmp_path / "out.csv", "--data.batch_size", 1, "--data.num_workers", 2]
    parts = lambda: list(tmp_path.glob("out.csv.*.part0"))  # noqa: E731
    under_way = lambda: parts() and parts()[0].stat().st_size > 2000  # noqa: E731
    status, _, error = stop(python, command, signal.SIGTERM, under_way, tmp_path, whole_group=True)
    assert status == 143, error
    assert "mlcv: stopped. What is predicted is kept: give the same command again to go on" in error
    assert "Traceback" not in error


def test_training_that_is_stopped_in_its_first_epoch_says_that_nothing_is_kept(tmp_path, python):
    run = tmp_path / "run"
    command = ["fit", *RUN, "--data.num_train=100000", "--trainer.max_epochs=1", "--run_dir", run]
    status, _, error = stop(python, command, signal.SIGINT, lambda: list(run.glob("events*")), tmp_path)
    assert status == 130, error
    assert "mlcv: stopped. Nothing to resume from: last.ckpt follows an epoch\n" in error


def test_training_stops_on_sigterm(tmp_path, python):
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    command = ["fit", *RUN, "--trainer.max_epochs=500", "--run_dir", run]
    status, seconds, error = stop(python, command, signal.SIGTERM, last.is_file, tmp_path)
    assert status == 143, error
    assert seconds < 20
    assert f"mlcv: stopped. To resume: mlcv fit --ckpt_path {last}" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["validate", "test", "evaluate", "calibrate", "report", "export", "bench"])
def test_every_command_ends_in_one_line(trained, tmp_path, capsys, monkeypatch, name, signum):
    """In this process: the signal comes while the command works, from a thread that waits for it to begin."""
    checkpoint, predictions = str(trained / "checkpoints" / "last.ckpt"), trained / "test_predictions.csv"
    copy = tmp_path / "val_predictions.csv"
    copy.write_bytes(predictions.read_bytes())
    lines = {
        "validate": ["--ckpt_path", checkpoint, "--data.num_val=20000", "--run_dir", str(tmp_path / "out")],
        "test": ["--ckpt_path", checkpoint, "--data.num_test=20000", "--run_dir", str(tmp_path / "out")],
        "evaluate": [str(copy), "--resamples", "400000", "--out", str(tmp_path / "out")],
        "calibrate": [str(copy), "--out", str(tmp_path / "out.json")],
        "report": [str(copy), "--resamples", "400000", "--out", str(tmp_path / "out.html")],
        "export": ["--ckpt_path", checkpoint, "--formats", "pt2", "--out", str(tmp_path / "out")],
        "bench": [*RUN, "--steps", "2000", "--out", str(tmp_path / "out.json")],
    }
    if name in ("calibrate", "export"):  # which are done in no time
        slow = {"calibrate": "calibrate._read", "export": "export._difference"}[name]
        monkeypatch.setattr(f"mlcv.commands.{slow}", lambda *_: time.sleep(60))
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signum))
    timer.start()
    began = time.monotonic()
    status = main([name, *lines[name]])
    timer.cancel()
    said = capsys.readouterr().err
    assert status == 128 + signum, said
    assert time.monotonic() - began < 40
    assert "mlcv: stopped." in said
    assert "Traceback" not in said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != copy and path.name != "val.json"]


def ask(signum):
    """The signal, where its exception arises."""
    os.kill(os.getpid(), signum)
    time.sleep(0.01)  # here the interpreter looks for signals
    raise AssertionError("the signal has not come")


def in_a_callback(signum):
    """Python ignores errors of weak references' callbacks, of which an export of torch calls thousands."""

    class Owner:
        pass

    owner = Owner()
    reference = weakref.ref(owner, lambda _: ask(signum))
    del owner
    assert reference() is None


def in_a_class(signum):
    """As while a library is imported: Python makes another error of it."""

    class Field:
        def __set_name__(self, *_):
            ask(signum)

    class _Owner:
        field = Field()


def where_errors_are_cleared(signum):
    """As extension modules do."""
    with suppress(BaseException):
        ask(signum)


def in_a_clean_up_of_another_error(signum):
    try:
        int("no number")
    except ValueError:
        where_errors_are_cleared(signum)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", [in_a_callback, in_a_class, where_errors_are_cleared, in_a_clean_up_of_another_error])
def test_no_signal_is_lost_wherever_it_comes(capsys, monkeypatch, signum, where):
    cleaned = []

    def command(_):
        try:
            where(signum)
            time.sleep(10)
            raise AssertionError("the signal is lost")
        finally:
            for _ in range(12):  # longer than until it is sent again, which is to interrupt no clean-up
                time.sleep(0.1)
            cleaned.append(True)

    monkeypatch.setattr("mlcv.commands.calibrate.main", command)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    assert main(["calibrate"]) == 128 + signum
    assert capsys.readouterr().err == "mlcv: stopped.\n"
    assert cleaned
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("where", [in_a_callback, in_a_class, where_errors_are_cleared])
def test_training_says_how_to_go_on_wherever_the_signal_comes(tmp_path, capsys, monkeypatch, where):
    """As in the set-up of data, whose libraries are imported then."""
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: (where(signal.SIGINT), time.sleep(10)))
    assert main(["fit", *RUN, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "run")]) == 130
    assert "mlcv: stopped. Nothing to resume from: last.ckpt follows an epoch\n" in capsys.readouterr().err


def test_other_errors_and_other_handlers_stay_as_they_are(capsys, monkeypatch):
    came = []
    monkeypatch.setattr("mlcv.commands.calibrate.main", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        assert main(["calibrate"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came

    def fails(_):
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("mlcv.commands.calibrate.main", fails)
    assert main(["calibrate"]) == 2
    assert "a mistake of ours" in capsys.readouterr().err


def test_a_killed_loader_process_is_told_in_one_sentence(tmp_path, trained, python):
    images = tmp_path / "images"
    images.mkdir()
    for n in range(2000):
        cv2.imwrite(str(images / f"{n}.png"), np.full((32, 32, 3), n % 256, np.uint8))
    out = tmp_path / "out.csv"
    command = ["predict", "--ckpt_path", trained / "checkpoints" / "last.ckpt", "--data.path", images]
    command += ["--predictions", out, "--data.batch_size", 1, "--data.num_workers", 1]
    with python.start("-m", "mlcv", *command) as process:
        while not list(tmp_path.glob("out.csv.*.part0")) and process.poll() is None:
            time.sleep(0.05)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 2, error[-1500:]
    assert "mlcv: error: a loader process was killed" in error
    assert "lower data.num_workers" in error
    assert "Traceback" not in error


def test_a_killed_rank_is_told_in_one_sentence(tmp_path, python):
    run = tmp_path / "run"
    command = ["fit", *RUN, "--trainer.max_epochs=500", "--run_dir", run, "--trainer.devices=2"]
    with python.start("-m", "mlcv", *command, "--trainer.strategy=ddp", children=1) as process:
        last = run / "checkpoints" / "last.ckpt"
        while not last.is_file() and process.poll() is None:
            time.sleep(0.1)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 2, error[-3000:]
    assert "mlcv: error: another process of this run has ended" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"), "(is killed by"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "(exited unexpectedly)"),
        (MemoryError(), "the machine's memory is full"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "the machine's memory is full"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried"), "the GPU's memory is full"),
        (OSError(28, "No space left on device"), "there is no room to write (No space left on device)"),
    ],
)
def test_what_the_system_does_to_a_run_has_a_sentence(error, sentence):
    outer = ValueError("wrapped")
    outer.__cause__ = error
    for one in (error, outer):
        found = str(find_user_error(one))
        assert sentence in found
        assert "give the command again" in found or "lower data." in found
    assert find_user_error(ValueError("a mistake of ours")) is None
    assert Stopped().signum == 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_libraries_are_imported_to_their_end(capsys, monkeypatch, signum):
    """Torch, whose C++ has the interpreter run lines of its own while it is imported, aborts at their errors."""
    whole = []

    def imported(*_, **__):
        os.kill(os.getpid(), signum)
        time.sleep(0.7)  # longer than until it is sent again
        whole.append(True)

    monkeypatch.setattr("mlcv.cli.imported", imported)
    assert main(["calibrate"]) == 128 + signum
    assert capsys.readouterr().err == "mlcv: stopped.\n"
    assert whole


def test_what_is_held_for_too_long_ends(capsys, monkeypatch):
    def imported(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        raise AssertionError("it is held for ever")

    monkeypatch.setattr("mlcv.cli.imported", imported)
    monkeypatch.setattr("mlcv.stopping.LEFT_ALONE", 0.7)
    assert main(["calibrate"]) == 130
    assert capsys.readouterr().err == "mlcv: stopped.\n"


def test_a_second_request_leaves_the_clean_up_after_the_first_and_its_advice_alone(capsys, monkeypatch):
    """Both a terminal and a parent may send one; later a clean-up that hangs can be ended."""
    cleaned = []

    def command(_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            cleaned.append(True)
            raise Stopped(stop.signum, "Go on.") from None
        finally:
            monkeypatch.setattr("mlcv.stopping.LEFT_ALONE", 0.0)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
            cleaned.append(False)

    monkeypatch.setattr("mlcv.commands.calibrate.main", command)
    assert main(["calibrate"]) == 130
    assert capsys.readouterr().err == "mlcv: stopped. Go on.\n"
    assert cleaned == [True]


def test_processes_forked_from_a_command_end_with_it_and_not_by_themselves(monkeypatch):
    """A loader process that Ctrl-C met as it began, or as it ended, wrote where it was."""
    statuses = []

    def command(_):
        for signum in (signal.SIGINT, signal.SIGTERM):
            if (child := os.fork()) == 0:
                status = 1
                try:
                    os.kill(os.getpid(), signum)
                    time.sleep(0.01)
                    status = 0
                finally:
                    os._exit(status)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    monkeypatch.setattr("mlcv.commands.calibrate.main", command)
    assert main(["calibrate"]) == 0
    assert statuses == [0, -signal.SIGTERM]


def test_a_stage_that_has_just_begun_is_not_left_behind(tmp_path, capsys, monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, *_, **__):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"])
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    monkeypatch.setattr("subprocess.Popen", Process)
    monkeypatch.setattr("mlcv.commands.calibrate.main", lambda _: call("predict"))
    assert main(["calibrate"]) == 143
    assert "mlcv: stopped. What is finished is kept" in capsys.readouterr().err
    assert started[0].poll() == -signal.SIGTERM


def test_a_command_of_several_stages_says_in_one_line_how_to_go_on(tmp_path, python):
    """The stage that was stopped with it would name a command of its own."""
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {max_epochs: 500}\n")
    folder = tmp_path / "both"
    command = ["self_train", "--config", config, "--folder", folder, *RUN]
    last = folder / "ignore" / "checkpoints" / "last.ckpt"
    status, _, error = stop(python, command, signal.SIGINT, last.is_file, tmp_path, whole_group=True)
    assert status == 130, error
    assert error.count("mlcv: stopped.") == 1
    assert "mlcv: stopped. What is finished is kept: give the same command again to go on\n" in error


def program(lines):
    """A process of its own whose command is theirs."""
    head = "import atexit, os, signal, sys, time, mlcv.commands.calibrate\nfrom mlcv.cli import main\n"
    tail = "mlcv.commands.calibrate.main = command\nsys.argv = ['mlcv', 'calibrate']\nsys.exit(main())\n"
    command = [sys.executable, "-c", head + lines + tail]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


ENDS_SLOWLY = """
@atexit.register
def _():
    os.kill(os.getpid(), signal.SIGCHLD)
    time.sleep(0.01)
    print("ends", flush=True)
    time.sleep(20)
def fails(*_):
    raise RuntimeError("a loader process has ended")
def command(_):
    signal.signal(signal.SIGCHLD, fails)  # as torch does
    print("works", flush=True)
    time.sleep(20)
"""


def test_neither_a_second_request_nor_a_loader_shows_a_traceback_as_the_process_ends():
    with program(ENDS_SLOWLY) as process:
        for line in ("works\n", "ends\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=15)[1]
    assert error == "mlcv: stopped.\n"
    assert process.returncode == 130


SPEAKS = """
from mlcv.terminal import console
def command(_):
    for _ in range(500):
        console().print("a line")
        time.sleep(0.02)
"""


def test_a_reader_that_has_seen_enough_is_no_failed_check():
    """As `mlcv data ... --fail-on leakage | head` may say by status 1."""
    with program(SPEAKS) as process:
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
