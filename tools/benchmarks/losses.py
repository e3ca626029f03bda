#!/usr/bin/env python
"""Forward and backward of the element-wise losses: autograd of the formula, compiled, and `mlcv`.

On a CPU, first cross-entropy in a process that has imported torch alone, where log1p may be slow (see
`mlcv.numerics`). Then all in one process, in turn, processor time or the GPU's, the least of several runs; `kept` is
what a loss holds for the backward pass.
"""

import argparse
import subprocess
import sys
import time

import torch
from measuring import where
from torch.nn.functional import binary_cross_entropy_with_logits

FRESH = """
import time, torch
from torch.nn.functional import binary_cross_entropy_with_logits
torch.set_num_threads(1)
logits, targets = torch.randn({b}, {c}, requires_grad=True), torch.zeros({b}, {c})
times = []
for _ in range({runs}):
    start = time.process_time()
    torch.autograd.grad(binary_cross_entropy_with_logits(logits, targets, reduction="sum"), logits)
    times.append(time.process_time() - start)
print(min(times))
"""


def kept(call, logits, targets):
    """MiB that are held between the passes, besides the arguments."""
    held = {}

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call(logits, targets)
    own = {at: size for at, size in held.items() if at not in (logits.data_ptr(), targets.data_ptr())}
    return sum(own.values()) / 2**20


def least(calls, logits, targets, runs):
    times = {name: [] for name in calls}
    for _ in range(runs + 2):
        for name, call in calls.items():
            times[name].append(
                milliseconds(lambda call=call: torch.autograd.grad(call(logits, targets), logits), logits)
            )
    return {name: min(values[2:]) for name, values in times.items()}


def milliseconds(step, logits):
    if not logits.is_cuda:
        start = time.process_time()
        step()
        return 1e3 * (time.process_time() - start)
    # Ten steps asked for at once, so that the host's time for asking shows only where it is what limits.
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    before.record()
    for _ in range(10):
        step()
    after.record()
    torch.cuda.synchronize()
    return before.elapsed_time(after) / 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--classes", type=int, default=9605, help="OpenImages has 9,605")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    if options.device == "cpu":
        script = FRESH.format(b=options.batch, c=options.classes, runs=options.runs)
        fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    torch.set_num_threads(1)

    from mlcv import losses  # after the process above, since it is what makes the difference
    from mlcv.allocator import keep_freed_memory
    from mlcv.losses.base import ElementwiseLoss

    keep_freed_memory()
    torch.manual_seed(0)
    logits = torch.randn(options.batch, options.classes, device=options.device).mul_(2).sub_(3).requires_grad_()
    targets = (torch.rand(options.batch, options.classes, device=options.device) < 0.01).float()
    print(f"{options.batch} x {options.classes}, 1 % positive, float32, ms; {where(options.device)}")
    if options.device == "cpu":
        print(f"binary_cross_entropy_with_logits in a fresh process: {1e3 * float(fresh.stdout):.1f}")
    print(f"{'':16}{'autograd':>10}{'compiled':>10}{'mlcv':>8}{'/ compiled':>12}{'kept MiB, autograd':>20}{'mlcv':>8}")
    for name in ("BCELoss", "AsymmetricLoss", "FocalLoss", "HillLoss", "SPLCLoss", "PartialBCELoss"):
        loss = getattr(losses, name)()
        formula = (
            (lambda z, t: binary_cross_entropy_with_logits(z, t, reduction="sum"))
            if name == "BCELoss"
            else lambda z, t, loss=loss: ElementwiseLoss._total(loss, z, t)
        )
        calls = {"autograd": formula, "compiled": torch.compile(loss), "mlcv": loss}
        times = least(calls, logits, targets, options.runs)
        sizes = [kept(calls[way], logits, targets) for way in ("autograd", "mlcv")]
        print(
            f"{name:16}{times['autograd']:10.3g}{times['compiled']:10.3g}{times['mlcv']:8.3g}"
            f"{times['mlcv'] / times['compiled']:12.2f}{sizes[0]:20.1f}{sizes[1]:8.1f}"
        )
    print("(autograd of BCELoss: PyTorch's own function, which knows no unknown labels)")


if __name__ == "__main__":
    main()
