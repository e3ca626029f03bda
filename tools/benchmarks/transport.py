#!/usr/bin/env python
"""Conditional transport: each implementation against the reference over all labels, forward and with its gradients.

Implementations are compared in float64 first, at two images; who is off takes no part. Time is the median of runs in
turn, on a GPU also replayed from a CUDA graph, where the host's launches cost nothing. Memory is the most that a call
holds above its inputs, on a CPU in a process of its own. The floor is what no implementation can be below: bytes that
must move (patches once forward, once backward, and their gradient) or multiplications, whichever takes longer at the
rates that a copy and a matrix product reach here.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from measuring import measure_peak, where
from torch.nn.functional import normalize

from mlcv.ops import conditional_transport
from mlcv.ops.transport.reference import transport_cost

TEMPERATURE = 0.1
SIZES = {
    "coco-196": (64, 196, 80, 512),
    "coco-784": (64, 784, 80, 512),
    "coco-784-wide": (64, 784, 80, 768),
    "coco-1024": (64, 1024, 80, 512),
    "chexpert-784": (64, 784, 14, 512),
    "openimages": (64, 784, 9605, 512),
}
# Images have 3 labels on average, and no more than 16.
POSITIVES, MOST = 3, 16


@dataclass(frozen=True)
class Case:
    """What is measured: sizes (B, N, C, D), dtype, kind of label weights, whether gradients are taken."""

    size: tuple[int, int, int, int]
    dtype: str
    weights: str
    mode: str
    device: str


def inputs(case):
    torch.manual_seed(0)
    batch, patches, labels, dim = case.size
    dtype = getattr(torch, case.dtype)
    x = torch.randn(batch, patches, dim, device=case.device).to(dtype)
    y = torch.randn(labels, dim, device=case.device).to(dtype)
    beta = torch.rand(batch, labels, device=case.device) + 0.5
    if case.weights == "positive":
        counts = torch.poisson(torch.full((batch, 1), POSITIVES - 1.0)).clamp(max=MOST - 1) + 1
        rank = torch.rand(batch, labels).argsort(dim=1).argsort(dim=1)
        beta = (rank < counts.clamp(max=labels)).float().to(case.device)
    return x.requires_grad_(case.mode != "forward"), y.requires_grad_(case.mode != "forward"), beta


def reference(x, y, beta):
    """The formula over all labels, whether they have weight or not."""
    x, y = normalize(x.float(), dim=-1), normalize(y.float(), dim=-1)
    theta = x.new_full(x.shape[:2], 1 / x.shape[1])
    return transport_cost(x, y, theta, beta / beta.sum(dim=1, keepdim=True), TEMPERATURE, 0.5).sum()


def keops(x, y, beta):
    """The same by KeOps, which compiles reductions over pairs that are never stored."""
    from pykeops.torch import LazyTensor

    x, y = normalize(x.float(), dim=-1), normalize(y.float(), dim=-1)
    beta = beta / beta.sum(dim=1, keepdim=True)
    similarity = (LazyTensor(x[:, :, None, :].contiguous()) * LazyTensor(y[None, None].contiguous())).sum(-1)
    score = similarity / TEMPERATURE
    log_beta = LazyTensor(beta.log().clamp(min=-1e30)[:, None, :, None].contiguous())
    there = (score + log_beta).sumsoftmaxweight(1 - similarity, dim=2).mean(dim=(1, 2))
    back = score.sumsoftmaxweight(1 - similarity, dim=1)[..., 0]
    return 0.5 * (there + (beta * back).sum(dim=1)).sum()


def provider(name, case):
    """A function of (x, y, beta)."""
    if name == "compiled":
        return torch.compile(reference)
    if name in ("reference", "keops"):
        return {"reference": reference, "keops": keops}[name]
    bound = MOST if case.weights == "positive" and case.device == "cuda" else None
    options = {"temperature": TEMPERATURE, "reduction": "sum", "implementation": name, "max_labels": bound}
    return lambda x, y, beta: conditional_transport(x, y, label_weights=beta, **options)


def prepared(name, case):
    """One call, on inputs of its own; what a first call loads is loaded."""
    function, tensors = provider(name, case), inputs(case)
    if name in ("blocked", "triton"):
        x, y, beta = inputs(Case((1, 4, 4, 8), case.dtype, "dense", "full", case.device))
        torch.autograd.grad(function(x, y, beta), (x, y))

    def call():
        cost = function(*tensors)
        return torch.autograd.grad(cost, tensors[:2]) if case.mode != "forward" else (cost.detach(),)

    return call


def off(name, case):
    """The greatest relative error (RMS) of results at two images."""
    small = Case((min(2, case.size[0]), *case.size[1:]), case.dtype, case.weights, case.mode, case.device)
    x, y, beta = inputs(small)
    exact = [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in (x, y)]
    cost = conditional_transport(
        *exact, label_weights=beta.double(), temperature=TEMPERATURE, reduction="sum", implementation="reference"
    )
    true = torch.autograd.grad(cost, exact) if case.mode != "forward" else (cost,)
    return max(
        float((got.double() - want).square().mean().sqrt() / want.square().mean().sqrt())
        for got, want in zip(prepared(name, small)(), true, strict=True)
    )


def milliseconds(calls, device, runs):
    """Medians of calls in turn; `replays` in their place are CUDA graphs."""
    times = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if run:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def captured(call, repeats=20):
    """A call replayed `repeats` times from one CUDA graph, so that the host does not count."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return graph.replay


