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
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np

COMMANDS = (
    "audit",
    "bench",
    "calibrate",
    "data_sheet",
    "ensemble",
    "evaluate",
    "export",
    "features",
    "merge",
    "prepare",
    "preview",
    "report",
    "study",
    "training",
)
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
    is_script = first not in ("-m", "-c")
    sys.argv = [first, *(rest if is_script else rest[1:])]
    own = os.environ.get("PYTHONPATH", "")
    place = str(Path(first).resolve().parent) if is_script else ""
    sys.path[:] = [place, *filter(None, own.split(os.pathsep)), *PATHS]
    try:
        if first == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            module = sys.modules["__main__"] = types.ModuleType("__main__")
            name, code = "<string>", "" if is_script else rest[0]
            if is_script:
                name = module.__file__ = str(Path(first).absolute())
                code = Path(first).read_bytes()
            exec(compile(code, name, "exec"), module.__dict__)
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


class Child(subprocess.Popen):
    """What a program starts as a Python of its own: a fork that has waited for its command, or else a new one."""

    waiting = []  # noqa: RUF012

    def _execute_child(self, args, *others):
        environment, pipes = others[5], others[9:15]
        if not self.waiting or isinstance(args, str) or args[0] != sys.executable:
            super()._execute_child(args, *others)
            return
        self.pid, door = self.waiting.pop()
        self._child_created = True
        streams = [own if given == -1 else given for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        with door:
            socket.send_fds(door, [b"."], streams)
            door.sendall(json.dumps([list(map(str, args[1:])), dict(environment or os.environ)]).encode())
        self._close_pipe_fds(*pipes)

    @classmethod
    def fork(cls):
        """One more that waits; it ends with the process that it would be started by."""
        door, own = socket.socketpair()
        child = os.fork()
        if child:
            own.close()
            cls.waiting.append((child, door))
            return
        door.close()
        while cls.waiting:
            cls.waiting.pop()[1].close()
        _, streams, _, _ = socket.recv_fds(own, 1, 3)
        if not streams:
            os._exit(0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        with own.makefile() as asked:
            arguments, environment = json.load(asked)
        own.close()
        os.environ.clear()
        os.environ.update(environment)
        end(run_program(arguments))


def start(arguments, folder, environment, streams, new_session, children):
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
    for _ in range(children):
        Child.fork()
    subprocess.Popen = Child
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
