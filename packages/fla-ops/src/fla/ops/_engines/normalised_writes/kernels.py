"""Triton kernels of the running log-sum-exp and of the writes and decays that it normalises, by channel.

They go through time as the kernels of ``fla/ops/_engines/scan/kernels.py`` do, in tiles and, where time is cut, in
segments that a first kernel sums up. A sum of exponentials is held as m and l and equals ``e^m l``; m is the largest
exponent, and l is at least 1, or 0 where nothing was added yet. So neither l nor what is made of it rounds by how
large the exponents are.

The gradient of every z, ``dz``, gathers from the last step to the first: ``dz_t = x_t + e^decay_{t+1} dz_{t+1}``, where
``x_t = ddecay_{t+1} - ddecay_t - write_t dwrite_t`` is what step t itself gives.

Letters as there.
"""

import triton
import triton.language as tl

from fla.ops._engines.scan.kernels import channels, gather, load_tile, locate_segment, rows, scan_tile
from fla.ops._shared.chunk_kernels import LOG2E

NOTHING = tl.constexpr(float("-inf"))
#: How far exponents may rise within a tile for all of its sums to be taken relative to its highest one: e^-60 is far
#: below what a float32 sum can tell, and e^-87 the smallest that it can hold.
STEEP = tl.constexpr(60.0)


@triton.jit
def add(m, l, later_m, later_l):
    """Add two sums of exponentials."""
    # Equal exponents may be infinite, and their difference NaN
    decay = tl.exp(tl.where(m == later_m, 0.0, -tl.abs(m - later_m)))
    return tl.maximum(m, later_m), tl.where(m < later_m, l * decay + later_l, l + later_l * decay)


@triton.jit
def log_rest(write, m, l):
    """The logarithm of ``1 - write``, which is also ``e^m l``: from the smaller of the two, which knows it best."""
    few = write < 0.5
    rest = tl.where(few, 1.0 - write, l)
    log = tl.log(rest)
    # 1 - write was rounded; its logarithm, close to 0, lacks about as much as it does.
    return log + tl.where(few, (1.0 - rest) - write, m)


@triton.jit
def add_rows(m, l, b_x, m_x):
    """The sum of exponentials with those of all rows of a tile; ``m_x`` tells which rows are there."""
    b_x = tl.where(m_x, b_x, NOTHING)
    highest = tl.maximum(m, tl.max(b_x, 0))
    above = tl.where(highest == NOTHING, 0.0, highest)
    return highest, l * tl.exp(m - above) + tl.sum(tl.exp(b_x - above[None, :]), 0)


@triton.jit
def one_row(b, i: tl.constexpr, S: tl.constexpr):
    """Row ``i`` of a tile."""
    return tl.sum(tl.where(tl.arange(0, S)[:, None] == i, b, 0.0), 0)


@triton.jit
def load_start(start, o_state, m_state, BD: tl.constexpr):
    """z before the first step of a sequence."""
    b_start = tl.full([BD], NOTHING, dtype=tl.float32)
    if start is not None:
        b_start = tl.load(start + o_state, mask=m_state, other=NOTHING).to(tl.float32)
    return b_start


