#!/usr/bin/env python
"""Semantic decoupling, forward and backward: `mlcv` against the computation as SSGRL and PU-MLC publish it.

Time is the median over runs in turn, in one process. Memory is the most that each holds above what it started with,
each in a process of its own (CPU), or by the allocator's count (CUDA). The results are compared first.
"""

import argparse
import statistics
import time

import torch
from measuring import measure_peak, where
from torch import nn
from torch.nn.functional import linear

from mlcv.models import SemanticDecoupling


class LiteralSemanticDecoupling(nn.Module):
    """The published computation, tensor by tensor; takes the weights of a `SemanticDecoupling`."""

    def __init__(self, weights: SemanticDecoupling) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = weights.fc1, weights.fc2, weights.fc3, weights.fc4
        # The published layers have biases; whatever they are, the result is the same.
        self.bias3 = nn.Parameter(torch.randn(self.fc3.out_features, dtype=self.fc3.weight.dtype))
        self.bias4 = nn.Parameter(torch.randn(1, dtype=self.fc3.weight.dtype))

    def forward(self, patches, label_embeddings):
        batch, places, width = patches.shape
        classes, hidden = len(label_embeddings), self.fc1.out_features
        image = self.fc1(patches).view(batch * places, 1, hidden).repeat(1, classes, 1)
        label = self.fc2(label_embeddings).view(1, classes, hidden).repeat(batch * places, 1, 1)
        joint = torch.tanh(image * label).view(-1, hidden)
        joint = linear(joint, self.fc3.weight, self.bias3)
        scores = linear(joint, self.fc4.weight, self.bias4).view(batch, places, classes)
        attention = scores.softmax(dim=1)[..., None].repeat(1, 1, 1, width)
        return (patches.view(batch, places, 1, width).repeat(1, 1, classes, 1) * attention).sum(dim=1)


def inputs(options):
    torch.manual_seed(0)
    ours = SemanticDecoupling(options.features, 300, options.hidden).to(options.device)
    modules = {"literal": LiteralSemanticDecoupling(ours).to(options.device), "mlcv": ours}
    patches = torch.randn(options.batch, options.side**2, options.features, device=options.device)
    return modules, patches.requires_grad_(), torch.randn(options.classes, 300, device=options.device)


def step(module, patches, embeddings):
    """Forward and backward of the squared output; returns the output and the patches' gradient."""
    module.zero_grad()
    patches.grad = None
    output = module(patches, embeddings)
    output.square().sum().backward()
    if patches.is_cuda:
        torch.cuda.synchronize()
    return output.detach(), patches.grad


def prepared(name, options):
    modules, patches, embeddings = inputs(options)
    return lambda: step(modules[name], patches, embeddings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=14, help="patches are a square of this side")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    modules, patches, embeddings = inputs(options)
    (literal, literal_grad), (ours, our_grad) = (step(module, patches, embeddings) for module in modules.values())
    torch.testing.assert_close(ours, literal, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_grad, literal_grad, atol=1e-5, rtol=1e-4)
    seconds = {name: [] for name in modules}
    for _ in range(options.runs):
        for name, module in modules.items():
            start = time.perf_counter()
            step(module, patches, embeddings)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peaks = {name: measure_peak(prepared, name, options, device=options.device) for name in modules}
    print(
        f"B {options.batch}, {options.side}x{options.side} patches, {options.classes} classes, {options.features} "
        f"features, {options.hidden} hidden, float32, forward and backward, {where(options.device)}"
    )
    print(f"greatest difference of the results: {float((ours - literal).abs().max()):.1e}")
    for name in modules:
        print(f"{name:8} {1000 * medians[name]:9.1f} ms {peaks[name]:9.1f} MiB")
    pairs = [a / b for a, b in zip(seconds["literal"], seconds["mlcv"], strict=True)]
    print(
        f"ratio    {statistics.median(pairs):9.1f} ({min(pairs):.1f} to {max(pairs):.1f}) "
        f"{peaks['literal'] / max(peaks['mlcv'], 1e-9):9.1f}"
    )


if __name__ == "__main__":
    main()
