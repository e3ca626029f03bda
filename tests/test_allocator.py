import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from mlcv.allocator import keep_freed_memory
print(keep_freed_memory() if "keep" in sys.argv else None)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(10):
        torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
work()
before = faults()
work()
print(faults() - before)
"""


def measure(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    result = subprocess.run(
        [sys.executable, "-c", COUNT, *arguments],
        capture_output=True, text=True, check=True, env={**clean, **environment},
    )  # fmt: skip
    kept, faults = result.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_freed_tensor_is_not_mapped_again():
    kept, few = measure("keep")
    _, many = measure()
    assert kept == "True"
    assert many >= 10 * 32  # 64 MiB in pages of 2 MiB at most
    assert few < many / 10


def test_the_users_own_setting_of_the_allocator_stands():
    assert measure("keep", MALLOC_ARENA_MAX="2")[0] == "False"