@triton.jit(do_not_specialize=["T", "L"])
def normalised_writes_summary_fwd_kernel(
    s,  # [B, T, D]
    sums,  # [segments, D]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [segments], or None
    first_segment,  # [N + 1], or None
    T,
    L,
    D: tl.constexpr,
    S: tl.constexpr,
    BD: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr,
    STAGES: tl.constexpr,
    PACKED: tl.constexpr,
):
    """The log-sum-exp of each segment."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t = channels(D, BD, SIDE_BY_SIDE), tl.arange(0, S)
    first = i_l * L

    b_m = tl.full([BD], NOTHING, dtype=tl.float32)
    b_l = tl.zeros([BD], dtype=tl.float32)
    for i in tl.range(0, tl.cdiv(tl.minimum(L, length - first), S), num_stages=STAGES):
        i_t = first + i * S
        b_s = load_tile(s + (begin + i_t) * D, o_t, o_d, length - i_t, D)
        b_m, b_l = add_rows(b_m, b_l, b_s, o_t[:, None] < length - i_t)
    tl.store(sums + i_s.to(tl.int64) * D + o_d, b_m + tl.log(b_l), mask=o_d < D)


@triton.jit(do_not_specialize=["T", "L"])
def normalised_writes_fwd_kernel(
    s,  # [B, T, D]
    write,  # [B, T, D]
    decay,  # [B, T, D]: log decays
    z,  # [B, T, D], or None
    start,  # [N, D]: z before each sequence, or None
    end,  # [N, D]: z after each sequence
    sums,  # [segments, D], or None where time is not cut
    cu_seqlens,  # [N + 1], or None
    sequence,  # [segments], or None
    first_segment,  # [N + 1], or None
    T,
    L,
    D: tl.constexpr,
    S: tl.constexpr,
    BD: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr,
    STAGES: tl.constexpr,
    PACKED: tl.constexpr,
):
    """Writes and decays of one segment, the last z of a sequence, and every z where there is room for it."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t = channels(D, BD, SIDE_BY_SIDE), tl.arange(0, S)
    m_state = (o_d < D) & (length > 0)
    o_state = i_n.to(tl.int64) * D + o_d
    first = i_l * L

    # Sum before the segment: the initial one, with those of the segments before
    b_m = load_start(start, o_state, m_state, BD)
    b_l = tl.where(b_m == NOTHING, 0.0, 1.0)
    if sums is not None:
        for i in range(0, tl.cdiv(i_l, S)):
            row = i_s - i_l + i * S + o_t
            m_row = (i * S + o_t < i_l)[:, None]
            p = sums + row.to(tl.int64)[:, None] * D + o_d[None, :]
            b_z = tl.load(p, mask=m_row & (o_d < D)[None, :], other=0.0)
            b_m, b_l = add_rows(b_m, b_l, b_z, m_row)
    for i in tl.range(0, tl.cdiv(tl.minimum(L, length - first), S), num_stages=STAGES):
        i_t = first + i * S
        left = length - i_t
        offset = (begin + i_t) * D
        b_s = tl.where(o_t[:, None] < left, load_tile(s + offset, o_t, o_d, left, D), NOTHING)
        # Scan the steps one earlier: the sum before a row is that over the rows above it
        b_earlier = tl.where(o_t[:, None] - 1 < left, load_tile(s + offset, o_t - 1, o_d, left, D), NOTHING)
        b_earlier = tl.where(o_t[:, None] == 0, b_m[None, :], b_earlier)
        b_ls = tl.where(o_t[:, None] == 0, b_l[None, :], 1.0)
        # Exponents that differ little: one cumulative sum. Else: a scan of (m, l).
        b_highest = tl.maximum(b_m, tl.max(b_s, 0))
        b_lowest = tl.where(b_l == 0.0, one_row(b_s, 0, S), b_m)
        if tl.max(b_highest - b_lowest, 0) < STEEP:
            b_ms = tl.zeros_like(b_s) + b_highest[None, :]
            b_before = b_ms
            b_l_before = tl.cumsum(b_ls * tl.exp(b_earlier - b_ms), 0)
            b_own = tl.exp(b_s - b_ms)
            b_ls = b_l_before + b_own
        else:
            b_before, b_l_before = tl.associative_scan((b_earlier, b_ls), 0, add)
            b_ms, b_ls = add(b_before, b_l_before, b_s, 1.0)
            b_own = tl.exp(b_s - b_ms)
        b_m, b_l = one_row(b_ms, S - 1, S), one_row(b_ls, S - 1, S)
        # Normalise and store
        b_inverse = 1.0 / b_ls
        b_write = b_own * b_inverse
        b_decay = log_rest(b_write, b_before - b_ms, b_l_before * b_inverse)
        o = offset + o_t[:, None] * D + o_d[None, :]
        m = (o_t[:, None] < left) & (o_d[None, :] < D)
        tl.store(write + o, b_write.to(write.dtype.element_ty), mask=m)
        tl.store(decay + o, tl.where(b_l_before == 0.0, 0.0, b_decay), mask=m)
        if z is not None:
            tl.store(z + o, b_ms + tl.log(b_ls), mask=m)
    tl.store(end + o_state, b_m + tl.log(b_l), mask=m_state & (first + L >= length))


@triton.jit
def own_gradient(write, dwrite, ddecay, dz, offset, i_t, o_t, o_d, left, b_start, D: tl.constexpr):
    """Load rows ``o_t`` of a tile: the write, its gradient, and the step's own part in the gradient of its z."""
    b_write = load_tile(write + offset, o_t, o_d, left, D)
    b_dwrite = tl.zeros_like(b_write)
    b_x = tl.zeros_like(b_write)
    if dwrite is not None:
        b_dwrite = load_tile(dwrite + offset, o_t, o_d, left, D)
        b_x -= b_write * b_dwrite
    if ddecay is not None:
        b_ddecay = load_tile(ddecay + offset, o_t, o_d, left, D)
        # A decay of nothing is 0, whatever z is.
        constant = (i_t + o_t == 0)[:, None] & (b_start == NOTHING)[None, :]
        b_x += load_tile(ddecay + offset, o_t + 1, o_d, left, D) - tl.where(constant, 0.0, b_ddecay)
    if dz is not None:
        b_x += load_tile(dz + offset, o_t, o_d, left, D)
    return b_write, b_dwrite, b_x


