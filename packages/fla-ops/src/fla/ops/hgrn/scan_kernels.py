"""Triton kernels of the elementwise scan; scan_torch.py is the same algorithm in PyTorch.

A program walks over one sequence, or over a segment of it, for a block of channels, [BT, BD] at a time. Where time is
split in segments, it is walked twice: once for what each segment makes of a state of zero, and once for the results
from the true state at its start, which ``carry_kernel`` finds in between. Letters as in ``_chunks_kernels.py``.
"""

import triton
import triton.language as tl

from fla.ops._chunks_kernels import LOG2E


@triton.jit
def then(a_first, x_first, a_second, x_second):
    """``h -> a h + x`` first and second, as one such step."""
    return a_first * a_second, x_first * a_second + x_second


@triton.jit
def locate(i_p, cu_seqlens, sequence, first_segment, T, segment, SEGMENTED: tl.constexpr, PACKED: tl.constexpr):
    """A program's sequence, its first step, how many it walks, and how many the sequence has before and from there."""
    if PACKED:
        if SEGMENTED:
            i_n = tl.load(sequence + i_p)
        else:
            i_n = i_p
        if i_n < 0:
            begin = tl.zeros([], dtype=tl.int64)
            length = 0
            before = 0
        else:
            begin = tl.load(cu_seqlens + i_n).to(tl.int64)
            length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
            before = (i_p - tl.load(first_segment + i_n)) * segment if SEGMENTED else 0
    else:
        segments = tl.cdiv(T, segment)
        i_n = i_p // segments
        begin = i_n.to(tl.int64) * T
        length = T
        before = (i_p % segments) * segment
    return i_n, begin + before, tl.minimum(segment, length - before), before, length - before


