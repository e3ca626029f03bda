"""Triton kernels of conditional transport; `launch` says how they are called, `interface` what they compute.

Patches (B, N, D) and labels (C, D) or (B, C, D) have stride 1 in D; all else is contiguous, and float32 but for the
gradient of the dot products. A point of weight 0 takes part in nothing. `DTYPE` is that of a product's operands, `TF32`
how float32 operands are multiplied. With `FEW` all labels are in one block; without, blocks of no weight are passed by
(all kernels divide labels alike). With `EVEN` no block reaches beyond D. Where theta is None, all patches weigh alike.
Logarithms are to base 2, of which the device has the exponential.

A patch is read three times: for its dot products with the labels, which are stored, for its own gradient and for the
labels'. With the dot products' gradient e, inverse lengths r and q of patches and labels, and s = r q (x . y):

    e_nm = (d cost / d s_nm) r_n q_m
    d cost / d x_n = p_n - r_n^2 (p_n . x_n) x_n with p_n = sum_m e_nm y_m, and likewise for labels.

In a loop, no loaded block is both an operand of a product and of anything else: Triton (3.6 to 3.8) gives such a block
one buffer too few, and on Hopper the next load overwrites what an unfinished product still reads. (Float32 may: it is
split in registers before it is multiplied.) `tests/ops/transport/compile_offline.py` looks for such blocks.
"""

import triton
import triton.language as tl