@triton.jit(do_not_specialize=["T", "L"])
def normalised_writes_summary_bwd_kernel(
    write,  # [B, T, D]
    decay,  # [B, T, D]: log decays
    dwrite,  # [B, T, D], or None
    ddecay,  # [B, T, D], or None
    dz,  # [B, T, D], or None
    start,  # [N, D]: z before each sequence, or None
    decays,  # [segments, D]
    sums,  # [segments, D]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [segments], or None
    first_segment,  # [N + 1], or None
    T,
    L,
    D: tl.constexpr,
    S: tl.constexpr,
    BD: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr,
    STAGES: tl.constexpr,
    PACKED: tl.constexpr,
):
    """Sum up each segment: how much it decays the gradient of z after it, and what it makes of one of zero."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t = channels(D, BD, SIDE_BY_SIDE), rows(S, True)
    first = i_l * L
    tiles = tl.cdiv(tl.minimum(L, length - first), S)

    b_start = load_start(start, i_n.to(tl.int64) * D + o_d, (o_d < D) & (length > 0), BD)
    b_log = tl.zeros([BD], dtype=tl.float32)
    b_dz = tl.zeros([BD], dtype=tl.float32)
    for i in tl.range(0, tiles, num_stages=STAGES):
        i_t = first + (tiles - 1 - i) * S
        left = length - i_t
        offset = (begin + i_t) * D
        b_decay = load_tile(decay + offset, o_t + 1, o_d, left, D) * LOG2E
        _, _, b_x = own_gradient(write, dwrite, ddecay, dz, offset, i_t, o_t, o_d, left, b_start, D)
        b_log += tl.sum(b_decay, 0)
        _, b_dz = scan_tile(tl.exp2(b_decay), b_x, b_dz, S)
    row = i_s.to(tl.int64) * D
    tl.store(decays + row + o_d, tl.exp2(b_log), mask=o_d < D)
    tl.store(sums + row + o_d, b_dz, mask=o_d < D)


@triton.jit(do_not_specialize=["T", "L"])
def normalised_writes_bwd_kernel(
    write,  # [B, T, D]
    decay,  # [B, T, D]: log decays
    dwrite,  # [B, T, D], or None
    ddecay,  # [B, T, D], or None
    dz,  # [B, T, D], or None
    start,  # [N, D]: z before each sequence, or None
    ds,  # [B, T, D]
    dstart,  # [N, D], or None without start
    dend,  # [N, D], or None
    decays,  # [segments, D], or None where time is not cut
    sums,  # [segments, D], or None where time is not cut
    cu_seqlens,  # [N + 1], or None
    sequence,  # [segments], or None
    first_segment,  # [N + 1], or None
    T,
    L,
    D: tl.constexpr,
    S: tl.constexpr,
    BD: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr,
    STAGES: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``ds_t = write_t (dwrite_t + dz_t)`` over one segment, and the gradient of z before a sequence."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t = channels(D, BD, SIDE_BY_SIDE), rows(S, True)
    m_state = (o_d < D) & (length > 0)
    o_state = i_n.to(tl.int64) * D + o_d
    first = i_l * L
    tiles = tl.cdiv(tl.minimum(L, length - first), S)

    b_start = load_start(start, o_state, m_state, BD)
    b_dz = tl.zeros([BD], dtype=tl.float32)
    if dend is not None:
        b_dz += tl.load(dend + o_state, mask=m_state, other=0.0).to(tl.float32)
    if sums is not None:
        b_dz = gather(decays, sums, b_dz, i_s, i_l, tl.cdiv(length, L), o_d, D, S, True)
    for i in tl.range(0, tiles, num_stages=STAGES):
        i_t = first + (tiles - 1 - i) * S
        left = length - i_t
        offset = (begin + i_t) * D
        b_decay = tl.exp2(load_tile(decay + offset, o_t + 1, o_d, left, D) * LOG2E)
        b_write, b_dwrite, b_x = own_gradient(write, dwrite, ddecay, dz, offset, i_t, o_t, o_d, left, b_start, D)
        b_dzs, b_dz = scan_tile(b_decay, b_x, b_dz, S)
        m = (o_t[:, None] < left) & (o_d[None, :] < D)
        b_ds = b_write * (b_dwrite + b_dzs)
        tl.store(ds + offset + o_t[:, None] * D + o_d[None, :], b_ds.to(ds.dtype.element_ty), mask=m)
    if dstart is not None:
        at = begin * D + o_d
        b_dz *= tl.exp2(tl.load(decay + at, mask=m_state, other=0.0) * LOG2E)
        if ddecay is not None:
            b_dz += tl.load(ddecay + at, mask=m_state, other=0.0).to(tl.float32)
        tl.store(dstart + o_state, tl.where(b_start == NOTHING, 0.0, b_dz), mask=m_state & (i_l == 0))
