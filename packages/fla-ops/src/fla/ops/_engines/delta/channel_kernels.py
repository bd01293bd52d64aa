"""Triton kernels of the chunked gated delta rule that see a decay by channel, ``g[B, T, HV, K]``.

The algorithm, and the kernels between these two, are in ``kernels.py``. Here p is k, and w is beta k. Every
exponent is a sum of log decays over a span of steps; none is the difference of two sums, and none is positive but in
chunks whose decay is mild: there all exponents start at the middle, so that no halving is needed.
"""

import triton
import triton.language as tl

from fla.ops._engines.delta.kernels import store_pairs
from fla.ops._shared.chunk_kernels import (
    LOG2E,
    decays_of_halves,
    from_middle,
    half_pairs,
    is_mild,
    load_decay,
    locate_chunk,
    pair_sides_grad,
    span_sums,
    through_states,
    through_states_grad,
)


@triton.jit(do_not_specialize=["T"])
def delta_channel_pairs_fwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    beta,  # [B, T, HV]
    g,  # [B, T, HV, K]: log decays
    spans,  # [LEVELS, C, C]: 0 or 1
    scores,  # [B, T, HV, C]
    corrections,  # [2, B, T, HV, C]: hi and lo; [1, ...] in float32
    q_read,  # [B, T, HV, K]
    p_read,  # [B, T, HV, K]
    k_write,  # [B, T, HV, K]
    total,  # [M, HV, K]: decay over each chunk
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    stride,  # elements of scores: from hi to lo in corrections
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
    INVERSE_PRECISION: tl.constexpr,
):
    """The scores A, scale included, the corrections R, and the decayed operands of one chunk and head."""
    i_c, i_h = tl.program_id(0), tl.program_id(1)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c = tl.arange(0, C)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c = o_c < left
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    q += row_q * K
    k += row_q * K
    total += (i_c.to(tl.int64) * HV + i_h) * K
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Scores, and the decayed operands of the walks, by blocks of K
    b_a = tl.zeros([C, C], dtype=tl.float32)
    b_l = tl.zeros([C, C], dtype=tl.float32)
    b_diagonal = tl.zeros([C], dtype=tl.float32)
    for i_k in range(0, tl.cdiv(K, BK)):
        o_k = i_k * BK + tl.arange(0, BK)
        m_k = o_k < K
        o_x, m_x = o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
        o_g = row_v * K + o_i * (HV * K) + o_k[None, :]
        b_g = load_decay(g + o_g, m_x)
        tl.store(total + o_k, tl.exp2(tl.sum(b_g.to(tl.float32), 0) * LOG2E), mask=m_k)
        b_q = tl.load(q + o_x, mask=m_x, other=0.0)
        b_k = tl.load(k + o_x, mask=m_x, other=0.0)
        b_diagonal += tl.sum(b_q.to(tl.float32) * b_k.to(tl.float32), 1)
        # Mild decay: one product from the chunk's middle. Else: one product for each level of halving.
        if is_mild(b_g, o_i, C, DTYPE):
            b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
            b_early, b_late = decays_of_halves(b_g, o_i, C)
            b_y = b_k * tl.exp2(-b_m * LOG2E)
            tl.store(k_write + o_g, (b_y * b_late).to(DTYPE), mask=m_x)
            b_kt = tl.trans(b_y.to(DTYPE))
            b_e = tl.exp2(b_m * LOG2E)
            b_y = b_q * b_e
            tl.store(q_read + o_g, (b_y * b_early).to(DTYPE), mask=m_x)
            b_a += tl.dot(b_y.to(DTYPE), b_kt, input_precision=PRECISION)
            b_y = b_k * b_e
            tl.store(p_read + o_g, (b_y * b_early).to(DTYPE), mask=m_x)
            b_l += tl.dot(b_y.to(DTYPE), b_kt, input_precision=PRECISION)
        else:
            b_e = tl.exp2(span_sums(o_j <= o_i, b_g, DTYPE, PRECISION) * LOG2E)
            tl.store(q_read + o_g, (b_q * b_e).to(DTYPE), mask=m_x)
            tl.store(p_read + o_g, (b_k * b_e).to(DTYPE), mask=m_x)
            b_e = tl.exp2(span_sums(o_j > o_i, b_g, DTYPE, PRECISION) * LOG2E)
            tl.store(k_write + o_g, (b_k * b_e).to(DTYPE), mask=m_x)
            for level in range(LEVELS):
                b_e = tl.exp2(span_sums(tl.load(spans + level * C * C + o_i * C + o_j), b_g, DTYPE, PRECISION) * LOG2E)
                m_late = ((o_i >> level) & 1) == 1
                m_pairs = half_pairs(o_i, o_j, level) & (o_i > o_j)
                b_y = (tl.load(tl.where(m_late, q + o_x, k + o_x), mask=m_x, other=0.0) * b_e).to(DTYPE)
                b_a += tl.where(m_pairs, tl.dot(b_y, tl.trans(b_y), input_precision=PRECISION), 0.0)
                b_y = (b_k * b_e).to(DTYPE)
                b_l += tl.where(m_pairs, tl.dot(b_y, tl.trans(b_y), input_precision=PRECISION), 0.0)
    # Own scores on the diagonal, then the corrections
    b_a = tl.where(o_i == o_j, b_diagonal[:, None], b_a)
    b_beta = tl.load(beta + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)
    o_a = row_v * C + o_i * (HV * C) + o_j
    store_pairs(
        scores, corrections, b_a * scale, b_l, b_beta, o_a, m_c, o_i, o_j, stride, LEVELS, DTYPE, INVERSE_PRECISION
    )


