"""Triton kernels of conditional transport; `launch` says how they are called, `interface` what they compute.

Patches (B, N, D) and labels (C, D) or (B, C, D) have stride 1 in D; all else is contiguous, and float32 but for the
gradient of the dot products. A point of weight 0 takes part in nothing. `DTYPE` is that of a product's operands, `TF32`
how float32 operands are multiplied.

A patch is read three times: forward, for the gradient of its dot products with the labels, and for the two products
that spread this gradient over patches and labels. With the dot products' gradient e, inverse lengths r and q of patches
and labels, and s = r q (x . y):

    e_nm = (d cost / d s_nm) r_n q_m
    d cost / d x_n = sum_m e_nm y_m - r_n^2 (sum_m s_nm d cost / d s_nm) x_n, and likewise for labels.

In a loop, no loaded block is both an operand of a product and of anything else: Triton (3.6 to 3.8) gives such a block
one buffer too few, and on Hopper the next load overwrites what an unfinished product still reads. (Float32 may: it is
split in registers before it is multiplied.) `tests/ops/transport/compile_offline.py` looks for such blocks.
"""

import os

import triton
import triton.language as tl

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
def _log(weight):
    return tl.where(weight > 0, tl.log(tl.where(weight > 0, weight, 1.0)), float("-inf"))


