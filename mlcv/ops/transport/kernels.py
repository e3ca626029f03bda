"""Triton kernels of conditional transport; `launch` says how they are called, `interface` what they compute.

Patches (B, N, D) and labels (C, D) or (B, C, D) have stride 1 in D; weights and statistics are contiguous float32.
A point of weight 0 takes part in nothing, and a block of labels without weight costs a look at its weights.
`NORMALIZE` divides embeddings by their lengths, on the fly. `DTYPE` is that of the matrix products' operands.
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
        bits += 0x7FFF + ((bits >> 16) & 1)
        a = bits.to(tl.float32, bitcast=True)
    return a.to(DTYPE)


@triton.jit
def _dot(a, b):
    """Product of two matrices of one dtype, with float32 sums."""
    if INTERPRETED:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        product = tl.dot(a, b, input_precision="ieee")
    return product


@triton.jit
def _inverse_length(squares):
    """0 for a vector of zeros, or so short that its square is lost; NaN for one so long that it is infinite."""
    return tl.where(squares > 1e-37, tl.rsqrt(tl.where(squares > 1e-37, squares, 1.0)), 0.0) + 0.0 * squares


@triton.jit
def _similarity(x_rows, x_ok, y_rows, y_ok, D, NORMALIZE: tl.constexpr, DTYPE: tl.constexpr, BLOCK_D: tl.constexpr):
    """Similarities of a block of points to another, and the inverse lengths of both (1 without NORMALIZE)."""
    dot = tl.zeros((x_rows.shape[0], y_rows.shape[0]), tl.float32)
    x_squares = tl.zeros((x_rows.shape[0],), tl.float32)
    y_squares = tl.zeros((y_rows.shape[0],), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        x = tl.load(x_rows[:, None] + d[None, :], mask=x_ok[:, None] & (d < D)[None, :], other=0.0).to(DTYPE)
        y = tl.load(y_rows[:, None] + d[None, :], mask=y_ok[:, None] & (d < D)[None, :], other=0.0).to(DTYPE)
        dot += _dot(x, tl.trans(y))
        if NORMALIZE:
            x_squares += tl.sum(x.to(tl.float32) * x.to(tl.float32), axis=1)
            y_squares += tl.sum(y.to(tl.float32) * y.to(tl.float32), axis=1)
    if NORMALIZE:
        x_scale = _inverse_length(x_squares)
        y_scale = _inverse_length(y_squares)
    else:
        x_scale = x_squares + 1.0
        y_scale = y_squares + 1.0
    return dot * x_scale[:, None] * y_scale[None, :], x_scale, y_scale


@triton.jit
def _log(weight):
    return tl.where(weight > 0, tl.log(tl.where(weight > 0, weight, 1.0)), float("-inf"))


@triton.jit
def _finite(top):
    """A maximum over nothing, as a shift that changes nothing."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def _product(a, points, DTYPE: tl.constexpr):
    """A float32 matrix times points, in DTYPE; half precision has little range, so rows are scaled to 1 for it."""
    if DTYPE == tl.float16:
        largest = tl.max(tl.abs(a), axis=1)
        largest = tl.where(largest > 0, largest, 1.0)
        product = _dot(_cast(a / largest[:, None], DTYPE), points.to(DTYPE)) * largest[:, None]
    else:
        product = _dot(_cast(a, DTYPE), points.to(DTYPE))
    return product


@triton.jit
def forward_kernel(
    patches, labels, theta, beta, temperature,
    patch_lse, patch_cost, part_top, part_total, part_mass,
    N, C, D, stride_pb, stride_pn, stride_lb, stride_lc,
    NORMALIZE: tl.constexpr, DTYPE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Statistics of a tile of patches, and the tile's part in those of the labels (B, tiles, C). Grid (tiles, B)."""
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    weight_n = tl.load(theta + b * N + n, mask=n < N, other=0.0)
    log_n = _log(weight_n)
    rows = patches + b * stride_pb + n.to(tl.int64) * stride_pn
    scale = 1.0 / tl.load(temperature)
    top = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    mass = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, C, BLOCK_C):
        m = start + tl.arange(0, BLOCK_C)
        weight_m = tl.load(beta + b * C + m, mask=m < C, other=0.0)
        if tl.max(weight_m, axis=0) > 0:
            columns = labels + b * stride_lb + m.to(tl.int64) * stride_lc
            similarity, _, _ = _similarity(rows, n < N, columns, weight_m > 0, D, NORMALIZE, DTYPE, BLOCK_D)
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
    tl.store(patch_lse + b * N + n, tl.where(is_labeled, top + tl.log(safe), 0.0), mask=n < N)
    tl.store(patch_cost + b * N + n, tl.where(is_labeled, 1.0 - mass / safe, 0.0), mask=n < N)


