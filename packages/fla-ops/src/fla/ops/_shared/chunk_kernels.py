"""Parts that the chunk kernels of every family share: where a chunk lies, and sums of log decays over spans of steps.

Letters (docs/notation.md has all, and the words): B batch, T time, H heads, HV value heads, K and V head dims, C steps
of a chunk, M chunks in all, N sequences; ``b_`` a loaded block, ``p_`` pointers, ``o_`` offsets, ``m_`` a mask, ``i_``
a program or loop index.

``DECAY`` says where the log decays of the ``decay_`` functions come from: 0, there are none; 1, one for each head,
``g[HV]``; 2, one for each step and head, ``g[B, T, HV]``. Where they may also differ by channel, that is called 3.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
#: The largest log decay between a step and the chunk's middle for both it and its negative to serve as exponents: by
#: what 16-bit operands can hold, and by what float32 exponents keep of a float32 sum.
MILD_BFLOAT16 = tl.constexpr(60.0)
MILD_FLOAT16 = tl.constexpr(8.0)
MILD_FLOAT32 = tl.constexpr(8.0)
#: Log decays below this are as good as a reset; a product of 0 and -inf in a span sum would be NaN.
LOWEST_DECAY = tl.constexpr(-1.0e4)
#: With 16-bit operands log decays below this are as good as a reset; sums of them keep enough digits for their
#: differences to serve as exponents.
LOWEST_HALF = tl.constexpr(-88.0)


@triton.jit
def span_sums(spans, b, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """``spans @ b`` for a 0/1 matrix, exact up to the rounding of the sums.

    A float32 operand is split in hi and lo where the other operands are 16-bit.
    """
    if b.dtype == tl.float32 and DTYPE != tl.float32:
        hi = b.to(DTYPE)
        lo = (b - hi.to(tl.float32)).to(DTYPE)
        sums = tl.dot(spans.to(DTYPE), hi) + tl.dot(spans.to(DTYPE), lo)
    else:
        sums = tl.dot(spans.to(b.dtype), b, input_precision=PRECISION)
    return sums


@triton.jit
def span_sums_transposed(b, spans, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """``b @ spans`` for a 0/1 matrix, as :func:`span_sums`."""
    if b.dtype == tl.float32 and DTYPE != tl.float32:
        hi = b.to(DTYPE)
        lo = (b - hi.to(tl.float32)).to(DTYPE)
        sums = tl.dot(hi, spans.to(DTYPE)) + tl.dot(lo, spans.to(DTYPE))
    else:
        sums = tl.dot(b, spans.to(b.dtype), input_precision=PRECISION)
    return sums


@triton.jit
def sums_before(b, o_i, o_j):
    """For each element the sum of those before it, without subtracting it from a sum that holds it."""
    return tl.sum(tl.where(o_j < o_i, b[None, :], 0.0), 1)


@triton.jit
def load_decay(pointers, mask):
    """Load log decays, none below ``LOWEST_DECAY``; 0 outside the mask."""
    decay = tl.load(pointers, mask=mask, other=0.0)
    return tl.maximum(decay, LOWEST_DECAY, propagate_nan=tl.PropagateNan.ALL).to(decay.dtype)


@triton.jit
def decay_of(b_g):
    """``e^g`` to the last bit where it is near 1: a state that hardly decays sums up thousands of such errors."""
    b_small = b_g * (1.0 + b_g * (1 / 2 + b_g * (1 / 6 + b_g * (1 / 24 + b_g * (1 / 120)))))
    return tl.where(tl.abs(b_g) < 0.125, 1.0 + b_small, tl.exp2(b_g * LOG2E))


@triton.jit
def split_program(blocks):
    """Split the program's index into that of its block, which varies fastest, and that of what the blocks divide.

    Sequences times heads may pass 65,535, where the second and the third axis of a launch grid end.
    """
    i_p = tl.program_id(0)
    # The quotient serves for the remainder too: a `%` beside it makes some walks spill on Blackwell.
    i_whole = i_p // blocks
    return i_p - i_whole * blocks, i_whole


@triton.jit
def locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C: tl.constexpr, PACKED: tl.constexpr):
    """The first step of chunk ``i_c`` among all steps and the number of steps from there to its sequence's end."""
    if PACKED:
        i_n = tl.load(sequence + i_c)
        if i_n < 0:
            first = tl.zeros([], dtype=tl.int64)
            left = tl.zeros([], dtype=tl.int64)
        else:
            begin = tl.load(cu_seqlens + i_n).to(tl.int64)
            end = tl.load(cu_seqlens + i_n + 1).to(tl.int64)
            offset = (i_c - tl.load(first_chunk + i_n)).to(tl.int64) * C
            first = begin + offset
            left = end - first
    else:
        chunks = tl.cdiv(T, C)
        offset = (i_c % chunks).to(tl.int64) * C
        first = (i_c // chunks).to(tl.int64) * T + offset
        left = T - offset
    return first, left


@triton.jit
def locate_sequence(i_n, cu_seqlens, first_chunk, T, C: tl.constexpr, PACKED: tl.constexpr):
    """The first step of sequence ``i_n`` among all steps, its length, and the index of its first chunk."""
    if PACKED:
        begin = tl.load(cu_seqlens + i_n).to(tl.int64)
        length = (tl.load(cu_seqlens + i_n + 1).to(tl.int64) - begin).to(tl.int32)
        i_first = tl.load(first_chunk + i_n).to(tl.int64)
    else:
        begin = i_n.to(tl.int64) * T
        length = T
        i_first = i_n.to(tl.int64) * tl.cdiv(T, C)
    return begin, length, i_first


@triton.jit
def half_pairs(o_i, o_j, level):
    """[i, j]: i and j in different halves of one block of ``2 << level`` steps."""
    return ((o_i >> level) ^ (o_j >> level)) == 1


@triton.jit
def decay_of_steps(g, o_t, m_t, HV: tl.constexpr, DECAY: tl.constexpr):
    """Log decays of some steps, counted from where ``g`` points to; 0 outside the mask."""
    if DECAY == 2:
        b_g = load_decay(g + o_t * HV, m_t).to(tl.float32)
    else:
        b_g = tl.where(m_t, tl.load(g).to(tl.float32), 0.0)
    return b_g


@triton.jit
def decay_before(g, o_c, left, HV: tl.constexpr, DECAY: tl.constexpr):
    """``e^pre_i``: the decay up to and with each step of a chunk."""
    return tl.exp2(tl.cumsum(decay_of_steps(g, o_c, o_c < left, HV, DECAY), 0) * LOG2E)


@triton.jit
def decay_until(g, o_i, o_j, o_c, left, HV: tl.constexpr, DECAY: tl.constexpr, BEFORE: tl.constexpr):
    """:func:`decay_before`, or without the step itself where ``BEFORE``."""
    if BEFORE:
        b_e = tl.exp2(sums_before(decay_of_steps(g, o_c, o_c < left, HV, DECAY), o_i, o_j) * LOG2E)
    else:
        b_e = decay_before(g, o_c, left, HV, DECAY)
    return b_e


@triton.jit
def decay_after(g, o_c, left, C: tl.constexpr, HV: tl.constexpr, DECAY: tl.constexpr):
    """``e^suf_j``: the decay after each step of a chunk, to its end."""
    b_g = decay_of_steps(g, o_c + 1, (o_c + 1 < left) & (o_c + 1 < C), HV, DECAY)
    return tl.exp2(tl.cumsum(b_g, 0, reverse=True) * LOG2E)


@triton.jit
def step_decays(g, b_g, o_c, left, C: tl.constexpr, HV: tl.constexpr, DECAY: tl.constexpr, DTYPE: tl.constexpr):
    """For each step the sum of exponents of 2 up to and with it, ``e^pre_i`` and ``e^suf_j``; and ``e^total``.

    ``b_g`` is the result of :func:`decay_of_steps`.
    """
    if DTYPE != tl.float32:
        b_g = tl.maximum(b_g, LOWEST_HALF, propagate_nan=tl.PropagateNan.ALL)
    b_sum = tl.cumsum(b_g * LOG2E, 0)
    b_all = tl.sum(b_g * LOG2E, 0)
    if DTYPE == tl.float32:
        b_suf = decay_after(g, o_c, left, C, HV, DECAY)
    else:
        b_suf = tl.exp2(b_all - b_sum)
    return b_sum, tl.exp2(b_sum), b_suf, tl.exp2(b_all)


@triton.jit
def decay_between(
    g,
    o_i,
    o_j,
    o_c,
    left,
    HV: tl.constexpr,
    DECAY: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BEFORE: tl.constexpr = False,
):
    """[i, j]: the decay after step j, up to step i and with it unless ``BEFORE``; 1 where j >= i."""
    if DECAY == 2:
        b_g = decay_of_steps(g, o_c, o_c < left, HV, DECAY)
        b_g = tl.where(o_i > o_j, b_g[:, None], 0.0)
        if BEFORE:
            b_sums = span_sums(o_j < o_i, b_g, DTYPE, PRECISION)
        else:
            b_sums = span_sums(o_j <= o_i, b_g, DTYPE, PRECISION)
    else:
        b_sums = tl.load(g).to(tl.float32) * tl.maximum(o_i - o_j, 0).to(tl.float32)
    return tl.exp2(b_sums * LOG2E)


@triton.jit
def decay_between_transposed(
    g, o_i, o_j, o_c, left, HV: tl.constexpr, DECAY: tl.constexpr, DTYPE: tl.constexpr, PRECISION
):
    """[j, i] of :func:`decay_between`, for rows ``o_i`` that stand for j and columns ``o_j`` that stand for i."""
    if DECAY == 2:
        b_g = decay_of_steps(g, o_c, o_c < left, HV, DECAY)
        b_sums = span_sums_transposed(tl.where(o_j > o_i, b_g[None, :], 0.0), o_i <= o_j, DTYPE, PRECISION)
    else:
        b_sums = tl.load(g).to(tl.float32) * tl.maximum(o_j - o_i, 0).to(tl.float32)
    return tl.exp2(b_sums * LOG2E)


@triton.jit
def from_middle(b_g, o_i, o_j, C: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """For each step the log decay from the middle of the chunk to it: a sum over the steps between, negated before it.

    A chunk whose decay is mild needs no halving: reader i takes ``e^m_i``, writer j ``e^-m_j``.
    """
    late = tl.where((o_i >= C // 2) & (o_j >= C // 2) & (o_j <= o_i), 1.0, 0.0)
    early = tl.where((o_i < C // 2) & (o_j < C // 2) & (o_j > o_i), 1.0, 0.0)
    return span_sums(late - early, b_g, DTYPE, PRECISION)


@triton.jit
def is_mild(b_g, o_i, C: tl.constexpr, DTYPE: tl.constexpr):
    """Whether no exponent :func:`from_middle` can be too large; false where one is NaN."""
    if DTYPE == tl.bfloat16:
        LIMIT: tl.constexpr = MILD_BFLOAT16
    elif DTYPE == tl.float16:
        LIMIT: tl.constexpr = MILD_FLOAT16
    else:
        LIMIT: tl.constexpr = MILD_FLOAT32
    b_early, b_late = sums_of_halves(tl.abs(b_g.to(tl.float32)), o_i, C)
    return tl.max(tl.where((b_early <= LIMIT) & (b_late <= LIMIT), 0, 1), 0) == 0


@triton.jit
def sums_of_halves(b, o_i, C: tl.constexpr):
    """Sums of float32 ``[C, BK]`` over the early half of a chunk, and over the late half."""
    return tl.sum(tl.where(o_i < C // 2, b, 0.0), 0), tl.sum(tl.where(o_i >= C // 2, b, 0.0), 0)


@triton.jit
def decays_of_halves(b_g, o_i, C: tl.constexpr):
    """Decays over the early half of a chunk, and over the late half, ``[1, BK]`` each."""
    b_early, b_late = sums_of_halves(b_g.to(tl.float32), o_i, C)
    return tl.exp2(b_early * LOG2E)[None, :], tl.exp2(b_late * LOG2E)[None, :]


@triton.jit
def through_states(y, stride, states, o_i, o_k, m_c, m_k, V: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr):
    """``y S^T`` for the steps of a chunk and a block of K, over all of V; the steps of y lie ``stride`` apart.

    Float32 states are split in hi and lo where y is 16-bit.
    """
    b = tl.zeros([o_i.shape[0], o_k.shape[0]], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        b_y = tl.load(y + o_i * stride + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
        p_st, m_st = states + o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
        b_st = tl.load(p_st, mask=m_st, other=0.0)
        if b_st.dtype == b_y.dtype:
            b += tl.dot(b_y, b_st, input_precision=PRECISION)
        else:
            hi, lo = halves(b_st, b_y.dtype)
            b += tl.dot(b_y, hi, input_precision=PRECISION)
            b += tl.dot(b_y, lo, input_precision=PRECISION)
    return b


@triton.jit
def through_states_grad(
    y, stride, states, dstates, o_i, o_k, m_c, m_k, V: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr
):
    """:func:`through_states` for the gradients of states, and the sums of ``S dS`` over V, for each of K."""
    b = tl.zeros([o_i.shape[0], o_k.shape[0]], dtype=tl.float32)
    b_sds = tl.zeros([o_k.shape[0]], dtype=tl.float32)
    for i_v in range(0, tl.cdiv(V, BV)):
        o_v = i_v * BV + tl.arange(0, BV)
        m_v = o_v < V
        b_y = tl.load(y + o_i * stride + o_v[None, :], mask=m_c[:, None] & m_v[None, :], other=0.0)
        o_st, m_st = o_k[None, :] * V + o_v[:, None], m_v[:, None] & m_k[None, :]
        b_dst = tl.load(dstates + o_st, mask=m_st, other=0.0)
        b += tl.dot(b_y, b_dst, input_precision=PRECISION)
        b_sds += tl.sum(tl.load(states + o_st, mask=m_st, other=0.0).to(tl.float32) * b_dst.to(tl.float32), 0)
    return b, b_sds


@triton.jit
def pair_sides_grad(
    x,
    k,
    dpairs,
    spans,
    b_dx,
    b_dw,
    b_dg,
    b_g,
    b_beta,
    o_i,
    o_j,
    o_x,
    m_x,
    m_c,
    C: tl.constexpr,
    HV: tl.constexpr,
    LEVELS: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add the part from pairs of steps to the gradients of readers x, of write keys beta k and of decay by channel.

    ``dpairs`` holds the gradient of their scores ``[C, C]``, with its transpose above the diagonal.
    """
    o_a = o_i * (HV * C) + o_j
    for level in range(LEVELS):
        b_e = tl.exp2(span_sums(tl.load(spans + level * C * C + o_i * C + o_j), b_g, DTYPE, PRECISION) * LOG2E)
        m_late = ((o_i >> level) & 1) == 1
        b_y = tl.load(tl.where(m_late, x + o_x, k + o_x), mask=m_x, other=0.0)
        b_y = b_y * (b_e * tl.where(m_late, 1.0, b_beta))
        b_w = tl.load(dpairs + o_a, mask=m_c[:, None] & half_pairs(o_i, o_j, level), other=0.0)
        b_dy = tl.dot(b_w, b_y.to(DTYPE), input_precision=PRECISION)
        b_dspan = (b_y * b_dy).to(DTYPE)
        b_dg += span_sums(tl.load(spans + level * C * C + o_j * C + o_i), b_dspan, DTYPE, PRECISION)
        b_dy *= b_e
        b_dx += tl.where(m_late, b_dy, 0.0)
        b_dw += tl.where(m_late, 0.0, b_dy)
    return b_dx, b_dw, b_dg


@triton.jit
def unit_lower_inverse(b_l, o_i, o_j, LEVELS: tl.constexpr, PRECISION: tl.constexpr):
    """``(I + L)^-1`` for a strictly lower L, by blocks of 2, 4, 8 and so on: exact at every size.

    The inverse of a block [[A, 0], [B, D]] is [[A', 0], [-D' B A', D']], from the inverses A' and D' of smaller ones.
    """
    b_t = tl.where(o_i == o_j, 1.0, 0.0) - tl.where(half_pairs(o_i, o_j, 0) & (o_i > o_j), b_l, 0.0)
    for level in range(1, LEVELS):
        b_corner = tl.where(half_pairs(o_i, o_j, level) & (o_i > o_j), b_l, 0.0)
        b_t -= dot_wide(b_t, dot_wide(b_corner, b_t, PRECISION), PRECISION)
    return b_t


@triton.jit
def dot_wide(a, b, PRECISION: tl.constexpr):
    """``a @ b`` of float32 blocks, each split in hi and lo of bfloat16 where ``PRECISION`` is ``"halves"``."""
    if PRECISION == "halves":
        a_hi, a_lo = halves(a, tl.bfloat16)
        b_hi, b_lo = halves(b, tl.bfloat16)
        c = tl.dot(a_lo, b_hi)
        c = tl.dot(a_hi, b_lo, c)
        c = tl.dot(a_hi, b_hi, c)
    else:
        c = tl.dot(a, b, input_precision=PRECISION)
    return c


@triton.jit
def halves(b, DTYPE: tl.constexpr):
    """Split a float32 block in hi and lo of a 16-bit dtype, whose sum it is; with float32, hi is all and lo is 0."""
    hi = b.to(DTYPE)
    lo = (b - hi.to(tl.float32)).to(DTYPE)
    return hi, lo


@triton.jit
def store_halves(p, stride, b, m, BOTH: tl.constexpr):
    """Store hi of a float32 block in the dtype of p, and where ``BOTH`` its lo, ``stride`` further."""
    hi, lo = halves(b, p.dtype.element_ty)
    tl.store(p, hi, mask=m)
    if BOTH and p.dtype.element_ty != tl.float32:
        tl.store(p + stride, lo, mask=m)


@triton.jit
def dot_halves(a, b, c, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """``a @ b + c`` for float32 a and c, with a split in hi and lo.

    On Hopper a product takes only its left operand from registers, so what was just computed stands left.
    """
    hi, lo = halves(a, DTYPE)
    if DTYPE == tl.float32:
        c += tl.dot(hi, b, input_precision=PRECISION)
    else:
        c = tl.dot(hi, b, c)
        c = tl.dot(lo, b, c)
    return c


@triton.jit
def correct(b, corrections, stride, mask, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """``b @ R`` for a float32 b and the corrections R, whose hi and lo lie ``stride`` apart."""
    hi = tl.load(corrections, mask=mask, other=0.0)
    c = dot_halves(b, hi, tl.zeros(b.shape, dtype=tl.float32), DTYPE, PRECISION)
    if DTYPE != tl.float32:
        c = tl.dot(b.to(DTYPE), tl.load(corrections + stride, mask=mask, other=0.0), c)
    return c
