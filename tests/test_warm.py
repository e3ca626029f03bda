"""What runs in a fork of a warm Python ends, says and sees what it would in a new one."""

import os
import signal
import subprocess
import sys
import time

import pytest

WHERE = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ['OF_ITS_OWN'], os.environ.get('HOME'))"
CHILD = """
import subprocess, sys
asked = [sys.executable, "-c", "import sys; print(sys.argv, 'torch' in sys.modules); sys.exit('no')", "a"]
done = subprocess.run(asked, capture_output=True, text=True)
other = subprocess.run(["echo", "b"], capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr, other.stdout)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "print('said'); raise SystemExit(3)"],
        ["-c", "import sys; sys.exit('a sentence')"],
        ["-c", "import atexit; atexit.register(print, 'the end'); 1 / 0"],
        ["-c", "raise KeyboardInterrupt"],
        ["-c", "import threading, time; threading.Timer(0.2, print, ['later']).start()"],
        ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
        ["-c", "import sys; print(sys.stdin.read(), __name__)"],
        ["-c", WHERE, "a", "b c"],
        ["script.py", "--option"],
        ["-m", "mlcv", "--version"],
        ["-m", "mlcv", "fitt"],
    ],
    ids=str,
)
def test_it_does_what_a_new_python_does(python, tmp_path, arguments):
    (tmp_path / "beside.py").write_text("WORD = 'beside'")
    (tmp_path / "script.py").write_text("import sys, beside; print(__name__, __file__, sys.argv, beside.WORD)")
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"OF_ITS_OWN": "x"}
    new = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    warm = python.run(*arguments, cwd=tmp_path, environment=environment)
    assert (warm.returncode, warm.stdout) == (new.returncode, new.stdout)
    assert warm.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]


def test_what_it_says_is_seen_while_it_runs_and_signals_reach_it(python):
    code = "import sys, time; print('begun', file=sys.stderr); time.sleep(60)"
    with python.start("-c", code, new_session=True) as process:
        while process.stderr != "begun\n":
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize("children", [0, 1])
def test_a_python_that_it_starts_is_warm_if_asked_for(python, children):
    said = python.run("-c", CHILD, children=children).stdout
    assert said == f"1 ['-c', 'a'] {bool(children)}\n no\n b\n\n"
