"""The C library's allocator, set for training on a CPU."""

import ctypes
import os
import platform

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets the process reuse the memory of freed tensors instead of handing it back to the system.

    By default glibc returns each block over 32 MiB at once, so that every large activation of every step is mapped and
    zeroed anew; `tools/benchmarks/overhead.py --default_allocator` shows the cost. The peak stays what the largest step
    needs. Does nothing off glibc, or where the environment sets the allocator (MALLOC_*, GLIBC_TUNABLES).

    Returns:
        whether it is in force.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, _LARGEST) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