from mlcv.ops.transport.blocks import _cast, _dot, _finite, _given, _inverse_length, _load, _log2, _weight

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def length_kernel(
    points, scale, R, D, stride_b, stride_r, EVEN: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Inverse lengths (B, R) of points. Grid (blocks of R, B)."""
    b = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    rows = points + b * stride_b + r.to(tl.int64) * stride_r
    squares = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(0, D, BLOCK_D):
        x = _load(rows, r < R, start + tl.arange(0, BLOCK_D), D, EVEN).to(tl.float32)
        squares += x * x
    tl.store(scale + b * R + r, _inverse_length(tl.sum(squares, axis=1)), mask=r < R)


@triton.jit
def dots_kernel(
    patches, labels, theta, beta, dots, patch_scale,
    N, C, D, width, stride_pb, stride_pn, stride_lb, stride_lc,
    FEW: tl.constexpr, MEASURE: tl.constexpr, EVEN: tl.constexpr, DTYPE: tl.constexpr, TF32: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Dot products (B, N, width) of patches and labels; with MEASURE the patches' inverse lengths, too.

    Their squares are the diagonal of a product, or of float32 are summed over lanes after the loop. Grid (blocks of C,
    tiles of N, B).
    """
    b = tl.program_id(2).to(tl.int64)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    weight_n = _weight(theta, b * N + n, n < N)
    weight_m = _weight(beta, b * C + m, m < C)
    rows = patches + b * stride_pb + n.to(tl.int64) * stride_pn
    columns = labels + b * stride_lb + m.to(tl.int64) * stride_lc
    if FEW or tl.max(weight_m, axis=0) > 0:
        dot = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
        own = tl.zeros((BLOCK_N, BLOCK_D if DTYPE == tl.float32 else BLOCK_N), tl.float32)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            x = _load(rows, n < N, d, D, EVEN).to(DTYPE)
            y = _load(columns, m < C, d, D, EVEN).to(DTYPE)
            dot = _dot(x, tl.trans(y), dot, TF32)
            if MEASURE:
                own = own + x * x if DTYPE == tl.float32 else _dot(x, tl.trans(x), own, TF32)
        if MEASURE:
            if DTYPE != tl.float32:
                r = tl.arange(0, BLOCK_N)
                own = tl.where(r[:, None] == r[None, :], own, 0.0)
            tl.store(patch_scale + b * N + n, _inverse_length(tl.sum(own, axis=1)), mask=n < N)
        # Here, not where they are loaded, which would wait for the weights: points of no weight may hold no numbers.
        dot = tl.where((weight_n > 0)[:, None] & (weight_m > 0)[None, :], dot, 0.0)
        place = (b * N + n)[:, None] * width + m[None, :]
        tl.store(dots + place, dot, mask=(n < N)[:, None] & (m < width)[None, :])


@triton.jit
def statistics_kernel(
    dots, patch_scale, label_scale, theta, beta, temperature,
    patch_lse, patch_cost, part_top, part_total, part_mass,
    N, C, width, stride_sb,
    FEW: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Statistics of a tile of patches, and the tile's part in those of the labels (B, tiles, C). Grid (tiles, B)."""
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    weight_n = _weight(theta, b * N + n, n < N)
    scale = LOG2E / tl.load(temperature)
    scale_n = tl.load(patch_scale + b * N + n, mask=weight_n > 0, other=0.0) * scale
    top = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    mass = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, BLOCK_C if FEW else C, BLOCK_C):
        m = start + tl.arange(0, BLOCK_C)
        weight_m = _weight(beta, b * C + m, m < C)
        if FEW or tl.max(weight_m, axis=0) > 0:
            scale_m = tl.load(label_scale + b * stride_sb + m, mask=weight_m > 0, other=0.0)
            is_in = (n < N)[:, None] & (m < width)[None, :]
            score = tl.load(dots + (b * N + n)[:, None] * width + m[None, :], mask=is_in, other=0.0)
            score = score * scale_n[:, None] * scale_m[None, :]
            there = score + _log2(weight_m)[None, :]
            new_top = tl.maximum(top, tl.max(there, axis=1))
            share = tl.exp2(there - _finite(new_top)[:, None])
            decay = tl.exp2(top - _finite(new_top))
            total = total * decay + tl.sum(share, axis=1)
            mass = mass * decay + tl.sum(share * score, axis=1)
            top = new_top
            back = score + _log2(weight_n)[:, None]
            column_top = tl.max(back, axis=0)
            share = tl.exp2(back - _finite(column_top)[None, :])
            place = (b * tl.num_programs(0) + tile) * C + m
            tl.store(part_top + place, column_top, mask=m < C)
            tl.store(part_total + place, tl.sum(share, axis=0), mask=m < C)
            tl.store(part_mass + place, tl.sum(share * score, axis=0), mask=m < C)
    is_labeled = total != 0  # NaN stays NaN
    safe = tl.where(is_labeled, total, 1.0)
    tl.store(patch_lse + b * N + n, tl.where(is_labeled, top + tl.log2(safe), 0.0), mask=n < N)
    tl.store(patch_cost + b * N + n, tl.where(is_labeled, 1.0 - mass / safe / scale, 0.0), mask=n < N)


@triton.jit
def combine_kernel(
    theta, beta, temperature, patch_cost, part_top, part_total, part_mass, label_lse, label_cost, part_cost, shares,
    N, C, tiles, rho,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Statistics of a block of labels from the tiles', and its part in the image's cost. Grid (blocks of C, B).

    Of the image's `shares` (B, 4) the block adds: the reciprocal sums of theta and of beta, 0 where one is not finite,
    and the two directions' costs. Such a sum makes the image's cost NaN.
    """
    block = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    m = block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight_m = _weight(beta, b * C + m, m < C)
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
            decay = tl.exp2(top - _finite(new_top))
            share = tl.exp2(tile_top - _finite(new_top)[None, :])
            tile_total = tl.load(part_total + place, mask=there, other=0.0)
            tile_mass = tl.load(part_mass + place, mask=there, other=0.0)
            total = total * decay + tl.sum(share * tile_total, axis=0)
            mass = mass * decay + tl.sum(share * tile_mass, axis=0)
            top = new_top
    is_covered = total != 0
    safe = tl.where(is_covered, total, 1.0)
    costs = tl.where(is_covered, 1.0 - mass / safe * (tl.load(temperature) / LOG2E), 0.0)
    tl.store(label_lse + b * C + m, tl.where(is_covered, top + tl.log2(safe), 0.0), mask=m < C)
    tl.store(label_cost + b * C + m, costs, mask=m < C)
    there = tl.zeros((BLOCK_N,), tl.float32)
    sum_n = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        there += _weight(theta, b * N + n, n < N) * tl.load(patch_cost + b * N + n, mask=n < N, other=0.0)
        sum_n += _given(theta, b * N + n, n < N)
    sum_m = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, C, BLOCK_N):
        k = start + tl.arange(0, BLOCK_N)
        sum_m += _given(beta, b * C + k, k < C)
    whole_n = tl.sum(sum_n, axis=0)
    whole_m = tl.sum(sum_m, axis=0)
    spoiled = (whole_n - whole_n) + (whole_m - whole_m)  # NaN where one is not finite
    whole_n = tl.where(whole_n == 0, 1.0, tl.where(spoiled == 0, whole_n, float("inf")))
    whole_m = tl.where(whole_m == 0, 1.0, tl.where(spoiled == 0, whole_m, float("inf")))
    first = tl.where(block == 0, 1.0, 0.0)
    there = first * rho * (tl.sum(there, axis=0) / whole_n)
    back = (1.0 - rho) * (tl.sum(weight_m * costs, axis=0) / whole_m)
    place = b * tl.num_programs(0) + block
    tl.store(part_cost + place, there + back + spoiled)
    tl.store(shares + place * 4, tl.where(block == 0, whole_n, 0.0))
    tl.store(shares + place * 4 + 1, tl.where(block == 0, whole_m, 0.0))
    tl.store(shares + place * 4 + 2, there)
    tl.store(shares + place * 4 + 3, back)


@triton.jit
def gradient_kernel(
    dots, theta, beta, shares, patch_lse, patch_cost, label_lse, label_cost, patch_scale, label_scale,
    grad_cost, temperature,
    grad_dots, part_pull, part_theta, part_beta, part_temperature,
    N, C, width, stride_sb, stride_g, rho,
    FEW: tl.constexpr, WITH_WEIGHTS: tl.constexpr, WITH_TEMPERATURE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient (B, N, width) of the dot products of a tile of patches and a block of labels, and sums over both.

    What belongs to patches is (B, blocks, N), what to labels (B, tiles, C); part_pull is that in r_n^2 (p_n . x_n).
    What is not asked for is not written. Grid (blocks of C, tiles, B).
    """
    block = tl.program_id(0)
    tile = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    m = block * BLOCK_C + tl.arange(0, BLOCK_C)
    weight_n = _weight(theta, b * N + n, n < N)
    weight_m = _weight(beta, b * C + m, m < C)
    cost_n = tl.load(patch_cost + b * N + n, mask=n < N, other=0.0)
    cost_m = tl.load(label_cost + b * C + m, mask=m < C, other=0.0)
    whole_n = tl.load(shares + b * 4)
    whole_m = tl.load(shares + b * 4 + 1)
    upstream = tl.load(grad_cost + b * stride_g)
    place = (b * N + n)[:, None] * width + m[None, :]
    is_in = (n < N)[:, None] & (m < width)[None, :]
    e = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    pull_n = tl.zeros((BLOCK_N,), tl.float32)
    drift_n = tl.zeros((BLOCK_N,), tl.float32)
    drift_m = tl.zeros((BLOCK_C,), tl.float32)
    of_temperature = 0.0
    if FEW or tl.max(weight_m, axis=0) > 0:
        lse_n = tl.load(patch_lse + b * N + n, mask=n < N, other=0.0)
        lse_m = tl.load(label_lse + b * C + m, mask=m < C, other=0.0)
        scale_n = tl.load(patch_scale + b * N + n, mask=weight_n > 0, other=0.0)
        scale_m = tl.load(label_scale + b * stride_sb + m, mask=weight_m > 0, other=0.0)
        scale = 1.0 / tl.load(temperature)
        dot = tl.load(dots + place, mask=is_in, other=0.0)
        s = dot * scale_n[:, None] * scale_m[None, :]
        log_n = _log2(weight_n)
        log_m = _log2(weight_m)
        gain_n = log_n + (_log2(rho) - _log2(whole_n)) - lse_n
        gain_m = log_m + (_log2(1.0 - rho) - _log2(whole_m)) - lse_m
        there = tl.exp2(s * (LOG2E * scale) + log_m[None, :] + gain_n[:, None])
        back = tl.exp2(s * (LOG2E * scale) + log_n[:, None] + gain_m[None, :])
        off_n = 1.0 - cost_n[:, None] - s
        off_m = 1.0 - cost_m[None, :] - s
        if WITH_WEIGHTS:
            drift_n = tl.sum(back * off_m, axis=1)
            drift_m = tl.sum(there * off_n, axis=0)
        if WITH_TEMPERATURE:
            of_temperature = tl.sum(tl.sum(there * off_n * off_n + back * off_m * off_m, axis=1), axis=0)
            of_temperature *= scale * scale
        e = there * (off_n * scale - 1.0) + back * (off_m * scale - 1.0)
        e = e * (upstream * scale_n)[:, None] * scale_m[None, :]
        # Of what is stored, so that rounding it turns no point out of its own direction.
        e = _cast(e, grad_dots.dtype.element_ty).to(tl.float32)
        pull_n = tl.sum(e * dot, axis=1) * scale_n * scale_n
    tl.store(grad_dots + place, _cast(e, grad_dots.dtype.element_ty), mask=is_in)
    of_n = (b * tl.num_programs(0) + block) * N + n
    tl.store(part_pull + of_n, pull_n, mask=n < N)
    if WITH_WEIGHTS:
        own = tl.where(block == 0, rho * cost_n - tl.load(shares + b * 4 + 2), 0.0) / whole_n
        own += drift_n / tl.where(weight_n > 0, weight_n, 1.0)
        tl.store(part_theta + of_n, tl.where(weight_n > 0, upstream * own, 0.0), mask=n < N)
        own = tl.where(tile == 0, (1.0 - rho) * cost_m - tl.load(shares + b * 4 + 3), 0.0) / whole_m
        own += drift_m / tl.where(weight_m > 0, weight_m, 1.0)
        of_m = (b * tl.num_programs(1) + tile) * C + m
        tl.store(part_beta + of_m, tl.where(weight_m > 0, upstream * own, 0.0), mask=m < C)
    if WITH_TEMPERATURE:
        of_pairs = (b * tl.num_programs(0) + block) * tl.num_programs(1) + tile
        tl.store(part_temperature + of_pairs, upstream * of_temperature)


@triton.jit
def patches_kernel(
    grad_dots, patches, labels, theta, beta, pull, grad_patches,
    N, C, D, width, stride_pb, stride_pn, stride_lb, stride_lc,
    NORMALIZE: tl.constexpr, EVEN: tl.constexpr, DTYPE: tl.constexpr, TF32: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """BLOCK_G of the D entries of the gradients of a tile of patches; all labels are in one block.

    DTYPE is that of `grad_dots`. Grid (blocks of D, tiles, B).
    """
    b = tl.program_id(2).to(tl.int64)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    g = tl.program_id(0) * BLOCK_G + tl.arange(0, BLOCK_G)
    m = tl.arange(0, BLOCK_C)
    weight_m = _weight(beta, b * C + m, m < C)
    # All is loaded before the product, so that the loads wait together.
    e = grad_dots + (b * N + n)[:, None] * width + m[None, :]
    e = tl.load(e, mask=(n < N)[:, None] & (m < width)[None, :], other=0.0)
    if NORMALIZE:
        weight_n = _weight(theta, b * N + n, n < N)
        x = _load(patches + b * stride_pb + n.to(tl.int64) * stride_pn, weight_n > 0, g, D, EVEN)
        pull_n = tl.load(pull + b * N + n, mask=n < N, other=0.0)
    y = _load(labels + b * stride_lb + m.to(tl.int64) * stride_lc, weight_m > 0, g, D, EVEN).to(DTYPE)
    of_patches = _dot(e, y, tl.zeros((BLOCK_N, BLOCK_G), tl.float32), TF32)
    if NORMALIZE:
        of_patches -= pull_n[:, None] * x.to(tl.float32)
    target = grad_patches + (b * N + n)[:, None] * D + g[None, :]
    is_in = (n < N)[:, None] if EVEN else (n < N)[:, None] & (g < D)[None, :]
    tl.store(target, _cast(of_patches, grad_patches.dtype.element_ty), mask=is_in)


@triton.jit
def labels_kernel(
    grad_dots, patches, theta, part_labels,
    R, C, D, width, span, stride_pg, stride_pr,
    EVEN: tl.constexpr, DTYPE: tl.constexpr, TF32: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Part of `span` patches in BLOCK_G of the D entries of the labels' gradients (groups, parts, C, D).

    A group is R patches, of one image or of all, with steps from group to group and from patch to patch. All labels are
    in one block; DTYPE is that of `grad_dots`. Grid (blocks of D, parts, groups).
    """
    g = tl.program_id(0) * BLOCK_G + tl.arange(0, BLOCK_G)
    part = tl.program_id(1)
    group = tl.program_id(2).to(tl.int64)
    m = tl.arange(0, BLOCK_C)
    sums = tl.zeros((BLOCK_G, BLOCK_C), tl.float32)  # transposed: a product's rows are 64 or more
    for start in range(part * span, tl.minimum(part * span + span, R), BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        weight = _weight(theta, group * R + r, r < R)
        dots = grad_dots + (group * R + r)[:, None] * width + m[None, :]
        e = tl.load(dots, mask=(r < R)[:, None] & (m < width)[None, :], other=0.0)
        x = _load(patches + group * stride_pg + r.to(tl.int64) * stride_pr, weight > 0, g, D, EVEN).to(DTYPE)
        sums = _dot(tl.trans(x), e, sums, TF32)
    place = ((group * tl.num_programs(1) + part) * C + m)[None, :] * D + g[:, None]
    tl.store(part_labels + place, sums, mask=(g < D)[:, None] & (m < C)[None, :])


@triton.jit
def gather_kernel(
    part_labels, labels, label_scale, grad_labels, C, D, parts, stride_lb, stride_lc, stride_sb,
    NORMALIZE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of a label (groups, C, D) from its `parts`; D is in one block. Grid (C, groups)."""
    m = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    sums = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, parts, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        place = ((group * parts + p)[:, None] * C + m) * D + d[None, :]
        sums += tl.sum(tl.load(part_labels + place, mask=(p < parts)[:, None] & (d < D)[None, :], other=0.0), axis=0)
    if NORMALIZE:
        scale = tl.load(label_scale + group * stride_sb + m)
        y = tl.load(labels + group * stride_lb + m.to(tl.int64) * stride_lc + d, mask=d < D, other=0.0).to(tl.float32)
        own = scale * scale * tl.sum(sums * y, axis=0) * y
        sums -= tl.where(scale > 0, own, 0.0)  # NaN is not above 0
    place = (group * C + m) * D + d
    tl.store(grad_labels + place, _cast(sums, grad_labels.dtype.element_ty), mask=d < D)