@triton.jit
def _finite(top):
    """A maximum over nothing, as a shift that changes nothing."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def _dots(
    x_rows, x_ok, x_scale, y_rows, y_ok, D,
    MEASURE: tl.constexpr, DTYPE: tl.constexpr, TF32: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Dot products of a block of patches and one of labels; with MEASURE the patches' inverse lengths are found, too.

    Their squares are the diagonal of a product, or of float32 are summed over lanes after the loop.
    """
    dot = tl.zeros((x_rows.shape[0], y_rows.shape[0]), tl.float32)
    own = tl.zeros((x_rows.shape[0], BLOCK_D if DTYPE == tl.float32 else x_rows.shape[0]), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x = tl.load(x_rows[:, None] + d[None, :], mask=x_ok[:, None] & (d < D)[None, :], other=0.0).to(DTYPE)
        y = tl.load(y_rows[:, None] + d[None, :], mask=y_ok[:, None] & (d < D)[None, :], other=0.0).to(DTYPE)
        dot = _dot(x, tl.trans(y), dot, TF32)
        if MEASURE:
            own = own + x * x if DTYPE == tl.float32 else _dot(x, tl.trans(x), own, TF32)
    if MEASURE:
        if DTYPE != tl.float32:
            r = tl.arange(0, x_rows.shape[0])
            own = tl.where(r[:, None] == r[None, :], own, 0.0)
        x_scale = _inverse_length(tl.sum(own, axis=1))
    return dot, x_scale


@triton.jit
def length_kernel(points, scale, R, D, stride_b, stride_r, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Inverse lengths (B, R) of points. Grid (blocks of R, B)."""
    b = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    rows = points + b * stride_b + r.to(tl.int64) * stride_r
    squares = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x = tl.load(rows[:, None] + d[None, :], mask=(r < R)[:, None] & (d < D)[None, :], other=0.0).to(tl.float32)
        squares += x * x
    tl.store(scale + b * R + r, _inverse_length(tl.sum(squares, axis=1)), mask=r < R)


@triton.jit
def forward_kernel(
    patches, labels, patch_scale, label_scale, theta, beta, temperature,
    patch_lse, patch_cost, part_top, part_total, part_mass,
    N, C, D, stride_pb, stride_pn, stride_lb, stride_lc, stride_sb,
    MEASURE: tl.constexpr, DTYPE: tl.constexpr, TF32: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Statistics of a tile of patches, and the tile's part in those of the labels (B, tiles, C). Grid (tiles, B)."""
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    weight_n = tl.load(theta + b * N + n, mask=n < N, other=0.0)
    log_n = _log(weight_n)
    rows = patches + b * stride_pb + n.to(tl.int64) * stride_pn
    scale_n = tl.load(patch_scale + b * N + n, mask=(weight_n > 0) & (not MEASURE), other=0.0)
    scale = 1.0 / tl.load(temperature)
    top = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    mass = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, C, BLOCK_C):
        m = start + tl.arange(0, BLOCK_C)
        weight_m = tl.load(beta + b * C + m, mask=m < C, other=0.0)
        if tl.max(weight_m, axis=0) > 0:
            columns = labels + b * stride_lb + m.to(tl.int64) * stride_lc
            scale_m = tl.load(label_scale + b * stride_sb + m, mask=weight_m > 0, other=0.0)
            dots, scale_n = _dots(rows, weight_n > 0, scale_n, columns, weight_m > 0, D, MEASURE, DTYPE, TF32, BLOCK_D)
            similarity = dots * scale_n[:, None] * scale_m[None, :]
            there = similarity * scale + _log(weight_m)[None, :]
            new_top = tl.maximum(top, tl.max(there, axis=1))
            share = tl.exp(there - new_top[:, None])
            decay = tl.exp(top - new_top)
            total = total * decay + tl.sum(share, axis=1)
            mass = mass * decay + tl.sum(share * similarity, axis=1)
            top = new_top
            back = similarity * scale + log_n[:, None]
            column_top = tl.max(back, axis=0)
            share = tl.exp(back - _finite(column_top)[None, :])
            place = (b * tl.num_programs(0) + tile) * C + m
            tl.store(part_top + place, column_top, mask=weight_m > 0)
            tl.store(part_total + place, tl.sum(share, axis=0), mask=weight_m > 0)
            tl.store(part_mass + place, tl.sum(share * similarity, axis=0), mask=weight_m > 0)
    is_labeled = total != 0  # NaN stays NaN
    safe = tl.where(is_labeled, total, 1.0)
    if MEASURE:
        tl.store(patch_scale + b * N + n, scale_n, mask=n < N)
    tl.store(patch_lse + b * N + n, tl.where(is_labeled, top + tl.log(safe), 0.0), mask=n < N)
    tl.store(patch_cost + b * N + n, tl.where(is_labeled, 1.0 - mass / safe, 0.0), mask=n < N)


@triton.jit
def combine_kernel(
    theta, beta, patch_cost, part_top, part_total, part_mass, label_lse, label_cost, part_cost, N, C, tiles, rho,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Statistics of a block of labels from the tiles', and its part in the image's cost. Grid (blocks of C, B)."""
    block = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    m = block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight_m = tl.load(beta + b * C + m, mask=m < C, other=0.0)
    top = tl.full((BLOCK_C,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_C,), tl.float32)
    mass = tl.zeros((BLOCK_C,), tl.float32)
    if tl.max(weight_m, axis=0) > 0:
        for start in range(0, tiles, BLOCK_T):
            tile = start + tl.arange(0, BLOCK_T)
            place = (b * tiles + tile)[:, None] * C + m[None, :]
            there = (tile < tiles)[:, None] & (weight_m > 0)[None, :]
            tile_top = tl.load(part_top + place, mask=there, other=float("-inf"))
            new_top = tl.maximum(top, tl.max(tile_top, axis=0))
            decay = tl.exp(top - _finite(new_top))
            share = tl.exp(tile_top - _finite(new_top)[None, :])
            tile_total = tl.load(part_total + place, mask=there, other=0.0)
            tile_mass = tl.load(part_mass + place, mask=there, other=0.0)
            total = total * decay + tl.sum(share * tile_total, axis=0)
            mass = mass * decay + tl.sum(share * tile_mass, axis=0)
            top = new_top
    is_covered = total != 0
    safe = tl.where(is_covered, total, 1.0)
    costs = tl.where(is_covered, 1.0 - mass / safe, 0.0)
    tl.store(label_lse + b * C + m, tl.where(is_covered, top + tl.log(safe), 0.0), mask=m < C)
    tl.store(label_cost + b * C + m, costs, mask=m < C)
    cost = (1.0 - rho) * tl.sum(weight_m * costs, axis=0)
    if block == 0:
        there = tl.zeros((BLOCK_N,), tl.float32)
        for start in range(0, N, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            weight_n = tl.load(theta + b * N + n, mask=n < N, other=0.0)
            there += weight_n * tl.load(patch_cost + b * N + n, mask=n < N, other=0.0)
        cost += rho * tl.sum(there, axis=0)
    tl.store(part_cost + b * tl.num_programs(0) + block, cost)


@triton.jit
def dots_kernel(
    patches, labels, theta, beta, patch_lse, patch_cost, label_lse, label_cost, patch_scale, label_scale,
    grad_cost, temperature,
    grad_dots, part_theta, part_patch_pull, part_beta, part_label_pull, part_temperature,
    N, C, D, width, stride_pb, stride_pn, stride_lb, stride_lc, stride_sb, rho,
    DTYPE: tl.constexpr, TF32: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient (B, N, width) of the dot products of a tile of patches and a block of labels, and its sums over both.

    What belongs to patches is (B, blocks, N), what to labels (B, tiles, C). Grid (tiles, blocks of C, B).
    """
    tile = tl.program_id(0)
    block = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    m = block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight_n = tl.load(theta + b * N + n, mask=n < N, other=0.0)
    weight_m = tl.load(beta + b * C + m, mask=m < C, other=0.0)
    cost_n = tl.load(patch_cost + b * N + n, mask=n < N, other=0.0)
    cost_m = tl.load(label_cost + b * C + m, mask=m < C, other=0.0)
    upstream = tl.load(grad_cost + b)
    e = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    drift_n = tl.zeros((BLOCK_N,), tl.float32)
    pull_n = tl.zeros((BLOCK_N,), tl.float32)
    drift_m = tl.zeros((BLOCK_C,), tl.float32)
    pull_m = tl.zeros((BLOCK_C,), tl.float32)
    of_temperature = 0.0
    if (tl.max(weight_m, axis=0) > 0) & (tl.max(weight_n, axis=0) > 0):
        rows = patches + b * stride_pb + n.to(tl.int64) * stride_pn
        columns = labels + b * stride_lb + m.to(tl.int64) * stride_lc
        lse_n = tl.load(patch_lse + b * N + n, mask=weight_n > 0, other=0.0)
        lse_m = tl.load(label_lse + b * C + m, mask=weight_m > 0, other=0.0)
        scale_n = tl.load(patch_scale + b * N + n, mask=weight_n > 0, other=0.0)
        scale_m = tl.load(label_scale + b * stride_sb + m, mask=weight_m > 0, other=0.0)
        scale = 1.0 / tl.load(temperature)
        dots, _ = _dots(rows, weight_n > 0, scale_n, columns, weight_m > 0, D, False, DTYPE, TF32, BLOCK_D)
        s = dots * scale_n[:, None] * scale_m[None, :]
        there = tl.exp(s * scale + _log(weight_m)[None, :] - lse_n[:, None]) * (rho * weight_n)[:, None]
        back = tl.exp(s * scale + _log(weight_n)[:, None] - lse_m[None, :]) * ((1.0 - rho) * weight_m)[None, :]
        e = -there - back
        off_n = 1.0 - s - cost_n[:, None]
        off_m = 1.0 - s - cost_m[None, :]
        there = there * off_n
        back = back * off_m
        drift_n = tl.sum(back, axis=1)
        drift_m = tl.sum(there, axis=0)
        of_temperature = tl.sum(tl.sum(there * off_n + back * off_m, axis=1), axis=0) * scale * scale
        e = upstream * (e + (there + back) * scale) * scale_n[:, None] * scale_m[None, :]
        # Of what is stored, so that rounding it turns no point out of its own direction.
        e = _cast(e, grad_dots.dtype.element_ty).to(tl.float32)
        pull_n = tl.sum(e * dots, axis=1) * scale_n * scale_n
        pull_m = tl.sum(e * dots, axis=0) * scale_m * scale_m
    of_n = (b * tl.num_programs(1) + block) * N + n
    own = tl.where(block == 0, rho, 0.0) * cost_n
    of_theta = tl.where(weight_n > 0, upstream * (own + drift_n / tl.where(weight_n > 0, weight_n, 1.0)), 0.0)
    tl.store(part_theta + of_n, of_theta, mask=n < N)
    tl.store(part_patch_pull + of_n, pull_n, mask=n < N)
    of_m = (b * tl.num_programs(0) + tile) * C + m
    own = tl.where(tile == 0, 1.0 - rho, 0.0) * cost_m
    of_beta = tl.where(weight_m > 0, upstream * (own + drift_m / tl.where(weight_m > 0, weight_m, 1.0)), 0.0)
    tl.store(part_beta + of_m, of_beta, mask=m < C)
    tl.store(part_label_pull + of_m, pull_m, mask=m < C)
    place = (b * tl.num_programs(1) + block) * tl.num_programs(0) + tile
    tl.store(part_temperature + place, upstream * of_temperature)
    place = (b * N + n)[:, None] * width + m[None, :]
    tl.store(grad_dots + place, _cast(e, grad_dots.dtype.element_ty), mask=(n < N)[:, None] & (m < width)[None, :])


@triton.jit
def points_kernel(
    grad_dots, patches, labels, theta, beta, patch_pull, part_beta, part_label_pull,
    grad_patches, part_labels, grad_beta,
    N, C, D, width, tiles, span, stride_pb, stride_pn, stride_lb, stride_lc,
    WITH_LABELS: tl.constexpr, NORMALIZE: tl.constexpr, DTYPE: tl.constexpr, TF32: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """BLOCK_G of the D entries of the gradients of `span` patches of an image, and their part in those of its labels.

    All labels are in one block; DTYPE is that of `grad_dots`. Grid (blocks of D, parts of N, B).
    """
    g = tl.program_id(0) * BLOCK_G + tl.arange(0, BLOCK_G)
    part = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    m = tl.arange(0, BLOCK_C)
    weight_m = tl.load(beta + b * C + m, mask=m < C, other=0.0)
    columns = labels + b * stride_lb + m.to(tl.int64) * stride_lc
    y = tl.load(columns[:, None] + g[None, :], mask=(weight_m > 0)[:, None] & (g < D)[None, :], other=0.0).to(DTYPE)
    of_labels = tl.zeros((BLOCK_G, BLOCK_C), tl.float32)  # transposed: a product's rows are 64 or more
    for start in range(part * span, tl.minimum(part * span + span, N), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        weight_n = tl.load(theta + b * N + n, mask=n < N, other=0.0)
        place = (b * N + n)[:, None] * width + m[None, :]
        e = tl.load(grad_dots + place, mask=(n < N)[:, None] & (m < width)[None, :], other=0.0)
        rows = patches + b * stride_pb + n.to(tl.int64) * stride_pn
        x_ok = (weight_n > 0)[:, None] & (g < D)[None, :]
        of_patches = _dot(e, y, tl.zeros((BLOCK_N, BLOCK_G), tl.float32), TF32)
        if NORMALIZE:
            pull = tl.load(patch_pull + b * N + n, mask=n < N, other=0.0)
            own = tl.load(rows[:, None] + g[None, :], mask=x_ok, other=0.0, eviction_policy="evict_last")
            of_patches -= pull[:, None] * own.to(tl.float32)
        target = grad_patches + (b * N + n)[:, None] * D + g[None, :]
        of_patches = _cast(of_patches, grad_patches.dtype.element_ty)
        tl.store(target, of_patches, mask=(n < N)[:, None] & (g < D)[None, :])
        if WITH_LABELS:
            x = tl.load(rows[:, None] + g[None, :], mask=x_ok, other=0.0).to(DTYPE)
            of_labels = _dot(tl.trans(x), e, of_labels, TF32)
    if WITH_LABELS:
        if part == 0:
            pull = tl.zeros((BLOCK_C,), tl.float32)
            of_weight = tl.zeros((BLOCK_C,), tl.float32)
            for start in range(0, tiles, BLOCK_T):
                tile = start + tl.arange(0, BLOCK_T)
                place = (b * tiles + tile)[:, None] * C + m[None, :]
                there = (tile < tiles)[:, None] & (m < C)[None, :]
                pull += tl.sum(tl.load(part_label_pull + place, mask=there, other=0.0), axis=0)
                of_weight += tl.sum(tl.load(part_beta + place, mask=there, other=0.0), axis=0)
            if NORMALIZE:
                y_ok = (g < D)[:, None] & (weight_m > 0)[None, :]
                of_labels -= pull[None, :] * tl.load(columns[None, :] + g[:, None], mask=y_ok, other=0.0).to(tl.float32)
            if tl.program_id(0) == 0:
                tl.store(grad_beta + b * C + m, of_weight, mask=m < C)
        place = ((b * tl.num_programs(1) + part) * C + m)[None, :] * D + g[:, None]
        tl.store(part_labels + place, of_labels, mask=(g < D)[:, None] & (m < C)[None, :])
