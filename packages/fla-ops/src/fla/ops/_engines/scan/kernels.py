"""Triton kernels of HGRN's recurrence; algorithm.py is the same algorithm in PyTorch.

A program takes one segment of a sequence and a block of channels, tile by tile, and scans each tile at once. Where
sequences and channels are too few to fill a GPU, time is cut into several segments: a first kernel sums each one up,
and the others gather what came before their segment from these sums.

The gradient runs from the last step to the first: ``dh_t = do_t + e^g_{t+1} dh_{t+1}``, the same scan of decays that
are shifted by one step.

Letters as in ``_shared/chunk_kernels.py``; and D channels, S steps of a tile, L steps of a segment, a multiple of S.
"""

import triton
import triton.language as tl

from fla.ops._shared.chunk_kernels import LOG2E, decay_of


@triton.jit
def then(decay, h, later_decay, later_h):
    """Join two spans of steps: how much they decay a state, and what they make of a state of zero."""
    return decay * later_decay, later_decay * h + later_h


@triton.jit
def scan_tile(b_decay, b_x, b_h, S: tl.constexpr):
    """``h = decay h + x`` down the rows of a tile, with b_h before the first of them; and the last h."""
    o_t = tl.arange(0, S)
    b_x = tl.where(o_t[:, None] == 0, b_x + b_decay * b_h[None, :], b_x)
    _, b_hs = tl.associative_scan((b_decay, b_x), 0, then)
    return b_hs, tl.sum(tl.where(o_t[:, None] == S - 1, b_hs, 0.0), 0)


@triton.jit
def rows(S: tl.constexpr, REVERSE: tl.constexpr):
    """The steps of a tile in the order of a scan, which always goes down: Triton's own from the end is far slower."""
    o_t = tl.arange(0, S)
    return S - 1 - o_t if REVERSE else o_t


@triton.jit
def load_tile(p, o_t, o_d, left, D: tl.constexpr):
    """Rows ``o_t`` of those that follow p, in float32; zero before the first and from ``left`` on."""
    m = (o_t[:, None] >= 0) & (o_t[:, None] < left) & (o_d[None, :] < D)
    return tl.load(p + o_t[:, None] * D + o_d[None, :], mask=m, other=0.0).to(tl.float32)


@triton.jit
def channels(D: tl.constexpr, BD: tl.constexpr, SIDE_BY_SIDE: tl.constexpr):
    """The channels of this program, at most so many side by side in a thread: then each thread has its own."""
    o_d = tl.max_contiguous(tl.multiple_of(tl.arange(0, BD), SIDE_BY_SIDE), SIDE_BY_SIDE)
    return tl.program_id(0) % tl.cdiv(D, BD) * BD + o_d


@triton.jit
def locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED: tl.constexpr):
    """Locate segment ``i_s``: its sequence, the sequence's first step and length, and the segment's number in it.

    A segment past the last one of packed sequences belongs to an empty sequence, -1.
    """
    if PACKED:
        i_n = tl.load(sequence + i_s)
        at = tl.maximum(i_n, 0)
        begin = tl.load(cu_seqlens + at).to(tl.int64)
        length = (tl.load(cu_seqlens + at + 1).to(tl.int64) - begin).to(tl.int32)
        length = tl.where(i_n < 0, 0, length)
        i_l = i_s - tl.load(first_segment + at)
    else:
        segments = tl.cdiv(T, L)
        i_n = i_s // segments
        begin = i_n.to(tl.int64) * T
        length = T
        i_l = i_s % segments
    return i_n, begin, length, i_l


@triton.jit
def gather(decays, sums, b_h, i_s, i_l, segments, o_d, D: tl.constexpr, S: tl.constexpr, REVERSE: tl.constexpr):
    """The state with which segment ``i_s`` starts, number ``i_l`` of its sequence, from the sums of those before it."""
    before = segments - 1 - i_l if REVERSE else i_l
    o_l = tl.arange(0, S)
    for i in range(0, tl.cdiv(before, S)):
        m = (i * S + o_l[:, None] < before) & (o_d[None, :] < D)
        # Rows in the order of the scan, which ends next to this segment
        row = i_s + before - i * S - o_l if REVERSE else i_s - before + i * S + o_l
        p = row.to(tl.int64)[:, None] * D + o_d[None, :]
        b_decay = tl.load(decays + p, mask=m, other=1.0)
        b_x = tl.load(sums + p, mask=m, other=0.0)
        _, b_h = scan_tile(b_decay, b_x, b_h, S)
    return b_h


