"""Runs commands of mlcv, each in a fork of this process, which has imported everything: a second each instead of seven.

Reads a JSON list of arguments a line from standard input, and answers with a JSON line: how the command ended (its
exit status, or the exception that came out of it) and what it printed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import mlcv.commands.bench
import mlcv.commands.calibrate
import mlcv.commands.ensemble
import mlcv.commands.evaluate
import mlcv.commands.export
import mlcv.commands.report
import mlcv.commands.training  # noqa: F401
from mlcv.cli import main

LIMIT = 60
"""Seconds of a command."""


def run(arguments):
    """How the command ended."""
    with tempfile.TemporaryFile("w+", errors="replace") as said, tempfile.TemporaryFile("w+") as ended:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            try:
                status = main(arguments)
            except SystemExit as error:
                status = error.code
            except BaseException:  # noqa: BLE001  # which is what is looked for
                status = traceback.format_exc()
            ended.write(json.dumps(status))
            ended.flush()
            sys.stdout.flush()
            os._exit(0)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
        signal.alarm(LIMIT)
        os.waitpid(child, 0)
        signal.alarm(0)
        for file in (said, ended):
            file.seek(0)
        return {"status": json.loads(ended.read() or '"no end"'), "said": said.read()}


class Commands:
    """Runs commands in forks of one process: called with arguments, it gives `status` and `said`."""

    def __init__(self, folder, **environment):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment,
        )  # fmt: skip

    def __call__(self, *arguments):
        self.process.stdin.write(json.dumps(list(map(str, arguments))) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()
