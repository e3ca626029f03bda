"""Compiles each kernel as `launch` calls it, for GPUs that need not be there; prints what they need, as JSON lines.

A program of its own, since where TRITON_INTERPRET is set nothing can be compiled.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mlcv.ops.transport import kernels, launch

INTEGERS = {"N", "R", "C", "D", "B", "tiles", "images"}
SHARES = {"rho", "row_share", "label_share"}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
# Of an H200 and of the smallest data-centre GPU that is aimed at: bytes of shared memory that a program may have.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


def variants(dtype):
    """Constants as `launch` gives them for 3 labels and for many, of dimension 512."""
    numbers = {"NORMALIZE": True, "DTYPE": launch.TYPES[dtype]}
    for labels in (3, 80):
        yield "forward", kernels.forward_kernel, {**numbers, **launch.forward_blocks(dtype, labels)}
    yield "combine", kernels.combine_kernel, launch.combine_blocks(80)
    for emit in (True, False):
        yield "gradient", kernels.gradient_kernel, {**numbers, **launch.gradient_blocks(dtype, 512, emit)}
    yield "reduce", kernels.reduce_kernel, launch.REDUCE_BLOCKS


def compiled(name, kernel, constants, dtype, capability):
    constants = dict(constants)
    num_warps = constants.pop("num_warps")
    points = {"patches", "labels", "rows", "columns", "grad_rows"}
    signature, hints = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in INTEGERS or argument.startswith("stride"):
            signature[argument] = "i32"
        elif argument in SHARES:
            signature[argument] = "fp32"
        else:
            signature[argument] = "*" + (NAMES[dtype] if argument in points else "fp32")
        if signature[argument].startswith("*") or argument.startswith("stride") or argument == "D":
            hints[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, hints)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": num_warps})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(built.asm["cubin"])
        command = [Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump", "--dump-resource-usage", path]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "kernel": name, "dtype": NAMES[dtype], "emit": constants.get("EMIT"), "capability": capability,
        "registers": int(re.search(r"REG:(\d+)", said).group(1)),
        "spilled": int(re.search(r"STACK:(\d+)", said).group(1)),
        "shared": built.metadata.shared, "allowed": SHARED[capability],
    }  # fmt: skip


def main():
    capabilities = [int(text) for text in sys.argv[1:]]
    pairs = itertools.product(capabilities, NAMES)
    jobs = [(*variant, dtype, capability) for capability, dtype in pairs for variant in variants(dtype)]
    with ThreadPoolExecutor(2) as pool:
        for row in pool.map(lambda job: compiled(*job), jobs):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