@triton.jit(do_not_specialize=["T"])
def delta_channel_key_bwd_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    beta,  # [B, T, HV]
    g,  # [B, T, HV, K]: log decays
    spans,  # [LEVELS, C, C]: 0 or 1
    x,  # [1, B, T, HV, V]
    states,  # [M, HV, K, V]: before each chunk
    do,  # [B, T, HV, V]
    dv,  # [B, T, HV, V]
    dstates,  # [M, HV, K, V]: after each chunk
    dscores,  # [1, B, T, HV, C]: the transpose above the diagonal
    dpairs,  # [B, T, HV, C]: the transpose above the diagonal
    dq,  # [B, T, HV, K]
    dk,  # [B, T, HV, K]
    dg,  # [B, T, HV, K]
    cu_seqlens,  # [N + 1], or None
    sequence,  # [M], or None
    first_chunk,  # [N + 1], or None
    scale,
    T,
    H: tl.constexpr,
    HV: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LEVELS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q, k and g ``[B, T, HV, K]`` for one chunk, head and block of K."""
    i_ck, i_h = tl.program_id(0), tl.program_id(1)
    i_c, i_k = i_ck // tl.cdiv(K, BK), i_ck % tl.cdiv(K, BK)
    first, left = locate_chunk(i_c, cu_seqlens, sequence, first_chunk, T, C, PACKED)
    if left <= 0:
        return
    o_c, o_k = tl.arange(0, C), i_k * BK + tl.arange(0, BK)
    o_i, o_j = o_c[:, None], o_c[None, :]
    m_c, m_k = o_c < left, o_k < K
    row_q, row_v = first * H + i_h // (HV // H), first * HV + i_h
    x += row_v * V
    do += row_v * V
    dv += row_v * V
    states += (i_c.to(tl.int64) * HV + i_h) * K * V
    dstates += (i_c.to(tl.int64) * HV + i_h) * K * V
    dscores += row_v * C
    dpairs += row_v * C
    o_x, m_x = row_q * K + o_i * (H * K) + o_k[None, :], m_c[:, None] & m_k[None, :]
    o_dx = row_v * K + o_i * (HV * K) + o_k[None, :]
    o_a, m_lower, m_upper = o_i * (HV * C) + o_j, m_c[:, None] & (o_i > o_j), m_c[:, None] & (o_i < o_j)
    DTYPE: tl.constexpr = q.dtype.element_ty

    # Operands of the block of K, and the gradient of own scores
    b_q = tl.load(q + o_x, mask=m_x, other=0.0)
    b_k = tl.load(k + o_x, mask=m_x, other=0.0)
    b_g = load_decay(g + o_dx, m_x)
    b_beta = tl.load(beta + row_v + o_c * HV, mask=m_c, other=0.0).to(tl.float32)[:, None]
    b_own = tl.load(dscores + o_c * (HV * C + 1), mask=m_c, other=0.0).to(tl.float32)[:, None]
    b_total = tl.exp2(tl.sum(b_g.to(tl.float32), 0) * LOG2E)

    # Gradient of q: through the state before the chunk, then through pairs of steps. One gradient is finished before
    # the next is begun, so that few accumulators are alive at a time.
    b_dq = through_states(do, HV * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION) * scale
    if is_mild(b_g, o_i, C, DTYPE):
        b_m = from_middle(b_g, o_i, o_j, C, DTYPE, PRECISION)
        b_early, b_late = decays_of_halves(b_g, o_i, C)
        b_write = (b_k * (b_beta * tl.exp2(-b_m * LOG2E))).to(DTYPE)
        b_e = tl.exp2(b_m * LOG2E)
        b_da = tl.load(dscores + o_a, mask=m_lower, other=0.0)
        b_dq = tl.dot(b_da, b_write, b_dq * b_early, input_precision=PRECISION)
        # Gradient of step t's log decay: what t and later steps read, less what they wrote, plus all that the chunk
        # hands on. Taken from the rounded operands of the products, so that a pair of steps after t cancels.
        b_later = (b_q * b_e).to(DTYPE) * b_dq
        b_dq *= b_e
        tl.store(dq + o_dx, (b_dq + b_own * b_beta * b_k).to(DTYPE), mask=m_x)

        # Gradient of k as the erase key
        b_dp = through_states(dv, HV * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION) * -b_early
        b_dl = tl.load(dpairs + o_a, mask=m_lower, other=0.0)
        b_dp = tl.dot(b_dl, b_write, b_dp, input_precision=PRECISION)
        b_later += (b_k * b_e).to(DTYPE) * b_dp
        b_dp *= b_e

        # Gradient of the write key w; those of g and k follow
        b_dw, b_sds = through_states_grad(x, HV * V, states, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION)
        b_dw *= b_late
        b_dg = (tl.sum(b_write * b_dw, 0) + b_total * b_sds)[None, :]
        b_y = (b_q * b_e).to(DTYPE)
        b_dw = tl.dot(tl.load(dscores + o_a, mask=m_upper, other=0.0), b_y, b_dw, input_precision=PRECISION)
        b_y = (b_k * b_e).to(DTYPE)
        b_dw = tl.dot(tl.load(dpairs + o_a, mask=m_upper, other=0.0), b_y, b_dw, input_precision=PRECISION)
        b_dg += span_sums(o_i <= o_j, b_later - b_write * b_dw, DTYPE, PRECISION)
        b_dk = b_dw * (b_beta * tl.exp2(-b_m * LOG2E)) + b_dp + b_own * b_beta * b_q
    else:
        # Decay that is not mild: gradients of w and q through the states, then through pairs, level by level
        b_w = b_k * b_beta
        b_dw, b_sds = through_states_grad(x, HV * V, states, dstates, o_i, o_k, m_c, m_k, V, BV, PRECISION)
        b_dw *= tl.exp2(span_sums(o_j > o_i, b_g, DTYPE, PRECISION) * LOG2E)
        b_dg = span_sums(o_j < o_i, (b_w * b_dw).to(DTYPE), DTYPE, PRECISION) + (b_total * b_sds)[None, :]
        b_dq *= tl.exp2(span_sums(o_j <= o_i, b_g, DTYPE, PRECISION) * LOG2E)
        b_dg += span_sums(o_i <= o_j, (b_q * b_dq).to(DTYPE), DTYPE, PRECISION)
        b_dq, b_dw, b_dg = pair_sides_grad(
            q, k, dscores, spans, b_dq + b_own * b_w, b_dw + b_own * b_q, b_dg, b_g, b_beta, o_i, o_j, o_x, m_x, m_c,
            C, HV, LEVELS, DTYPE, PRECISION,
        )  # fmt: skip
        tl.store(dq + o_dx, b_dq.to(DTYPE), mask=m_x)
        # Gradient of k as the erase key, likewise
        b_dp = -through_states(dv, HV * V, states, o_i, o_k, m_c, m_k, V, BV, PRECISION)
        b_dp *= tl.exp2(span_sums(o_j <= o_i, b_g, DTYPE, PRECISION) * LOG2E)
        b_dg += span_sums(o_i <= o_j, (b_k * b_dp).to(DTYPE), DTYPE, PRECISION)
        b_dp, b_dw, b_dg = pair_sides_grad(
            k, k, dpairs, spans, b_dp, b_dw, b_dg, b_g, b_beta, o_i, o_j, o_x, m_x, m_c,
            C, HV, LEVELS, DTYPE, PRECISION,
        )  # fmt: skip
        b_dk = b_dw * b_beta + b_dp
    tl.store(dk + o_dx, b_dk.to(DTYPE), mask=m_x)
    tl.store(dg + o_dx, b_dg.to(dg.dtype.element_ty), mask=m_x)