@triton.jit(do_not_specialize=["T", "segment"])
def scan_fwd_kernel(
    x,
    g,
    o,
    start,
    end,
    through,
    cu_seqlens,
    sequence,
    first_segment,
    T,
    segment,
    D: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    SUMMARY: tl.constexpr,
    SEGMENTED: tl.constexpr,
    HAS_START: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``h_t = e^g_t h_{t-1} + x_t``: the outputs and the last state, or for a summary the last state and all decay."""
    i_d, i_p = tl.program_id(0), tl.program_id(1)
    _, first, steps, _, _ = locate(i_p, cu_seqlens, sequence, first_segment, T, segment, SEGMENTED, PACKED)
    o_t, o_d = tl.arange(0, BT), i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    o_state = i_p.to(tl.int64) * D + o_d
    b_h = tl.zeros([BD], dtype=tl.float32)
    b_through = tl.full([BD], 1.0, dtype=tl.float32)
    if HAS_START:
        b_h += tl.load(start + o_state, mask=m_d, other=0.0).to(tl.float32)
    for i in range(0, tl.cdiv(steps, BT)):
        row = i * BT + o_t
        m = (row < steps)[:, None] & m_d[None, :]
        offset = (first + row)[:, None] * D + o_d[None, :]
        b_a = tl.exp2(tl.load(g + offset, mask=m, other=0.0).to(tl.float32) * LOG2E)
        b_x = tl.load(x + offset, mask=m, other=0.0).to(tl.float32)
        b_a, b_x = tl.associative_scan((b_a, b_x), 0, then)
        b_x += b_a * b_h[None, :]
        if not SUMMARY:
            tl.store(o + offset, b_x.to(o.dtype.element_ty), mask=m)
        # Rows past the end neither decay nor add, so that the last row is where the walk has come to.
        b_h = tl.sum(tl.where(o_t[:, None] == BT - 1, b_x, 0.0), 0)
        if SUMMARY:
            b_through *= tl.sum(tl.where(o_t[:, None] == BT - 1, b_a, 0.0), 0)
    if SUMMARY:
        tl.store(end + o_state, b_h, mask=m_d)
        tl.store(through + o_state, b_through, mask=m_d)
    elif not SEGMENTED:
        tl.store(end + o_state, b_h, mask=m_d)


@triton.jit(do_not_specialize=["T", "segment"])
def scan_bwd_kernel(
    g,
    o,
    initial_state,
    do,
    dx,
    dg,
    start,
    end,
    through,
    dinitial_state,
    cu_seqlens,
    sequence,
    first_segment,
    T,
    segment,
    D: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    SUMMARY: tl.constexpr,
    SEGMENTED: tl.constexpr,
    HAS_START: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    PACKED: tl.constexpr,
):
    """``dh_t = do_t + e^g_{t+1} dh_{t+1}``, from the end: dx = dh, dg_t = dh_t e^g_t h_{t-1}, dinitial = e^g_0 dh_0.

    For a summary, dh at the first step of the segment and all decay.
    """
    i_d, i_p = tl.program_id(0), tl.program_id(1)
    i_n, first, steps, before, left = locate(i_p, cu_seqlens, sequence, first_segment, T, segment, SEGMENTED, PACKED)
    o_t, o_d = tl.arange(0, BT), i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    o_state = i_p.to(tl.int64) * D + o_d
    o_sequence = tl.maximum(i_n, 0).to(tl.int64) * D + o_d
    b_h = tl.zeros([BD], dtype=tl.float32)
    b_through = tl.full([BD], 1.0, dtype=tl.float32)
    if HAS_START:
        b_h += tl.load(start + o_state, mask=m_d, other=0.0).to(tl.float32)
    for i in range(0, tl.cdiv(steps, BT)):
        row = steps - 1 - (i * BT + o_t)
        m = (row >= 0)[:, None] & m_d[None, :]
        offset = (first + row)[:, None] * D + o_d[None, :]
        m_next = m & (row + 1 < left)[:, None]
        b_next = tl.exp2(tl.load(g + offset + D, mask=m_next, other=0.0).to(tl.float32) * LOG2E)
        b_do = tl.load(do + offset, mask=m, other=0.0).to(tl.float32)
        b_a, b_dh = tl.associative_scan((b_next, b_do), 0, then)
        b_dh += b_a * b_h[None, :]
        if not SUMMARY:
            b_a = tl.exp2(tl.load(g + offset, mask=m, other=0.0).to(tl.float32) * LOG2E)
            b_o = tl.load(o + offset - D, mask=m & (before + row > 0)[:, None], other=0.0).to(tl.float32)
            if HAS_INITIAL:
                b_initial = tl.load(initial_state + o_sequence, mask=m_d, other=0.0).to(tl.float32)
                b_o = tl.where((before + row == 0)[:, None], b_initial[None, :], b_o)
            tl.store(dx + offset, b_dh.to(dx.dtype.element_ty), mask=m)
            tl.store(dg + offset, (b_dh * b_a * b_o).to(dg.dtype.element_ty), mask=m)
            m_first = (before + row == 0)[:, None] & m
            tl.store(dinitial_state + o_sequence[None, :] + o_t[:, None] * 0, b_dh * b_a, mask=m_first)
        else:
            b_through *= tl.sum(tl.where(o_t[:, None] == BT - 1, b_a, 0.0), 0)
        b_h = tl.sum(tl.where(o_t[:, None] == BT - 1, b_dh, 0.0), 0)
    if SUMMARY:
        tl.store(end + o_state, b_h, mask=m_d)
        tl.store(through + o_state, b_through, mask=m_d)


@triton.jit(do_not_specialize=["segments"])
def carry_kernel(
    ends,
    through,
    starts,
    start,
    end,
    first_segment,
    segments,
    D: tl.constexpr,
    BD: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_START: tl.constexpr,
    PACKED: tl.constexpr,
):
    """The true state at the start of every segment of a sequence, and after its last."""
    i_d, i_n = tl.program_id(0), tl.program_id(1)
    if PACKED:
        i_first = tl.load(first_segment + i_n)
        count = tl.load(first_segment + i_n + 1) - i_first
    else:
        i_first = i_n * segments
        count = segments
    o_d = i_d * BD + tl.arange(0, BD)
    m_d = o_d < D
    b_h = tl.zeros([BD], dtype=tl.float32)
    if HAS_START:
        b_h += tl.load(start + i_n.to(tl.int64) * D + o_d, mask=m_d, other=0.0).to(tl.float32)
    for i in range(0, count):
        i_p = i_first + (count - 1 - i if REVERSE else i)
        offset = i_p.to(tl.int64) * D + o_d
        tl.store(starts + offset, b_h, mask=m_d)
        b_h = b_h * tl.load(through + offset, mask=m_d, other=0.0) + tl.load(ends + offset, mask=m_d, other=0.0)
    tl.store(end + i_n.to(tl.int64) * D + o_d, b_h, mask=m_d)
