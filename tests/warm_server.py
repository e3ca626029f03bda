"""The process of `warm.WarmPython`: imports what any command needs, then forks for each program it is asked for.

Reads JSON lines from its standard input, and answers each with one.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import types
from pathlib import Path

import lightning.pytorch.strategies.launchers.subprocess_script as launcher
import numpy as np

COMMANDS = ("bench", "calibrate", "ensemble", "evaluate", "export", "report", "training")
LIBRARIES = ("matplotlib.pyplot", "onnx", "onnxscript", "open_clip", "torch.export", "torch.utils.tensorboard")
"""What commands import when they need it, but for onnxruntime, which starts threads."""
for name in (*(f"mlcv.commands.{command}" for command in COMMANDS), *LIBRARIES):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
OWN = {"", str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
ANSWERS = os.dup(1)
PATHS = [path for path in sys.path if path not in OWN]


def run_program(arguments):
    """What `python` does with these arguments; returns the exit status."""
    first, *rest = arguments
    script = first not in ("-m", "-c")
    own = os.environ.get("PYTHONPATH", "")
    sys.path[:] = [str(Path(first).resolve().parent) if script else "", *filter(None, own.split(os.pathsep)), *PATHS]
    try:
        if script:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
        elif first == "-m":
            sys.argv = ["-m", *rest[1:]]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *rest[1:]]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001  # whatever comes
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def end(status):
    """As an interpreter ends, but for the memory, which is not tidied up."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status & 0xFF)


class Rank:
    """For Lightning's launcher, in place of `subprocess.Popen`: a fork that has waited for its command."""

    waiting = []  # noqa: RUF012

    def __init__(self, command, env, cwd=None):
        self.pid, pipe = self.waiting.pop()
        self.returncode = None
        with os.fdopen(pipe, "w") as file:
            json.dump([command[1:], env], file)

    @classmethod
    def fork(cls):
        """One more that waits; it ends with the process that it would be started by."""
        here, there = os.pipe()
        child = os.fork()
        if child:
            os.close(here)
            cls.waiting.append((child, there))
            return
        os.close(there)
        for _, pipe in cls.waiting:
            os.close(pipe)
        with os.fdopen(here) as file:
            asked = file.read()
        if not asked:
            os._exit(0)
        arguments, environment = json.loads(asked)
        os.environ.clear()
        os.environ.update(environment)
        end(run_program(arguments))

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)


def start(arguments, folder, environment, streams, new_session, ranks):
    """Process id of a fork that runs the program."""
    child = os.fork()
    if child:
        return child
    if new_session:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in enumerate(streams, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
    os.close(ANSWERS)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    np.random.seed()  # noqa: NPY002  # as a new process has it
    for _ in range(1, ranks):
        Rank.fork()
    if ranks > 1:
        launcher.subprocess = types.SimpleNamespace(Popen=Rank)
    return end(run_program(arguments))


def ended(pid):
    """Exit status; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def serve():
    os.dup2(2, 1)  # for whatever a library may print
    tasks = Path("/proc/self/task")
    assert not tasks.is_dir() or len(list(tasks.iterdir())) == 1, "a fork would lose threads"
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        answer = start(**request) if request.pop("do") == "start" else ended(**request)
        os.write(ANSWERS, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    serve()
