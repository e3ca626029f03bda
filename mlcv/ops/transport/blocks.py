"""What the Triton kernels do with blocks of numbers."""

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

# The interpreter (of Triton 3.9) multiplies the bit patterns of bfloat16 matrices, and truncates where a GPU rounds.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _cast(a, DTYPE: tl.constexpr):
    """A float32 block in another type, rounded to nearest."""
    if INTERPRETED and DTYPE == tl.bfloat16:
        bits = a.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        a = bits.to(tl.float32, bitcast=True)
    return a.to(DTYPE)


@triton.jit
def _dot(a, b, sums, TF32: tl.constexpr):
    """Sums + a b for matrices of one dtype, with float32 sums."""
    if INTERPRETED:
        product = sums + tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        product = tl.dot(a, b, sums, input_precision=TF32)
    return product


@triton.jit
def _inverse_length(squares):
    """0 for a vector of zeros, or so short that its square is lost; NaN for one so long that it is infinite."""
    return tl.where(squares > 1e-37, tl.rsqrt(tl.where(squares > 1e-37, squares, 1.0)), 0.0) + 0.0 * squares


@triton.jit
def _given(weights, place, ok):
    """Weights, 1 if there are none, and 0 for what is negative; NaN stays NaN."""
    if weights is None:
        weight = tl.where(ok, 1.0, 0.0)
    else:
        weight = tl.load(weights + place, mask=ok, other=0.0)
        weight = tl.where(weight <= 0, 0.0, weight)
    return weight


@triton.jit
def _weight(weights, place, ok):
    """The same, 0 for NaN and infinity, which spoil their image's cost elsewhere, and take part in nothing."""
    weight = _given(weights, place, ok)
    return tl.where((weight > 0) & (weight < float("inf")), weight, 0.0)


@triton.jit
def _log2(weight):
    """-inf for 0."""
    return tl.log2(weight) if INTERPRETED else libdevice.fast_log2f(weight)


@triton.jit
def _finite(top):
    """A maximum over nothing, as a shift that changes nothing."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def _load(rows, ok, d, D, EVEN: tl.constexpr):
    """Columns d of rows, zeros for those that are not ok."""
    there = ok[:, None] if EVEN else ok[:, None] & (d < D)[None, :]
    return tl.load(rows[:, None] + d[None, :], mask=there, other=0.0)
