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
from mlcv.ops.transport.custom_op import FEW_LABELS, few_labels

INTEGERS = {"N", "R", "C", "D", "width", "tiles", "span", "parts"}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
# Of an H200 and of the smallest data-centre GPU that is aimed at: bytes of shared memory that a program may have.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


def variants(dtype):
    """Constants as `launch` gives them for each block of labels, of dimension 512."""
    product, even = {"DTYPE": launch.TYPES[dtype], "TF32": launch.PRODUCTS[dtype]}, {"EVEN": True}
    spread = {**product, **even, "DTYPE": launch.TYPES[launch._stored(dtype)]}
    yield "length", kernels.length_kernel, {**even, **launch.LENGTH_BLOCKS}
    yield "gather", kernels.gather_kernel, {"NORMALIZE": True, **launch.gather_blocks(512)}
    sizes = [(3, {"theta": None}), (50, {}), (80, {}), (1000, {})]
    for labels, theta in sizes + [(80, {"theta": None})] * (dtype == torch.bfloat16):
        is_few = labels <= FEW_LABELS
        yield "dots", kernels.dots_kernel, {
            "FEW": is_few, "MEASURE": is_few, **theta, **product, **even, **launch.dots_blocks(dtype, labels),
        }  # fmt: skip
        if dtype == torch.float32:  # they know no other
            yield "statistics", kernels.statistics_kernel, {"FEW": is_few, **theta, **launch.statistics_blocks(labels)}
            yield "combine", kernels.combine_kernel, {**theta, **launch.combine_blocks(labels)}
        if launch._stored(dtype) == dtype:
            asked = {"FEW": is_few, "WITH_WEIGHTS": not theta, "WITH_TEMPERATURE": True}
            yield "gradient", kernels.gradient_kernel, {**asked, **theta, **launch.gradient_blocks(labels)}
        if labels <= few_labels(dtype):
            yield "patches", kernels.patches_kernel, {
                "NORMALIZE": True, **theta, **spread, **launch.patches_blocks(dtype, labels),
            }  # fmt: skip
            yield "labels", kernels.labels_kernel, {**theta, **spread, **launch.labels_blocks(dtype, labels, not theta)}


def compiled(name, kernel, constants, dtype, capability):
    constants = dict(constants)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
    points = {"patches", "labels", "points", "grad_patches", "grad_labels"}
    signature, hints = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in INTEGERS or argument.startswith("stride"):
            signature[argument] = "i32"
        elif argument == "rho":
            signature[argument] = "fp32"
        else:
            is_stored = argument == "grad_dots" and dtype == torch.bfloat16
            signature[argument] = "*" + (NAMES[dtype] if argument in points or is_stored else "fp32")
        if signature[argument].startswith("*") or argument.startswith("stride") or argument in ("D", "width"):
            hints[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, hints)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(built.asm["cubin"])
        command = [Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump", "--dump-resource-usage", path]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "kernel": name, "dtype": NAMES[dtype], "labels": constants.get("BLOCK_C"), "few": constants.get("FEW"),
        "weighs_patches": "theta" not in constants, "capability": capability,
        "registers": int(re.search(r"REG:(\d+)", said).group(1)),
        "spilled": int(re.search(r"STACK:(\d+)", said).group(1)),
        "wgmma": "ttng.warp_group_dot" in built.asm["ttgir"],
        "shared": built.metadata.shared, "allowed": SHARED[capability],
        "endangered": endangered(built.asm["ttgir"]),
    }  # fmt: skip


def endangered(ttgir):
    """Blocks of shared memory that an asynchronous product reads and that are loaded into registers, too.

    Triton (3.6 to 3.8) gives their loads one buffer too few, so a later load overwrites what a product still reads.
    """
    turned = dict(re.findall(r"(%\S+) = ttg\.memdesc_trans (%\S+)", ttgir))
    products = re.findall(r"ttng\.warp_group_dot (%[^,\s]+), (%[^,\s]+),[^\n]*isAsync = true", ttgir)
    read = {turned.get(block, block) for pair in products for block in pair}
    return sorted(read & {turned.get(block, block) for block in re.findall(r"ttg\.local_load (%\S+)", ttgir)})


def main():
    capabilities = [int(text) for text in sys.argv[1:]]
    pairs = itertools.product(capabilities, NAMES)
    jobs = [(*variant, dtype, capability) for capability, dtype in pairs for variant in variants(dtype)]
    different = {str(job): job for job in jobs}.values()  # several numbers of labels may have the same blocks
    with ThreadPoolExecutor(2) as pool:
        for row in pool.map(lambda job: compiled(*job), different):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
