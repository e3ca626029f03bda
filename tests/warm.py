"""A Python that has imported everything, and runs programs in forks of itself: a second each instead of seven.

`WarmPython` takes what stands behind `python` on a command line: `-m MODULE`, `-c CODE` or a script, with arguments.
The program has its own environment, folder, streams, session and exit status; what a library reads from the
environment when it is imported, and the seed of hashes, are those of the first process. A few tests start a cold
Python, so that what only a new process shows is seen, too.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Process:
    """A program that runs, as `subprocess.Popen` has it; its streams can be looked at meanwhile."""

    def __init__(self, python, request):
        self.args = request["arguments"]
        self.returncode = None
        self._python = python
        self._files = [tempfile.NamedTemporaryFile(prefix="warm-") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self._files]
        self.pid = python.ask(do="start", streams=names, **request)

    @property
    def stdout(self):
        """All that has been said so far."""
        return Path(self._files[0].name).read_text(errors="replace")

    @property
    def stderr(self):
        return Path(self._files[1].name).read_text(errors="replace")

    def poll(self):
        if self.returncode is None:
            self.returncode = self._python.ask(do="poll", pid=self.pid)
        return self.returncode

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout, self.stdout, self.stderr)
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout):
        self.wait(timeout)
        return self.stdout, self.stderr

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)
        self.wait(60)
        for file in self._files:
            file.close()


class WarmPython:
    """Starts programs in forks of one process, which is started for the first."""

    def __init__(self):
        self._process = None

    def ask(self, **request):
        if self._process is None:
            paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
            self._process = subprocess.Popen(
                [sys.executable, ROOT / "tests" / "warm_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments, cwd=None, environment=None, new_session=False, children=0):
        """A `Process`; as many `children` as are said, Pythons that the program starts itself, are forks, too."""
        return Process(self, {
            "arguments": list(map(str, arguments)),
            "folder": str(cwd or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "new_session": new_session,
            "children": children,
        })  # fmt: skip

    def run(self, *arguments, timeout=240, **options):
        """As `subprocess.run` with its output as text."""
        with self.start(*arguments, **options) as process:
            said = process.communicate(timeout)
            return subprocess.CompletedProcess(process.args, process.returncode, *said)

    def mlcv(self, *arguments, **options):
        return self.run("-m", "mlcv", *arguments, **options)

    def close(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(timeout=60)