@triton.jit
def combine_kernel(
    theta, beta, patch_cost, part_top, part_total, part_mass, label_lse, label_cost, cost, N, C, tiles, rho,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Statistics of the labels from the tiles', and the image's cost. Grid (B,)."""
    b = tl.program_id(0).to(tl.int64)
    there = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        weight_n = tl.load(theta + b * N + n, mask=n < N, other=0.0)
        there += weight_n * tl.load(patch_cost + b * N + n, mask=n < N, other=0.0)
    back = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, C, BLOCK_C):
        m = start + tl.arange(0, BLOCK_C)
        weight_m = tl.load(beta + b * C + m, mask=m < C, other=0.0)
        top = tl.full((BLOCK_C,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_C,), tl.float32)
        mass = tl.zeros((BLOCK_C,), tl.float32)
        if tl.max(weight_m, axis=0) > 0:
            for tile in range(tiles):
                place = (b * tiles + tile) * C + m
                tile_top = tl.load(part_top + place, mask=weight_m > 0, other=float("-inf"))
                new_top = tl.maximum(top, tile_top)
                decay = tl.exp(top - _finite(new_top))
                share = tl.exp(tile_top - _finite(new_top))
                total = total * decay + share * tl.load(part_total + place, mask=weight_m > 0, other=0.0)
                mass = mass * decay + share * tl.load(part_mass + place, mask=weight_m > 0, other=0.0)
                top = new_top
        is_covered = total != 0
        safe = tl.where(is_covered, total, 1.0)
        costs = tl.where(is_covered, 1.0 - mass / safe, 0.0)
        tl.store(label_lse + b * C + m, tl.where(is_covered, top + tl.log(safe), 0.0), mask=m < C)
        tl.store(label_cost + b * C + m, costs, mask=m < C)
        back += weight_m * costs
    tl.store(cost + b, rho * tl.sum(there, axis=0) + (1.0 - rho) * tl.sum(back, axis=0))


@triton.jit
def gradient_kernel(
    rows, columns, row_weight, column_weight, row_lse, row_cost, column_lse, column_cost, grad_cost, temperature,
    grad_rows, grad_row_weight, part_temperature, part_columns, part_column_weight,
    B, R, C, D, stride_rb, stride_rr, stride_cb, stride_cc, stride_gb, images, row_share,
    EMIT: tl.constexpr, NORMALIZE: tl.constexpr, DTYPE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of rows, BLOCK_G of its D entries, summed over a group of images.

    Transport is symmetric: rows are patches, or labels. With EMIT, for patches and no more columns than one block has,
    the block's part in the gradient of the columns is written, too: then patches are read once. Grid (entries of D,
    blocks of rows, groups); the first block of D writes what does not depend on D.
    """
    g = tl.program_id(0) * BLOCK_G + tl.arange(0, BLOCK_G)
    tile = tl.program_id(1)
    group = tl.program_id(2).to(tl.int64)
    r = tile * BLOCK_R + tl.arange(0, BLOCK_R)
    scale = 1.0 / tl.load(temperature)
    is_first = tl.program_id(0) == 0
    gradient = tl.zeros((BLOCK_R, BLOCK_G), tl.float32)
    along = tl.zeros((BLOCK_R,), tl.float32)  # the part of the gradient in the row's own direction
    length = tl.zeros((BLOCK_R,), tl.float32)
    of_temperature = tl.zeros((BLOCK_R,), tl.float32)
    for step in range(images):
        b = group * images + step
        is_row = r < tl.where(b < B, R, 0)  # the last group may have fewer images
        weight_r = tl.load(row_weight + b * R + r, mask=is_row, other=0.0)
        drift = tl.zeros((BLOCK_R,), tl.float32)
        upstream = tl.load(grad_cost + tl.minimum(b, B - 1))
        cost_r = tl.load(row_cost + b * R + r, mask=is_row, other=0.0)
        heaviest = tl.max(weight_r, axis=0)
        if EMIT:
            heaviest += 1.0  # the columns' part is read of every block, so each writes it
        if heaviest > 0:
            lse_r = tl.load(row_lse + b * R + r, mask=weight_r > 0, other=0.0)
            log_r = _log(weight_r)
            x_rows = rows + b * stride_rb + r.to(tl.int64) * stride_rr
            for start in range(0, C, BLOCK_C):
                c = start + tl.arange(0, BLOCK_C)
                place = b * C + c
                weight_c = tl.load(column_weight + place, mask=c < C, other=0.0)
                if tl.max(weight_c, axis=0) > 0:
                    y_rows = columns + b * stride_cb + c.to(tl.int64) * stride_cc
                    lse_c = tl.load(column_lse + place, mask=weight_c > 0, other=0.0)
                    cost_c = tl.load(column_cost + place, mask=c < C, other=0.0)
                    s, x_scale, y_scale = _similarity(
                        x_rows, weight_r > 0, y_rows, weight_c > 0, D, NORMALIZE, DTYPE, BLOCK_D
                    )
                    by_row = tl.exp(s * scale + _log(weight_c)[None, :] - lse_r[:, None])
                    by_row = by_row * (row_share * weight_r)[:, None]
                    by_column = tl.exp(s * scale + log_r[:, None] - lse_c[None, :])
                    by_column = by_column * ((1.0 - row_share) * weight_c)[None, :]
                    pull = by_row + by_column
                    by_row = by_row * (1.0 - s - cost_r[:, None])
                    by_column = by_column * (1.0 - s - cost_c[None, :])
                    drift += tl.sum(by_column, axis=1)
                    of_temperature -= upstream * tl.sum((by_row + by_column) * s, axis=1) * scale * scale
                    ds = (by_row + by_column) * scale - pull
                    along += upstream * tl.sum(ds * s, axis=1)
                    length = tl.maximum(length, x_scale)
                    y = tl.load(
                        y_rows[:, None] + g[None, :], mask=(weight_c > 0)[:, None] & (g < D)[None, :], other=0.0
                    )
                    gradient += upstream * _product(ds * y_scale[None, :], y, DTYPE)
                    if EMIT:
                        x_mask = (weight_r > 0)[:, None] & (g < D)[None, :]
                        x = tl.load(x_rows[:, None] + g[None, :], mask=x_mask, other=0.0)
                        part = _product(tl.trans(ds * x_scale[:, None]), x, DTYPE)
                        if NORMALIZE:
                            part -= tl.sum(ds * s, axis=0)[:, None] * y.to(tl.float32) * y_scale[:, None]
                        place = (b * tl.num_programs(1) + tile) * C + c
                        part_rows = part_columns + place[:, None] * D + g[None, :]
                        part = part * (upstream * y_scale)[:, None]
                        tl.store(part_rows, part, mask=(weight_c > 0)[:, None] & (g < D)[None, :])
                        column_drift = upstream * tl.sum(by_row, axis=0) / tl.where(weight_c > 0, weight_c, 1.0)
                        if is_first:
                            tl.store(part_column_weight + place, column_drift, mask=weight_c > 0)
        of_weight = row_share * cost_r + drift / tl.where(weight_r > 0, weight_r, 1.0)
        of_weight = tl.where(weight_r > 0, upstream * of_weight, 0.0)
        if is_first:
            tl.store(grad_row_weight + b * R + r, of_weight, mask=is_row)
    if NORMALIZE:
        own = rows + group * images * stride_rb + r.to(tl.int64) * stride_rr
        x = tl.load(own[:, None] + g[None, :], mask=(r < R)[:, None] & (g < D)[None, :], other=0.0)
        gradient = length[:, None] * (gradient - along[:, None] * x.to(tl.float32) * length[:, None])
    target = grad_rows + group * stride_gb + r.to(tl.int64) * D
    gradient = _cast(gradient, grad_rows.dtype.element_ty)
    tl.store(target[:, None] + g[None, :], gradient, mask=(r < R)[:, None] & (g < D)[None, :])
    part = group * tl.num_programs(1) + tile
    if is_first:
        tl.store(part_temperature + part, tl.sum(of_temperature, axis=0))


@triton.jit
def reduce_kernel(
    part_columns, part_column_weight, beta, label_cost, grad_cost, grad_labels, grad_beta, C, D, tiles, label_share,
    BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Gradient of each image's labels from the tiles' parts; 0 for a label without weight. Grid (C, B)."""
    m = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    weight = tl.load(beta + b * C + m)
    has_weight = weight > 0
    of_weight = 0.0
    if has_weight:
        of_weight = tl.load(grad_cost + b) * label_share * tl.load(label_cost + b * C + m)
        for tile in range(tiles):
            of_weight += tl.load(part_column_weight + (b * tiles + tile) * C + m)
    tl.store(grad_beta + b * C + m, of_weight)
    for start in range(0, D, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        total = tl.zeros((BLOCK_G,), tl.float32)
        if has_weight:
            for tile in range(tiles):
                total += tl.load(part_columns + ((b * tiles + tile) * C + m) * D + g, mask=g < D, other=0.0)
        tl.store(grad_labels + (b * C + m) * D + g, total, mask=g < D)