@triton.jit(do_not_specialize=["T", "L"])
def scan_summary_kernel(
    x,  # [B, T, D]: do in reverse
    g,  # [B, T, D]: log decays
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
    REVERSE: tl.constexpr,
    PACKED: tl.constexpr,
):
    """Sum up each segment: how much it decays a state, and what it makes of a state of zero. In reverse x is do."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t = channels(D, BD, SIDE_BY_SIDE), rows(S, REVERSE)
    first = i_l * L
    tiles = tl.cdiv(tl.minimum(L, length - first), S)

    b_log = tl.zeros([BD], dtype=tl.float32)
    b_h = tl.zeros([BD], dtype=tl.float32)
    for i in tl.range(0, tiles, num_stages=STAGES):
        i_t = first + (tiles - 1 - i if REVERSE else i) * S
        offset = (begin + i_t) * D
        b_x = load_tile(x + offset, o_t, o_d, length - i_t, D)
        b_g = load_tile(g + offset, o_t + 1 if REVERSE else o_t, o_d, length - i_t, D)
        b_log += tl.sum(b_g, 0)
        _, b_h = scan_tile(decay_of(b_g), b_x, b_h, S)
    row = i_s.to(tl.int64) * D
    tl.store(decays + row + o_d, tl.exp2(b_log * LOG2E), mask=o_d < D)
    tl.store(sums + row + o_d, b_h, mask=o_d < D)


@triton.jit(do_not_specialize=["T", "L"])
def scan_fwd_kernel(
    x,  # [B, T, D]
    g,  # [B, T, D]: log decays
    o,  # [B, T, D]
    states,  # [tiles in all, D]: before each tile, empty unless SAVE_STATES
    start,  # [N, D], or None
    end,  # [N, D]
    decays,  # [segments, D], or None unless IS_CUT
    sums,  # [segments, D], or None unless IS_CUT
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
    HAS_START: tl.constexpr,
    IS_CUT: tl.constexpr,
    SAVE_STATES: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``h = e^g h + x`` over one segment: all h, the last of a sequence, and where asked those before each tile."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t = channels(D, BD, SIDE_BY_SIDE), tl.arange(0, S)
    m_state = (o_d < D) & (length > 0)
    o_state = i_n.to(tl.int64) * D + o_d
    first = i_l * L
    tiles = tl.cdiv(tl.minimum(L, length - first), S)

    b_h = tl.zeros([BD], dtype=tl.float32)
    if HAS_START:
        b_h += tl.load(start + o_state, mask=m_state, other=0.0).to(tl.float32)
    if IS_CUT:
        b_h = gather(decays, sums, b_h, i_s, i_l, tl.cdiv(length, L), o_d, D, S, False)
    for i in tl.range(0, tiles, num_stages=STAGES):
        i_t = first + i * S
        offset = (begin + i_t) * D
        b_x = load_tile(x + offset, o_t, o_d, length - i_t, D)
        b_decay = decay_of(load_tile(g + offset, o_t, o_d, length - i_t, D))
        if SAVE_STATES:
            tl.store(states + (begin // S + i_n + i_t // S) * D + o_d, b_h, mask=o_d < D)
        b_hs, b_h = scan_tile(b_decay, b_x, b_h, S)
        m_o = (o_t[:, None] < length - i_t) & (o_d[None, :] < D)
        tl.store(o + offset + o_t[:, None] * D + o_d[None, :], b_hs.to(o.dtype.element_ty), mask=m_o)
    tl.store(end + o_state, b_h, mask=m_state & (first + L >= length))


@triton.jit(do_not_specialize=["T", "L"])
def scan_bwd_kernel(
    x,  # [B, T, D]
    g,  # [B, T, D]: log decays
    states,  # [tiles in all, D]: before each tile
    do,  # [B, T, D]
    dx,  # [B, T, D]
    dg,  # [B, T, D]
    dstart,  # [N, D]
    dend,  # [N, D], or None
    decays,  # [segments, D], or None unless IS_CUT
    sums,  # [segments, D], or None unless IS_CUT
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
    HAS_END: tl.constexpr,
    IS_CUT: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``dx_t = dh_t, dg_t = dh_t e^g_t h_{t-1}`` over one segment, with h from the state before each tile."""
    i_s = tl.program_id(0) // tl.cdiv(D, BD)
    i_n, begin, length, i_l = locate_segment(i_s, cu_seqlens, sequence, first_segment, T, L, PACKED)
    o_d, o_t, o_back = channels(D, BD, SIDE_BY_SIDE), rows(S, False), rows(S, True)
    m_state = (o_d < D) & (length > 0)
    o_state = i_n.to(tl.int64) * D + o_d
    first = i_l * L
    tiles = tl.cdiv(tl.minimum(L, length - first), S)

    b_dh = tl.zeros([BD], dtype=tl.float32)
    if HAS_END:
        b_dh += tl.load(dend + o_state, mask=m_state, other=0.0).to(tl.float32)
    if IS_CUT:
        b_dh = gather(decays, sums, b_dh, i_s, i_l, tl.cdiv(length, L), o_d, D, S, True)
    for i in tl.range(0, tiles, num_stages=STAGES):
        i_t = first + (tiles - 1 - i) * S
        offset = (begin + i_t) * D
        left = length - i_t
        # h_{t-1} is the scan of the steps before; the tile's first row has none, and takes the stored state as it is.
        b_before = decay_of(load_tile(g + offset, o_t - 1, o_d, left, D))
        b_x = load_tile(x + offset, o_t - 1, o_d, left, D)
        b_h = tl.load(states + (begin // S + i_n + i_t // S) * D + o_d, mask=o_d < D, other=0.0)
        b_hs, _ = scan_tile(b_before, b_x, b_h, S)
        b_after = decay_of(load_tile(g + offset, o_back + 1, o_d, left, D))
        b_dhs, b_dh = scan_tile(b_after, load_tile(do + offset, o_back, o_d, left, D), b_dh, S)
        b_dhs = tl.flip(b_dhs, 0)
        b_decay = decay_of(load_tile(g + offset, o_t, o_d, left, D))
        m = (o_t[:, None] < left) & (o_d[None, :] < D)
        o = offset + o_t[:, None] * D + o_d[None, :]
        tl.store(dx + o, b_dhs.to(dx.dtype.element_ty), mask=m)
        tl.store(dg + o, (b_dhs * b_decay * b_hs).to(dg.dtype.element_ty), mask=m)
    b_decay = decay_of(tl.load(g + begin * D + o_d, mask=m_state, other=0.0).to(tl.float32))
    tl.store(dstart + o_state, b_decay * b_dh, mask=m_state & (i_l == 0))