def rates(dtype, device):
    """Bytes and multiplications a second that a copy and a matrix product reach."""
    size = 2**26 if device == "cuda" else 2**23
    a, b = torch.randn(size, device=device), torch.empty(size, device=device)
    side = 8192 if device == "cuda" else 1024
    c = torch.randn(side, side, device=device, dtype=dtype)
    calls = {"copy": lambda: b.copy_(a), "product": lambda: c @ c}
    best = {name: min(values) / 1000 for name, values in milliseconds(calls, device, 20).items()}
    return 8 * size / best["copy"], side**3 / best["product"]


def floor(case, bytes_rate, product_rate):
    """Milliseconds that moving the bytes or multiplying takes at least."""
    _, patches, _, dim = case.size
    x, y, beta = inputs(case)
    passes = 1 if case.mode == "forward" else 3  # the patches, again, and their gradient
    moved = passes * (x.numel() * x.element_size() + min(y.numel(), int((beta > 0).sum()) * dim) * y.element_size())
    pairs = patches * int((beta > 0).sum())
    products = pairs * dim * (1 if case.mode == "forward" else 4)  # scores, again, and two gradients
    return 1000 * max(moved / bytes_rate, products / product_rate)


def measure(case, names, runs, limit):
    """Rows of one case."""
    bytes_rate, product_rate = rates(getattr(torch, case.dtype), case.device)
    calls, errors = {}, {}
    for name in names:
        errors[name] = off(name, case)
        if errors[name] > limit:
            sys.stderr.write(f"{name} is off by {errors[name]:.1e} (limit {limit:.0e}): not measured\n")
        else:
            calls[name] = prepared(name, case)
    eager = milliseconds(calls, case.device, runs)
    graph = {}
    if case.device == "cuda":
        replays = {name: captured(call) for name, call in calls.items() if name != "keops"}
        graph = {name: [t / 20 for t in values] for name, values in milliseconds(replays, "cuda", runs).items()}
    calls.clear()
    rows = []
    for name, values in eager.items():
        low, high = statistics.quantiles(values, n=5)[0], statistics.quantiles(values, n=5)[-1]
        row = {**asdict(case), "implementation": name, "error": errors[name], "eager_ms": statistics.median(values)}
        row.update(eager_p20_ms=low, eager_p80_ms=high, floor_ms=floor(case, bytes_rate, product_rate))
        if graph.get(name):
            row["graph_ms"] = statistics.median(graph[name])
        row["peak_mib"] = measure_peak(prepared, name, case, device=case.device)
        rows.append(row)
    return rows


def show(rows, baseline):
    base = next((row for row in rows if row["implementation"] == baseline), rows[0])
    for row in rows:
        key = "graph_ms" if "graph_ms" in row and "graph_ms" in base else "eager_ms"
        cells = [
            "x".join(map(str, row["size"])), row["dtype"], row["weights"], row["mode"], row["implementation"],
            f"{row['graph_ms']:.3f}" if "graph_ms" in row else "", f"{row['eager_ms']:.3f}", f"{row['floor_ms']:.3f}",
            f"{base[key] / row[key]:.1f}", f"{row['peak_mib']:.1f}",
            f"{base['peak_mib'] / max(row['peak_mib'], 0.1):.1f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=sorted(SIZES))
    parser.add_argument("--batch", type=int, help="images, in place of 64")
    parser.add_argument("--patches", type=int, help="patches of an image, in place of the size's")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"] if device == "cuda" else ["float32"])
    parser.add_argument("--weights", nargs="+", choices=["positive", "dense"], default=["positive", "dense"])
    parser.add_argument("--modes", nargs="+", choices=["forward", "full"], default=["forward", "full"])
    known = ["reference", "compiled", "blocked", "triton", "keops"]
    default = ["reference", "compiled", "triton"] if device == "cuda" else ["reference", "blocked"]
    parser.add_argument("--implementations", nargs="+", choices=known, default=default)
    parser.add_argument("--baseline", choices=known, help="of the ratios (default: compiled, else reference)")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    baseline = options.baseline or ("compiled" if "compiled" in options.implementations else "reference")
    print(f"Measured on {where(options.device)}; ratios to {baseline}.\n")
    heads = [
        "B x N x C x D",
        "dtype",
        "weights",
        "mode",
        "implementation",
        "graph ms",
        "eager ms",
        "floor ms",
        "faster",
    ]
    heads += ["peak MiB", "less memory"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    rows = []
    for name in options.sizes:
        batch, patches, labels, dim = SIZES[name]
        size = (options.batch or batch, options.patches or patches, labels, dim)
        for dtype in options.dtypes:
            for weights in options.weights:
                for mode in options.modes:
                    case = Case(size, dtype, weights, mode, options.device)
                    found = measure(case, options.implementations, options.runs, 1e-4 if dtype == "float32" else 1e-2)
                    show(found, baseline)
                    rows += found
                    if options.json:
                        report = {"where": where(options.device), "rows": rows}
                        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
