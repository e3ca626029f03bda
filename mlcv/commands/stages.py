"""Stages of a command, each a call of mlcv in a process of its own: what is done is kept, what was stopped goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlcv.commands.begun import begin
from mlcv.errors import ConfigError, Stopped
from mlcv.files import write_text
from mlcv.launchers import STAGE_VARIABLE
from mlcv.stopping import request

_ADVICE = "What is finished is kept: give the same command again to go on"


def train(run_dir: Path, options: Sequence[str], chosen_by: str) -> Path:
    """Trains, or goes on where it was stopped, unless it is finished; the last checkpoint.

    Args:
        run_dir: of the run.
        options: of `mlcv fit`.
        chosen_by: see `begin`.

    Raises:
        ConfigError: if the folder holds what was begun with other options, or it fails, which has said why.
    """
    last = run_dir / "checkpoints" / "last.ckpt"
    begin(run_dir, *options, chosen_by=chosen_by)
    finished = run_dir / "finished"
    if not finished.is_file():
        resumed = [f"--ckpt_path={last}"] if last.is_file() else []
        call("fit", *options, f"--run_dir={run_dir}", *resumed)
        if not last.is_file():
            raise ConfigError(f"{run_dir} has no checkpoint, so the training was only a trial: leave fast_dev_run out")
        write_text(finished, "")
    return last


def call(*arguments: str) -> None:
    """A command of mlcv in a process of its own, which may start others; a stop is passed on, and waited for.

    Raises:
        ConfigError: if it fails, which has said why.
    """
    process = None
    try:
        with request().held():  # or nobody would know of a process that has just begun
            process = subprocess.Popen(  # noqa: S603  # our own command
                [sys.executable, "-m", "mlcv", *arguments], env={**os.environ, STAGE_VARIABLE: "1"}
            )
        status = process.wait()
    except KeyboardInterrupt as stop:
        signum = getattr(stop, "signum", int(signal.SIGINT))
        if process is not None:
            if signum != signal.SIGINT or not sys.stdin.isatty():  # else the terminal has sent it to both
                process.send_signal(signum)
            process.wait()
        raise Stopped(signum, _ADVICE) from None
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise Stopped(status - 128, _ADVICE)
    if status:
        raise ConfigError(f"mlcv {arguments[0]} has ended with status {status}, and said why above; {_ADVICE.lower()}")
