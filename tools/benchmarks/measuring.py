"""What the benchmarks share: peak memory of a call, and where it was measured."""

import multiprocessing
import platform
from pathlib import Path

import torch


def where(device):
    """The hardware and versions of a measurement, in words."""
    if device == "cuda":
        hardware = torch.cuda.get_device_name()
    else:
        models = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        hardware = f"{torch.get_num_threads()} threads of {models[0] if models else platform.processor()}"
    return f"{hardware}, Python {platform.python_version()}, torch {torch.__version__}"


def measure_peak(prepare, *arguments, device="cpu"):
    """The most memory in MiB that a call holds above what it started with; on the CPU in a process of its own.

    `prepare(*arguments)` returns the call; it is a module's function, as the process gets it by name.
    """
    if device == "cuda":
        call = prepare(*arguments)
        call()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_peak, args=(answer, prepare, arguments))
    process.start()
    mib = answer.get()
    process.join()
    return mib


def _peak(answer, prepare, arguments):
    call = prepare(*arguments)
    # Matrix products and threads want their workspace once.
    (torch.randn(512, 512, requires_grad=True) @ torch.randn(512, 512)).tanh().sum().backward()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _held("VmRSS")
    call()
    answer.put(_held("VmHWM") - before)


def _held(field):
    """Memory of this process in MiB, by the kernel's count."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 2**10
