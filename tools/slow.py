#!/usr/bin/env python
"""Runs the tests that take minutes to hours, a file at a time, and notes in docs/slow-tests.md when each last passed.

tools/slow.py                           all of them, before a release
tools/slow.py tests/reliability         those of a folder or file
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree  # of a file that pytest has just written

from mlcv import __version__
from mlcv.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "slow-tests.md"
HEAD = """# Slow tests

`tools/slow.py` runs the tests that take minutes to hours, a file at a time, before a release; those that need data
which are not there are skipped. When each file last passed:

| tests | passed | skipped | minutes | cores | version | commit | date |
|---|---|---|---|---|---|---|---|
"""


def files(places):
    """Those that hold slow tests."""
    command = [sys.executable, "-m", "pytest", "-m", "slow", "--collect-only", "-q", "-p", "no:cacheprovider", *places]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    said = done.stdout
    if done.returncode not in (0, 5):  # all well, or nothing found
        sys.exit(f"error: the tests cannot be collected\n{said[-2000:]}")
    return sorted(set(re.findall(r"^(tests/\S+?\.py)(?=:)", said, re.MULTILINE)))


def run(file):
    """Numbers of tests that passed and were skipped; None if one failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "--run-slow", f"--junit-xml={report}", file]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            return None
        suite = next(ElementTree.parse(report).iter("testsuite")).attrib
        skipped = int(suite["skipped"])
        return int(suite["tests"]) - skipped, skipped


def rows():
    """Lines of the table by their file."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    return {match[1]: match[0] for match in re.finditer(r"^\| `(tests/\S+)` .*$", text, re.MULTILINE)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", default=["tests"], help="folders or files of tests (default: all)")
    options = parser.parse_args()
    found = files(options.places)
    if not found:
        sys.exit(f"error: no slow test under {' '.join(options.places)}")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    failed = []
    for file in found:
        began = time.monotonic()
        counts = run(file)
        if counts is None:
            failed.append(file)
            continue
        cells = [f"`{file}`", *counts, f"{(time.monotonic() - began) / 60:.1f}", os.cpu_count(), __version__, commit]
        today = datetime.datetime.now(datetime.timezone.utc).date()
        never = {name: f"| `{name}` | never | | | | | | |" for name in files(["tests"])}
        table = {**never, **rows(), file: "| " + " | ".join(map(str, [*cells, today])) + " |"}
        write_text(PAGE, HEAD + "".join(f"{table[name]}\n" for name in sorted(table)))
    if failed:
        sys.exit(f"failed, their lines are as they were: {' '.join(failed)}")


if __name__ == "__main__":
    main()
